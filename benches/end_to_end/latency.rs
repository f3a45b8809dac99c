//! Latency at a paced rate: from the moment a line is handed to the producer until a consumer has the event in hand.
//! The line's key is that moment, in microseconds since 1970-01-01 UTC; both contestants pass the key on.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};

use super::bare_copy::BareCopy;
use super::lines;
use crate::peers::broker::Broker;
use crate::peers::client::{self, Isolation, Reader};
use crate::{Args, Delivery, PATIENCE, start_daemon};

/// Lines are sent in bursts this far apart.
const BURST_EVERY: Duration = Duration::from_millis(1);
/// The share of lines at the start that is not counted: connections and caches warm up.
const WARM_UP: f64 = 0.2;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Latency {
    pub(crate) records: usize,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) max_ms: f64,
}

pub(crate) fn bare_copy(broker: &Broker, args: &Args) -> Latency {
    broker.create_topic("paced-bare", args.partitions);
    broker.create_topic("paced-bare-events", args.partitions);
    let stop = AtomicBool::new(false);
    let bootstrap = broker.bootstrap();
    let copy =
        BareCopy { bootstrap: &bootstrap, group: "paced-bare", input: "paced-bare", output: "paced-bare-events" };
    thread::scope(|scope| {
        scope.spawn(|| copy.run(&stop));
        let latency = measure(broker, args, "paced-bare", "paced-bare-events", Isolation::ReadUncommitted);
        stop.store(true, Ordering::Relaxed);
        latency
    })
}

pub(crate) fn daemon(broker: &Broker, args: &Args) -> Latency {
    broker.create_topic("paced-triaged", args.partitions);
    for output in ["events", "escalations", "dead-letters"] {
        broker.create_topic(&format!("paced-{output}"), args.partitions);
    }
    let isolation = match args.delivery {
        Delivery::AtLeastOnce => Isolation::ReadUncommitted,
        Delivery::ExactlyOnce => Isolation::ReadCommitted,
    };
    let mut daemon = start_daemon(broker, args, "paced-triaged", "paced", "bench");
    let latency = measure(broker, args, "paced-triaged", "paced-events", isolation);
    daemon.stop(PATIENCE);
    latency
}

fn measure(broker: &Broker, args: &Args, input: &str, output: &str, isolation: Isolation) -> Latency {
    let mut reader = broker.reader(output, isolation);
    // A first line, so that the contestant is in its group before the clock matters.
    broker.produce(input, [(micros_now().to_string(), "first line")]);
    reader.wait_for(1, PATIENCE);

    let count = args.rate as usize * args.latency_seconds as usize;
    let mut latencies = thread::scope(|scope| {
        scope.spawn(|| send_paced(broker, args, input, count, &AtomicBool::new(false)));
        collect(&mut reader, count)
    });
    latencies.drain(..(count as f64 * WARM_UP) as usize);
    latencies.sort_unstable();
    let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize] as f64 / 1000.0;
    Latency { records: latencies.len(), p50_ms: at(0.5), p99_ms: at(0.99), max_ms: at(1.0) }
}

/// Sends `count` lines at the bench's rate, unless it is told to stop.
pub(crate) fn send_paced(broker: &Broker, args: &Args, topic: &str, count: usize, stop: &AtomicBool) {
    let producer: ThreadedProducer<DefaultProducerContext> = client::config(&broker.bootstrap())
        .set("enable.idempotence", "true")
        .set("compression.type", "lz4")
        .set("linger.ms", "1")
        .create()
        .expect("the settings are right");
    let mut lines = lines::mix(args.seed);
    let start = Instant::now();
    let mut sent = 0;
    while sent < count && !stop.load(Ordering::Relaxed) {
        let due = ((start.elapsed().as_secs_f64() * f64::from(args.rate)) as usize).min(count);
        for line in lines.by_ref().take(due - sent) {
            let key = micros_now().to_string();
            let record = BaseRecord::to(topic).key(&key).payload(&line);
            producer.send(record).map_err(|(error, _)| error).expect("the queue holds seconds of lines");
        }
        sent = due;
        thread::sleep(BURST_EVERY);
    }
    producer.flush(PATIENCE).expect("the broker is there");
}

/// Microseconds from send to receipt of each event, in the order of receipt.
fn collect(reader: &mut Reader, count: usize) -> Vec<u64> {
    let end = Instant::now() + PATIENCE;
    let mut latencies = Vec::with_capacity(count);
    while latencies.len() < count {
        assert!(Instant::now() < end, "only {} of {count} events came", latencies.len());
        reader.records.clear();
        reader.poll();
        let now = micros_now();
        for record in &reader.records {
            let key = record.key.as_deref().and_then(|key| std::str::from_utf8(key).ok());
            let sent: u64 = key.and_then(|key| key.parse().ok()).expect("the key was passed on");
            latencies.push(now.saturating_sub(sent));
        }
    }
    latencies
}

fn micros_now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970");
    now.as_micros().try_into().expect("the clock is before the year 500,000")
}
