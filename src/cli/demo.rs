//! `triaged demo`: the real pipeline on a broker inside the process, with a live view and a summary that adds up.

mod view;

use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use serde::Serialize;

use crate::app::{App, Role};
use crate::config::{Config, LogFormat, parse_duration};
use crate::generate::{Generator, GeneratorSettings};
use crate::metrics::Metrics;
use crate::record::Kind;
use crate::stream::{EmbeddedBroker, Feeder, PlainRecord, count_records};
use crate::supervisor::Shutdown;
use crate::telemetry;

use super::{Globals, UsageError, write_json};
use view::View;

const PARTITIONS: i32 = 4;
/// The broker keeps only the newest records of a partition, so the generator must not run far ahead.
const MOST_UNPROCESSED: u64 = 50_000;
const SLICE: Duration = Duration::from_millis(10);
/// How long the rest may take after the last record was made.
const FINISH_WITHIN: Duration = Duration::from_secs(60);

/// Show the daemon at work, without a server
///
/// Starts a Kafka broker inside the process, generates tickets and log lines, runs the real classify role over them,
/// and shows what happens. At the end every record is accounted for: those read are those that became events,
/// escalations or dead letters, and the broker has as many. Nothing is downloaded, nothing is left behind.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
                             triaged demo\n  \
                             triaged demo --duration 1m --rate 50000\n  \
                             triaged demo --duration 5s --json")]
pub(super) struct Arguments {
    /// How long records are generated
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = parse_duration)]
    duration: Duration,

    /// Records generated a second
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    rate: u64,

    /// Number that all generated records follow from
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

/// What became of the records.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Summary {
    pub(super) generated: u64,
    pub(super) processed: u64,
    pub(super) events: u64,
    pub(super) escalations: u64,
    pub(super) dead_letters: u64,
    pub(super) dropped: u64,
    pub(super) seconds: f64,
    pub(super) records_per_second: f64,
    /// From the record's Kafka timestamp to the acknowledgement of what was made of it.
    pub(super) latency_p50_ms: Option<f64>,
    pub(super) latency_p99_ms: Option<f64>,
    /// Records in the broker's output topics, counted there.
    pub(super) published: u64,
    pub(super) adds_up: bool,
}

/// Totals of the outcome counters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Outcomes {
    pub(super) events: u64,
    pub(super) escalations: u64,
    pub(super) dead_letters: u64,
    pub(super) dropped: u64,
}

impl Outcomes {
    fn read(metrics: &Metrics) -> Self {
        let mut outcomes = Outcomes::default();
        for (labels, value) in metrics.values("triaged_outcomes_total") {
            let sum = match labels.get("outcome").map(String::as_str) {
                Some("event") => &mut outcomes.events,
                Some("escalation") => &mut outcomes.escalations,
                Some("dead_letter") => &mut outcomes.dead_letters,
                _ => &mut outcomes.dropped,
            };
            *sum += value as u64;
        }
        outcomes
    }

    pub(super) fn total(self) -> u64 {
        self.events + self.escalations + self.dead_letters + self.dropped
    }
}

pub(super) fn run(arguments: Arguments, globals: &Globals) -> anyhow::Result<()> {
    let mut config = globals.load_config()?;
    telemetry::init(globals.filter().unwrap_or("warn"), LogFormat::Text);
    if config.inputs.is_empty() {
        return Err(UsageError("the demo needs an input topic".to_owned()).into());
    }
    let topics = topics(&config);
    let names: Vec<&str> = topics.iter().map(String::as_str).collect();
    let broker = EmbeddedBroker::start(&names, PARTITIONS)?;
    config.kafka.brokers = broker.bootstrap();
    config.kafka.properties.clear();
    config.output.escalate = true;
    config.ops.listen = None;

    let app = App::load(config.clone(), &[Role::Classify])?;
    let (metrics, shutdown) = (app.metrics().clone(), app.shutdown());
    let view = View::new(globals.json);
    let driver = std::thread::Builder::new().name("demo".to_owned()).spawn(move || {
        let result = drive(&arguments, &config, &metrics, &shutdown, view);
        shutdown.request();
        result
    })?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().worker_threads(1).build()?;
    let stopped = runtime.block_on(app.run());
    let summary = driver.join().map_err(|_| anyhow::anyhow!("the generator panicked"))?;
    stopped?;
    let summary = summary?;
    if globals.json {
        write_json(&summary)?;
    } else {
        view::summary(&summary)?;
    }
    drop(broker);
    anyhow::ensure!(summary.adds_up, "the summary does not add up");
    Ok(())
}

