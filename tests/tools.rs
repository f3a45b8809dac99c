//! The commands that talk to a broker: `generate --kafka` and `replay`, around a daemon that makes dead letters.

use std::time::Duration;

use crate::peers::broker::Broker;
use crate::peers::client::{Isolation, Read};
use crate::peers::daemon::triaged;
use crate::peers::wait_until;
use crate::setup::{GROUP, Setup};
use crate::workload::TOPICS;

const PATIENCE: Duration = Duration::from_secs(120);
const GENERATED: usize = 400;

/// What makes a record the same one again: topic, key, value and Kafka timestamp.
type Identity = (String, Option<Vec<u8>>, Vec<u8>, i64);

fn json(arguments: &[&str]) -> serde_json::Value {
    let output = triaged(arguments);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {error}");
    serde_json::from_slice(&output.stdout).expect("--json gives JSON")
}

fn replayed(summary: &serde_json::Value) -> u64 {
    let by_reason = summary["replayed"].as_object().expect("counts by reason");
    by_reason.values().map(|count| count.as_u64().expect("a count")).sum()
}

fn read(broker: &Broker, topic: &str) -> Vec<Read> {
    broker.reader(topic, Isolation::ReadUncommitted).drain().to_vec()
}

fn identities<'r>(topic: &str, records: impl IntoIterator<Item = &'r Read>) -> Vec<Identity> {
    let identity = |record: &Read| (topic.to_owned(), record.key.clone(), record.value.clone(), record.timestamp);
    records.into_iter().map(identity).collect()
}

#[test]
fn dead_letters_go_back_to_their_topics_as_they_were() {
    let broker = Broker::start();
    for topic in TOPICS.into_iter().chain(["queue-events", "escalations", "dead-letters"]) {
        broker.create_topic(topic, 2);
    }
    let setup = Setup::new(&broker.bootstrap(), "at_least_once")
        .with("model.ticket", "''")
        .with("model.log", "''")
        .with("kafka.properties.\"session.timeout.ms\"", "6000");
    let folder = tempfile::tempdir().expect("the system has a temporary folder");
    let path = folder.path().join("triaged.toml");
    setup.write(&path);
    let config = path.to_str().expect("a readable path");

    let count = GENERATED.to_string();
    let generate =
        ["generate", "--kafka", "--count", &count, "--broken", "0.2", "--tickets", "0.5", "--config", config];
    let generated = triaged(&generate);
    assert!(generated.status.success(), "{}", String::from_utf8_lossy(&generated.stderr));
    let originals: Vec<Identity> =
        TOPICS.into_iter().flat_map(|topic| identities(topic, &read(&broker, topic))).collect();
    assert_eq!(originals.len(), GENERATED);

    let mut daemon = setup.start_ready();
    wait_until("all records are committed", PATIENCE, || {
        let committed = |topic| broker.watch_group(topic, GROUP).offsets().values().sum::<i64>();
        TOPICS.into_iter().map(committed).sum::<i64>() == GENERATED as i64
    });
    assert!(daemon.stop(PATIENCE).success());
    let dead_letters = read(&broker, "dead-letters");
    let dead = dead_letters.len() as u64;
    assert!(dead > 0 && dead_letters.iter().all(|letter| letter.header("triaged-reason").is_some()));

    let dry_run = json(&["replay", "--dry-run", "--json", "--config", config]);
    assert_eq!(replayed(&dry_run), dead);
    assert_eq!(replayed(&json(&["replay", "--limit", "3", "--json", "--config", config])), 3);
    assert_eq!(replayed(&json(&["replay", "--json", "--config", config])), dead - 3);
    assert_eq!(replayed(&json(&["replay", "--json", "--config", config])), 0, "a second replay finds nothing");

    let mut expected = originals.clone();
    for letter in &dead_letters {
        let header = |name| letter.header(name).expect("a dead letter says where it comes from");
        let timestamp = header("triaged-timestamp").parse().expect("milliseconds");
        let original = (header("triaged-topic").to_owned(), letter.key.clone(), letter.value.clone(), timestamp);
        assert!(originals.contains(&original), "a dead letter holds the original");
        expected.push(original);
    }
    let mut found = Vec::new();
    for topic in TOPICS {
        let records = read(&broker, topic);
        assert!(records.iter().flat_map(|record| &record.headers).all(|(name, _)| !name.starts_with("triaged-")));
        found.extend(identities(topic, &records));
    }
    expected.sort();
    found.sort();
    assert_eq!(found.len(), expected.len());
    // Not `assert_eq!`: it would print hundreds of records.
    assert!(found == expected, "what was put back differs from the originals");
}

#[test]
fn a_broker_that_is_not_there_is_a_failure_and_not_a_hang() {
    let folder = tempfile::tempdir().expect("the system has a temporary folder");
    let path = folder.path().join("triaged.toml");
    // Port 1 of this machine: nobody listens there.
    Setup::new("127.0.0.1:1", "at_least_once").write(&path);
    let output = triaged(&["replay", "--config", path.to_str().expect("a readable path")]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("dead-letters"), "{output:?}");
}
