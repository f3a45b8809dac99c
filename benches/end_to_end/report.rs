//! What the bench prints: medians over the rounds, as a table or as one JSON object.

use serde_json::json;

use super::latency::Latency;
use super::throughput::Turn;
use crate::Args;

pub(crate) struct Round {
    pub(crate) bare: Turn,
    pub(crate) daemon: Turn,
    pub(crate) tally: Option<Turn>,
}

pub(crate) struct Latencies {
    pub(crate) bare: Latency,
    pub(crate) daemon: Latency,
}

pub(crate) fn print(args: &Args, bytes: usize, rounds: &[Round], latencies: Option<&Latencies>) {
    let bytes_each = bytes as f64 / args.records as f64;
    let contestant = |pick: fn(&Round) -> &Turn, latency: Option<&Latency>| {
        let rate = median(rounds.iter().map(|round| pick(round).records_per_second()));
        let cpu = rounds.iter().filter_map(|round| pick(round).cpu_seconds.map(|cpu| cpu / pick(round).records as f64));
        json!({
            "records_per_second": rate.round(),
            "megabytes_per_second": (rate * bytes_each / 1e4).round() / 100.0,
            "cpu_micros_per_record": (median(cpu) * 1e8).round() / 100.0,
            "latency_records": latency.map(|latency| latency.records),
            "latency_p50_ms": latency.map(|latency| latency.p50_ms),
            "latency_p99_ms": latency.map(|latency| latency.p99_ms),
            "latency_max_ms": latency.map(|latency| latency.max_ms),
        })
    };
    let ratio = median(rounds.iter().map(|round| round.daemon.records_per_second() / round.bare.records_per_second()));
    let tallies = || rounds.iter().filter_map(|round| Some((round.tally.as_ref()?, &round.daemon)));
    let tally_rate = median(tallies().map(|(tally, _)| tally.records_per_second()));
    let tally_ratio = median(tallies().map(|(tally, daemon)| tally.records_per_second() / daemon.records_per_second()));
    let result = json!({
        "records": args.records,
        "bytes_per_record": bytes_each.round(),
        "rounds": args.rounds,
        "partitions": args.partitions,
        "latency_rate": args.rate,
        "bare_copy": contestant(|round| &round.bare, latencies.map(|both| &both.bare)),
        "triaged": contestant(|round| &round.daemon, latencies.map(|both| &both.daemon)),
        "ratio": (ratio * 1000.0).round() / 1000.0,
        "tally_records_per_second": tally_rate.round(),
        "tally_ratio": (tally_ratio * 1000.0).round() / 1000.0,
    });
    if args.json {
        println!("{result}");
        return;
    }
    println!("{} lines of {bytes_each:.0} bytes, medians of {} rounds", args.records, args.rounds);
    println!("{:<22}{:>14}{:>14}", "", "bare copy", "triaged");
    for (name, key) in [
        ("records/s", "records_per_second"),
        ("MB/s", "megabytes_per_second"),
        ("CPU µs a record", "cpu_micros_per_record"),
        ("latency p50, ms", "latency_p50_ms"),
        ("latency p99, ms", "latency_p99_ms"),
        ("latency max, ms", "latency_max_ms"),
    ] {
        println!("{name:<22}{:>14}{:>14}", cell(&result["bare_copy"][key]), cell(&result["triaged"][key]));
    }
    println!("{:<22}{:>28}", "ratio, records/s", result["ratio"]);
    if tallies().next().is_some() {
        println!("{:<22}{:>28}", "tally, events/s", cell(&result["tally_records_per_second"]));
        println!("{:<22}{:>28}", "ratio to classify", cell(&result["tally_ratio"]));
    }
}

fn cell(value: &serde_json::Value) -> String {
    value.as_f64().map_or("-".to_owned(), |number| format!("{number:.1}").trim_end_matches(".0").to_owned())
}

/// NaN of nothing, which JSON writes as null.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
