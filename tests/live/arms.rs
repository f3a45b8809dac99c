//! A challenger beside the model that decides: in the shadow, in a split, and by what people say.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use triaged::config::Config;
use triaged::record::{QueueEvent, rfc3339};
use triaged::volumes::{EventRow, MemoryStore, VolumeStore};

use super::{PATIENCE, World, train};
use crate::feedback::{block_on, feedback_row, store};
use crate::peers::broker::Broker;
use crate::peers::clickhouse::ClickHouse;
use crate::peers::client::Isolation;
use crate::peers::daemon::{Daemon, triaged};
use crate::peers::wait_until;
use crate::setup::Setup;
use crate::workload::{TOPICS, Workload};

/// All events of a topic by the place of their record, without what differs from run to run.
fn events(broker: &Broker, topic: &str) -> BTreeMap<(String, i64), Value> {
    let mut reader = broker.reader(topic, Isolation::ReadUncommitted);
    let read = reader.drain().iter().map(|read| {
        let mut event = read.json();
        event.as_object_mut().expect("an object").remove("decided_at");
        let source = event["source"].clone();
        ((source["topic"].as_str().expect("a topic").to_owned(), source["offset"].as_i64().expect("an offset")), event)
    });
    read.collect()
}

fn run_to_the_end(world: &World, setup: &Setup, prefix: &str) -> Daemon {
    let topics = ["events", "dead"].map(|name| format!("{prefix}-{name}"));
    topics.iter().for_each(|topic| world.broker.create_topic(topic, 1));
    let daemon = setup
        .clone()
        .with("kafka.group_prefix", &format!("'{prefix}'"))
        .with("output.events", &format!("'{}'", topics[0]))
        .with("output.dead_letters", &format!("'{}'", topics[1]))
        .start_ready();
    for topic in TOPICS {
        let group = world.broker.watch_group(topic, &format!("{prefix}-classify"));
        let end = world.broker.watch(topic).high_watermark();
        wait_until("all records are decided", PATIENCE, || group.committed() >= end);
    }
    daemon
}

#[test]
fn a_challenger_in_the_shadow_decides_nothing_and_says_how_often_it_agrees() {
    let world = World::new(1);
    Workload::new(31, 3_000).publish(&world.broker.bootstrap(), || {});
    train(&world.path("other"), [("disk", "platform"), ("login", "Error")]);
    // One worker, so that lines meet the cache in the same order.
    let setup = world.setup().with("stream.workers", "1").with("output.explain", "2");
    let mut alone = run_to_the_end(&world, &setup, "alone");
    assert!(alone.stop(PATIENCE).success());
    let beside = setup
        .with("model.challenger.log", &format!("{:?}", world.path("other")))
        .with("model.challenger.ticket", "'builtin:tickets'");
    let mut daemon = run_to_the_end(&world, &beside, "beside");

    let (before, mut after) = (events(&world.broker, "alone-events"), events(&world.broker, "beside-events"));
    let dead = |topic: &str| world.broker.watch(topic).high_watermark();
    assert_eq!(dead("alone-dead"), dead("beside-dead"));
    let mut compared: BTreeMap<&str, [f64; 2]> = BTreeMap::new();
    let mut versions = BTreeSet::new();
    for (place, event) in &mut after {
        let (queue, decided_by) = (event["queue"].clone(), event["decided_by"].clone());
        let event = event.as_object_mut().expect("an object");
        assert_eq!(event.remove("arm"), Some(json!("champion")), "{place:?}");
        let shadow = event.remove("shadow").unwrap_or_else(|| panic!("{place:?}: it scores everything"));
        versions.insert(shadow["model"].as_str().expect("a model").to_owned());
        if decided_by == "fast" || decided_by == "cache" {
            let kind = if place.0 == "tickets" { "ticket" } else { "log" };
            compared.entry(kind).or_default()[usize::from(shadow["queue"] != queue)] += 1.0;
        }
        assert!(before[place]["config"] != event["config"], "the configuration is another one");
        event.insert("config".to_owned(), before[place]["config"].clone());
    }
    assert_eq!(after, before, "nothing else has changed");
    assert_eq!(versions.len(), 2, "{versions:?}");
    assert_eq!(compared["ticket"][1], 0.0, "a model agrees with itself");
    assert!(compared["log"][1] > 50.0, "{compared:?}");
    for (kind, counts) in compared {
        for (result, count) in ["agree", "disagree"].into_iter().zip(counts) {
            let labels = [format!("kind=\"{kind}\""), format!("result=\"{result}\"")];
            let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
            assert_eq!(daemon.metric("triaged_shadow_answers_total", &labels), count, "{kind} {result}");
        }
    }
    let asked = daemon.metric("triaged_arm_confidence_ratio_count", &["arm=\"challenger\""]);
    assert_eq!(asked, after.len() as f64);
    assert!(daemon.stop(PATIENCE).success());
}

