//! Tickets and log lines in; events, escalations and dead letters out, each checked by `outcomes` for its schema and
//! headers.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::outcomes::{Kind, Outcomes, Times, assert_conserved};
use crate::peers::broker::Broker;
use crate::peers::client::Isolation;
use crate::setup::Setup;
use crate::workload::{Place, TOPICS, Workload};

const PATIENCE: Duration = Duration::from_secs(120);
const OUTPUTS: [&str; 3] = ["queue-events", "escalations", "dead-letters"];

fn broker() -> Broker {
    let broker = Broker::start();
    for topic in TOPICS.into_iter().chain(OUTPUTS) {
        broker.create_topic(topic, 2);
    }
    broker
}

fn outcomes(broker: &Broker) -> Outcomes {
    Outcomes::open(|topic| broker.reader(topic, Isolation::ReadCommitted))
}

#[test]
fn every_record_gets_its_outcome_in_both_deliveries() {
    for delivery in ["at_least_once", "exactly_once"] {
        let broker = broker();
        let workload = Workload::new(1, 5_000);
        workload.publish(&broker.bootstrap(), || {});
        let mut daemon = Setup::new(&broker.bootstrap(), delivery).start_ready();
        let mut outcomes = outcomes(&broker);
        outcomes.wait_for(workload.len(), PATIENCE);
        assert!(daemon.stop(PATIENCE).success());
        outcomes.drain();
        let inputs = workload.locate(|topic| broker.reader(topic, Isolation::ReadUncommitted));
        assert_conserved(&inputs, &outcomes, Times::Once);
        for kind in [Kind::Event, Kind::Escalation, Kind::DeadLetter] {
            assert!(outcomes.count(kind) > 0, "{delivery}: there is no {kind:?}");
        }
    }
}

/// Event id by place.
fn ids(outcomes: &Outcomes) -> BTreeMap<Place, Vec<String>> {
    let id = |value: serde_json::Value| value["event_id"].as_str().expect("an event has an id").to_owned();
    let mut ids: BTreeMap<Place, Vec<String>> = BTreeMap::new();
    for (place, found) in &outcomes.by_place {
        let of_place = found.iter().filter(|(kind, _)| *kind == Kind::Event).map(|(_, read)| id(read.json()));
        ids.entry(place.clone()).or_default().extend(of_place);
    }
    ids
}

#[test]
fn a_replay_gives_the_same_event_ids() {
    let broker = broker();
    let workload = Workload::new(2, 2_000);
    workload.publish(&broker.bootstrap(), || {});
    // Without escalation every readable record becomes an event.
    let setup = Setup::new(&broker.bootstrap(), "at_least_once").with("output.escalate", "false");
    let mut outcomes = outcomes(&broker);

    let mut daemon = setup.start_ready();
    outcomes.wait_for(workload.len(), PATIENCE);
    assert!(daemon.stop(PATIENCE).success());
    outcomes.drain();
    let first = ids(&outcomes);
    let before = outcomes.total();

    // Another group reads everything again.
    let mut daemon = setup.with("kafka.group_prefix", "'again'").start_ready();
    outcomes.wait_total(before * 2, PATIENCE);
    assert!(daemon.stop(PATIENCE).success());
    outcomes.drain();
    for (place, ids) in ids(&outcomes) {
        let expected = [first[&place].clone(), first[&place].clone()].concat();
        assert_eq!(ids, expected, "{place:?}");
    }
}

#[test]
fn a_queue_may_have_a_topic_of_its_own() {
    let broker = broker();
    broker.create_topic("for-soc", 1);
    let text = |n: usize| format!("sshd[{n}]: Failed password for root from 203.0.113.{n} port 22 ssh2");
    let rule = r#"
[[rule]]
id = "ssh-failures"
description = "Failed SSH logins"
kind = "log"
any = ["Failed password"]
queue = "soc"
priority = "high"
match = ["sshd[1]: Failed password for root from 203.0.113.9 port 22 ssh2"]
no_match = ["sshd[1]: Accepted password for root from 203.0.113.9 port 22 ssh2"]
"#;
    let folder = tempfile::tempdir().expect("the system has a temporary folder");
    let path = folder.path().join("rules.toml");
    std::fs::write(&path, rule).expect("it can be written");
    broker.produce("logs", (1..=20).map(|n| ("", text(n))));
    let mut daemon = Setup::new(&broker.bootstrap(), "at_least_once")
        .with("rules.files", &format!("['{}']", path.display()))
        .with("output.topics.soc", "'for-soc'")
        .start_ready();
    let mut reader = broker.reader("for-soc", Isolation::ReadCommitted);
    for read in reader.wait_for(20, PATIENCE) {
        let event = read.json();
        assert_eq!((&event["queue"], &event["decided_by"]), (&"soc".into(), &"rule:ssh-failures".into()));
        assert_eq!(event["priority"], "high");
    }
    assert!(daemon.stop(PATIENCE).success());
    assert_eq!(broker.watch("queue-events").high_watermark(), 0);
}
