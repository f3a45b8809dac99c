//! From queue events to volumes: the tally role against ClickHouse's engine and the real broker, with faults on every
//! side. What is asserted is always the same: each event counts once.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use triaged::config::Config;
use triaged::record::QueueEvent;
use triaged::volumes::{EventRow, MemoryStore, Volume, VolumeQuery, VolumeStore};

use crate::peers::broker::Broker;
use crate::peers::clickhouse::ClickHouse;
use crate::peers::client::Isolation;
use crate::peers::daemon::{Daemon, triaged};
use crate::peers::wait_until;
use crate::setup::{Setup, seed};
use crate::workload::Workload;

const PATIENCE: Duration = Duration::from_secs(120);
/// 2026-01-01T00:00:00Z.
const START: i64 = 1_767_225_600;
const QUEUES: [&str; 4] = ["soc", "identity", "platform", "web-operations"];
const GROUP: &str = "triaged-tally";

/// Events of distinct records, with times over some hours.
pub(crate) fn events(seed: u64, count: usize) -> Vec<String> {
    let mut random = StdRng::seed_from_u64(seed);
    (0..count)
        .map(|number| {
            let at = (START + random.random_range(0..6 * 3600)) * 1000;
            event(number as i64, QUEUES[random.random_range(0..QUEUES.len())], at)
        })
        .collect()
}

pub(crate) fn event(offset: i64, queue: &str, at: i64) -> String {
    let kind = if offset % 5 == 0 { "ticket" } else { "log" };
    let priority = ["low", "medium", "high", "critical"][(offset % 4) as usize];
    json!({
        "event_id": format!("00000000-0000-5000-8000-{offset:012x}"),
        "source": {"topic": kind, "partition": offset % 3, "offset": offset},
        "kind": kind,
        "occurred_at": triaged::record::rfc3339(at),
        "decided_at": triaged::record::rfc3339(at + 250),
        "queue": queue,
        "category": "Error",
        "priority": priority,
        "confidence": 0.75,
        "routing": "human_verify",
        "decided_by": "fast",
        "alternatives": [{"label": "Other", "probability": 0.25}],
        "tags": ["a", "b"],
        "indicators": {"ips": ["203.0.113.7"]},
        "model": "logs@1",
        "text": format!("line \"{offset}\"\twith ünïcode"),
    })
    .to_string()
}

struct World {
    broker: Broker,
    clickhouse: ClickHouse,
}

impl World {
    fn new() -> World {
        let broker = Broker::start();
        broker.create_topic("queue-events", 2);
        broker.create_topic("dead-letters", 1);
        World { broker, clickhouse: ClickHouse::start() }
    }

    fn setup(&self) -> Setup {
        Setup::new(&self.broker.bootstrap(), "at_least_once")
            .with("clickhouse.url", &format!("'{}'", self.clickhouse.url()))
            .with("clickhouse.retry_deadline", "'1s'")
            // The events of these tests are older than the default.
            .with("clickhouse.events_retention", "'0s'")
            .with("tally.batch_records", "1000")
            .with("tally.batch_age", "'100ms'")
    }

    fn produce(&self, events: &[String]) {
        self.broker.produce("queue-events", events.iter().enumerate().map(|(key, event)| (key.to_string(), event)));
    }

    /// Waits until tally has committed so many messages of the events topic.
    #[track_caller]
    fn wait_committed(&self, messages: usize) {
        let watch = self.broker.watch_group("queue-events", GROUP);
        wait_until("tally has committed all", PATIENCE, || watch.committed() >= messages as i64);
    }

    /// Events by queue, as dashboards see them.
    fn counts(&self) -> BTreeMap<String, u64> {
        let text = self.clickhouse.query("SELECT queue, sum(events) FROM volumes_by_hour GROUP BY queue");
        text.lines()
            .map(|line| {
                let (queue, count) = line.split_once('\t').expect("two columns");
                (queue.to_owned(), count.parse().expect("a number"))
            })
            .collect()
    }
}

fn expected(events: &[String]) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for event in events {
        let event: QueueEvent<'_> = serde_json::from_str(event).expect("an event");
        *counts.entry(event.queue.into_owned()).or_default() += 1;
    }
    counts
}