#[test]
fn a_split_is_stable_by_key_and_of_the_right_share() {
    const KEYS: usize = 3_000;
    let world = World::new(3);
    train(&world.path("other"), [("alpha", "first"), ("beta", "second")]);
    let setup = world
        .setup()
        .with("rules.files", "[]")
        .with("model.challenger.log", &format!("{:?}", world.path("other")))
        .with("model.challenger.mode", "'split'")
        .with("model.challenger.share", "0.3");
    let mut daemon = setup.start_ready();
    let send = || {
        let records = (0..KEYS).map(|key| (format!("host-{key}"), format!("alpha in unit {}", key % 7)));
        world.broker.produce("logs", records);
    };
    send();
    let mut reader = world.broker.reader("queue-events", Isolation::ReadUncommitted);
    reader.wait_for(KEYS, PATIENCE);
    // A larger share takes up some more keys and gives none back.
    daemon.write_config(&setup.clone().with("model.challenger.share", "0.6").toml());
    assert_eq!(world.reload()["changed"], true);
    send();
    let read = reader.wait_for(2 * KEYS, PATIENCE);
    let mut arms: BTreeMap<String, BTreeMap<String, BTreeSet<(String, String)>>> = BTreeMap::new();
    for read in read {
        let event = read.json();
        let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
        let key = String::from_utf8(read.key.clone().expect("a key")).expect("text");
        arms.entry(text("config")).or_default().entry(key).or_default().insert((text("arm"), text("model")));
    }
    let mut shares: Vec<BTreeSet<String>> = Vec::new();
    for by_key in arms.values() {
        assert!(by_key.values().all(|arms| arms.len() == 1), "a key has one arm");
        let models: BTreeSet<&(String, String)> = by_key.values().flatten().collect();
        assert_eq!(models.len(), 2, "each arm has its model: {models:?}");
        let challenged = by_key.iter().filter(|(_, arms)| arms.first().is_some_and(|(arm, _)| arm == "challenger"));
        shares.push(challenged.map(|(key, _)| key.clone()).collect());
    }
    shares.sort_by_key(BTreeSet::len);
    let [small, large] = &shares[..] else { panic!("two configurations: {}", shares.len()) };
    // Within five standard deviations.
    for (share, keys) in [(0.3, small), (0.6, large)] {
        let found = keys.len() as f64 / KEYS as f64;
        assert!((found - share).abs() < 5.0 * (share * (1.0 - share) / KEYS as f64).sqrt(), "{found}");
    }
    assert!(small.is_subset(large));
    assert!(daemon.stop(PATIENCE).success());
}

/// An event of a minute ago that a model decided, and what a challenger says beside it.
fn compared(offset: i64, arm: &str, model: &str, queue: &str, shadow: Option<(&str, &str, f64)>) -> String {
    let at = chrono::Utc::now().timestamp_millis() - 60_000;
    let mut event = json!({
        "event_id": format!("00000000-0000-5000-8000-{offset:012x}"),
        "source": {"topic": "logs", "partition": 0, "offset": offset},
        "kind": "log",
        "occurred_at": rfc3339(at),
        "decided_at": rfc3339(at + 5),
        "queue": queue,
        "priority": "low",
        "confidence": 0.75,
        "routing": "human_verify",
        "decided_by": if offset % 2 == 0 { "fast" } else { "cache" },
        "model": model,
        "arm": arm,
        "config": "0a1b2c3d",
    });
    if let Some((model, queue, confidence)) = shadow {
        event["shadow"] = json!({"model": model, "queue": queue, "confidence": confidence});
    }
    event.to_string()
}

fn insert(store: &VolumeStore, events: &[String]) {
    let events: Vec<QueueEvent<'_>> = events.iter().map(|event| serde_json::from_str(event).expect("one")).collect();
    let rows: Vec<EventRow<'_>> = events.iter().map(|event| EventRow::of(event).expect("a row")).collect();
    block_on(store.insert_events(&rows)).expect("the store takes them");
}

