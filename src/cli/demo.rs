//! `triaged demo`: the real pipeline on a broker inside the process, with a live view and a summary that adds up.

mod view;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Context;
use chrono::Utc;
use clap::Args;
use serde::Serialize;

use crate::app::{App, Role};
use crate::config::{Config, LogFormat, StoreKind, parse_duration};
use crate::forecast::{Estimate, Trend, round};
use crate::generate::{Generator, GeneratorSettings, Timeline};
use crate::metrics::Metrics;
use crate::record::Kind;
use crate::stream::{EmbeddedBroker, Feeder, PlainRecord, count_records};
use crate::supervisor::Shutdown;
use crate::telemetry;
use crate::volumes::{TOTAL, VolumeQuery, VolumeStore};

use super::{Globals, UsageError, write_json};
use view::View;

const PARTITIONS: i32 = 4;
/// The broker keeps only the newest records of a partition, so the generator must not run far ahead.
const MOST_UNPROCESSED: u64 = 50_000;
/// Events that wait to be counted, for the same reason.
const MOST_UNCOUNTED: u64 = 10_000;
/// How much time passes in the generated stream.
const PAST: Duration = Duration::from_secs(14 * 86_400);
const SLICE: Duration = Duration::from_millis(10);
/// How long the rest may take after the last record was made.
const FINISH_WITHIN: Duration = Duration::from_secs(60);

/// Show the daemon at work, without a server
///
/// Starts a Kafka broker inside the process, generates two weeks of tickets and log lines in fast motion, runs the real
/// classify and tally roles over them, and shows what happens. At the end every record is accounted for: those read are
/// those that became events, escalations or dead letters, the broker has as many, and the volumes count every event.
/// Then the volumes of the next two days are forecast. Nothing is downloaded, nothing is left behind.
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
    /// Events in the volumes.
    pub(super) counted: u64,
    pub(super) forecasts: Vec<QueueForecast>,
    pub(super) adds_up: bool,
}

/// The hourly forecast of one queue, summed up.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct QueueForecast {
    /// `*`: all together.
    pub(super) queue: String,
    /// In the two weeks before.
    pub(super) events: u64,
    /// Of the next two days.
    pub(super) total: Estimate,
    pub(super) probability_of_increase: f64,
    pub(super) trend: Trend,
    pub(super) method: String,
}

/// Totals of the outcome counters of the classify role.
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
            if labels.get("role").map(String::as_str) != Some(Role::Classify.as_str()) {
                continue;
            }
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
    config.api.listen = None;
    config.volumes.store = StoreKind::Memory;
    // The broker keeps little, so events must be counted soon.
    config.tally.batch_records = 2_000;
    config.tally.batch_age = Duration::from_millis(100);

    let app = App::load(config.clone(), &[Role::Classify, Role::Tally])?;
    let (metrics, shutdown, store) = (app.metrics().clone(), app.shutdown(), app.store().clone());
    let view = View::new(globals.json);
    let driver = std::thread::Builder::new().name("demo".to_owned()).spawn(move || {
        let result = drive(&arguments, &config, &metrics, &shutdown, &store, view);
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
        view::forecasts(&summary.forecasts)?;
    }
    drop(broker);
    anyhow::ensure!(summary.adds_up, "the summary does not add up");
    Ok(())
}

fn topics(config: &Config) -> Vec<String> {
    let output = &config.output;
    let mut topics: Vec<String> = config.inputs.iter().map(|input| input.topic.to_string()).collect();
    topics.extend([output.events.clone(), output.escalations.clone(), output.dead_letters.clone()]);
    topics.push(config.feedback.topic.clone());
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
    store: &VolumeStore,
    mut view: View,
) -> anyhow::Result<Summary> {
    let feeder = Feeder::connect(&config.kafka, &config.stream)?;
    let topic_of = |kind| config.inputs.iter().find(|input| input.decode.kind == kind).map(|input| &*input.topic);
    let (tickets, logs) = (topic_of(Kind::Ticket), topic_of(Kind::Log));
    let all = arguments.rate as f64 * arguments.duration.as_secs_f64();
    let from_ms = Utc::now().timestamp_millis() - PAST.as_millis() as i64;
    let timeline = Timeline::Rhythm { from_ms, records_per_day: all / (PAST.as_secs_f64() / 86_400.0) };
    let settings = GeneratorSettings { timeline, ..GeneratorSettings::default() };
    let mut generator = Generator::new(arguments.seed, settings);
    wait_until_ready(metrics, shutdown)?;
    let started = Instant::now();
    let mut generated: u64 = 0;
    while started.elapsed() < arguments.duration && !shutdown.is_requested() {
        let due = (started.elapsed().as_secs_f64() * arguments.rate as f64) as u64;
        let outcomes = Outcomes::read(metrics);
        let room = (outcomes.total() + MOST_UNPROCESSED).saturating_sub(generated);
        let room = if outcomes.events > stored(metrics) + MOST_UNCOUNTED { 0 } else { room };
        for record in generator.by_ref().take(due.saturating_sub(generated).min(room) as usize) {
            let topic = if record.kind == Kind::Ticket { tickets } else { logs };
            // A configuration without one of the kinds shows the other.
            let Some(topic) = topic else { continue };
            let plain = PlainRecord {
                key: record.key.map(String::into_bytes),
                value: Some(record.value),
                headers: Vec::new(),
                // The broker's own, which latency is measured by; the event time stands in the record.
                timestamp: None,
            };
            feeder.send(topic, &plain)?;
            generated += 1;
        }
        view.update(metrics, generated, started.elapsed())?;
        shutdown.wait_for(SLICE);
    }
    feeder.flush(FINISH_WITHIN).context("writing the generated records")?;
    let finish = Instant::now();
    let is_finished = || {
        let outcomes = Outcomes::read(metrics);
        outcomes.total() >= generated && stored(metrics) >= outcomes.events
    };
    while !is_finished() && finish.elapsed() < FINISH_WITHIN && !shutdown.is_requested() {
        view.update(metrics, generated, started.elapsed())?;
        shutdown.wait_for(SLICE);
    }
    let took = started.elapsed();
    view.close()?;
    let mut summary = summarise(config, metrics, generated, took)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    (summary.counted, summary.forecasts) = runtime.block_on(volumes_and_forecasts(config, store))?;
    summary.adds_up &= summary.counted == summary.events;
    Ok(summary)
}