fn topics(config: &Config) -> Vec<String> {
    let output = &config.output;
    let mut topics: Vec<String> = config.inputs.iter().map(|input| input.topic.to_string()).collect();
    topics.extend([output.events.clone(), output.escalations.clone(), output.dead_letters.clone()]);
    topics.extend(output.topics.values().cloned());
    topics.sort();
    topics.dedup();
    topics
}

/// Generates, waits until everything is processed, and counts.
fn drive(
    arguments: &Arguments,
    config: &Config,
    metrics: &Metrics,
    shutdown: &Shutdown,
    mut view: View,
) -> anyhow::Result<Summary> {
    let feeder = Feeder::connect(&config.kafka, &config.stream)?;
    let topic_of = |kind| config.inputs.iter().find(|input| input.decode.kind == kind).map(|input| &*input.topic);
    let (tickets, logs) = (topic_of(Kind::Ticket), topic_of(Kind::Log));
    let mut generator = Generator::new(arguments.seed, GeneratorSettings::default());
    wait_until_ready(metrics, shutdown)?;
    let started = Instant::now();
    let mut generated: u64 = 0;
    while started.elapsed() < arguments.duration && !shutdown.is_requested() {
        let due = (started.elapsed().as_secs_f64() * arguments.rate as f64) as u64;
        let room = (Outcomes::read(metrics).total() + MOST_UNPROCESSED).saturating_sub(generated);
        for record in generator.by_ref().take(due.saturating_sub(generated).min(room) as usize) {
            let topic = if record.kind == Kind::Ticket { tickets } else { logs };
            // A configuration without one of the kinds shows the other.
            let Some(topic) = topic else { continue };
            let plain = PlainRecord {
                key: record.key.map(String::into_bytes),
                value: Some(record.value),
                headers: Vec::new(),
                timestamp: Some(record.occurred_at),
            };
            feeder.send(topic, &plain)?;
            generated += 1;
        }
        view.update(metrics, generated, started.elapsed())?;
        shutdown.wait_for(SLICE);
    }
    feeder.flush(FINISH_WITHIN).context("writing the generated records")?;
    let finish = Instant::now();
    while Outcomes::read(metrics).total() < generated && finish.elapsed() < FINISH_WITHIN && !shutdown.is_requested() {
        view.update(metrics, generated, started.elapsed())?;
        shutdown.wait_for(SLICE);
    }
    view.close()?;
    summarise(config, metrics, generated, started.elapsed())
}

/// Joining the consumer group takes some seconds, which say nothing about the daemon's latency.
fn wait_until_ready(metrics: &Metrics, shutdown: &Shutdown) -> anyhow::Result<()> {
    let started = Instant::now();
    while !metrics.values("triaged_role_ready").iter().any(|(_, ready)| *ready > 0.0) {
        anyhow::ensure!(started.elapsed() < FINISH_WITHIN, "the classify role did not become ready");
        if shutdown.wait_for(SLICE) {
            break;
        }
    }
    Ok(())
}

fn summarise(config: &Config, metrics: &Metrics, generated: u64, took: Duration) -> anyhow::Result<Summary> {
    let outcomes = Outcomes::read(metrics);
    let processed: u64 = metrics.values("triaged_records_total").iter().map(|(_, value)| *value as u64).sum();
    let mut published = 0;
    for topic in topics(config).iter().filter(|topic| config.inputs.iter().all(|input| *input.topic != **topic)) {
        published += count_records(&config.kafka, &config.stream, topic)? as u64;
    }
    let milliseconds = |q| metrics.quantile("triaged_record_latency_seconds", q).map(|seconds| seconds * 1000.0);
    Ok(Summary {
        generated,
        processed,
        events: outcomes.events,
        escalations: outcomes.escalations,
        dead_letters: outcomes.dead_letters,
        dropped: outcomes.dropped,
        seconds: took.as_secs_f64(),
        records_per_second: processed as f64 / took.as_secs_f64(),
        latency_p50_ms: milliseconds(0.5),
        latency_p99_ms: milliseconds(0.99),
        published,
        adds_up: generated == processed
            && processed == outcomes.total()
            && published == outcomes.total() - outcomes.dropped,
    })
}
