//! Every metric, and what is counted with it; names, help and labels stand in `families`. Base units, bounded labels, one
//! registry.
//!
//! Looking a label up costs a hash and a lock, so nothing here is meant to be called once a record: a stage counts in
//! an `OutcomeCounts` or a local histogram and adds them once a batch, through handles taken when it starts.

mod families;
mod labels;
mod llm;
mod process;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use prometheus::local::LocalHistogram;
use prometheus::{Histogram, IntCounter, IntGauge, TextEncoder};

use crate::record::{Arm, Kind, Priority, Routing};
use crate::reload::Trigger;

use families::Families;
pub use labels::{CacheResult, Outcome, StageName};
pub use llm::LlmState;

/// The tiers of `DecidedBy::tier`, and `none` for records that nothing decided (dead letters).
const TIERS: [&str; 6] = ["rule", "cache", "fast", "encoder", "llm", "none"];

/// Any other method is one that somebody made up.
const HTTP_METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// All metrics of the process; cloning shares them.
#[derive(Clone)]
pub struct Metrics(Arc<Families>);

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics::new()
    }
}

impl Metrics {
    pub fn new() -> Self {
        Metrics(Arc::new(Families::register()))
    }

    /// Records and bytes taken from a topic. `kind`: ticket, log, event, feedback or incident-update.
    pub fn input(&self, topic: &str, kind: &str) -> InputMetrics {
        InputMetrics {
            records: self.0.records.with_label_values(&[topic, kind]),
            bytes: self.0.record_bytes.with_label_values(&[topic, kind]),
        }
    }

    pub fn role(&self, role: &str) -> RoleMetrics {
        let families = &self.0;
        let outcome = |outcome: Outcome, tier| families.outcomes.with_label_values(&[role, outcome.as_str(), tier]);
        RoleMetrics {
            outcomes: Outcome::ALL.map(|kind| TIERS.map(|tier| outcome(kind, tier))),
            batch_records: families.batch_records.with_label_values(&[role]),
            batch_bytes: families.batch_bytes.with_label_values(&[role]),
            record_latency: families.record_latency.with_label_values(&[role]),
            in_flight_bytes: families.in_flight_bytes.with_label_values(&[role]),
            in_flight_batches: families.in_flight_batches.with_label_values(&[role]),
            commit_failures: families.commit_failures.with_label_values(&[role]),
            retries: families.retries.with_label_values(&[role]),
            ready: families.role_ready.with_label_values(&[role]),
            families: Arc::clone(families),
            role: role.to_owned(),
        }
    }

    /// Seconds that one batch spends in a stage.
    pub fn stage(&self, stage: StageName) -> Histogram {
        self.0.stage_duration.with_label_values(&[stage.as_str()])
    }

    pub fn dead_letters(&self, reason: &str) -> IntCounter {
        self.0.dead_letters.with_label_values(&[reason])
    }

    pub fn cache_lookups(&self, result: CacheResult) -> IntCounter {
        self.0.cache_lookups.with_label_values(&[result.as_str()])
    }

    pub fn rule_matches(&self, rule: &str) -> IntCounter {
        self.0.rule_matches.with_label_values(&[rule])
    }

    pub fn routing(&self, routing: Routing) -> IntCounter {
        self.0.routing.with_label_values(&[routing.as_str()])
    }

    pub fn queue_events(&self, queue: &str, priority: Priority) -> IntCounter {
        self.0.queue_events.with_label_values(&[queue, priority.as_str()])
    }

    /// `failure`: retry, row or refused.
    pub fn store_failures(&self, operation: &str, failure: &str) -> IntCounter {
        self.0.store_failures.with_label_values(&[operation, failure])
    }

    pub fn forecasts(&self, window: &str) -> IntCounter {
        self.0.forecasts.with_label_values(&[window])
    }

    pub fn forecast_start(&self, window: &str) -> IntGauge {
        self.0.forecast_start.with_label_values(&[window])
    }

    pub fn set_forecast_accuracy(&self, window: &str, queue: &str, mase: f64, coverage95: f64) {
        self.0.forecast_mase.with_label_values(&[window, queue]).set(mase);
        self.0.forecast_coverage.with_label_values(&[window, queue]).set(coverage95);
    }

    pub fn anomalies(&self, window: &str, queue: &str) -> IntCounter {
        self.0.anomalies.with_label_values(&[window, queue])
    }

    pub fn forecast_leader(&self) -> &IntGauge {
        &self.0.forecast_leader
    }

