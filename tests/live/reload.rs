//! Reloads: under load, refused, and what they do to the cache.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::{PATIENCE, World, version};
use crate::peers::client::{Isolation, Publisher};
use crate::peers::daemon::Daemon;
use crate::peers::wait_until;
use crate::setup::Setup;

/// Rules and settings of one version: each of them can be told from what an event says.
fn write_version(world: &World, daemon: Option<&Daemon>, number: usize, setup: &Setup) {
    let rules = format!(
        "[[rule]]\nid = 'by-rule'\ndescription = 'd'\nkind = 'any'\nany = ['alpha']\nqueue = 'rule-{number}'\nmatch = ['alpha']\n\
         [[rule]]\nid = 'by-table'\ndescription = 'd'\nkind = 'any'\nany = ['beta']\ncategory = 'Table'\nmatch = ['beta']\n"
    );
    world.write("rules.toml", &rules);
    if let Some(daemon) = daemon {
        daemon.write_config(&settings(setup, number).toml());
    }
}

/// The table from categories to queues, the queue of what nobody can place, and the thresholds follow the number.
fn settings(setup: &Setup, number: usize) -> Setup {
    let threshold = if number.is_multiple_of(2) { "0.0" } else { "1.0" };
    setup
        .clone()
        .with("decide.queues.Table", &format!("'table-{number}'"))
        .with("decide.auto_route", threshold)
        .with("decide.human_verify", threshold)
}

fn number_of(queue: &str) -> usize {
    queue.rsplit('-').next().and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{queue} has a number"))
}

/// Waits until the configuration that runs has decided some hundred records.
fn decides_some(daemon: &Daemon) {
    let decided = || daemon.metric("triaged_outcomes_total", &["outcome=\"event\""]);
    let before = decided();
    wait_until("it has decided something", PATIENCE, || decided() > before + 500.0);
}

/// What events of one version say about rules and settings.
#[derive(Debug, Default)]
struct Seen {
    rules: BTreeSet<usize>,
    settings: BTreeSet<usize>,
    routed_at_once: BTreeSet<bool>,
    events: usize,
}

#[test]
fn a_record_is_decided_by_one_configuration_only() {
    let world = World::new(3);
    let rules = format!("[{:?}]", world.path("rules.toml"));
    let setup = world.setup().with("rules.files", &rules).with("model.ticket", "''");
    write_version(&world, None, 0, &setup);
    let mut daemon = settings(&setup, 0).start_ready();
    let running = AtomicBool::new(true);
    let (sent, versions) = thread::scope(|scope| {
        let producing = scope.spawn(|| {
            let publisher = Publisher::open(&world.broker.bootstrap());
            let mut sent = 0;
            while running.load(Ordering::Relaxed) {
                for text in ["alpha", "beta", "something that the model decides"] {
                    publisher.send("logs", format!("{sent}").as_bytes(), format!("{text} number {sent}").as_bytes());
                    sent += 1;
                }
                if sent % 60 == 0 {
                    thread::sleep(Duration::from_millis(20));
                }
            }
            publisher.flush();
            sent
        });
        let mut versions = vec![version(&daemon)];
        let watching = setup.clone().with("reload.watch", "'100ms'");
        for number in 1..=9 {
            decides_some(&daemon);
            let before = version(&daemon);
            // Watching begins with the last change that is asked for by signal.
            let setup = if number > 5 { &watching } else { &setup };
            write_version(&world, Some(&daemon), number, setup);
            match number {
                1..=2 | 6 => daemon.hang_up(),
                3..=5 => {
                    let answer = world.reload();
                    assert_eq!(
                        (&answer["changed"], &answer["previous_version"]),
                        (&true.into(), &before.clone().into())
                    );
                    assert_eq!(answer["version"], version(&daemon), "{answer}");
                }
                _ => {}
            }
            wait_until("another configuration runs", PATIENCE, || version(&daemon) != before);
            versions.push(version(&daemon));
        }
        decides_some(&daemon);
        running.store(false, Ordering::Relaxed);
        (producing.join().expect("it does not panic"), versions)
    });
    let mut events = world.broker.reader("queue-events", Isolation::ReadUncommitted);
    let mut seen: BTreeMap<String, Seen> = BTreeMap::new();
    let mut places = BTreeSet::new();
    for read in events.wait_for(sent, PATIENCE) {
        let event = read.json();
        let text = |name: &str| event[name].as_str().unwrap_or_default();
        let of_version = seen.entry(text("config").to_owned()).or_default();
        of_version.events += 1;
        places.insert((event["source"]["partition"].as_i64(), event["source"]["offset"].as_i64()));
        match text("decided_by") {
            "rule:by-rule" => drop(of_version.rules.insert(number_of(text("queue")))),
            "rule:by-table" => drop(of_version.settings.insert(number_of(text("queue")))),
            _ => drop(of_version.routed_at_once.insert(text("routing") == "auto_route")),
        }
    }
    assert_eq!(places.len(), sent, "each record has its event");
    eprintln!("{sent} events by {} configurations", seen.len());
    for (version, seen) in &seen {
        // The two files are not written at once, so a reload by file may find one of them new and the other old.
        assert!(
            seen.rules.len() <= 1 && seen.settings.len() <= 1 && seen.routed_at_once.len() <= 1,
            "{version}: {seen:?}"
        );
        let number = seen.settings.first().copied();
        let routed_at_once = seen.routed_at_once.first().copied();
        if let (Some(number), Some(routed_at_once)) = (number, routed_at_once) {
            assert_eq!(routed_at_once, number.is_multiple_of(2), "{version}: {seen:?}");
        }
    }
    for version in &versions {
        assert!(seen.get(version).is_some_and(|seen| seen.events > 100), "{version}: {seen:?}");
    }
    let counted = |trigger: &str| {
        daemon.metric("triaged_reloads_total", &[&format!("trigger=\"{trigger}\""), "result=\"changed\""])
    };
    assert_eq!((counted("signal"), counted("api")), (3.0, 3.0));
    assert!(counted("file") >= 3.0, "{}", counted("file"));
    assert!(daemon.stop(PATIENCE).success());
}