#[test]
fn events_become_rows_and_volumes() {
    let world = World::new();
    let sent = events(1, 3_000);
    world.produce(&sent);
    let mut daemon = Daemon::start_roles("tally", &world.setup().toml());
    daemon.wait_ready();
    world.wait_committed(sent.len());
    assert_eq!(world.counts(), expected(&sent));
    for (sql, answer) in [
        ("SELECT count() FROM queue_events FINAL", "3000"),
        ("SELECT sum(events) FROM volumes_by_minute", "3000"),
        ("SELECT sum(events) FROM volumes_by_day", "3000"),
        (
            "SELECT text, ips, toUnixTimestamp64Milli(decided_at) - toUnixTimestamp64Milli(occurred_at), priority,
             alternatives FROM queue_events WHERE source_offset = 7",
            "line \"7\"\\twith ünïcode\t['203.0.113.7']\t250\tcritical\t[('Other',0.25)]",
        ),
    ] {
        assert_eq!(world.clickhouse.query(sql), answer, "{sql}");
    }
    assert_eq!(daemon.metric("triaged_outcomes_total", &["outcome=\"stored\"", "role=\"tally\""]), 3000.0);
    assert!(daemon.stop(PATIENCE).success());
}

#[test]
fn repeats_in_any_order_and_kills_count_once() {
    let world = World::new();
    let seed = seed("repeats_in_any_order_and_kills_count_once");
    let mut random = StdRng::seed_from_u64(seed);
    let sent = events(seed, 20_000);
    let mut twice: Vec<String> = sent.iter().chain(&sent).cloned().collect();
    twice.shuffle(&mut random);
    let setup = world.setup().static_member();
    let mut daemon = Daemon::start_roles("tally", &setup.toml());
    for part in twice.chunks(10_000) {
        world.produce(part);
        let stored = || daemon.metric("triaged_outcomes_total", &["outcome=\"stored\""]);
        let some = random.random_range(1.0..3_000.0);
        wait_until("tally is in the middle", PATIENCE, || stored() > some);
        daemon.kill();
        daemon.restart();
    }
    world.wait_committed(twice.len());
    assert_eq!(world.counts(), expected(&sent));
    assert_eq!(world.clickhouse.query("SELECT count() FROM queue_events FINAL"), sent.len().to_string());
    assert!(daemon.stop(PATIENCE).success());
}

#[test]
fn whatever_fails_around_an_insert_nothing_is_lost_or_counted_twice() {
    let world = World::new();
    let setup = world.setup().with("clickhouse.insert_timeout", "'2s'");
    let mut daemon = Daemon::start_roles("tally", &setup.toml());
    daemon.wait_ready();
    let sent = events(3, 14_000);
    let into = "INSERT INTO queue_events";
    let faults = [
        json!([{"match": into, "kind": "error", "code": 252, "times": 3}]),
        json!([{"match": into, "kind": "error", "code": 999, "status": 500, "times": 2}]),
        json!([{"match": into, "kind": "cut_before", "times": 2}]),
        json!([{"match": into, "kind": "cut_after", "times": 2}]),
        json!([{"match": into, "kind": "hang", "seconds": 4, "times": 1}]),
        json!([{"match": into, "kind": "delay", "seconds": 3, "times": 1}]),
    ];
    let mut produced = 0;
    for (part, fault) in sent.chunks(2_000).zip(faults) {
        world.clickhouse.faults(fault);
        world.produce(part);
        produced += part.len();
        world.wait_committed(produced);
    }
    world.clickhouse.clear_faults();
    world.produce(&sent[produced..]);
    world.wait_committed(sent.len());
    assert_eq!(world.counts(), expected(&sent));
    assert!(daemon.metric("triaged_store_failures_total", &["failure=\"retry\""]) >= 1.0);
    assert!(daemon.stop(PATIENCE).success());
}

#[test]
fn while_clickhouse_is_down_kafka_holds_the_work() {
    let mut world = World::new();
    let mut daemon = Daemon::start_roles("tally", &world.setup().toml());
    daemon.wait_ready();
    let sent = events(4, 6_000);
    world.produce(&sent[..3_000]);
    world.wait_committed(3_000);
    world.clickhouse.stop();
    world.produce(&sent[3_000..]);
    wait_until("readiness says so", PATIENCE, || {
        daemon.get("/health/ready").is_some_and(|(status, body)| status == 503 && body.contains("clickhouse"))
    });
    assert_eq!(world.broker.watch_group("queue-events", GROUP).committed(), 3_000);
    world.clickhouse.restart();
    world.wait_committed(sent.len());
    wait_until("it is ready again", PATIENCE, || daemon.ready());
    assert_eq!(world.counts(), expected(&sent));
    assert!(daemon.stop(PATIENCE).success());
}

