//! From what people say to what the store knows: feedback through Kafka into ClickHouse, reviews, claims, and both stores
//! giving the same answers.

use std::collections::BTreeSet;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use triaged::config::Config;
use triaged::feedback::{Desk, FeedbackSubmission, ReviewQuery};
use triaged::record::{Feedback, QueueEvent, Routing, SourcePosition};
use triaged::volumes::{Claimed, FeedbackRow, JudgementQuery, MemoryStore, ReviewFilter, StoredEvent, VolumeStore};
use uuid::Uuid;

use crate::peers::broker::Broker;
use crate::peers::clickhouse::ClickHouse;
use crate::peers::client::Isolation;
use crate::peers::daemon::Daemon;
use crate::peers::wait_until;
use crate::setup::{Setup, seed};
use crate::volumes::{event, events, insert, migrate};

const PATIENCE: Duration = Duration::from_secs(120);
/// 2026-01-01T00:00:00Z.
const START_MS: i64 = 1_767_225_600_000;
const LEASE: Duration = Duration::from_secs(60);

pub(crate) struct World {
    pub(crate) broker: Broker,
    pub(crate) clickhouse: ClickHouse,
}

impl World {
    pub(crate) fn new() -> World {
        let broker = Broker::start();
        for topic in ["queue-events", "feedback"] {
            broker.create_topic(topic, 2);
        }
        broker.create_topic("dead-letters", 1);
        World { broker, clickhouse: ClickHouse::start() }
    }

    pub(crate) fn setup(&self) -> Setup {
        Setup::new(&self.broker.bootstrap(), "at_least_once")
            .with("clickhouse.url", &format!("'{}'", self.clickhouse.url()))
            .with("clickhouse.events_retention", "'0s'")
            .with("tally.batch_age", "'100ms'")
            .with("tally.batch_records", "300")
    }
}

/// A store on ClickHouse's engine with its tables.
pub(crate) fn store(clickhouse: &ClickHouse) -> VolumeStore {
    let setup = Setup::new("localhost:1", "at_least_once")
        .with("clickhouse.url", &format!("'{}'", clickhouse.url()))
        .with("clickhouse.events_retention", "'0s'");
    migrate(&setup, &[]);
    VolumeStore::new(&Config::from_toml(&setup.toml()).expect("a configuration"))
}

pub(crate) fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(work)
}

fn id(offset: i64) -> Uuid {
    format!("00000000-0000-5000-8000-{offset:012x}").parse().expect("a UUID")
}

pub(crate) fn feedback_row(feedback: &serde_json::Value, offset: i64) -> FeedbackRow {
    let text = feedback.to_string();
    let feedback: Feedback<'_> = serde_json::from_str(&text).expect("feedback");
    let place = SourcePosition { topic: "feedback".into(), partition: 0, offset };
    FeedbackRow::of(&feedback, &place, START_MS + offset).expect("a row")
}

fn everything(reviewer: &str) -> ReviewFilter {
    ReviewFilter {
        queue: None,
        kind: None,
        routings: Routing::ALL.to_vec(),
        from: 0,
        to: i64::MAX / 2,
        has_text: None,
        reviewer: reviewer.to_owned(),
    }
}

#[test]
fn feedback_arrives_once_whatever_happens_on_the_way() {
    let world = World::new();
    let seed = seed("feedback_arrives_once_whatever_happens_on_the_way");
    let mut random = StdRng::seed_from_u64(seed);
    let known = events(seed, 500);
    world.broker.produce("queue-events", known.iter().enumerate().map(|(key, event)| (key.to_string(), event)));
    let said: Vec<String> = (0..2_000_i64)
        .map(|number| {
            // Half of it is what a ticket system knows, half what the review page writes.
            let event_id = id(number % 500);
            match number % 2 {
                0 => json!({"event_id": event_id, "corrected_queue": "identity", "feedback_id": Uuid::from_u128(number as u128)}),
                _ => json!({"event_id": event_id, "feedback_id": Uuid::from_u128(number as u128), "correct": true,
                    "predicted_queue": "soc", "given_by": "ada", "difficulty": 1 + number % 5, "text": "a \"text\""}),
            }
            .to_string()
        })
        .collect();
    let broken = [
        "{}",
        "no json",
        r#"{"event_id":"00000000-0000-5000-8000-000000000001"}"#,
        r#"{"event_id":"00000000-0000-5000-8000-000000000001","correct":true,"difficulty":9}"#,
    ];
    let mut daemon = Daemon::start_roles("tally", &world.setup().static_member().toml());
    daemon.wait_ready();
    for part in said.chunks(700) {
        // Sent twice, and the daemon dies in the middle.
        for _ in 0..2 {
            world.broker.produce("feedback", part.iter().map(|text| ("", text)));
        }
        let some = random.random_range(1.0..200.0);
        wait_until("tally is in the middle", PATIENCE, || {
            daemon.metric("triaged_outcomes_total", &["outcome=\"stored\""]) > some
        });
        daemon.kill();
        daemon.restart();
    }
    world.broker.produce("feedback", broken.iter().map(|text| ("", text)));
    let watch = world.broker.watch_group("feedback", "triaged-tally");
    wait_until("tally has committed all", PATIENCE, || watch.committed() >= (2 * said.len() + broken.len()) as i64);
    assert_eq!(world.clickhouse.query("SELECT count(), uniqExact(event_id) FROM feedback FINAL"), "2000\t500");
    assert_eq!(
        world.clickhouse.query("SELECT countIf(correct = 'yes'), countIf(difficulty > 0) FROM feedback FINAL"),
        "1000\t1000"
    );
    let mut letters = world.broker.reader("dead-letters", Isolation::ReadCommitted);
    let letters = letters.drain();
    let reasons: BTreeSet<&str> = letters.iter().filter_map(|letter| letter.header("triaged-reason")).collect();
    let values: BTreeSet<&[u8]> = letters.iter().map(|letter| letter.value.as_slice()).collect();
    assert_eq!((reasons, values), (["invalid_feedback"].into(), broken.iter().map(|text| text.as_bytes()).collect()));
    let watch = world.broker.watch_group("queue-events", "triaged-tally");
    wait_until("the events are counted too", PATIENCE, || watch.committed() >= 500);
    assert_eq!(world.clickhouse.query("SELECT count() FROM queue_events FINAL"), "500");
    assert!(daemon.stop(PATIENCE).success());
}