#[test]
fn evaluate_live_compares_by_feedback_and_both_stores_agree() {
    let (world, clickhouse) = (World::new(1), ClickHouse::start());
    world.broker.create_topic("feedback", 1);
    let path = |name: &str| world.path(name).display().to_string();
    train(&world.path("other"), [("alpha", "first"), ("beta", "second")]);
    let setup = |mode: &str| {
        world
            .setup()
            .with("volumes.store", "'clickhouse'")
            .with("clickhouse.url", &format!("'{}'", clickhouse.url()))
            .with("clickhouse.events_retention", "'0s'")
            .with("model.challenger.log", &format!("{:?}", path("other")))
            .with("model.challenger.mode", &format!("'{mode}'"))
    };
    let config = Config::from_toml(&setup("shadow").toml()).expect("a configuration");
    let pair = triaged::arms::pairs(&config).expect("two packages").pop().expect("a pair");
    let (champion, challenger) = (pair.champion.as_str(), pair.challenger.as_str());

    // In the shadow: 40 events, of which they see 30 alike; 20 are judged.
    let shadow = |offset: i64| if offset % 4 == 0 { "first" } else { "platform" };
    let mut events: Vec<String> = (0..40)
        .map(|offset| compared(offset, "champion", champion, "platform", Some((challenger, shadow(offset), 0.5))))
        .collect();
    // In a split: ten of each.
    events.extend((40..60).map(|offset| match offset % 2 {
        0 => compared(offset, "champion", champion, "platform", None),
        _ => compared(offset, "challenger", challenger, "first", None),
    }));
    // A rule decided, and an older model.
    events.push(compared(60, "champion", "logs@00000000", "platform", None));
    events.push(
        compared(61, "champion", champion, "soc", Some((challenger, "soc", 0.5))).replace("\"cache\"", "\"rule:x\""),
    );
    let stores = [store(&clickhouse), VolumeStore::Memory(MemoryStore::new(1_000).into())];
    let now = chrono::Utc::now().timestamp_millis();
    // Where they differ the challenger is right three times of five; of the split's, the challenger eight of ten.
    let said: Vec<Value> = (0..20)
        .chain(40..60)
        .map(|offset: i64| {
            let right = match offset {
                0..12 if offset % 4 == 0 => "first",
                0..20 => "platform",
                _ if offset % 2 == 0 => "platform",
                _ if offset < 56 => "first",
                _ => "elsewhere",
            };
            json!({"event_id": format!("00000000-0000-5000-8000-{offset:012x}"), "kind": "log",
                "given_at": rfc3339(now), "corrected_queue": right})
        })
        .collect();
    let rows: Vec<_> = said
        .iter()
        .enumerate()
        .map(|(offset, said)| {
            let mut row = feedback_row(said, offset as i64);
            row.given_at = now;
            row
        })
        .collect();
    for store in &stores {
        insert(store, &events);
        block_on(store.insert_feedback(&rows)).expect("the store takes them");
    }
    let counts = stores.each_ref().map(|store| block_on(store.arm_counts(now - 600_000, now + 1)).expect("counts"));
    assert_eq!(counts[0], counts[1]);
    assert_eq!(counts[0].len(), 4, "{:?}", counts[0]);
    let in_shadow = counts[0].iter().find(|count| count.in_shadow == 1).expect("one");
    assert_eq!((in_shadow.events, in_shadow.compared, in_shadow.agreed), (41, 40, 30));
    for mode in ["shadow", "split"] {
        let config = Config::from_toml(&setup(mode).toml()).expect("a configuration");
        let pairs = triaged::arms::pairs(&config).expect("two packages");
        let [one, other] = stores
            .each_ref()
            .map(|store| block_on(triaged::arms::compare(store, now - 600_000, now + 1, &pairs)).expect("a report"));
        assert_eq!(one, other, "{mode}");
        setup(mode).write(&world.path("my.toml"));
        let output = triaged(&["evaluate", "--live", "--since", "1h", "--json", "--config", &path("my.toml")]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(report, serde_json::to_value(&one).expect("plain data"));
        let arm = |arm: &str| {
            (
                report[0][arm]["events"].clone(),
                report[0][arm]["accuracy"]["right"].clone(),
                report[0][arm]["accuracy"]["of"].clone(),
            )
        };
        match mode {
            "shadow" => {
                assert_eq!(report[0]["agreement"]["share"], 0.75);
                assert_eq!((arm("champion").1, arm("champion").2), (json!(17), json!(20)), "{report:#}");
                assert_eq!(arm("challenger"), (json!(41), json!(18), json!(20)), "{report:#}");
                assert!(report[0]["difference"]["p_value"].as_f64().is_some_and(|p| p > 0.05), "{report:#}");
            }
            _ => {
                assert_eq!(arm("challenger"), (json!(10), json!(8), json!(10)), "{report:#}");
                let upper = report[0]["difference"]["upper"].as_f64().expect("an interval");
                let lower = report[0]["difference"]["lower"].as_f64().expect("an interval");
                assert!(lower < 0.0 && upper > lower, "{report:#}");
            }
        }
        let text = triaged(&["evaluate", "--live", "--since", "1h", "--config", &path("my.toml")]);
        let text = String::from_utf8_lossy(&text.stdout).into_owned();
        assert!(text.contains(champion) && text.contains(challenger) && text.contains("accuracy"), "{text}");
        eprintln!("{text}");
    }
    // The same over HTTP, and in the metrics of the role that reads the feedback.
    let mut daemon = Daemon::start_roles("tally", &setup("shadow").toml());
    daemon.wait_ready();
    let comparison = world.get("/v1/models")["comparisons"][0].clone();
    assert_eq!((&comparison["mode"], &comparison["challenger"]["accuracy"]["right"]), (&json!("shadow"), &json!(18)));
    let of = |name: &str, arm: &str| daemon.metric(name, &["kind=\"log\"", &format!("arm=\"{arm}\"")]);
    wait_until("the accuracies are stated", PATIENCE, || of("triaged_arm_judged_events", "challenger") == 20.0);
    assert_eq!(of("triaged_arm_accuracy_ratio", "champion"), 0.85);
    assert_eq!(of("triaged_arm_accuracy_ratio", "challenger"), 0.9);
    assert!(daemon.stop(PATIENCE).success());
}