    /// `result`: answer, cached, or `NoAnswer::as_str`.
    pub fn llm_answers(&self, result: &str) -> IntCounter {
        self.0.llm_answers.with_label_values(&[result])
    }

    /// `direction`: input or output.
    pub fn llm_tokens(&self, direction: &str) -> IntCounter {
        self.0.llm_tokens.with_label_values(&[direction])
    }

    /// For answers that were not kept from before.
    pub fn llm_duration(&self) -> Histogram {
        self.0.llm_duration.with_label_values::<&str>(&[])
    }

    /// Shows how the LLM is doing; once a process.
    pub fn watch_llm(&self, read: impl Fn() -> LlmState + Send + Sync + 'static) {
        llm::register(&self.0.registry, read);
    }

    pub fn set_drift(&self, kind: Kind, label_shift: f64, confidence_drop: f64) {
        self.0.label_shift.with_label_values(&[kind.as_str()]).set(label_shift);
        self.0.confidence_drop.with_label_values(&[kind.as_str()]).set(confidence_drop);
    }

    /// `result`: sent or failed.
    pub fn reports(&self, result: &str) -> IntCounter {
        self.0.reports.with_label_values(&[result])
    }

    pub fn incidents_opened(&self, severity: &str) -> IntCounter {
        self.0.incidents_opened.with_label_values(&[severity])
    }

    /// `status`: open or acknowledged.
    pub fn open_incidents(&self, severity: &str, status: &str) -> IntGauge {
        self.0.open_incidents.with_label_values(&[severity, status])
    }

    /// Another instance leads and shows them.
    pub fn clear_open_incidents(&self) {
        self.0.open_incidents.reset();
    }

    /// `deadline`: acknowledge or resolve.
    pub fn incident_breaches(&self, severity: &str, deadline: &str) -> IntCounter {
        self.0.incident_breaches.with_label_values(&[severity, deadline])
    }

    /// `outcome`: sent, retried or failed.
    pub fn incident_notifications(&self, channel: &str, outcome: &str) -> IntCounter {
        self.0.incident_notifications.with_label_values(&[channel, outcome])
    }

    pub fn incident_leader(&self) -> &IntGauge {
        &self.0.incident_leader
    }

    /// Shows counters before they count: of one that begins with 1 Prometheus sees no increase.
    pub fn prepare_incidents(&self) {
        for severity in Priority::ALL {
            self.incidents_opened(severity.as_str()).inc_by(0);
            for deadline in ["acknowledge", "resolve"] {
                self.incident_breaches(severity.as_str(), deadline).inc_by(0);
            }
        }
    }

    pub fn consumer_lag(&self, topic: &str, partition: i32) -> IntGauge {
        self.0.consumer_lag.with_label_values(&[topic, &partition.to_string()])
    }

    /// Forgets the lag of a partition that now belongs to another instance.
    pub fn forget_consumer_lag(&self, topic: &str, partition: i32) {
        // An error means that there was nothing to forget.
        drop(self.0.consumer_lag.remove_label_values(&[topic, &partition.to_string()]));
    }

    /// Counts a request to the API. `route` is the pattern of the path, never the path itself.
    pub fn http_request(&self, route: &str, method: &str, status: u16, took: Duration) {
        let method = HTTP_METHODS.into_iter().find(|known| *known == method).unwrap_or("other");
        self.0.http_requests.with_label_values(&[route, method, &status.to_string()]).inc();
        self.0.http_duration.with_label_values(&[route, method]).observe(took.as_secs_f64());
    }