/// A person's answer: from the desk through Kafka and tally, until nobody is asked any more.
#[test]
fn an_answer_takes_its_event_off_the_list() {
    let world = World::new();
    let sent: Vec<String> = (0..30).map(|offset| event(offset, "soc", START_MS + offset)).collect();
    world.broker.produce("queue-events", sent.iter().map(|event| ("", event)));
    let config = Config::from_toml(&world.setup().toml()).expect("a configuration");
    let mut daemon = Daemon::start_roles("tally", &world.setup().toml());
    daemon.wait_ready();
    block_on(async {
        let desk = Desk::open(&config, VolumeStore::new(&config)).expect("rules, models and a producer");
        let query =
            ReviewQuery { from: Some("2025-12-31T00:00:00Z".into()), limit: Some(200), ..ReviewQuery::default() };
        let waiting = async || desk.reviews(&query, "ada").await.expect("a page").events;
        wait_for(async || waiting().await.len() == 30).await;
        let first = waiting().await.remove(0);
        assert_eq!(first.text.as_deref(), Some("line \"0\"\twith ünïcode"));
        desk.claim(first.event_id, "ada").await.expect("hers");
        let submission = FeedbackSubmission {
            event_id: first.event_id,
            corrected_queue: Some("identity".to_owned()),
            ..FeedbackSubmission::default()
        };
        let receipt = desk.submit(&submission, "ada").await.expect("written");
        assert!(!receipt.correct);
        let confirmations: Vec<FeedbackSubmission> = (1..10)
            .map(|offset| FeedbackSubmission {
                event_id: id(offset),
                correct: Some(true),
                ..FeedbackSubmission::default()
            })
            .collect();
        let answer = desk.submit_all(&confirmations, "bob").await.expect("an answer");
        assert_eq!(answer.accepted, 9, "{answer:?}");
        wait_for(async || waiting().await.len() == 20).await;
        assert!(waiting().await.iter().all(|event| event.source.offset >= 10));
        assert!(desk.queues().await.expect("queues").queues.contains(&"soc".to_owned()));
    });
    let row = world.clickhouse.query(
        "SELECT predicted_queue, corrected_queue, correct, given_by, text FROM feedback FINAL WHERE given_by = 'ada'",
    );
    assert_eq!(row, "soc\tidentity\tno\tada\tline \"0\"\\twith ünïcode");
    assert!(!daemon.log().contains("ünïcode"), "no text in the log");
    assert!(daemon.stop(PATIENCE).success());
}

