//! From volumes to forecasts: the forecast role against the real broker and ClickHouse's engine.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use triaged::config::Config;
use triaged::record::QueueEvent;
use triaged::volumes::{EventRow, VolumeStore};

use crate::outcomes::{schema, valid};
use crate::peers::broker::Broker;
use crate::peers::clickhouse::ClickHouse;
use crate::peers::client::{Isolation, Read};
use crate::peers::daemon::{Daemon, triaged};
use crate::peers::wait_until;
use crate::setup::Setup;
use crate::volumes::event;

const PATIENCE: Duration = Duration::from_secs(120);

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970").as_secs() as i64
}

fn broker() -> Broker {
    let broker = Broker::start();
    for topic in ["queue-events", "dead-letters", "forecasts", "anomalies"] {
        broker.create_topic(topic, 1);
    }
    broker
}

fn setup(broker: &Broker, clickhouse: &ClickHouse) -> Setup {
    Setup::new(&broker.bootstrap(), "at_least_once")
        .with("clickhouse.url", &format!("'{}'", clickhouse.url()))
        .with("forecast.settle", "'0s'")
}

/// Fills the store with a daily rhythm of the last `hours`, without the hour that is running.
fn fill(setup: &Setup, hours: i64) {
    let store = VolumeStore::new(&Config::from_toml(&setup.toml()).expect("a configuration"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(store.prepare(true)).expect("the tables");
    let end = now() / 3600 * 3600;
    let mut events = Vec::new();
    for hour in 1..=hours {
        let start = end - hour * 3600;
        let of_day = start / 3600 % 24;
        for (queue, count) in [("soc", 3 + of_day), ("identity", 2 * (of_day % 6))] {
            for number in 0..count {
                events.push(event(events.len() as i64, queue, (start + 60 * number) * 1000));
            }
        }
    }
    let events: Vec<QueueEvent<'_>> = events.iter().map(|event| serde_json::from_str(event).expect("one")).collect();
    let rows: Vec<EventRow<'_>> = events.iter().map(|event| EventRow::of(event).expect("a row")).collect();
    runtime.block_on(store.insert_events(&rows)).expect("the store takes them");
}

fn of_window<'r>(reads: &'r [Read], window: &str) -> Vec<&'r Read> {
    reads.iter().filter(|read| read.header("window") == Some(window)).collect()
}

#[test]
fn volumes_become_forecasts_that_add_up() {
    let (broker, clickhouse) = (broker(), ClickHouse::start());
    let setup = setup(&broker, &clickhouse);
    fill(&setup, 24 * 15);
    let mut daemon = Daemon::start_roles("forecast", &setup.toml());
    let mut reader = broker.reader("forecasts", Isolation::ReadCommitted);
    let reads = reader.wait(PATIENCE, |reads| of_window(reads, "days").len() >= 3).to_vec();
    let schema = schema("forecast.json");
    for read in &reads {
        valid(&schema, &read.json());
    }
    let hours: Vec<Value> = of_window(&reads, "hours").into_iter().map(Read::json).collect();
    let queues: Vec<&str> = hours.iter().map(|forecast| forecast["queue"].as_str().expect("a name")).collect();
    assert_eq!(queues, ["*", "identity", "soc"]);
    let mean = |forecast: &Value, step: usize| forecast["points"][step]["mean"].as_f64().expect("a number");
    for step in 0..48 {
        let sum = mean(&hours[1], step) + mean(&hours[2], step);
        assert!((mean(&hours[0], step) - sum).abs() < 1e-6 * sum.max(1.0), "step {step} does not add up");
    }
    // The rhythm repeats exactly, so a forecast that has understood it is close to it.
    let start = now() / 3600 * 3600;
    let error: f64 =
        (0..48).map(|step| (mean(&hours[2], step as usize) - (3 + (start / 3600 + step) % 24) as f64).abs()).sum();
    assert!(error / 48.0 < 1.5, "the mean absolute error is {}", error / 48.0);
    wait_until("all is in the store", PATIENCE, || {
        clickhouse.query("SELECT count() FROM forecast_totals FINAL") == "9"
    });
    assert_eq!(clickhouse.query("SELECT count() FROM forecasts FINAL WHERE window = 'hours'"), "144");
    assert_eq!(daemon.metric("triaged_forecast_leader", &[]), 1.0);
    assert!(daemon.stop(PATIENCE).success());

    // A restart makes none again for the hour that is running.
    let before = broker.watch("forecasts").high_watermark();
    let mut daemon = Daemon::start_roles("forecast", &setup.toml());
    daemon.wait_ready();
    wait_until("it leads", PATIENCE, || daemon.metric("triaged_forecast_leader", &[]) == 1.0);
    assert!(daemon.stop(PATIENCE).success());
    let again = broker.reader("forecasts", Isolation::ReadCommitted).drain().len() - reads.len();
    assert!(again <= 3, "{again} forecasts were repeated; {before} messages lay there before");
}