#[test]
fn a_faulty_configuration_is_refused_with_all_its_faults_and_what_runs_goes_on() {
    let world = World::new(1);
    let rules = format!("[{:?}]", world.path("rules.toml"));
    let setup = world.setup().with("rules.files", &rules);
    write_version(&world, None, 0, &setup);
    let mut daemon = settings(&setup, 0).start_ready();
    let before = version(&daemon);
    let decided = || world.post("/v1/classify?kind=log", &json!("alpha")).1;
    assert_eq!((&decided()["queue"], &decided()["config"]), (&"rule-0".into(), &before.clone().into()));
    let refused = |status: &(u16, Value)| {
        let (status, answer) = status;
        assert_eq!((*status, &answer["code"]), (422, &"faulty_configuration".into()), "{answer}");
        answer["faults"].as_array().expect("faults").clone()
    };

    // Settings: two faults, and neither of them is taken.
    let faulty = settings(&setup, 1).with("decide.auto_route", "7").with("cache.masks", "['nonsense']");
    daemon.write_config(&faulty.toml());
    let faults = refused(&world.post("/v1/reload", &json!({})));
    let keys: BTreeSet<&str> = faults.iter().filter_map(|fault| fault["key"].as_str()).collect();
    assert_eq!(keys, ["cache.masks", "decide.auto_route"].into(), "{faults:?}");
    assert!(faults.iter().all(|fault| fault["place"].as_str().is_some_and(|place| place.contains("triaged.toml:"))));

    // Rules and models: all faults of both, by signal.
    let broken = settings(&setup, 1).with("model.log", &format!("{:?}", world.path("no-model")));
    daemon.write_config(&broken.toml());
    world.write("rules.toml", "[[rule]]\nid = 'a'\nany = ['alpha']\nqueue = 'q'\n[[rule]]\nid = 'b'\ndescription = 'd'\nregex = '('\nqueue = 'q'\n");
    daemon.hang_up();
    let refusals = || daemon.metric("triaged_reloads_total", &["trigger=\"signal\"", "result=\"refused\""]);
    wait_until("the signal is answered", PATIENCE, || refusals() == 1.0);
    let log = daemon.log();
    for told in ["`description` is missing", "regex is invalid", "no-model", "what runs goes on"] {
        assert!(log.contains(told), "{told}: {log}");
    }
    assert_eq!(daemon.metric("triaged_config_last_reload_successful", &[]), 0.0);

    // What runs is what ran, in the stream and for the API.
    assert_eq!((&decided()["queue"], version(&daemon)), (&"rule-0".into(), before.clone()));
    world.broker.produce("logs", [("", "alpha")]);
    let mut events = world.broker.reader("queue-events", Isolation::ReadUncommitted);
    let event = events.wait_for(1, PATIENCE)[0].json();
    assert_eq!((&event["queue"], &event["config"]), (&"rule-0".into(), &before.clone().into()));

    // Mended, with something that needs a restart beside it.
    write_version(&world, None, 2, &setup);
    daemon.write_config(&settings(&setup, 2).with("stream.batch_records", "300").toml());
    let answer = world.reload();
    assert_eq!(
        (&answer["changed"], &answer["restart_required"]),
        (&true.into(), &json!(["stream.batch_records"])),
        "{answer}"
    );
    assert_eq!((&decided()["queue"], &decided()["config"]), (&"rule-2".into(), &answer["version"]));
    assert_eq!(daemon.metric("triaged_config_last_reload_successful", &[]), 1.0);
    let again = world.reload();
    assert_eq!(
        (&again["changed"], &again["restart_required"]),
        (&false.into(), &json!(["stream.batch_records"])),
        "{again}"
    );

    let audit = world.get("/v1/audit")["entries"].clone();
    let actions: Vec<&str> =
        audit.as_array().expect("entries").iter().filter_map(|entry| entry["action"].as_str()).collect();
    assert_eq!(actions, ["configuration.reloaded", "configuration.reloaded", "configuration.refused"]);
    assert!(daemon.stop(PATIENCE).success());
}