/// Waits for a condition that asks the store.
async fn wait_for(condition: impl AsyncFn() -> bool) {
    let end = std::time::Instant::now() + PATIENCE;
    while !condition().await {
        assert!(std::time::Instant::now() < end, "gave up after {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[test]
fn of_ten_claims_at_once_one_wins() {
    let clickhouse = ClickHouse::start();
    let store = store(&clickhouse);
    let memory = VolumeStore::Memory(MemoryStore::new(1_000).into());
    for store in [&store, &memory] {
        for round in 0..5 {
            let event_id = id(round);
            let outcomes: Vec<Claimed> = block_on(async {
                let mut claims = tokio::task::JoinSet::new();
                for number in 0..10 {
                    let store = store.clone();
                    claims.spawn(async move {
                        store.claim(event_id, &format!("reviewer {number}"), LEASE).await.expect("an answer")
                    });
                }
                claims.join_all().await
            });
            let winners = outcomes.iter().filter(|outcome| matches!(outcome, Claimed::Won { .. })).count();
            assert_eq!(winners, 1, "round {round}: {outcomes:?}");
        }
        block_on(async {
            let claim = async |reviewer: &str| store.claim(id(77), reviewer, LEASE).await.expect("an answer");
            let Claimed::Won { until } = claim("ada").await else { panic!("nobody else asked") };
            assert_eq!(claim("ada").await, Claimed::Won { until }, "who has it keeps it");
            assert_eq!(claim("bob").await, Claimed::Taken { by: "ada".to_owned(), until });
            store.release(id(77), "bob").await.expect("nothing of his");
            assert!(matches!(claim("bob").await, Claimed::Taken { .. }));
            store.release(id(77), "ada").await.expect("released");
            assert!(matches!(claim("bob").await, Claimed::Won { .. }));
            let short = store.claim(id(78), "ada", Duration::from_millis(300)).await.expect("an answer");
            assert!(matches!(short, Claimed::Won { .. }));
            wait_for(async || matches!(store.claim(id(78), "bob", LEASE).await, Ok(Claimed::Won { .. }))).await;
        });
    }
}

/// Random events, feedback and claims: both stores answer the same.
#[test]
fn both_stores_answer_the_same_about_feedback() {
    let clickhouse = ClickHouse::start();
    let server = store(&clickhouse);
    let memory = VolumeStore::Memory(MemoryStore::new(1_000_000).into());
    let seed = seed("both_stores_answer_the_same_about_feedback");
    let mut random = StdRng::seed_from_u64(seed);
    let sent: Vec<String> = (0..200_i64)
        .map(|offset| {
            let mut event: serde_json::Value =
                serde_json::from_str(&event(offset, ["soc", "identity"][offset as usize % 2], START_MS + offset))
                    .expect("JSON");
            event["confidence"] = json!(random.random_range(0..=16) as f32 / 16.0);
            event["routing"] = json!(Routing::ALL[random.random_range(0..3)]);
            event["reasons"] = json!([{"feature": "word line", "weight": 0.5}]);
            if offset % 7 == 0 {
                event.as_object_mut().expect("an object").remove("text");
            }
            event.to_string()
        })
        .collect();
    let said: Vec<FeedbackRow> = (0..120_i64)
        .map(|number| {
            let event_id = id(random.random_range(0..220));
            let feedback = match number % 3 {
                0 => json!({"event_id": event_id, "corrected_queue": "soc"}),
                1 => json!({"event_id": event_id, "correct": random.random_bool(0.5), "given_by": "ada"}),
                _ => json!({"event_id": event_id, "predicted_queue": "soc", "corrected_queue": "identity", "kind": "log"}),
            };
            feedback_row(&feedback, number)
        })
        .collect();
    for store in [&server, &memory] {
        insert(store, &sent, 2);
        block_on(async {
            for rows in [&said[..], &said[..50]] {
                store.insert_feedback(rows).await.expect("the store takes them");
            }
            for number in 190..195 {
                store.claim(id(number), "ada", LEASE).await.expect("an answer");
            }
        });
    }
    let mut seen = 0;
    for filter in [
        everything("ada"),
        everything("bob"),
        ReviewFilter { queue: Some("soc".into()), ..everything("bob") },
        ReviewFilter { kind: Some(triaged::record::Kind::Ticket), ..everything("bob") },
        ReviewFilter { has_text: Some(false), ..everything("bob") },
        ReviewFilter { has_text: Some(true), routings: vec![Routing::ManualTriage], ..everything("bob") },
        ReviewFilter { from: START_MS + 50, to: START_MS + 100, ..everything("bob") },
    ] {
        let mut after = None;
        loop {
            let (found, next) = block_on(server.reviews(&filter, 17, after)).expect("the store answers");
            let (expected, next_expected) = block_on(memory.reviews(&filter, 17, after)).expect("memory answers");
            assert_eq!((&found, next), (&expected, next_expected), "{filter:?} after {after:?}");
            assert!(found.is_sorted_by(|a: &QueueEvent<'_>, b| a.confidence <= b.confidence));
            seen += found.len();
            after = next;
            if after.is_none() {
                break;
            }
        }
    }
    assert!(seen > 200, "{seen} events in all answers");
    for with_text in [true, false] {
        let query = JudgementQuery { from: START_MS + 5, to: START_MS + 110, with_text, limit: 60 };
        let (found, expected) = (block_on(server.judgements(&query)), block_on(memory.judgements(&query)));
        assert_eq!(found.expect("the store answers"), expected.expect("memory answers"));
    }
    let confidence = |store: &VolumeStore| block_on(store.confidence(START_MS, START_MS + 150)).expect("an answer");
    assert_eq!(confidence(&server), confidence(&memory));
    let stored = |store: &VolumeStore| -> Option<StoredEvent> { block_on(store.event(id(3))).expect("an answer") };
    assert_eq!(stored(&server), stored(&memory));
    assert_eq!(stored(&server).expect("it is there").reasons, [("word line".to_owned(), 0.5)]);
    assert_eq!(block_on(server.queues()).expect("an answer"), block_on(memory.queues()).expect("an answer"));
}