/// Events that the tally role has stored.
fn stored(metrics: &Metrics) -> u64 {
    let is_stored =
        |labels: &BTreeMap<String, String>| labels.get("outcome").is_some_and(|outcome| outcome == "stored");
    let values = metrics.values("triaged_outcomes_total");
    values.iter().filter(|(labels, _)| is_stored(labels)).map(|(_, value)| *value as u64).sum()
}

/// What the volumes hold, and the forecast of the window of hours.
async fn volumes_and_forecasts(config: &Config, store: &VolumeStore) -> anyhow::Result<(u64, Vec<QueueForecast>)> {
    let everything = VolumeQuery { from: 0, to: i64::from(u32::MAX), bucket: 86_400 };
    let mut by_queue: BTreeMap<String, u64> = BTreeMap::new();
    for volume in store.volumes(everything).await? {
        *by_queue.entry(volume.queue).or_default() += volume.events;
    }
    let counted = by_queue.get(TOTAL).copied().unwrap_or(0);
    let hours = config.forecast.windows.iter().find(|window| window.bucket == Duration::from_secs(3600));
    let Some(hours) = hours else { return Ok((counted, Vec::new())) };
    let made = round(store, &config.forecast, hours, Utc::now().timestamp_millis()).await?;
    let forecasts =
        made.map(|made| made.forecasts).unwrap_or_default().into_iter().map(|(queue, forecast)| QueueForecast {
            events: by_queue.get(&queue).copied().unwrap_or(0),
            queue,
            total: Estimate::new(forecast.total.mean, &forecast.total.bounds),
            probability_of_increase: forecast.probability_of_increase,
            trend: forecast.trend,
            method: forecast.method,
        });
    Ok((counted, forecasts.collect()))
}

/// Joining the consumer group takes some seconds, which say nothing about the daemon's latency.
fn wait_until_ready(metrics: &Metrics, shutdown: &Shutdown) -> anyhow::Result<()> {
    let started = Instant::now();
    let ready = || metrics.values("triaged_role_ready").iter().filter(|(_, ready)| *ready > 0.0).count();
    while ready() < 2 {
        anyhow::ensure!(started.elapsed() < FINISH_WITHIN, "the roles did not become ready");
        if shutdown.wait_for(SLICE) {
            break;
        }
    }
    Ok(())
}

fn summarise(config: &Config, metrics: &Metrics, generated: u64, took: Duration) -> anyhow::Result<Summary> {
    let outcomes = Outcomes::read(metrics);
    let records = metrics.values("triaged_records_total");
    let inputs = records
        .iter()
        .filter(|(labels, _)| labels.get("kind").is_some_and(|kind| kind != "event" && kind != "feedback"));
    let processed: u64 = inputs.map(|(_, value)| *value as u64).sum();
    let mut published = 0;
    for topic in topics(config).iter().filter(|topic| config.inputs.iter().all(|input| *input.topic != **topic)) {
        published += count_records(&config.kafka, &config.stream, topic)? as u64;
    }
    let milliseconds =
        |q| metrics.quantile("triaged_record_latency_seconds", "classify", q).map(|seconds| seconds * 1000.0);
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
        counted: 0,
        forecasts: Vec::new(),
        adds_up: generated == processed
            && processed == outcomes.total()
            && published == outcomes.total() - outcomes.dropped,
    })
}