#[test]
fn a_bad_row_in_ten_thousand_and_what_is_no_event_are_dead_letters() {
    let world = World::new();
    world.clickhouse.faults(json!([{"match": "INSERT INTO queue_events", "kind": "reject_rows_containing",
        "text": "line \"7531\"", "code": 469}]));
    let mut sent = events(5, 10_000);
    let broken = ["{\"event_id\":", "{}", "not json"].map(str::to_owned);
    sent.extend(broken.iter().cloned());
    world.produce(&sent);
    let setup = world.setup().with("tally.batch_records", "20000").with("tally.batch_age", "'2s'");
    let mut daemon = Daemon::start_roles("tally", &setup.toml());
    world.wait_committed(sent.len());
    let mut letters = world.broker.reader("dead-letters", Isolation::ReadCommitted);
    let letters = letters.drain();
    let mut reasons: Vec<&str> = letters.iter().filter_map(|letter| letter.header("triaged-reason")).collect();
    reasons.sort_unstable();
    assert_eq!(reasons, ["invalid_event", "invalid_event", "invalid_event", "refused_by_clickhouse"]);
    let refused = letters.iter().find(|letter| letter.header("triaged-reason") == Some("refused_by_clickhouse"));
    let refused = refused.expect("it is there");
    assert_eq!(refused.value, sent[7531].as_bytes(), "the original bytes");
    assert!(refused.header("triaged-error").is_some_and(|error| error.contains("Code: 469")));
    assert_eq!(world.clickhouse.query("SELECT count() FROM queue_events FINAL"), "9999");
    assert!(daemon.stop(PATIENCE).success());
}

#[test]
fn a_table_that_is_missing_is_waited_for() {
    let world = World::new();
    let mut daemon = Daemon::start_roles("tally", &world.setup().with("clickhouse.migrate", "false").toml());
    let sent = events(6, 50);
    world.produce(&sent);
    wait_until("readiness says so", PATIENCE, || {
        daemon.get("/health/ready").is_some_and(|(status, body)| status == 503 && body.contains("clickhouse"))
    });
    migrate(&world.setup(), &[]);
    world.wait_committed(sent.len());
    assert_eq!(world.counts(), expected(&sent));
    assert_eq!(world.broker.watch("dead-letters").high_watermark(), 0, "the rows were not to blame");
    assert!(daemon.stop(PATIENCE).success());
}

/// Runs `triaged migrate`; its standard output.
#[track_caller]
pub(crate) fn migrate(setup: &Setup, arguments: &[&str]) -> String {
    let folder = tempfile::tempdir().expect("the system has a temporary folder");
    let path = folder.path().join("triaged.toml");
    setup.write(&path);
    let path = path.to_str().expect("a plain path");
    let output = triaged(&[&["migrate", "--config", path], arguments].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn migrations_are_applied_once_by_several_at_a_time() {
    let clickhouse = ClickHouse::start();
    let setup = Setup::new("localhost:1", "at_least_once").with("clickhouse.url", &format!("'{}'", clickhouse.url()));
    let planned = migrate(&setup, &["--dry-run"]);
    assert!(planned.contains("CREATE TABLE IF NOT EXISTS queue_events"), "{planned}");
    assert_eq!(clickhouse.query("SHOW TABLES"), "", "a dry run changes nothing");
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| migrate(&setup, &[]));
        }
    });
    let migrations = planned.lines().filter(|line| line.starts_with("-- 0") && line.ends_with(".sql")).count();
    assert_eq!(clickhouse.query("SELECT count() FROM schema_migrations FINAL"), migrations.to_string());
    assert_eq!(migrate(&setup, &["--dry-run"]), "-- nothing is missing\n");
    let forever = setup.clone().with("clickhouse.events_retention", "'0s'");
    assert!(migrate(&forever, &["--dry-run"]).contains("REMOVE TTL"));
    migrate(&forever, &[]);
    let engine = clickhouse.query("SELECT engine_full FROM system.tables WHERE name = 'queue_events'");
    assert!(!engine.contains("TTL"), "{engine}");
    clickhouse.query("INSERT INTO schema_migrations (version, name, hash) VALUES (2, '0002_volumes.sql', 'other')");
    let folder = tempfile::tempdir().expect("the system has a temporary folder");
    let path = folder.path().join("triaged.toml");
    setup.write(&path);
    let output = triaged(&["migrate", "--config", path.to_str().expect("a plain path")]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && error.contains("0002_volumes.sql was applied with another content"), "{error}");
}