    /// States which models serve; those that were stated before are forgotten.
    pub fn set_models<'m>(&self, models: impl Iterator<Item = (Kind, Arm, &'m str)>) {
        self.0.model_info.reset();
        for (kind, arm, id) in models {
            self.0.model_info.with_label_values(&[kind.as_str(), arm.as_str(), id]).set(1);
        }
    }

    /// States which configuration and rules decide.
    pub fn set_config(&self, version: &str, rules: &str) {
        self.0.config_info.reset();
        self.0.config_info.with_label_values(&[version, rules]).set(1);
    }

    /// Counts a reload. `result`: changed, unchanged or refused.
    pub fn reload(&self, trigger: Trigger, result: &str) {
        self.0.reloads.with_label_values(&[trigger.as_str(), result]).inc();
        self.set_reloaded(result != "refused");
    }

    /// Whether what was read last runs.
    pub fn set_reloaded(&self, successful: bool) {
        self.0.reload_successful.set(i64::from(successful));
        if successful {
            let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
            self.0.reload_success_time.set(since_epoch.as_secs_f64());
        }
    }

    pub fn arm_confidence(&self, kind: Kind, arm: Arm) -> Histogram {
        self.0.arm_confidence.with_label_values(&[kind.as_str(), arm.as_str()])
    }

    pub fn shadow_answers(&self, kind: Kind, agrees: bool) -> IntCounter {
        let result = if agrees { "agree" } else { "disagree" };
        self.0.shadow_answers.with_label_values(&[kind.as_str(), result])
    }

    /// `result`: promoted, kept or failed.
    pub fn trainings(&self, kind: Kind, result: &str) -> IntCounter {
        self.0.trainings.with_label_values(&[kind.as_str(), result])
    }

    /// Accuracies by kind and arm, each with the events that it rests on, in the place of those before.
    pub fn set_arm_accuracies(&self, accuracies: impl Iterator<Item = (Kind, Arm, u64, Option<f64>)>) {
        self.0.arm_judged.reset();
        self.0.arm_accuracy.reset();
        for (kind, arm, judged, accuracy) in accuracies {
            let labels = [kind.as_str(), arm.as_str()];
            self.0.arm_judged.with_label_values(&labels).set(judged as i64);
            if let Some(accuracy) = accuracy {
                self.0.arm_accuracy.with_label_values(&labels).set(accuracy);
            }
        }
    }

    /// The present values of a counter or gauge family with their labels, for the live view of the demo.
    pub fn values(&self, family: &str) -> Vec<(BTreeMap<String, String>, f64)> {
        let families = self.0.registry.gather();
        let metrics = families.iter().filter(|found| found.name() == family).flat_map(|found| found.get_metric());
        metrics
            .map(|metric| {
                let labels = metric.get_label().iter();
                let labels = labels.map(|label| (label.name().to_owned(), label.value().to_owned())).collect();
                // A family is of one type; the other value is zero.
                (labels, metric.get_counter().get_value() + metric.get_gauge().get_value())
            })
            .collect()
    }

    /// The `q`-quantile of a role's histogram in a family, by linear interpolation within a bucket as Prometheus'
    /// `histogram_quantile` does it; `None` without observations.
    pub fn quantile(&self, family: &str, role: &str, q: f64) -> Option<f64> {
        let families = self.0.registry.gather();
        let metrics = families.iter().filter(|found| found.name() == family).flat_map(|found| found.get_metric());
        let of_role =
            |metric: &&prometheus::proto::Metric| metric.get_label().iter().any(|label| label.value() == role);
        let metrics = metrics.filter(of_role);
        let mut buckets: Vec<(f64, f64)> = Vec::new();
        for metric in metrics {
            for bucket in metric.get_histogram().get_bucket() {
                match buckets.iter_mut().find(|(bound, _)| *bound == bucket.upper_bound()) {
                    Some((_, count)) => *count += bucket.cumulative_count() as f64,
                    None => buckets.push((bucket.upper_bound(), bucket.cumulative_count() as f64)),
                }
            }
        }
        buckets.retain(|(bound, _)| bound.is_finite());
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        let total = buckets.last().map(|(_, count)| *count).filter(|total| *total > 0.0)?;
        let rank = q.clamp(0.0, 1.0) * total;
        let (mut low, mut below) = (0.0, 0.0);
        for (high, count) in buckets {
            if count >= rank && count > below {
                return Some(low + (high - low) * ((rank - below) / (count - below)).max(0.0));
            }
            (low, below) = (high, count);
        }
        Some(low)
    }

    /// Everything in Prometheus' text format, version 0.0.4.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        TextEncoder::new().encode_utf8(&self.0.registry.gather(), &mut text).expect("writing to memory");
        text
    }
}

/// Handles of one topic.
#[derive(Debug, Clone)]
pub struct InputMetrics {
    pub records: IntCounter,
    pub bytes: IntCounter,
}

/// Handles of one role, looked up once.
#[derive(Clone)]
pub struct RoleMetrics {
    outcomes: [[IntCounter; TIERS.len()]; Outcome::ALL.len()],
    pub batch_records: Histogram,
    pub batch_bytes: Histogram,
    pub record_latency: Histogram,
    pub in_flight_bytes: IntGauge,
    pub in_flight_batches: IntGauge,
    pub commit_failures: IntCounter,
    pub retries: IntCounter,
    pub ready: IntGauge,
    families: Arc<Families>,
    role: String,
}

impl fmt::Debug for RoleMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RoleMetrics").field("role", &self.role).finish_non_exhaustive()
    }
}

