//! Faults that a real broker does not make on demand, injected into a mock cluster. After each, every record has its
//! outcome and every offset is committed.

use std::time::Duration;

use rdkafka::types::RDKafkaApiKey as Request;
use rdkafka::types::RDKafkaRespErr as Fault;
use triaged::generate::Truth;

use crate::outcomes::{Kind, Outcomes, Times, assert_conserved};
use crate::peers::client::Watch;
use crate::peers::mock::Mock;
use crate::peers::wait_until;
use crate::setup::{GROUP, Setup};
use crate::workload::{TOPICS, Workload};

const PATIENCE: Duration = Duration::from_secs(120);
const OUTPUTS: [&str; 3] = ["queue-events", "escalations", "dead-letters"];

struct Scene {
    mock: Mock,
    workload: Workload,
}

impl Scene {
    fn new(seed: u64, count: usize) -> Scene {
        let mock = Mock::start(1);
        for topic in TOPICS.into_iter().chain(OUTPUTS) {
            mock.create_topic(topic, 2);
        }
        let workload = Workload::new(seed, count);
        workload.publish(&mock.bootstrap(), || {});
        Scene { mock, workload }
    }

    fn setup(&self) -> Setup {
        Setup::new(&self.mock.bootstrap(), "at_least_once")
    }

    fn written(&self) -> impl Fn() -> i64 {
        let watches = OUTPUTS.map(|topic| Watch::open(&self.mock.bootstrap(), topic, "test-watch"));
        move || watches.iter().map(Watch::high_watermark).sum()
    }

    /// Waits until everything is committed, and checks that nothing is missing.
    fn settle(&self, times: Times) {
        let inputs = self.workload.locate(|topic| self.mock.reader(topic));
        let watches = TOPICS.map(|topic| (topic, Watch::open(&self.mock.bootstrap(), topic, GROUP)));
        wait_until("all offsets are committed", PATIENCE, || {
            watches.iter().all(|(topic, watch)| watch.offsets() == inputs.ends(topic))
        });
        self.check(times);
    }

    /// Checks that everything has its outcome.
    fn check(&self, times: Times) {
        let inputs = self.workload.locate(|topic| self.mock.reader(topic));
        let mut outcomes = Outcomes::open(|topic| self.mock.reader(topic));
        outcomes.drain();
        assert_conserved(&inputs, &outcomes, times);
    }
}

#[test]
fn produce_errors_that_pass_are_retried() {
    let scene = Scene::new(21, 3_000);
    scene.mock.fail_next(
        Request::Produce,
        &[
            Fault::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
            Fault::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS,
            Fault::RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,
            Fault::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS_AFTER_APPEND,
        ],
    );
    let _daemon = scene.setup().start();
    scene.settle(Times::AtLeastOnce);
}

/// Permission is taken away and given back: the records wait for it.
#[test]
fn produce_errors_of_a_topic_hold_the_offsets_until_they_are_gone() {
    let scene = Scene::new(22, 3_000);
    scene.mock.fail_next(Request::Produce, &[Fault::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED; 4]);
    let daemon = scene.setup().start();
    scene.settle(Times::AtLeastOnce);
    assert!(daemon.metric("triaged_retries_total", &[]) > 0.0, "the errors were never met");
    assert!(daemon.metric("triaged_publish_failures_total", &[]) > 0.0, "the errors were not counted");
}

/// The coordinator moves, is loading, and forgets the member, while records flow.
#[test]
fn coordinator_errors_cost_nothing() {
    let scene = Scene::new(23, 6_000);
    let written = scene.written();
    let _daemon = scene.setup().with("stream.batch_records", "50").start();
    wait_until("the daemon is at work", PATIENCE, || written() > 100);
    scene.mock.fail_next(
        Request::OffsetCommit,
        &[
            Fault::RD_KAFKA_RESP_ERR_NOT_COORDINATOR,
            Fault::RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS,
            Fault::RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,
        ],
    );
    scene.mock.fail_next(
        Request::Heartbeat,
        &[Fault::RD_KAFKA_RESP_ERR_NOT_COORDINATOR, Fault::RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID],
    );
    scene.settle(Times::AtLeastOnce);
}

