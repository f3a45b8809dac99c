//! Records a second over a topic that is full, measured from outside the contestant: the clock starts when its first
//! output is in the log, and stops when it has committed the last input. Joining the group and loading models are
//! thus left out, for both alike.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::bare_copy::BareCopy;
use crate::peers::broker::Broker;
use crate::peers::clickhouse::ClickHouse;
use crate::peers::client::Watch;
use crate::{Args, PATIENCE, start_daemon, start_tally};

/// How often the broker is asked how far a contestant is. Each question costs the broker some microseconds.
const LOOK: Duration = Duration::from_millis(5);

#[derive(Debug, Clone, Copy)]
pub(crate) struct Turn {
    pub(crate) records: i64,
    pub(crate) seconds: f64,
    /// Processor time of the contestant alone, without the broker; `None` where the system does not tell.
    pub(crate) cpu_seconds: Option<f64>,
}

impl Turn {
    pub(crate) fn records_per_second(&self) -> f64 {
        self.records as f64 / self.seconds
    }
}

pub(crate) fn bare_copy(broker: &Broker, args: &Args, round: usize) -> Turn {
    let (group, output) = (format!("bare-{round}"), format!("bare-{round}-events"));
    broker.create_topic(&output, args.partitions);
    let stop = AtomicBool::new(false);
    let bootstrap = broker.bootstrap();
    let copy = BareCopy { bootstrap: &bootstrap, group: &group, input: "lines", output: &output };
    let turn = thread::scope(|scope| {
        scope.spawn(|| copy.run(&stop));
        let turn = observe(broker, args, &[&output], &group, std::process::id());
        stop.store(true, Ordering::Relaxed);
        turn
    });
    broker.delete_topics(&[&output]);
    turn
}

/// The classify role over the lines, and where there is a ClickHouse then the tally role over the events that came of
/// them.
pub(crate) fn daemon(
    broker: &Broker,
    clickhouse: Option<&ClickHouse>,
    args: &Args,
    round: usize,
) -> (Turn, Option<Turn>) {
    let turn = format!("triaged-{round}");
    let outputs = ["events", "escalations", "dead-letters"].map(|name| format!("{turn}-{name}"));
    let outputs = outputs.each_ref().map(String::as_str);
    for output in outputs {
        broker.create_topic(output, args.partitions);
    }
    let mut daemon = start_daemon(broker, args, "lines", &turn, "bench");
    let measured = observe(broker, args, &outputs, &format!("triaged-{turn}-classify"), daemon.pid());
    daemon.stop(PATIENCE);
    let stored = clickhouse.map(|clickhouse| tally(broker, clickhouse, args, &turn, outputs[0]));
    broker.delete_topics(&outputs);
    (measured, stored)
}

/// The events of a turn into ClickHouse: from the first to the last commit.
fn tally(broker: &Broker, clickhouse: &ClickHouse, args: &Args, turn: &str, events: &str) -> Turn {
    let count = broker.watch(events).high_watermark();
    let mut daemon = start_tally(broker, clickhouse, args, turn);
    let input = broker.watch_group(events, &format!("triaged-{turn}-tally"));
    let end = Instant::now() + PATIENCE;
    let wait_until_committed = |least: i64| {
        while input.committed() < least {
            assert!(Instant::now() < end, "not all events were committed after {PATIENCE:?}");
            thread::sleep(LOOK);
        }
        input.committed()
    };
    let already = wait_until_committed(1);
    let (start, cpu_before) = (Instant::now(), cpu_seconds(daemon.pid()));
    wait_until_committed(count);
    let (seconds, cpu_after) = (start.elapsed().as_secs_f64(), cpu_seconds(daemon.pid()));
    daemon.stop(PATIENCE);
    Turn {
        records: count - already,
        seconds,
        cpu_seconds: cpu_after.zip(cpu_before).map(|(after, before)| after - before),
    }
}

/// Both roles at work at the same time on the same machine.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Together {
    pub(crate) events: i64,
    /// From the first event until classify had committed the last line.
    pub(crate) classify_seconds: f64,
    /// Events that were stored and committed by then.
    pub(crate) stored_by_then: i64,
    /// From the first event until tally had committed the last one.
    pub(crate) tally_seconds: f64,
}

pub(crate) fn together(broker: &Broker, clickhouse: &ClickHouse, args: &Args, round: usize) -> Together {
    let turn = format!("both-{round}");
    let outputs = ["events", "escalations", "dead-letters"].map(|name| format!("{turn}-{name}"));
    let outputs = outputs.each_ref().map(String::as_str);
    for output in outputs {
        broker.create_topic(output, args.partitions);
    }
    let mut tally = start_tally(broker, clickhouse, args, &turn);
    let mut classify = start_daemon(broker, args, "lines", &turn, "bench");
    let events = broker.watch(outputs[0]);
    let lines = broker.watch_group("lines", &format!("triaged-{turn}-classify"));
    let stored = broker.watch_group(outputs[0], &format!("triaged-{turn}-tally"));
    let end = Instant::now() + PATIENCE;
    let wait_until = |done: &dyn Fn() -> bool| {
        while !done() {
            assert!(Instant::now() < end, "the roles did not finish within {PATIENCE:?}");
            thread::sleep(LOOK);
        }
    };
    wait_until(&|| events.high_watermark() > 0);
    let start = Instant::now();
    wait_until(&|| lines.committed() >= args.records as i64);
    let (classify_seconds, stored_by_then) = (start.elapsed().as_secs_f64(), stored.committed());
    let count = events.high_watermark();
    wait_until(&|| stored.committed() >= count);
    let tally_seconds = start.elapsed().as_secs_f64();
    classify.stop(PATIENCE);
    tally.stop(PATIENCE);
    broker.delete_topics(&outputs);
    Together { events: count, classify_seconds, stored_by_then, tally_seconds }
}

fn observe(broker: &Broker, args: &Args, outputs: &[&str], group: &str, pid: u32) -> Turn {
    let outputs: Vec<Watch> = outputs.iter().map(|output| broker.watch(output)).collect();
    let input = broker.watch_group("lines", group);
    let end = Instant::now() + PATIENCE;
    let mut already = 0;
    while already == 0 {
        assert!(Instant::now() < end, "nothing came out after {PATIENCE:?}");
        thread::sleep(LOOK);
        already = outputs.iter().map(Watch::high_watermark).sum();
    }
    let (start, cpu_before) = (Instant::now(), cpu_seconds(pid));
    while input.committed() < args.records as i64 {
        assert!(Instant::now() < end, "not all inputs were committed after {PATIENCE:?}");
        thread::sleep(LOOK);
    }
    Turn {
        records: args.records as i64 - already,
        seconds: start.elapsed().as_secs_f64(),
        cpu_seconds: cpu_seconds(pid).zip(cpu_before).map(|(after, before)| after - before),
    }
}

/// Processor time that a process has used so far, from Linux's /proc.
pub(crate) fn cpu_seconds(pid: u32) -> Option<f64> {
    /// Fixed at 100 in Linux's interface to programs.
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in brackets, and may hold blanks.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_SECOND)
}
