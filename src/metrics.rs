//! Every metric: name, help, labels. Base units, bounded labels, one registry.
//!
//! Looking a label up costs a hash and a lock, so nothing here is meant to be called once a record: a stage counts in
//! an `OutcomeCounts` or a local histogram and adds them once a batch, through handles taken when it starts.

mod labels;
mod llm;
mod process;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use prometheus::core::Collector;
use prometheus::local::LocalHistogram;
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder, exponential_buckets,
};

use crate::record::{Arm, Kind, Priority, Routing};
use crate::reload::Trigger;

pub use labels::{CacheResult, Outcome, StageName};
pub use llm::LlmState;

/// The tiers of `DecidedBy::tier`, and `none` for records that nothing decided (dead letters).
const TIERS: [&str; 6] = ["rule", "cache", "fast", "encoder", "llm", "none"];

/// Any other method is one that somebody made up.
const HTTP_METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// All metrics of the process; cloning shares them.
#[derive(Clone)]
pub struct Metrics(Arc<Families>);

struct Families {
    registry: Registry,
    records: IntCounterVec,
    record_bytes: IntCounterVec,
    outcomes: IntCounterVec,
    dead_letters: IntCounterVec,
    batch_records: HistogramVec,
    batch_bytes: HistogramVec,
    stage_duration: HistogramVec,
    record_latency: HistogramVec,
    consumer_lag: IntGaugeVec,
    in_flight_bytes: IntGaugeVec,
    in_flight_batches: IntGaugeVec,
    rebalances: IntCounterVec,
    commit_failures: IntCounterVec,
    publish_failures: IntCounterVec,
    retries: IntCounterVec,
    cache_lookups: IntCounterVec,
    rule_matches: IntCounterVec,
    routing: IntCounterVec,
    queue_events: IntCounterVec,
    store_failures: IntCounterVec,
    forecasts: IntCounterVec,
    forecast_start: IntGaugeVec,
    forecast_mase: GaugeVec,
    forecast_coverage: GaugeVec,
    anomalies: IntCounterVec,
    forecast_leader: IntGauge,
    llm_answers: IntCounterVec,
    llm_tokens: IntCounterVec,
    llm_duration: HistogramVec,
    reports: IntCounterVec,
    incidents_opened: IntCounterVec,
    open_incidents: IntGaugeVec,
    incident_breaches: IntCounterVec,
    incident_notifications: IntCounterVec,
    incident_leader: IntGauge,
    label_shift: GaugeVec,
    confidence_drop: GaugeVec,
    build_info: IntGaugeVec,
    model_info: IntGaugeVec,
    config_info: IntGaugeVec,
    reloads: IntCounterVec,
    reload_successful: IntGauge,
    reload_success_time: Gauge,
    arm_confidence: HistogramVec,
    shadow_answers: IntCounterVec,
    arm_judged: IntGaugeVec,
    trainings: IntCounterVec,
    arm_accuracy: GaugeVec,
    role_ready: IntGaugeVec,
    http_requests: IntCounterVec,
    http_duration: HistogramVec,
    start_time: Gauge,
}

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
        let registry = Registry::new();
        let counter = |name, help, labels: &[&str]| {
            register(&registry, IntCounterVec::new(Opts::new(name, help).namespace("triaged"), labels))
        };
        let gauge = |name, help, labels: &[&str]| {
            register(&registry, IntGaugeVec::new(Opts::new(name, help).namespace("triaged"), labels))
        };
        let histogram = |name, help, labels: &[&str], buckets| {
            let options = HistogramOpts::new(name, help).namespace("triaged").buckets(buckets);
            register(&registry, HistogramVec::new(options, labels))
        };
        let powers = |start, factor, count| exponential_buckets(start, factor, count).expect("constant arguments");
        let families = Families {
            records: counter("records_total", "Records taken from Kafka.", &["topic", "kind"]),
            record_bytes: counter("record_bytes_total", "Bytes of records taken from Kafka.", &["topic", "kind"]),
            outcomes: counter(
                "outcomes_total",
                "Records by what became of them (event, escalation, dead_letter, dropped, stored) and the tier that decided.",
                &["role", "outcome", "decided_by"],
            ),
            dead_letters: counter("dead_letters_total", "Records sent to the dead letters.", &["reason"]),
            batch_records: histogram("batch_records", "Records in a batch.", &["role"], powers(1.0, 4.0, 10)),
            batch_bytes: histogram("batch_bytes", "Bytes in a batch.", &["role"], powers(256.0, 4.0, 10)),
            stage_duration: histogram(
                "stage_duration_seconds",
                "Time that a batch spends in a stage, in all threads together.",
                &["stage"],
                powers(0.000_01, 4.0, 12),
            ),
            record_latency: histogram(
                "record_latency_seconds",
                "From a record's Kafka timestamp to the acknowledgement of its output.",
                &["role"],
                vec![0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0],
            ),
            consumer_lag: gauge(
                "consumer_lag_records",
                "Records between the committed offset and the end of the partition.",
                &["topic", "partition"],
            ),
            in_flight_bytes: gauge("in_flight_bytes", "Bytes of records taken and not yet acknowledged.", &["role"]),
            in_flight_batches: gauge("in_flight_batches", "Batches taken and not yet committed.", &["role"]),
            rebalances: counter(
                "rebalances_total",
                "Partitions assigned, revoked or lost, counted by event.",
                &["role", "event"],
            ),
            commit_failures: counter("commit_failures_total", "Offset commits that failed.", &["role"]),
            publish_failures: counter(
                "publish_failures_total",
                "Outputs that the broker did not acknowledge, by error.",
                &["role", "error"],
            ),
            retries: counter("retries_total", "Attempts repeated after a failure.", &["role"]),
            cache_lookups: counter("cache_lookups_total", "Template cache look-ups by result.", &["result"]),
            rule_matches: counter("rule_matches_total", "Records matched by each rule.", &["rule"]),
            routing: counter("routing_total", "Events by routing.", &["routing"]),
            queue_events: counter("queue_events_total", "Events by queue and priority.", &["queue", "priority"]),
            store_failures: counter(
                "store_failures_total",
                "Failed requests to the volume store, by what helps (retry, row, refused).",
                &["operation", "failure"],
            ),
            forecasts: counter("forecasts_total", "Forecasts published, one for each series.", &["window"]),
            forecast_start: gauge(
                "forecast_start_timestamp_seconds",
                "Where the newest published forecast of a window starts, since the Unix epoch.",
                &["window"],
            ),
            forecast_mase: register(
                &registry,
                GaugeVec::new(
                    Opts::new("forecast_mase", "Mean absolute scaled error of the last forecast that came true.")
                        .namespace("triaged"),
                    &["window", "queue"],
                ),
            ),
            forecast_coverage: register(
                &registry,
                GaugeVec::new(
                    Opts::new(
                        "forecast_coverage95_ratio",
                        "Share of buckets within the 95 % interval of the last forecast that came true.",
                    )
                    .namespace("triaged"),
                    &["window", "queue"],
                ),
            ),
            anomalies: counter("anomalies_total", "Anomalies announced.", &["window", "queue"]),
            forecast_leader: register(
                &registry,
                IntGauge::with_opts(
                    Opts::new("forecast_leader", "1 on the instance that publishes forecasts, else 0.")
                        .namespace("triaged"),
                ),
            ),
            llm_answers: counter(
                "llm_answers_total",
                "Records that the LLM was asked about: answer, cached, or why there was no answer.",
                &["result"],
            ),
            llm_tokens: counter("llm_tokens_total", "Tokens sent to the LLM and received.", &["direction"]),
            llm_duration: histogram(
                "llm_answer_duration_seconds",
                "From a question to the LLM's answer or to giving up, with all waiting; without answers that were kept.",
                &[],
                powers(0.05, 2.0, 11),
            ),
            reports: counter("reports_total", "Scheduled reports by what became of them (sent, failed).", &["result"]),
            incidents_opened: counter("incidents_opened_total", "Incidents opened.", &["severity"]),
            open_incidents: gauge(
                "open_incidents",
                "Incidents that are not resolved, by status (open, acknowledged), on the instance that leads.",
                &["severity", "status"],
            ),
            incident_breaches: counter(
                "incident_breaches_total",
                "Incidents that were not acknowledged or resolved in time, by what was late (acknowledge, resolve).",
                &["severity", "deadline"],
            ),
            incident_notifications: counter(
                "incident_notifications_total",
                "Notifications by what became of them (sent, retried, failed).",
                &["channel", "outcome"],
            ),
            incident_leader: register(
                &registry,
                IntGauge::with_opts(
                    Opts::new("incident_leader", "1 on the instance that watches over incidents, else 0.")
                        .namespace("triaged"),
                ),
            ),
            label_shift: register(
                &registry,
                GaugeVec::new(
                    Opts::new(
                        "label_shift",
                        "Population stability index of the models' labels against the rows they learned from.",
                    )
                    .namespace("triaged"),
                    &["kind"],
                ),
            ),
            confidence_drop: register(
                &registry,
                GaugeVec::new(
                    Opts::new("confidence_drop_ratio", "Accuracy in validation less the mean confidence now.")
                        .namespace("triaged"),
                    &["kind"],
                ),
            ),
            build_info: gauge("build_info", "The version that runs; always 1.", &["version"]),
            model_info: gauge("model_info", "The models in use; always 1.", &["kind", "arm", "id"]),
            config_info: gauge(
                "config_info",
                "Versions of the configuration that decides, as events name it, and of its rules; always 1.",
                &["version", "rules"],
            ),
            reloads: counter(
                "reloads_total",
                "Reloads by who asked (signal, api, file) and what came of it (changed, unchanged, refused).",
                &["trigger", "result"],
            ),
            reload_successful: register(
                &registry,
                IntGauge::with_opts(
                    Opts::new("config_last_reload_successful", "0 while what the last reload read is refused, else 1.")
                        .namespace("triaged"),
                ),
            ),
            reload_success_time: register(
                &registry,
                Gauge::with_opts(
                    Opts::new(
                        "config_last_reload_success_timestamp_seconds",
                        "When a configuration was last taken up, at the start or later, since the Unix epoch.",
                    )
                    .namespace("triaged"),
                ),
            ),
            arm_confidence: histogram(
                "arm_confidence_ratio",
                "Confidence of the fast model of each arm, while a challenger is tried.",
                &["kind", "arm"],
                vec![0.3, 0.5, 0.65, 0.75, 0.85, 0.9, 0.95, 0.99],
            ),
            shadow_answers: counter(
                "shadow_answers_total",
                "Answers of a challenger in the shadow, by whether its queue is the champion's (agree, disagree).",
                &["kind", "result"],
            ),
            trainings: counter(
                "trainings_total",
                "Scheduled trainings by what became of them (promoted, kept, failed).",
                &["kind", "result"],
            ),
            arm_judged: gauge(
                "arm_judged_events",
                "Events of the last 30 days that an arm's model decided, or would have, and that people judged.",
                &["kind", "arm"],
            ),
            arm_accuracy: register(
                &registry,
                GaugeVec::new(
                    Opts::new("arm_accuracy_ratio", "Share of an arm's judged events whose queue was right.")
                        .namespace("triaged"),
                    &["kind", "arm"],
                ),
            ),
            role_ready: gauge("role_ready", "1 when the role is ready, else 0.", &["role"]),
            http_requests: counter(
                "http_requests_total",
                "Requests to the API by the pattern of their path.",
                &["route", "method", "status"],
            ),
            http_duration: histogram(
                "http_request_duration_seconds",
                "From the header of a request to the API to the beginning of its answer.",
                &["route", "method"],
                powers(0.000_5, 4.0, 9),
            ),
            start_time: register(
                &registry,
                Gauge::new("process_start_time_seconds", "Start of the process since the Unix epoch in seconds."),
            ),
            registry,
        };
        families.build_info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        families.start_time.set(since_epoch.as_secs_f64());
        process::register(&families.registry);
        Metrics(Arc::new(families))
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
fn register<C: Collector + Clone + 'static>(registry: &Registry, metric: prometheus::Result<C>) -> C {
    let metric = metric.expect("constant names and labels");
    registry.register(Box::new(metric.clone())).expect("each name is registered once");
    metric
}

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
