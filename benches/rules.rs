//! The rules stage: log lines per second at 10 to 3,000 rules, and indicator extraction.
//!
//! Lines come from `$TRIAGED_DATA/loghub` when that is set, else they are synthetic. `rare` rule sets look for phrases
//! that hardly occur; in `common` ones a tenth of the rules looks for words that occur in many lines.

#![allow(clippy::print_stderr)]

use std::fmt::Write as _;
use std::hint::black_box;
use std::path::Path;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use triaged::record::Kind;
use triaged::rules::{BUILTIN_FILES, Prefilter, RuleSet, Scratch, indicators};

const LINES: usize = 4000;
const LINE_BYTES: usize = 110;

/// Lines of about 110 bytes.
fn log_lines() -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(folder) = std::env::var_os("TRIAGED_DATA") {
        let systems = std::fs::read_dir(Path::new(&folder).join("loghub")).expect("TRIAGED_DATA holds loghub");
        let mut paths: Vec<_> = systems.map(|system| system.expect("a folder").path()).collect();
        paths.sort();
        for path in paths.into_iter().filter(|path| path.is_dir()) {
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            let bytes = std::fs::read(path.join(format!("{name}_2k.log"))).expect("a log");
            let text = String::from_utf8_lossy(&bytes).into_owned();
            lines.extend(text.lines().step_by(5).map(str::to_owned));
        }
    } else {
        eprintln!("TRIAGED_DATA is not set: synthetic lines");
        let mut random = StdRng::seed_from_u64(7);
        let words = ["session", "opened", "for", "user", "block", "received", "from", "task", "stage", "error", "at"];
        for number in 0..LINES {
            let mut line = format!("Jul {:2} 12:{:02}:09 host-{number} app[{}]:", number % 30, number % 60, number * 7);
            while line.len() < LINE_BYTES {
                let word = words.choose(&mut random).expect("words");
                write!(line, " {word} {}", random.random_range(0..9999)).expect("memory");
            }
            lines.push(line);
        }
    }
    // Longer lines are cut, so that a line costs about as much in every set.
    for line in &mut lines {
        line.truncate(line.floor_char_boundary(2 * LINE_BYTES));
    }
    lines
}

/// Rules like those that people write: a phrase or two each, now and then `all` and `none`, or a regex. The phrases begin
/// like those of real lines but hardly ever occur; a `common` share of rules looks for two words that do.
fn rule_file(count: usize, common: f64) -> String {
    let mut random = StdRng::seed_from_u64(42);
    let starts = [
        "session",
        "connection",
        "failed",
        "received",
        "error",
        "user",
        "block",
        "starting",
        "kernel",
        "authentication",
        "mimikatz",
        "beacon",
        "ransom",
        "powershell",
        "lsass",
        "shadow",
        "exploit",
        "payload",
        "trojan",
        "tunnel",
    ];
    let ends =
        ["hijacked", "forged", "encrypted", "dumped", "poisoned", "escalated", "spoofed", "quarantined", "beaconed"];
    let frequent = ["error", "failed", "connection", "session", "user", "received", "block", "started", "info", "from"];
    let phrase = |random: &mut StdRng| {
        let (start, end) = (starts.choose(random).expect("starts"), ends.choose(random).expect("ends"));
        format!("{start} {end} {}", random.random_range(0..count.max(10)))
    };
    let mut file = String::new();
    for number in 0..count {
        let conditions = match number % 5 {
            _ if random.random_bool(common) => {
                let words: Vec<_> = frequent.sample(&mut random, 2).collect();
                format!("all = ['{}', '{}']", words[0], words[1])
            }
            0..=2 => format!("any = ['{}', '{} ']", phrase(&mut random), phrase(&mut random)),
            3 => format!("all = ['user', '{}']\nnone = ['test']", phrase(&mut random)),
            _ => format!("regex = '\\b{}\\s+(\\d+|all)'", phrase(&mut random)),
        };
        let outcome = format!("category = 'c{}'\npriority = 'high'", number % 7);
        writeln!(file, "[[rule]]\nid = 'r{number}'\ndescription = 'd'\n{conditions}\n{outcome}\n").expect("memory");
    }
    file
}

fn rules(criterion: &mut Criterion) {
    let lines = log_lines();
    let bytes: usize = lines.iter().map(String::len).sum();
    eprintln!("{} lines of {} bytes on average", lines.len(), bytes / lines.len());
    let mut group = criterion.benchmark_group("rules");
    group.throughput(Throughput::Elements(lines.len() as u64));
    let mut bench = |name: &str, count: usize, files: Vec<(std::sync::Arc<str>, String)>| {
        let prefilter = Prefilter::new(RuleSet::parse(&files).expect("valid rules"));
        let mut scratch = Scratch::default();
        group.bench_with_input(BenchmarkId::new(name, count), &lines, |bencher, lines| {
            bencher.iter(|| {
                for line in lines {
                    black_box(prefilter.apply(Kind::Log, Some("host"), line, &mut scratch));
                }
            });
        });
    };
    for count in [10, 100, 1000, 3000] {
        bench("rare", count, vec![("bench".into(), rule_file(count, 0.0))]);
        bench("common", count, vec![("bench".into(), rule_file(count, 0.1))]);
    }
    let shipped = BUILTIN_FILES.map(|(name, text)| (name.into(), text.to_owned()));
    bench("shipped", 0, shipped.to_vec());
}

fn indicators_of_lines(criterion: &mut Criterion) {
    let lines = log_lines();
    let (with, without): (Vec<_>, Vec<_>) = lines.iter().partition(|line| !indicators::extract(line).is_empty());
    let mut group = criterion.benchmark_group("indicators");
    for (name, lines) in [("lines_with", with), ("lines_without", without)] {
        group.throughput(Throughput::Elements(lines.len() as u64));
        group.bench_with_input(BenchmarkId::from_parameter(name), &lines, |bencher, lines| {
            bencher.iter(|| lines.iter().for_each(|line| drop(black_box(indicators::extract(line)))));
        });
    }
}

criterion_group!(benches, rules, indicators_of_lines);
criterion_main!(benches);