#[test]
fn of_two_instances_one_publishes_and_the_other_takes_over() {
    let (broker, clickhouse) = (broker(), ClickHouse::start());
    let setup = setup(&broker, &clickhouse).with("kafka.properties.\"session.timeout.ms\"", "'6000'");
    fill(&setup, 24 * 3);
    let mut instances: Vec<Daemon> =
        ["one", "two"].map(|name| Daemon::start_roles("forecast", &setup.clone().instance(name).toml())).into();
    let leads = |daemon: &Daemon| daemon.metric("triaged_forecast_leader", &[]) == 1.0;
    wait_until("one leads", PATIENCE, || instances.iter().filter(|daemon| leads(daemon)).count() == 1);
    wait_until("the other is ready as well", PATIENCE, || instances.iter().all(Daemon::ready));
    let mut reader = broker.reader("forecasts", Isolation::ReadCommitted);
    reader.wait(PATIENCE, |reads| of_window(reads, "days").len() >= 3);
    let reads = reader.drain();
    for window in ["hours", "days"] {
        assert_eq!(of_window(reads, window).len(), 3, "{window}");
    }
    let leader = instances.iter().position(leads).expect("one leads");
    assert!(instances.remove(leader).stop(PATIENCE).success());
    wait_until("the other takes over", PATIENCE, || leads(&instances[0]));
    assert!(instances[0].stop(PATIENCE).success());
}

/// Forecasts made an hour ago are compared with what came true, and what they did not allow is an anomaly.
#[test]
fn what_came_true_is_compared_and_what_is_out_of_the_ordinary_is_announced() {
    let (broker, clickhouse) = (broker(), ClickHouse::start());
    let setup = setup(&broker, &clickhouse);
    fill(&setup, 24 * 8);
    // A forecast of the two hours before, in which `soc` was to be silent.
    let start = now() / 3600 * 3600 - 2 * 3600;
    clickhouse.query(&format!(
        "INSERT INTO forecasts SELECT 'hours', arrayJoin(['soc', 'identity']) AS queue, toDateTime({start}), now64(3),
             toDateTime({start} + 3600 * arrayJoin([0, 1])), 1, 0, 1, 0, 1, 0, if(queue = 'soc', 1, 1000)"
    ));
    clickhouse.query(&format!(
        "INSERT INTO forecast_totals SELECT 'hours', arrayJoin(['soc', 'identity']), toDateTime({start}), now64(3), 2, 3600, 2,
             0, 2, 0, 2, 0.5, 'steady', 'test', 2, 1, 1"
    ));
    let mut daemon = Daemon::start_roles("forecast", &setup.toml());
    let mut reader = broker.reader("anomalies", Isolation::ReadCommitted);
    let anomalies: Vec<Value> = reader.wait_for(1, PATIENCE).iter().map(Read::json).collect();
    let schema = schema("anomaly.json");
    anomalies.iter().for_each(|anomaly| valid(&schema, anomaly));
    let of = |anomaly: &Value| {
        (anomaly["queue"].as_str().map(str::to_owned), anomaly["direction"].as_str().map(str::to_owned))
    };
    assert_eq!(
        anomalies.iter().map(of).collect::<Vec<_>>(),
        [(Some("soc".into()), Some("above".into()))],
        "the cool-down"
    );
    wait_until("the accuracy is known", PATIENCE, || {
        clickhouse.query("SELECT count() FROM forecast_accuracy FINAL WHERE window = 'hours'") == "2"
    });
    let soc = clickhouse.query("SELECT coverage95, actual_total, mase > 0 FROM forecast_accuracy WHERE queue = 'soc'");
    let hour = |at: i64| 3 + at / 3600 % 24;
    assert_eq!(soc, format!("0\t{}\t1", hour(start) + hour(start + 3600)));
    assert!(daemon.stop(PATIENCE).success());
}