#[test]
fn no_broker_means_not_ready_and_recovers_by_itself() {
    let scene = Scene::new(24, 6_000);
    let written = scene.written();
    let mut daemon = scene.setup().with("stream.batch_records", "50").start();
    wait_until("the daemon is at work", PATIENCE, || written() > 100);
    scene.mock.down();
    wait_until("the daemon says that it is not ready", PATIENCE, || !daemon.ready());
    scene.mock.up();
    daemon.wait_ready();
    scene.settle(Times::AtLeastOnce);
}

/// Every answer takes half a second: more is in flight, but never more than allowed.
#[test]
fn a_slow_broker_is_waited_for_within_bounds() {
    const MAX_IN_FLIGHT: f64 = 256.0 * 1024.0;
    let scene = Scene::new(25, 6_000);
    let daemon = scene
        .setup()
        .with("stream.max_in_flight_bytes", "'256KiB'")
        .with("stream.batch_bytes", "'32KiB'")
        .start_ready();
    scene.mock.round_trip(Duration::from_millis(500));
    let mut most: f64 = 0.0;
    wait_until("all records are counted", PATIENCE, || {
        most = most.max(daemon.metric("triaged_in_flight_bytes", &[]));
        daemon.metric("triaged_records_total", &[]) == scene.workload.len() as f64
    });
    scene.mock.round_trip(Duration::ZERO);
    scene.settle(Times::AtLeastOnce);
    // One batch may be taken before the limit is seen.
    assert!(most <= MAX_IN_FLIGHT + 64.0 * 1024.0, "{most} bytes were in flight");
}

/// What the broker will never accept must not hold up the rest, nor be lost.
#[test]
fn an_output_that_the_broker_refuses_becomes_a_dead_letter() {
    let scene = Scene::new(26, 500);
    scene.mock.fail_next(Request::Produce, &[Fault::RD_KAFKA_RESP_ERR_INVALID_RECORD]);
    let _daemon = scene.setup().start();
    let inputs = scene.workload.locate(|topic| scene.mock.reader(topic));
    let watches = TOPICS.map(|topic| (topic, Watch::open(&scene.mock.bootstrap(), topic, GROUP)));
    wait_until("all offsets are committed", PATIENCE, || {
        watches.iter().all(|(topic, watch)| watch.offsets() == inputs.ends(topic))
    });
    let mut outcomes = Outcomes::open(|topic| scene.mock.reader(topic));
    outcomes.drain();
    assert_eq!(outcomes.by_place.len(), scene.workload.len(), "a record is lost");
    let refused = |read: &crate::peers::client::Read| read.header("triaged-reason") == Some("refused_by_broker");
    let mut count = 0;
    for (place, found) in &outcomes.by_place {
        let (sent, input) = &inputs.0[place];
        for (kind, read) in found.iter().filter(|(_, read)| refused(read)) {
            assert_eq!((*kind, &read.value), (Kind::DeadLetter, &input.value));
            assert!(sent.truth != Truth::Unreadable || read.header("triaged-topic").is_some());
            count += 1;
        }
    }
    assert!(count > 0, "nothing was refused");
}

/// A transaction that cannot be committed is aborted and done again. The mock cluster does not keep the offsets of
/// transactions, so the daemon's own count says when it is through.
#[test]
fn errors_in_transactions_cost_nothing() {
    let scene = Scene::new(27, 3_000);
    let written = scene.written();
    let daemon = scene.setup().with("kafka.delivery", "'exactly_once'").with("stream.batch_records", "50").start();
    wait_until("the daemon is at work", PATIENCE, || written() > 100);
    for request in [Request::AddPartitionsToTxn, Request::TxnOffsetCommit, Request::EndTxn] {
        scene.mock.fail_next(
            request,
            &[
                Fault::RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS,
                Fault::RD_KAFKA_RESP_ERR_CONCURRENT_TRANSACTIONS,
                Fault::RD_KAFKA_RESP_ERR_NOT_COORDINATOR,
            ],
        );
    }
    scene.mock.fail_next(Request::Produce, &[Fault::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED]);
    wait_until("all records are committed", PATIENCE, || {
        daemon.metric("triaged_records_total", &[]) >= scene.workload.len() as f64
    });
    assert!(daemon.metric("triaged_retries_total", &[]) > 0.0, "no transaction failed");
    scene.check(Times::AtLeastOnce);
}
