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
use crate::peers::daemon::Daemon;
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
    runtime.block_on(store.migrate()).expect("the tables");
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
