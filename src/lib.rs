//! `triaged` reads tickets and log lines from Kafka, decides which queue each belongs to, and publishes routed events.

pub mod classify;
pub mod config;
pub mod decode;
pub mod generate;
pub mod record;
