//! What the engine tells about itself. Metric and log line of one happening are written by one call.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus::Histogram;
use prometheus::local::LocalHistogram;
use rdkafka::error::RDKafkaErrorCode;
use tracing::{info, warn};

use crate::metrics::{InputMetrics, Metrics, RoleMetrics, StageName};

use super::batch::{Batch, Partition};
use super::output::Counts;

/// An error with all its causes, on one line.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// The engine's metric handles. Each thread has its own clone.
#[derive(Clone, Debug)]
pub(crate) struct Telemetry {
    role_name: Arc<str>,
    topics: Arc<[Arc<str>]>,
    metrics: Metrics,
    role: RoleMetrics,
    inputs: Vec<InputMetrics>,
    latency: LocalHistogram,
    process: Histogram,
    publish: Histogram,
    commit: Histogram,
}

impl Telemetry {
    pub(crate) fn new(metrics: &Metrics, role_name: &str, inputs: &[(Arc<str>, &'static str)]) -> Self {
        let role = metrics.role(role_name);
        Telemetry {
            role_name: Arc::from(role_name),
            topics: inputs.iter().map(|(topic, _)| Arc::clone(topic)).collect(),
            metrics: metrics.clone(),
            inputs: inputs.iter().map(|(topic, kind)| metrics.input(topic, kind)).collect(),
            latency: role.local_latency(),
            process: metrics.stage(StageName::Process),
            publish: metrics.stage(StageName::Publish),
            commit: metrics.stage(StageName::Commit),
            role,
        }
    }

    pub(crate) fn processed(&self, took: Duration) {
        self.process.observe(took.as_secs_f64());
    }

    pub(crate) fn published(&self, took: Duration) {
        self.publish.observe(took.as_secs_f64());
    }

    pub(crate) fn committed(&self, took: Duration) {
        self.commit.observe(took.as_secs_f64());
    }

    /// A batch is acknowledged, or committed in a transaction: it counts now, and only once.
    pub(crate) fn completed(&mut self, batch: &Batch, counts: &Counts) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as i64;
        let mut seen = vec![(0, 0); self.inputs.len()];
        for input in batch.iter() {
            let (records, bytes) = &mut seen[input.input()];
            *records += 1;
            *bytes += input.value().len() as u64;
            self.latency.observe((now - input.timestamp()).max(0) as f64 / 1000.0);
        }
        self.latency.flush();
        for (metrics, (records, bytes)) in self.inputs.iter().zip(seen) {
            metrics.records.inc_by(records);
            metrics.bytes.inc_by(bytes);
        }
        self.role.batch_records.observe(batch.len() as f64);
        self.role.batch_bytes.observe(batch.bytes() as f64);
        self.role.add_outcomes(&counts.outcomes);
        for (counter, by) in &counts.increments {
            counter.inc_by(*by);
        }
    }

    pub(crate) fn publish_failed(&self, code: RDKafkaErrorCode) {
        self.role.publish_failures(&format!("{code:?}")).inc();
    }

    pub(crate) fn commit_failed(&self, code: Option<RDKafkaErrorCode>) {
        self.role.commit_failures.inc();
        warn!(role = &*self.role_name, error = ?code, "offsets could not be committed, trying again");
    }

    pub(crate) fn retrying(&self, pause: Duration, error: &dyn std::error::Error) {
        self.role.retries.inc();
        warn!(
            role = &*self.role_name,
            ?pause,
            error = with_causes(error),
            "going back to the last acknowledged record"
        );
    }

    pub(crate) fn rebalanced(&self, event: &str, partitions: &[Partition]) {
        self.role.rebalances(event).inc();
        let named: Vec<String> =
            partitions.iter().map(|place| format!("{}[{}]", self.topics[place.input], place.partition)).collect();
        info!(role = &*self.role_name, partitions = named.join(" "), "partitions {event}");
    }

    pub(crate) fn in_flight(&self, bytes: usize, batches: usize) {
        self.role.in_flight_bytes.set(bytes as i64);
        self.role.in_flight_batches.set(batches as i64);
    }

    pub(crate) fn lag(&self, place: Partition, records: i64) {
        self.metrics.consumer_lag(&self.topics[place.input], place.partition).set(records);
    }

    pub(crate) fn forget_lag(&self, place: Partition) {
        self.metrics.forget_consumer_lag(&self.topics[place.input], place.partition);
    }
}
