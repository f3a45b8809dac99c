//! What an operator sees: readiness and metrics, orderly and hurried stops, and a configuration that is refused.

use std::time::Duration;

use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use crate::outcomes::{Kind, Outcomes};
use crate::peers::broker::Broker;
use crate::peers::client::Isolation;
use crate::peers::daemon::{Daemon, triaged, triaged_with};
use crate::peers::mock::Mock;
use crate::peers::wait_until;
use crate::setup::{GROUP, Setup};
use crate::workload::{TOPICS, Workload};

const PATIENCE: Duration = Duration::from_secs(120);
const OUTPUTS: [&str; 3] = ["queue-events", "escalations", "dead-letters"];

fn broker() -> Broker {
    let broker = Broker::start();
    for topic in TOPICS.into_iter().chain(OUTPUTS) {
        broker.create_topic(topic, 2);
    }
    broker
}

#[test]
fn metrics_add_up_to_what_was_sent() {
    let broker = broker();
    let workload = Workload::new(11, 3_000);
    workload.publish(&broker.bootstrap(), || {});
    let mut daemon = Setup::new(&broker.bootstrap(), "at_least_once").start_ready();
    let mut outcomes = Outcomes::open(|topic| broker.reader(topic, Isolation::ReadUncommitted));
    outcomes.wait_for(workload.len(), PATIENCE);

    wait_until("all records are counted", PATIENCE, || {
        daemon.metric("triaged_records_total", &[]) == workload.len() as f64
    });
    for (kind, label) in [(Kind::Event, "event"), (Kind::Escalation, "escalation"), (Kind::DeadLetter, "dead_letter")] {
        let counted = daemon.metric("triaged_outcomes_total", &[&format!("outcome=\"{label}\"")]);
        assert_eq!(counted, outcomes.count(kind) as f64, "{label}");
        assert!(counted > 0.0, "the workload has none: {label}");
    }
    assert_eq!(daemon.metric("triaged_dead_letters_total", &[]), outcomes.count(Kind::DeadLetter) as f64);
    assert_eq!(daemon.metric("triaged_build_info", &[env!("CARGO_PKG_VERSION")]), 1.0);
    assert_eq!(daemon.metric("triaged_role_ready", &["role=\"classify\""]), 1.0);
    assert!(daemon.stop(PATIENCE).success());
}

#[test]
fn sigterm_drains_and_exits_with_success() {
    let broker = broker();
    let workload = Workload::new(12, 20_000);
    workload.publish(&broker.bootstrap(), || {});
    let mut daemon = Setup::new(&broker.bootstrap(), "at_least_once").start();
    let outputs = OUTPUTS.map(|topic| broker.watch(topic));
    let written = || outputs.iter().map(|watch| watch.high_watermark()).sum::<i64>();
    wait_until("the daemon is at work", PATIENCE, || written() > 500);
    assert_eq!(daemon.stop(PATIENCE).code(), Some(0));

    // Nothing is half done: each record that was taken has its outcome, and its offset is committed.
    let committed: i64 = TOPICS.iter().map(|topic| broker.watch_group(topic, GROUP).committed()).sum();
    assert_eq!(written(), committed);
}

/// A daemon whose outputs are never acknowledged: what is in flight cannot be finished.
fn stuck(mock: &Mock, drain_deadline: &str) -> Daemon {
    for topic in TOPICS.into_iter().chain(OUTPUTS) {
        mock.create_topic(topic, 2);
    }
    Workload::new(13, 500).publish(&mock.bootstrap(), || {});
    mock.fail_next(RDKafkaApiKey::Produce, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS; 10_000]);
    let setup = Setup::new(&mock.bootstrap(), "at_least_once");
    let daemon = setup.with("stream.drain_deadline", &format!("'{drain_deadline}'")).start();
    wait_until("something is in flight", PATIENCE, || daemon.metric("triaged_in_flight_batches", &[]) > 0.0);
    daemon
}

#[test]
fn health_says_what_the_daemon_says() {
    // Port 1 of this machine: nobody listens there, so that the role is never ready.
    let daemon = Daemon::start(&Setup::new("127.0.0.1:1", "at_least_once").toml());
    wait_until("it answers", PATIENCE, || daemon.get("/health/live").is_some());
    let health = |listen: &str, arguments: &[&str]| {
        let variables = [("TRIAGED_OPS__LISTEN".to_owned(), listen.to_owned())];
        let output = triaged_with(&[&["health"], arguments].concat(), &variables);
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.code(), said)
    };
    let address = daemon.address();
    let everywhere = address.replace("127.0.0.1", "0.0.0.0");
    let (code, said) = health(&everywhere, &[]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("\"not_ready\"") && said.contains("classify") && said.contains("503"), "{said}");
    let (code, said) = health(&address, &["--live"]);
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = health("127.0.0.1:1", &["--live"]);
    assert!(code == Some(1) && said.contains("no answer from 127.0.0.1:1"), "{said}");
    let (code, said) = health("127.0.0.1:0", &[]);
    assert!(code == Some(2) && said.contains("nobody to ask"), "{said}");
}

#[test]
fn a_second_signal_exits_at_once() {
    let mock = Mock::start(1);
    let mut daemon = stuck(&mock, "5m");
    daemon.terminate();
    wait_until("the daemon drains", PATIENCE, || {
        daemon.get("/health/ready").is_some_and(|(status, body)| status == 503 && body.contains("draining"))
    });
    assert_eq!(daemon.stop(PATIENCE).code(), Some(143));
}

#[test]
fn a_drain_that_outlasts_its_deadline_names_the_role() {
    let mock = Mock::start(1);
    let mut daemon = stuck(&mock, "1s");
    assert_eq!(daemon.stop(PATIENCE).code(), Some(1));
    let log = daemon.log();
    assert!(log.contains("classify") && log.contains("not finished within"), "{log}");
}

#[test]
fn a_faulty_configuration_refuses_the_start_and_lists_every_fault() {
    let folder = tempfile::tempdir().expect("the system has a temporary folder");
    let path = folder.path().join("bad.toml");
    let text = r#"
[kafka]
delivery = "sometimes"
[kafka.properties]
"acks" = 0
"enable.auto.commit" = true
[stream]
batch_bytes = "many"
batch_recods = 10
"#;
    std::fs::write(&path, text).expect("it can be written");
    let output = triaged(&["run", "--config", path.to_str().expect("the path is UTF-8")]);
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr);
    for key in ["kafka.delivery", "acks", "enable.auto.commit", "stream.batch_bytes", "batch_recods"] {
        assert!(said.contains(key), "{key} is not named:\n{said}");
    }
}
