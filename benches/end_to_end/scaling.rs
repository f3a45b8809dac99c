//! How the daemon scales, and how it comes back: records a second of one, two, four instances of one group over the same
//! full topic, and how long an instance takes to work off what came while it was away.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::latency::send_paced;
use super::lines;
use super::throughput::cpu_seconds;
use crate::peers::broker::Broker;
use crate::peers::daemon::Daemon;
use crate::{Args, PATIENCE, start_daemon};

const LOOK: Duration = Duration::from_millis(10);
/// What is worked off in the steady flow before it is interrupted, in seconds of it.
const STEADY_SECONDS: i64 = 5;

pub(crate) fn run(broker: &Broker, args: &Args) {
    let scaling: Vec<Value> = args.instances.iter().map(|&count| instances(broker, args, count)).collect();
    let recovery = args.recovery.then(|| recovery(broker, args));
    if args.json {
        println!("{}", json!({"partitions": args.partitions, "instances": scaling, "recovery": recovery}));
        return;
    }
    if !scaling.is_empty() {
        println!("{} lines over {} partitions, medians of {} rounds", args.records, args.partitions, args.rounds);
        println!("{:<12}{:>14}{:>24}", "instances", "records/s", "CPU µs a record");
        for one in &scaling {
            let rate = one["records_per_second"].as_f64().unwrap_or_default();
            let cpu = one["cpu_micros_per_record"].as_f64().map_or("-".to_owned(), |cpu| format!("{cpu:.2}"));
            println!("{:<12}{rate:>14.0}{cpu:>24}", one["instances"].to_string());
        }
    }
    if let Some(found) = recovery {
        println!(
            "after {} s away at {} records/s: {} records behind, caught up {:.1} s after the start",
            found["outage_seconds"],
            found["rate"],
            found["behind"],
            found["caught_up_seconds"].as_f64().unwrap_or_default()
        );
    }
}

/// All instances have joined and are held still while the topic is filled, so that neither joining nor the producer counts.
fn instances(broker: &Broker, args: &Args, count: usize) -> Value {
    let mut rates = Vec::new();
    let mut costs = Vec::new();
    for round in 1..=args.rounds {
        let turn = format!("scale-{count}-{round}");
        let topics = topics(broker, args, &turn);
        let mut daemons: Vec<Daemon> = (0..count)
            .map(|number| start_daemon(broker, args, &topics[0], &turn, &format!("bench-{number}")))
            .collect();
        let group = broker.watch_group(&topics[0], &format!("triaged-{turn}-classify"));
        daemons.iter().for_each(Daemon::pause);
        broker.produce(&topics[0], lines::mix(args.seed).take(args.records).map(|line| ("", line)));
        let used = |daemons: &[Daemon]| daemons.iter().map(|daemon| cpu_seconds(daemon.pid())).sum::<Option<f64>>();
        let (start, cpu_before) = (Instant::now(), used(&daemons));
        daemons.iter().for_each(Daemon::resume);
        until("all is committed", || group.committed() >= args.records as i64);
        let (seconds, cpu_after) = (start.elapsed().as_secs_f64(), used(&daemons));
        let rate = args.records as f64 / seconds;
        eprintln!("round {round}: {count} instances, {rate:.0} records/s");
        rates.push(rate);
        costs.extend(cpu_after.zip(cpu_before).map(|(after, before)| (after - before) / args.records as f64 * 1e6));
        for daemon in &mut daemons {
            daemon.stop(PATIENCE);
        }
        broker.delete_topics(&topics.each_ref().map(String::as_str));
    }
    json!({"instances": count, "records_per_second": median(rates), "cpu_micros_per_record": median(costs)})
}

/// Records come at `args.rate` without a pause; the daemon is stopped for a while and started again.
fn recovery(broker: &Broker, args: &Args) -> Value {
    let topics = topics(broker, args, "outage");
    let mut daemon = start_daemon(broker, args, &topics[0], "outage", "bench");
    let (input, group) = (broker.watch(&topics[0]), broker.watch_group(&topics[0], "triaged-outage-classify"));
    let lag = || input.high_watermark() - group.committed();
    let a_second = i64::from(args.rate);
    let stop = AtomicBool::new(false);
    let (behind, seconds) = thread::scope(|scope| {
        scope.spawn(|| send_paced(broker, args, &topics[0], usize::MAX, &stop));
        until("the flow is steady", || group.committed() > STEADY_SECONDS * a_second && lag() < a_second);
        daemon.stop(PATIENCE);
        // The outage itself.
        thread::sleep(Duration::from_secs(args.outage_seconds));
        let behind = lag();
        let restarted = Instant::now();
        daemon.restart();
        until("it has caught up", || lag() < a_second);
        let seconds = restarted.elapsed().as_secs_f64();
        stop.store(true, Ordering::Relaxed);
        (behind, seconds)
    });
    daemon.stop(PATIENCE);
    json!({"outage_seconds": args.outage_seconds, "rate": args.rate, "behind": behind, "caught_up_seconds": seconds})
}

/// An input topic and the outputs of a turn.
fn topics(broker: &Broker, args: &Args, turn: &str) -> [String; 4] {
    let topics = ["lines", "events", "escalations", "dead-letters"].map(|name| format!("{turn}-{name}"));
    for topic in &topics {
        broker.create_topic(topic, args.partitions);
    }
    topics
}

fn until(what: &str, condition: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < end, "gave up after {PATIENCE:?} waiting until {what}");
        thread::sleep(LOOK);
    }
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}
