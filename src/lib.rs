//! `triaged` reads tickets and log lines from Kafka, decides which queue each belongs to, and publishes routed events.

pub mod cli;
pub mod config;
pub mod model;
pub mod record;
