//! The whole path on a real broker, against what the client library itself can do: in one run on one broker, a bare
//! copy of the records from topic to topic (`bare_copy`), and then `triaged run` as a process of its own over the same
//! records, in turns for several rounds. Both are measured from outside, in the same way: from the first output in
//! the log to the commit of the last input.
//!
//!     cargo bench --bench end_to_end -- [--records N] [--rounds N] [--delivery exactly_once] [--json]
//!     cargo bench --bench end_to_end -- --instances 1,2,4 --partitions 12 --recovery     # scaling alone

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a bench prints its result, and its progress beside it")]

mod end_to_end {
    pub(crate) mod bare_copy;
    pub(crate) mod latency;
    pub(crate) mod lines;
    pub(crate) mod report;
    pub(crate) mod scaling;
    pub(crate) mod throughput;
}
#[path = "../tests/peers/mod.rs"]
mod peers;

use std::time::Duration;

use clap::{Parser, ValueEnum};

use crate::end_to_end::{latency, lines, report, scaling, throughput};
use crate::peers::broker::Broker;
use crate::peers::clickhouse::ClickHouse;
use crate::peers::daemon::Daemon;

/// Compares the daemon with a bare copy from topic to topic on one broker.
#[derive(Parser, Debug)]
pub(crate) struct Args {
    /// Log lines that each contestant takes in a round
    #[arg(long, default_value_t = 500_000)]
    records: usize,
    /// Rounds; in each, both contestants take their turn
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Partitions of the input topic and of each output topic
    #[arg(long, default_value_t = 4)]
    partitions: i32,
    /// Log lines a second while latency is measured
    #[arg(long, default_value_t = 20_000)]
    rate: u32,
    /// Seconds for which latency is measured; 0 leaves it out
    #[arg(long, default_value_t = 10)]
    latency_seconds: u32,
    /// How the daemon delivers
    #[arg(long, value_enum, default_value_t = Delivery::AtLeastOnce)]
    delivery: Delivery,
    /// Seed of the log lines
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// A file of settings for the daemon, put before those of the bench
    #[arg(long)]
    settings: Option<std::path::PathBuf>,
    /// Also measure the tally role over the events of each round, into ClickHouse's engine: after classify, and beside it
    #[arg(long)]
    tally: bool,
    /// Measure so many instances side by side, one number after the other, instead of the comparison
    #[arg(long, value_delimiter = ',')]
    instances: Vec<usize>,
    /// Measure how long an instance takes to catch up after it was away, at --rate, instead of the comparison
    #[arg(long)]
    recovery: bool,
    /// For how long it is away
    #[arg(long, default_value_t = 30)]
    outage_seconds: u64,
    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
    /// Passed by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(ValueEnum, Debug, Clone, Copy)]
#[value(rename_all = "snake_case")]
pub(crate) enum Delivery {
    AtLeastOnce,
    ExactlyOnce,
}

fn main() {
    let args = Args::parse();
    let broker = Broker::start();
    if !args.instances.is_empty() || args.recovery {
        scaling::run(&broker, &args);
        return;
    }
    broker.create_topic("lines", args.partitions);
    let mut bytes = 0;
    broker.produce(
        "lines",
        lines::mix(args.seed).take(args.records).inspect(|line| bytes += line.len()).map(|line| ("", line)),
    );
    eprintln!("{} log lines, {} bytes each on average", args.records, bytes / args.records.max(1));

    let clickhouse = args.tally.then(ClickHouse::start);
    let mut rounds = Vec::new();
    for round in 1..=args.rounds {
        let bare = throughput::bare_copy(&broker, &args, round);
        let (daemon, tally) = throughput::daemon(&broker, clickhouse.as_ref(), &args, round);
        eprintln!(
            "round {round}: bare copy {:.0} records/s, triaged {:.0} records/s, ratio {:.3}",
            bare.records_per_second(),
            daemon.records_per_second(),
            daemon.records_per_second() / bare.records_per_second()
        );
        if let Some(tally) = &tally {
            eprintln!(
                "round {round}: tally {:.0} events/s, ratio to classify {:.3}, {:.1} µs of its own CPU an event",
                tally.records_per_second(),
                tally.records_per_second() / daemon.records_per_second(),
                tally.cpu_seconds.unwrap_or(f64::NAN) / tally.records as f64 * 1e6
            );
        }
        if let Some(clickhouse) = &clickhouse {
            let both = throughput::together(&broker, clickhouse, &args, round);
            eprintln!(
                "round {round}: both at once, {} events: classify {:.0} events/s, {:.0} % of them stored when it was done; \
                 tally {:.0} events/s to the last one",
                both.events,
                both.events as f64 / both.classify_seconds,
                both.stored_by_then as f64 / both.events as f64 * 100.0,
                both.events as f64 / both.tally_seconds
            );
        }
        rounds.push(report::Round { bare, daemon, tally });
    }
    let latencies = (args.latency_seconds > 0).then(|| report::Latencies {
        bare: latency::bare_copy(&broker, &args),
        daemon: latency::daemon(&broker, &args),
    });
    report::print(&args, bytes, &rounds, latencies.as_ref());
}

/// Starts the daemon on `input`, with outputs and groups of its own for each `turn`.
fn start_daemon(broker: &Broker, args: &Args, input: &str, turn: &str, instance: &str) -> Daemon {
    let delivery = args.delivery.to_possible_value().expect("no value is skipped");
    let settings = args.settings.as_ref().map(|path| std::fs::read_to_string(path).expect("the settings can be read"));
    Daemon::start_ready(&format!(
        r#"
{settings}
[kafka]
brokers = "{brokers}"
group_prefix = "triaged-{turn}"
instance = "{instance}"
delivery = "{delivery}"
{strategy}
[[input]]
topic = "{input}"
kind = "log"
[output]
events = "{turn}-events"
escalations = "{turn}-escalations"
dead_letters = "{turn}-dead-letters"
[api]
listen = ""
[log]
filter = "warn"
"#,
        settings = settings.unwrap_or_default(),
        brokers = broker.bootstrap(),
        delivery = delivery.get_name(),
        // Of two idle members the test broker may forget one when the other gives partitions up within a millisecond, as
        // cooperative rebalancing does. How partitions were dealt out does not matter to what is measured.
        strategy = match args.instances.is_empty() {
            true => "",
            false => "properties.\"partition.assignment.strategy\" = \"range\"",
        },
    ))
}

/// Starts the tally role over the events of a `turn`.
fn start_tally(broker: &Broker, clickhouse: &ClickHouse, args: &Args, turn: &str) -> Daemon {
    let settings = args.settings.as_ref().map(|path| std::fs::read_to_string(path).expect("the settings can be read"));
    let mut daemon = Daemon::start_roles(
        "tally",
        &format!(
            r#"
{settings}
[kafka]
brokers = "{brokers}"
group_prefix = "triaged-{turn}"
instance = "bench"
[clickhouse]
url = "{url}"
# The lines lie in a fixed past.
events_retention = "0s"
volumes_retention = "0s"
[output]
events = "{turn}-events"
dead_letters = "{turn}-dead-letters"
[log]
filter = "warn"
"#,
            settings = settings.unwrap_or_default(),
            brokers = broker.bootstrap(),
            url = clickhouse.url(),
        ),
    );
    daemon.wait_ready();
    daemon
}

/// How long anything may take before the bench gives up.
const PATIENCE: Duration = Duration::from_secs(300);
