//! `triaged generate`: a seeded, realistic stream of tickets and log lines.

use std::io::{self, BufWriter, Write};
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;

use crate::config::{Config, parse_duration};
use crate::generate::{Generated, Generator, GeneratorSettings, Timeline, Truth};
use crate::record::{Kind, rfc3339};
use crate::stream::{Feeder, PlainRecord};

use super::{Globals, UsageError};

/// Records are written in slices of this length; shorter ones would only cost system calls.
const SLICE: Duration = Duration::from_millis(10);
/// How long the broker may take to acknowledge the last records.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(60);
const MILLIS_PER_DAY: f64 = 86_400_000.0;

/// Write a realistic stream of tickets and log lines
///
/// Tickets are JSON in the shapes of a CERT's mailbox; log lines are JSON, plain text, syslog and CEF of several
/// applications. A small share cannot be placed by anybody, and a smaller one cannot be read at all. The same seed
/// gives the same records, apart from their times.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
                             triaged generate --count 1000\n  \
                             triaged generate --rate 500 --duration 1m --kafka --config my.toml\n  \
                             triaged generate --count 100000 --history 30d --json")]
pub(super) struct Arguments {
    /// End after this many records
    #[arg(long, value_name = "N")]
    count: Option<u64>,

    /// End after this time, such as 30s or 5m
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    duration: Option<Duration>,

    /// Records a second; without it as fast as they are taken
    #[arg(long, value_name = "N", value_parser = positive)]
    rate: Option<f64>,

    /// Number that all choices follow from
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,

    /// Share of tickets among all records
    #[arg(long, value_name = "SHARE", default_value_t = 0.02, value_parser = share)]
    tickets: f64,

    /// Share of records that nobody could place
    #[arg(long, value_name = "SHARE", default_value_t = 0.01, value_parser = share)]
    unknown: f64,

    /// Share of records that cannot be read
    #[arg(long, value_name = "SHARE", default_value_t = 0.002, value_parser = share)]
    broken: f64,

    /// Write to the input topics of the configuration instead of the standard output
    #[arg(long)]
    kafka: bool,

    /// Spread the records over this much of the past, busy by day and quiet by night; needs --count
    #[arg(long, value_name = "TIME", value_parser = parse_duration, requires = "count", conflicts_with_all = ["rate", "duration"])]
    history: Option<Duration>,
}

pub(super) fn run(arguments: Arguments, globals: &Globals) -> anyhow::Result<()> {
    globals.log_warnings();
    let generator = Generator::new(arguments.seed, settings(&arguments)?);
    let pace = Pace { count: arguments.count, duration: arguments.duration, rate: arguments.rate };
    if arguments.kafka {
        return write_to_kafka(&globals.load_config()?, &arguments, &pace, generator);
    }
    let mut out = BufWriter::new(io::stdout().lock());
    let json = globals.json;
    pace.drive(generator, |slice| {
        for record in slice {
            if json {
                serde_json::to_writer(&mut out, &Described::from(record)).map_err(io::Error::from)?;
            } else {
                out.write_all(&record.value)?;
            }
            out.write_all(b"\n")?;
        }
        out.flush()?;
        Ok(())
    })
}

/// Each record goes to the first input topic of its kind.
fn write_to_kafka(config: &Config, arguments: &Arguments, pace: &Pace, generator: Generator) -> anyhow::Result<()> {
    let topic_of = |kind: Kind| {
        let input = config.inputs.iter().find(|input| input.decode.kind == kind);
        input.map(|input| &*input.topic).ok_or_else(|| UsageError(format!("no input topic is of kind {kind}")))
    };
    let tickets = if arguments.tickets > 0.0 { topic_of(Kind::Ticket)? } else { "" };
    let logs = if arguments.tickets < 1.0 { topic_of(Kind::Log)? } else { "" };
    let feeder = Feeder::connect(&config.kafka, &config.stream)?;
    pace.drive(generator, |slice| {
        for record in slice {
            let topic = if record.kind == Kind::Ticket { tickets } else { logs };
            let plain = PlainRecord {
                key: record.key.as_ref().map(|key| key.clone().into_bytes()),
                value: Some(record.value.clone()),
                headers: Vec::new(),
                timestamp: Some(record.occurred_at),
            };
            feeder.send(topic, &plain)?;
        }
        Ok(())
    })?;
    feeder.flush(ACKNOWLEDGED_WITHIN)?;
    writeln!(io::stderr(), "{} records written to {}", feeder.delivered(), config.kafka.brokers)?;
    Ok(())
}