impl RoleMetrics {
    /// Adds what a batch has counted.
    pub fn add_outcomes(&self, counts: &OutcomeCounts) {
        for (counters, counts) in self.outcomes.iter().zip(&counts.0) {
            for (counter, count) in counters.iter().zip(counts) {
                if *count > 0 {
                    counter.inc_by(*count);
                }
            }
        }
    }

    /// A histogram of one thread's own, to be flushed once a batch.
    pub fn local_latency(&self) -> LocalHistogram {
        self.record_latency.local()
    }

    /// `event`: assigned, revoked or lost.
    pub fn rebalances(&self, event: &str) -> IntCounter {
        self.families.rebalances.with_label_values(&[&self.role, event])
    }

    /// `error`: the client library's name of the error, a bounded set.
    pub fn publish_failures(&self, error: &str) -> IntCounter {
        self.families.publish_failures.with_label_values(&[&self.role, error])
    }
}

/// Records of one batch by outcome and tier.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OutcomeCounts([[u64; TIERS.len()]; Outcome::ALL.len()]);

impl OutcomeCounts {
    /// Counts one record; `tier` is `DecidedBy::tier`, or "none".
    pub fn count(&mut self, outcome: Outcome, tier: &str) {
        self.add(outcome, tier, 1);
    }

    /// Counts several records of one outcome and tier.
    pub fn add(&mut self, outcome: Outcome, tier: &str, records: u64) {
        let tier = TIERS.iter().position(|known| *known == tier).unwrap_or(TIERS.len() - 1);
        self.0[outcome as usize][tier] += records;
    }

    pub fn merge(&mut self, other: &OutcomeCounts) {
        for (counts, more) in self.0.iter_mut().flatten().zip(other.0.iter().flatten()) {
            *counts += more;
        }
    }

    pub fn total(&self, outcome: Outcome) -> u64 {
        self.0[outcome as usize].iter().sum()
    }
}

/// Names are constants, so a failure here is a mistake in this file that every start would show.
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_added_at_once() {
        let metrics = Metrics::new();
        let mut counts = OutcomeCounts::default();
        counts.count(Outcome::Event, "fast");
        counts.count(Outcome::Event, "fast");
        counts.count(Outcome::DeadLetter, "none");
        let mut more = OutcomeCounts::default();
        more.count(Outcome::Event, "rule");
        counts.merge(&more);
        assert_eq!(counts.total(Outcome::Event), 3);
        metrics.role("classify").add_outcomes(&counts);
        let text = metrics.encode();
        for line in [
            r#"triaged_outcomes_total{decided_by="fast",outcome="event",role="classify"} 2"#,
            r#"triaged_outcomes_total{decided_by="rule",outcome="event",role="classify"} 1"#,
            r#"triaged_outcomes_total{decided_by="none",outcome="dead_letter",role="classify"} 1"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
        }
    }

    #[test]
    fn latencies_of_a_thread_appear_when_flushed() {
        let metrics = Metrics::new();
        let role = metrics.role("classify");
        let latency = role.local_latency();
        latency.observe(0.003);
        assert_eq!(role.record_latency.get_sample_count(), 0);
        latency.flush();
        assert_eq!(role.record_latency.get_sample_count(), 1);
    }

    #[test]
    fn the_lag_of_a_lost_partition_disappears() {
        let metrics = Metrics::new();
        metrics.consumer_lag("logs", 3).set(17);
        assert!(metrics.encode().contains(r#"triaged_consumer_lag_records{partition="3",topic="logs"} 17"#));
        metrics.forget_consumer_lag("logs", 3);
        metrics.forget_consumer_lag("logs", 3);
        assert!(!metrics.encode().contains("consumer_lag_records{"));
    }

    #[test]
    fn all_names_follow_the_conventions() {
        let metrics = Metrics::new();
        metrics.input("logs", "log");
        metrics.stage(StageName::Decode);
        for line in metrics.encode().lines().filter(|line| line.starts_with("# TYPE ")) {
            let mut words = line.split(' ').skip(2);
            let (name, kind) = (words.next().unwrap(), words.next().unwrap());
            assert!(name.starts_with("triaged_") || name.starts_with("process_"), "{name}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{name} is a {kind}");
        }
    }

    #[test]
    fn quantiles_are_interpolated_within_their_bucket() {
        let metrics = Metrics::new();
        assert_eq!(metrics.quantile("triaged_batch_records", "classify", 0.5), None);
        let role = metrics.role("classify");
        for _ in 0..100 {
            role.batch_records.observe(1.0);
        }
        let median = metrics.quantile("triaged_batch_records", "classify", 0.5).expect("there are observations");
        assert!(median > 0.0 && median <= 1.0, "{median}");
    }
}