/// A weekly rhythm in a CSV file, with times.
fn csv(folder: &std::path::Path) -> String {
    let path = folder.join("volumes.csv");
    let day = |number: usize| triaged::record::rfc3339(1_767_225_600_000 + number as i64 * 86_400_000);
    let rows: String = (0..84).map(|number| format!("{},{}\n", day(number), 50 + 10 * (number % 7))).collect();
    std::fs::write(&path, format!("timestamp,value\n{rows}")).expect("the file can be written");
    path.to_str().expect("a plain path").to_owned()
}

#[track_caller]
fn forecast(arguments: &[&str]) -> String {
    let output = triaged(&[&["forecast"], arguments].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn a_file_is_forecast_in_every_format() {
    let folder = tempfile::tempdir().expect("the system has a temporary folder");
    let input = csv(folder.path());
    let of_week = ["--input", &input, "--horizon", "14", "--season", "7"];
    let line: Value = serde_json::from_str(&forecast(&[&of_week[..], &["--json"]].concat())).expect("one JSON line");
    let points = line["points"].as_array().expect("points");
    assert_eq!((points.len(), points[0]["at"].as_str()), (14, Some("2026-03-26T00:00:00.000Z")));
    for (step, point) in points.iter().enumerate() {
        let (mean, truth) = (point["mean"].as_f64().expect("a mean"), (50 + 10 * (step % 7)) as f64);
        assert!((mean - truth).abs() < 1.0, "step {step}: {mean} for {truth}");
    }
    let table = forecast(&[&of_week[..], &["--format", "csv"]].concat());
    assert_eq!(table.lines().count(), 15);
    assert!(
        table.starts_with("id,step,at,mean,lower80,upper80,lower95,upper95,method\nseries,1,2026-03-26T00:00:00.000Z,")
    );
    let picture = folder.path().join("forecast.svg");
    let picture = picture.to_str().expect("a plain path");
    forecast(&[&of_week[..], &["--format", "svg", "--output", picture]].concat());
    assert!(std::fs::read_to_string(picture).expect("it was written").ends_with("</svg>\n"));
    let report: Value =
        serde_json::from_str(&forecast(&[&of_week[..], &["--backtest", "--json"]].concat())).expect("a report");
    assert!(report["chosen"]["smape"].as_f64().expect("a number") < 1.0, "{report}");
}

#[test]
fn a_file_that_holds_no_series_says_where_and_why() {
    let folder = tempfile::tempdir().expect("the system has a temporary folder");
    let path = folder.path().join("wrong");
    for (extension, text, why) in [
        ("jsonl", "{\"values\":[1,2]}\n{\"values\":[1,-2]}\n", "line 2: value 2 is -2"),
        ("jsonl", "{\"values\":[1]\n", "line 1 is no series"),
        ("csv", "value\n1\nmany\n", "line 3: \"many\" in value is no number"),
        ("csv", "count\n1\n", "there is no column \"value\"; there are: count"),
        ("csv", "timestamp,value\n2026-01-02,1\n2026-01-01,1\n", "rows 1 and 2 are not in order"),
    ] {
        let path = path.with_extension(extension);
        std::fs::write(&path, text).expect("the file can be written");
        let output = triaged(&["forecast", "--input", path.to_str().expect("a plain path")]);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && error.contains(why), "{text:?} gives {error}");
    }
}
