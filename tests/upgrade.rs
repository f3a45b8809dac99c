//! Exchanging instances one by one under load, and building up ClickHouse anew: nothing is lost, nothing counts twice.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::json;

use crate::delivery::Flow;
use crate::outcomes::Kind;
use crate::peers::clickhouse::ClickHouse;
use crate::peers::daemon::{Daemon, triaged};
use crate::peers::wait_until;
use crate::retrain::{TOPICS, fill};
use crate::setup::{Setup, seed};
use crate::workload::Workload;

const PATIENCE: Duration = Duration::from_secs(120);
const VOLUMES: &str = "SELECT queue, minute, sum(events) FROM volumes_by_minute GROUP BY ALL ORDER BY ALL";

/// A package that another release might bring.
fn new_model(folder: &std::path::Path) -> String {
    let path = |name: &str| folder.join(name).to_str().expect("a plain path").to_owned();
    let mut random = StdRng::seed_from_u64(5);
    let rows = (0..120).map(|row| {
        let (label, text) = TOPICS[row % 3];
        json!({"id": row, "text": fill(text, &mut random), "label": label}).to_string()
    });
    fs::write(path("rows.jsonl"), rows.collect::<Vec<_>>().join("\n")).expect("written");
    let output = triaged(&[
        "train",
        "--kind",
        "ticket",
        "--data",
        &path("rows.jsonl"),
        "--out",
        &path("next"),
        "--time-budget",
        "0",
        "--folds",
        "3",
    ]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    path("next")
}

/// What tally needs beside what the flow has.
fn with_store(setup: Setup, clickhouse: &ClickHouse) -> Setup {
    setup
        .with("clickhouse.url", &format!("'{}'", clickhouse.url()))
        .with("clickhouse.events_retention", "'0s'")
        .with("output.escalate", "false")
        .with("tally.batch_age", "'100ms'")
        .with("tally.batch_records", "1000")
}

/// Waits until the store holds an event of each record that can be read.
fn wait_stored(clickhouse: &ClickHouse, workload: &Workload) {
    wait_until("all events are stored", PATIENCE, || stored(clickhouse) >= workload.readable());
    assert_eq!(stored(clickhouse), workload.readable(), "each once");
}

fn stored(clickhouse: &ClickHouse) -> usize {
    clickhouse.query("SELECT count() FROM queue_events FINAL").parse().expect("a number")
}

fn upgraded(delivery: &'static str) {
    let flow = Flow::new(delivery);
    flow.broker.create_topic("feedback", 1);
    let clickhouse = ClickHouse::start();
    let folder = tempfile::tempdir().expect("the system has a temporary folder");
    let old = with_store(flow.setup(), &clickhouse);
    // As a release may bring it: another model, other thresholds, other sizes.
    let new = old
        .clone()
        .with("model.ticket", &format!("'{}'", new_model(folder.path())))
        .with("decide.auto_route", "0.9")
        .with("cache.capacity", "1000")
        .with("stream.batch_records", "300");
    let workload = Workload::new(seed(&format!("upgraded in {delivery}")), 50_000);
    let start = |setup: &Setup, name: &str| setup.clone().instance(name).start_ready();
    let mut counter = Daemon::start_roles("tally", &old.toml());
    counter.wait_ready();
    let mut pair = vec![start(&old, "one")];
    // All that joins and leaves does so under load, which lasts for some ten seconds.
    flow.publish_with(Duration::from_millis(50), &workload, || {
        let outputs = flow.outputs();
        let at_work = |share: f64| {
            let target = (workload.len() as f64 * share) as i64;
            wait_until(&format!("{target} outputs are there"), PATIENCE, || outputs() >= target);
        };
        at_work(0.05);
        pair.push(start(&old, "two"));
        for (daemon, (name, share)) in pair.iter_mut().zip([("one", 0.2), ("two", 0.4)]) {
            at_work(share);
            assert!(daemon.stop(PATIENCE).success());
            *daemon = start(&new, name);
        }
    });
    wait_stored(&clickhouse, &workload);
    let outcomes = flow.settled(&workload, &mut pair, flow.times());
    let mut models = BTreeSet::new();
    for (place, found) in &outcomes.by_place {
        let events = found.iter().filter(|(kind, _)| *kind == Kind::Event).map(|(_, read)| read.json());
        let mut ids = BTreeSet::new();
        for event in events {
            ids.insert(event["event_id"].as_str().expect("an id").to_owned());
            let model = event["model"].as_str().unwrap_or_default();
            models.extend(model.split_once('@').map(|(name, _)| name.to_owned()));
        }
        assert!(ids.len() <= 1, "{place:?} has several ids: {ids:?}");
    }
    assert!(counter.stop(PATIENCE).success());
    assert!(models.contains("tickets") && models.contains("next"), "both releases decided tickets: {models:?}");
}

#[test]
fn a_pair_is_upgraded_one_by_one_under_load_in_at_least_once() {
    upgraded("at_least_once");
}

#[test]
fn a_pair_is_upgraded_one_by_one_under_load_in_exactly_once() {
    upgraded("exactly_once");
}

/// ClickHouse is lost, or an old backup is all that there is: the events topic has what is missing, and reading more of it
/// than that does no harm.
#[test]
fn volumes_are_rebuilt_from_the_events_topic() {
    let flow = Flow::new("at_least_once");
    flow.broker.create_topic("feedback", 1);
    let (lost, empty, old) = (ClickHouse::start(), ClickHouse::start(), ClickHouse::start());
    let workload = Workload::new(seed("volumes rebuilt"), 5_000);
    workload.publish(&flow.broker.bootstrap(), || {});
    let mut daemon = Daemon::start_roles("classify,tally", &with_store(flow.setup(), &lost).toml());
    daemon.wait_ready();
    wait_stored(&lost, &workload);
    assert!(daemon.stop(PATIENCE).success());
    let volumes = lost.query(VOLUMES);
    assert!(volumes.lines().count() > 5, "{volumes}");

    // The old backup: as far as tally had come when it was killed.
    let setup = with_store(flow.setup(), &old).with("tally.batch_records", "100");
    let mut daemon = Daemon::start_roles("tally", &setup.with("kafka.group_prefix", "'backup'").toml());
    wait_until("a part is in the backup", PATIENCE, || {
        daemon.metric("triaged_outcomes_total", &["outcome=\"stored\""]) > 300.0
    });
    daemon.kill();
    assert!(stored(&old) > 0 && stored(&old) < workload.readable(), "{}", stored(&old));

    // A group with no offsets reads from the start, as one does whose offsets were set back.
    for (store, group) in [(&empty, "'empty'"), (&old, "'restored'")] {
        let setup = with_store(flow.setup(), store).with("kafka.group_prefix", group);
        let mut daemon = Daemon::start_roles("tally", &setup.toml());
        daemon.wait_ready();
        wait_stored(store, &workload);
        assert_eq!(store.query(VOLUMES), volumes, "{group}");
        assert!(daemon.stop(PATIENCE).success());
    }
}
