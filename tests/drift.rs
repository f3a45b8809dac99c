//! What no longer looks like what the models learned from, told to Kafka and to the store, once in a while.

use std::time::Duration;

use serde_json::{Value, json};
use triaged::record::rfc3339;

use crate::outcomes::{schema, valid};
use crate::peers::broker::Broker;
use crate::peers::clickhouse::ClickHouse;
use crate::peers::client::Isolation;
use crate::peers::daemon::Daemon;
use crate::peers::wait_until;
use crate::setup::Setup;

const PATIENCE: Duration = Duration::from_secs(120);

/// An event that a model decided, of a label that it knows as a rare one.
fn strange(offset: i64) -> String {
    let at = 1_767_225_600_000 + offset;
    json!({
        "event_id": format!("00000000-0000-5000-8000-{offset:012x}"),
        "source": {"topic": "logs", "partition": 0, "offset": offset},
        "kind": "log", "occurred_at": rfc3339(at), "decided_at": rfc3339(at + 1), "queue": "platform",
        "category": "Deprecation Warning", "priority": "low", "confidence": 0.5, "routing": "manual_triage",
        "decided_by": "fast",
    })
    .to_string()
}

#[test]
fn a_shift_is_published_once_until_it_has_cooled_down() {
    let (broker, clickhouse) = (Broker::start(), ClickHouse::start());
    for topic in ["queue-events", "feedback", "dead-letters", "drift"] {
        broker.create_topic(topic, 1);
    }
    let mut daemon = Daemon::start_roles(
        "tally",
        &Setup::new(&broker.bootstrap(), "exactly_once")
            .with("clickhouse.url", &format!("'{}'", clickhouse.url()))
            .with("clickhouse.events_retention", "'0s'")
            .with("tally.batch_age", "'50ms'")
            .with("tally.batch_records", "100")
            .with("drift.window", "1000")
            .with("drift.label_shift", "0.25")
            .with("drift.confidence_drop", "0.2")
            .with("drift.cooldown", "'1h'")
            .toml(),
    );
    daemon.wait_ready();
    let events = broker.watch_group("queue-events", "triaged-tally");
    let mut drift = broker.reader("drift", Isolation::ReadCommitted);
    // Too few to tell.
    broker.produce("queue-events", (0..150).map(|offset| ("", strange(offset))));
    wait_until("few are counted", PATIENCE, || events.committed() >= 150);
    assert!(drift.drain().is_empty());
    broker.produce("queue-events", (150..600).map(|offset| ("", strange(offset))));
    wait_until("all are counted", PATIENCE, || events.committed() >= 600);
    let schema = schema("drift.json");
    let told: Vec<(Value, Value)> = drift
        .wait_for(2, PATIENCE)
        .iter()
        .map(|read| {
            let value = read.json();
            valid(&schema, &value);
            assert_eq!(read.header("ce_type"), Some("dev.triaged.drift.v1"));
            assert!(value["value"].as_f64() > value["limit"].as_f64(), "{value}");
            assert!(value["events"].as_u64().is_some_and(|events| (200..=600).contains(&events)), "{value}");
            assert!(value["model"].as_str().is_some_and(|model| model.starts_with("logs@")), "{value}");
            (value["kind"].clone(), value["of"].clone())
        })
        .collect();
    assert_eq!(told, [(json!("log"), json!("labels")), (json!("log"), json!("confidence"))]);
    // It lasts, and nobody is told again.
    broker.produce("queue-events", (600..900).map(|offset| ("", strange(offset))));
    wait_until("the others are counted", PATIENCE, || events.committed() >= 900);
    assert_eq!(drift.drain().len(), 2);
    assert_eq!(
        clickhouse.query("SELECT queue FROM anomalies FINAL WHERE window = 'drift' ORDER BY queue"),
        "log/confidence\nlog/labels"
    );
    assert!(daemon.metric("triaged_label_shift", &["kind=\"log\""]) > 0.25);
    assert!(daemon.stop(PATIENCE).success());
}
