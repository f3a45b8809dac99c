//! `triaged` reads tickets and log lines from Kafka, decides which queue each belongs to, and publishes routed events.

pub mod app;
pub mod classify;
pub mod cli;
pub mod config;
pub mod decode;
pub mod generate;
pub mod metrics;
pub mod model;
pub mod ops;
pub mod readiness;
pub mod record;
pub mod rules;
#[cfg(test)]
mod schemas;
pub mod stream;
pub mod supervisor;
pub mod telemetry;
