//! `triaged` reads tickets and log lines from Kafka, decides which queue each belongs to, and publishes routed events.

pub mod config;
pub mod record;
pub mod rules;
