//! `triaged` reads tickets and log lines from Kafka, decides which queue each belongs to, and publishes routed events.

pub mod cli;
pub mod config;
pub mod decode;
pub mod generate;
pub mod metrics;
pub mod ops;
pub mod readiness;
pub mod record;
pub mod rules;
pub mod supervisor;
pub mod telemetry;