#[test]
fn a_cluster_gets_replicated_and_distributed_tables() {
    let clickhouse = ClickHouse::start_cluster("main");
    let setup = Setup::new("localhost:1", "at_least_once")
        .with("clickhouse.url", &format!("'{}'", clickhouse.url()))
        .with("clickhouse.events_retention", "'0s'")
        .with("clickhouse.cluster", "'main'");
    assert!(migrate(&setup, &["--dry-run"]).contains("ReplicatedReplacingMergeTree"));
    migrate(&setup, &[]);
    let store = VolumeStore::new(&Config::from_toml(&setup.toml()).expect("a configuration"));
    let sent = events(8, 500);
    insert(&store, &sent, 1);
    let total: u64 = volumes(&store, 3600).iter().filter(|volume| volume.queue == "*").map(|v| v.events).sum();
    assert_eq!(total, 500);
    assert_eq!(clickhouse.query("SELECT count() FROM queue_events_local"), "500");
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(work)
}

pub(crate) fn insert(store: &VolumeStore, events: &[String], times: usize) {
    let events: Vec<QueueEvent<'_>> =
        events.iter().map(|event| serde_json::from_str(event).expect("an event")).collect();
    let rows: Vec<EventRow<'_>> = events.iter().map(|event| EventRow::of(event).expect("a row")).collect();
    for _ in 0..times {
        block_on(store.insert_events(&rows)).expect("the store takes them");
    }
}

fn volumes(store: &VolumeStore, bucket: i64) -> Vec<Volume> {
    let query = VolumeQuery { from: START - 86_400, to: START + 86_400, bucket };
    block_on(store.volumes(query)).expect("the store answers")
}

/// Random events, repeated, shuffled and moved between queues: both stores answer the same.
#[test]
fn memory_and_clickhouse_give_the_same_answers() {
    let clickhouse = ClickHouse::start();
    let setup = Setup::new("localhost:1", "at_least_once").with("clickhouse.url", &format!("'{}'", clickhouse.url()));
    migrate(&setup, &[]);
    let seed = seed("memory_and_clickhouse_give_the_same_answers");
    let mut random = StdRng::seed_from_u64(seed);
    let server = VolumeStore::new(&Config::from_toml(&setup.toml()).expect("a configuration"));
    let memory = VolumeStore::Memory(MemoryStore::new(1_000_000).into());
    for round in 0..8 {
        let count = random.random_range(1..300);
        let sent: Vec<String> = (0..count)
            .map(|_| {
                let offset = random.random_range(0..400);
                let at = (START + random.random_range(-7200..7200)) * 1000 + random.random_range(0..1000);
                event(offset, QUEUES[random.random_range(0..QUEUES.len())], at)
            })
            .collect();
        for store in [&server, &memory] {
            insert(store, &sent, 1 + round % 2);
        }
        for bucket in [60, 300, 3600, 86_400] {
            let (found, expected) = (volumes(&server, bucket), volumes(&memory, bucket));
            assert_eq!(found, expected, "round {round}, buckets of {bucket} s");
            assert!(!found.is_empty());
        }
    }
}

/// The whole way: tickets and log lines to events to volumes.
#[test]
fn what_is_classified_is_counted() {
    let world = World::new();
    for topic in crate::workload::TOPICS {
        world.broker.create_topic(topic, 2);
    }
    world.broker.create_topic("escalations", 2);
    let workload = Workload::new(9, 4_000);
    workload.publish(&world.broker.bootstrap(), || {});
    let setup = world.setup().with("output.escalate", "false");
    let mut daemon = Daemon::start_roles("classify,tally", &setup.toml());
    let classified = world.broker.watch_group("logs", "triaged-classify");
    let tickets = world.broker.watch_group("tickets", "triaged-classify");
    wait_until("all are classified", PATIENCE, || {
        classified.committed() + tickets.committed() >= workload.len() as i64
    });
    let events = world.broker.watch("queue-events").high_watermark();
    world.wait_committed(events as usize);
    let counted: u64 = world.counts().values().sum();
    assert_eq!(counted, events as u64);
    let published = daemon.metric("triaged_outcomes_total", &["outcome=\"event\""]);
    assert_eq!(counted as f64, published);
    assert!(daemon.stop(PATIENCE).success());
}
