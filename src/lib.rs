//! `triaged` reads tickets and log lines from Kafka, decides which queue each belongs to, and publishes routed events.

pub mod config;

pub mod metrics;
pub mod ops;
pub mod readiness;
pub mod record;

pub mod stream;
pub mod supervisor;