fn settings(arguments: &Arguments) -> Result<GeneratorSettings, UsageError> {
    let timeline = match (arguments.history, arguments.count) {
        (Some(history), Some(count)) => {
            let history_ms = history.as_millis() as i64;
            if history_ms == 0 {
                return Err(UsageError("--history must be longer than 0".to_owned()));
            }
            Timeline::Rhythm {
                from_ms: chrono::Utc::now().timestamp_millis() - history_ms,
                records_per_day: count as f64 / (history_ms as f64 / MILLIS_PER_DAY),
            }
        }
        _ => Timeline::Now,
    };
    Ok(GeneratorSettings {
        ticket_share: arguments.tickets,
        broken_share: arguments.broken,
        unknown_share: arguments.unknown,
        timeline,
    })
}

/// When records are due and when the stream ends.
struct Pace {
    count: Option<u64>,
    duration: Option<Duration>,
    rate: Option<f64>,
}

impl Pace {
    /// Hands slices of records over as they fall due, until the end.
    fn drive(
        &self,
        mut records: impl Iterator<Item = Generated>,
        mut take: impl FnMut(&[Generated]) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        /// Enough for one slice at full speed, small enough to stop soon.
        const LARGEST_SLICE: u64 = 4096;
        let start = Instant::now();
        let mut written: u64 = 0;
        let mut slice = Vec::new();
        loop {
            let elapsed = start.elapsed();
            let left = self.count.map_or(u64::MAX, |count| count - written);
            if left == 0 || self.duration.is_some_and(|duration| elapsed >= duration) {
                return Ok(());
            }
            let due = match self.rate {
                // One is due at once, so that slow streams begin with a record.
                Some(rate) => (1.0 + elapsed.as_secs_f64() * rate) as u64 - written,
                None => LARGEST_SLICE,
            };
            if due == 0 {
                std::thread::sleep(SLICE);
                continue;
            }
            slice.clear();
            slice.extend(records.by_ref().take(due.min(left).min(LARGEST_SLICE) as usize));
            take(&slice)?;
            written += slice.len() as u64;
        }
    }
}

/// A record with the truth about it, for `--json`.
#[derive(Serialize)]
struct Described<'a> {
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    /// Bytes that are not UTF-8 are replaced here.
    value: std::borrow::Cow<'a, str>,
    occurred_at: String,
    /// The label that is right; absent when nobody could tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<&'static str>,
    readable: bool,
}

impl<'a> From<&'a Generated> for Described<'a> {
    fn from(record: &'a Generated) -> Self {
        Described {
            kind: record.kind.as_str(),
            key: record.key.as_deref(),
            value: String::from_utf8_lossy(&record.value),
            occurred_at: rfc3339(record.occurred_at),
            label: match record.truth {
                Truth::Label(label) => Some(label),
                Truth::Unknown | Truth::Unreadable => None,
            },
            readable: record.truth != Truth::Unreadable,
        }
    }
}

fn share(text: &str) -> Result<f64, String> {
    let valid = text.parse::<f64>().ok().filter(|share| (0.0..=1.0).contains(share));
    valid.ok_or_else(|| "expected a number from 0 to 1".to_owned())
}

fn positive(text: &str) -> Result<f64, String> {
    let valid = text.parse::<f64>().ok().filter(|rate| *rate > 0.0 && rate.is_finite());
    valid.ok_or_else(|| "expected a number above 0".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collect(pace: &Pace) -> usize {
        let generator = Generator::new(1, GeneratorSettings::default());
        let mut taken = 0;
        pace.drive(generator, |slice| {
            taken += slice.len();
            Ok(())
        })
        .unwrap();
        taken
    }

    #[test]
    fn the_count_is_exact_with_and_without_a_rate() {
        assert_eq!(collect(&Pace { count: Some(10_000), duration: None, rate: None }), 10_000);
        assert_eq!(collect(&Pace { count: Some(300), duration: None, rate: Some(1e5) }), 300);
        assert_eq!(collect(&Pace { count: Some(0), duration: None, rate: None }), 0);
    }

    #[test]
    fn a_stream_never_runs_ahead_of_its_rate() {
        let duration = Duration::from_millis(50);
        let taken = collect(&Pace { count: None, duration: Some(duration), rate: Some(100.0) });
        assert!((1..=6).contains(&taken), "{taken} records");
    }
}
