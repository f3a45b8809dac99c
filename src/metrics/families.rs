//! Every metric by name, help and labels, made and registered. What is counted with them is in `metrics`.

use prometheus::core::Collector;
use prometheus::{
    Gauge, GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    exponential_buckets,
};

use super::process;

/// One of each.
pub(super) struct Families {
    pub(super) registry: Registry,
    pub(super) records: IntCounterVec,
    pub(super) record_bytes: IntCounterVec,
    pub(super) outcomes: IntCounterVec,
    pub(super) dead_letters: IntCounterVec,
    pub(super) batch_records: HistogramVec,
    pub(super) batch_bytes: HistogramVec,
    pub(super) stage_duration: HistogramVec,
    pub(super) record_latency: HistogramVec,
    pub(super) consumer_lag: IntGaugeVec,
    pub(super) in_flight_bytes: IntGaugeVec,
    pub(super) in_flight_batches: IntGaugeVec,
    pub(super) rebalances: IntCounterVec,
    pub(super) commit_failures: IntCounterVec,
    pub(super) publish_failures: IntCounterVec,
    pub(super) retries: IntCounterVec,
    pub(super) cache_lookups: IntCounterVec,
    pub(super) rule_matches: IntCounterVec,
    pub(super) routing: IntCounterVec,
    pub(super) queue_events: IntCounterVec,
    pub(super) store_failures: IntCounterVec,
    pub(super) forecasts: IntCounterVec,
    pub(super) forecast_start: IntGaugeVec,
    pub(super) forecast_mase: GaugeVec,
    pub(super) forecast_coverage: GaugeVec,
    pub(super) anomalies: IntCounterVec,
    pub(super) forecast_leader: IntGauge,
    pub(super) llm_answers: IntCounterVec,
    pub(super) llm_tokens: IntCounterVec,
    pub(super) llm_duration: HistogramVec,
    pub(super) reports: IntCounterVec,
    pub(super) incidents_opened: IntCounterVec,
    pub(super) open_incidents: IntGaugeVec,
    pub(super) incident_breaches: IntCounterVec,
    pub(super) incident_notifications: IntCounterVec,
    pub(super) incident_leader: IntGauge,
    pub(super) label_shift: GaugeVec,
    pub(super) confidence_drop: GaugeVec,
    pub(super) build_info: IntGaugeVec,
    pub(super) model_info: IntGaugeVec,
    pub(super) config_info: IntGaugeVec,
    pub(super) reloads: IntCounterVec,
    pub(super) reload_successful: IntGauge,
    pub(super) reload_success_time: Gauge,
    pub(super) arm_confidence: HistogramVec,
    pub(super) shadow_answers: IntCounterVec,
    pub(super) arm_judged: IntGaugeVec,
    pub(super) trainings: IntCounterVec,
    pub(super) arm_accuracy: GaugeVec,
    pub(super) role_ready: IntGaugeVec,
    pub(super) http_requests: IntCounterVec,
    pub(super) http_duration: HistogramVec,
    pub(super) start_time: Gauge,
}

impl Families {
    pub(super) fn register() -> Self {
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
        families
    }
}

fn register<C: Collector + Clone + 'static>(registry: &Registry, metric: prometheus::Result<C>) -> C {
    let metric = metric.expect("constant names and labels");
    registry.register(Box::new(metric.clone())).expect("each name is registered once");
    metric
}