#[test]
fn new_rules_drop_the_template_cache_and_an_unchanged_configuration_keeps_it() {
    let world = World::new(1);
    let rules = format!("[{:?}]", world.path("rules.toml"));
    // The model is always sure, so the second line of a template comes from the cache.
    let setup =
        world.setup().with("rules.files", &rules).with("stream.workers", "1").with("decide.human_verify", "0.0");
    let setup = setup.with("decide.auto_route", "0.0").with("cache.recheck_share", "0.0");
    write_version(&world, None, 0, &setup);
    let mut daemon = setup.start_ready();
    let mut events = world.broker.reader("queue-events", Isolation::ReadUncommitted);
    let mut count = 0;
    let mut next = || {
        world.broker.produce("logs", [("", format!("disk {count} of the array was replaced"))]);
        count += 1;
        events.wait_for(count, PATIENCE)[count - 1].json()["decided_by"].as_str().expect("a tier").to_owned()
    };
    assert_eq!([next(), next()], ["fast", "cache"]);
    assert_eq!(world.reload()["changed"], false);
    assert_eq!(next(), "cache");
    write_version(&world, None, 1, &setup);
    assert_eq!(world.reload()["changed"], true);
    assert_eq!([next(), next()], ["fast", "cache"]);
    assert!(daemon.stop(PATIENCE).success());
}

#[test]
fn a_new_route_leads_to_a_topic_that_the_role_did_not_know() {
    let world = World::new(1);
    world.broker.create_topic("soc-events", 1);
    let rules = format!("[{:?}]", world.path("rules.toml"));
    let setup = world.setup().with("rules.files", &rules);
    write_version(&world, None, 0, &setup);
    let mut daemon = setup.start_ready();
    world.broker.produce("logs", [("", "alpha before")]);
    world.broker.reader("queue-events", Isolation::ReadUncommitted).wait_for(1, PATIENCE);
    daemon.write_config(&setup.clone().with("output.topics.rule-0", "'soc-events'").toml());
    assert_eq!(world.reload()["restart_required"], json!([]));
    world.broker.produce("logs", [("", "alpha after")]);
    let mut routed = world.broker.reader("soc-events", Isolation::ReadUncommitted);
    assert_eq!(routed.wait_for(1, PATIENCE)[0].json()["queue"], "rule-0");
    assert!(daemon.stop(PATIENCE).success());
}
