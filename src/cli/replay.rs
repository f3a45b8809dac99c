//! `triaged replay`: dead letters back to the topics that they came from.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufWriter, Write};
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use crate::config::Config;
use crate::stream::{Feeder, PlainRecord, TopicReader, dead_letter_header};

use super::{Globals, UsageError, write_json};

/// Part of the consumer group's name that remembers what was replayed.
const GROUP: &str = "replay";
/// After this many records what was written is awaited and what was read is committed, so that a replay that is
/// interrupted repeats little.
const CHECKPOINT: u64 = 10_000;
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(60);

/// Put dead letters back to the topics that they came from
///
/// Value, key, headers and timestamp are those of the original record; the headers that told why it was a dead letter
/// are taken off. Reads up to the present end of the topic and remembers for the next time how far it came, also
/// past what --reason left out. A record that cannot be read this time either becomes a dead letter again.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
                             triaged replay --dry-run\n  \
                             triaged replay --reason missing_text --from-start\n  \
                             triaged replay --to quarantine --json")]
pub(super) struct Arguments {
    /// Take only dead letters of these reasons, separated by commas
    #[arg(long, value_name = "REASON", value_delimiter = ',')]
    reason: Vec<String>,

    /// Write to this topic instead of the original ones
    #[arg(long, value_name = "TOPIC")]
    to: Option<String>,

    /// Begin at the oldest dead letter, whatever was replayed before
    #[arg(long)]
    from_start: bool,

    /// End after this many were put back
    #[arg(long, value_name = "N")]
    limit: Option<u64>,

    /// Only say what would be put back
    #[arg(long)]
    dry_run: bool,
}

/// What was done, by reason of the dead letter.
#[derive(Debug, Default, Serialize)]
struct Summary {
    dry_run: bool,
    replayed: BTreeMap<String, u64>,
    /// Left out because of --reason.
    filtered: u64,
    /// Written without their value, because the broker refused it; the original lies where its headers say.
    without_value: u64,
    /// From topics that are not inputs of this configuration, and so are not written to.
    foreign: BTreeMap<String, u64>,
}

/// What is to be done with one dead letter.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    Replay { reason: String, topic: String },
    Filtered,
    WithoutValue,
    Foreign { topic: String },
}

pub(super) fn run(arguments: Arguments, globals: &Globals) -> anyhow::Result<()> {
    let config = globals.load_config()?;
    globals.log_warnings();
    let plan = Plan::new(&arguments, &config)?;
    let dead_letters = &config.output.dead_letters;
    let mut reader = TopicReader::open(&config.kafka, &config.stream, GROUP, dead_letters, arguments.from_start)?;
    let feeder = Feeder::connect(&config.kafka, &config.stream)?;
    let mut summary = Summary { dry_run: arguments.dry_run, ..Summary::default() };
    let mut replayed = 0;
    while arguments.limit.is_none_or(|limit| replayed < limit) {
        let Some(record) = reader.next_record()? else { break };
        let fate = plan.fate(&record);
        summary.count(&fate);
        let Fate::Replay { topic, .. } = fate else { continue };
        replayed += 1;
        if arguments.dry_run {
            continue;
        }
        feeder.send(&topic, &original(record))?;
        if replayed % CHECKPOINT == 0 {
            feeder.flush(ACKNOWLEDGED_WITHIN)?;
            reader.commit()?;
        }
    }
    if !arguments.dry_run {
        // Acknowledged first: a record that is committed and not written would be lost.
        feeder.flush(ACKNOWLEDGED_WITHIN)?;
        reader.commit()?;
    }
    if globals.json { write_json(&summary) } else { Ok(summary.write(&mut BufWriter::new(io::stdout().lock()))?) }
}

/// Which dead letters go where.
struct Plan {
    reasons: BTreeSet<String>,
    to: Option<String>,
    inputs: BTreeSet<String>,
}

impl Plan {
    fn new(arguments: &Arguments, config: &Config) -> Result<Self, UsageError> {
        if arguments.to.as_ref() == Some(&config.output.dead_letters) {
            return Err(UsageError("--to must not be the topic of the dead letters itself".to_owned()));
        }
        Ok(Plan {
            reasons: arguments.reason.iter().cloned().collect(),
            to: arguments.to.clone(),
            inputs: config.inputs.iter().map(|input| input.topic.to_string()).collect(),
        })
    }

    fn fate(&self, record: &PlainRecord) -> Fate {
        let reason = header(record, dead_letter_header::REASON).unwrap_or_else(|| "unknown".to_owned());
        if !self.reasons.is_empty() && !self.reasons.contains(&reason) {
            return Fate::Filtered;
        }
        if header(record, dead_letter_header::OMITTED_BYTES).is_some() {
            return Fate::WithoutValue;
        }
        match (&self.to, header(record, dead_letter_header::TOPIC)) {
            (Some(topic), _) => Fate::Replay { reason, topic: topic.clone() },
            // Whoever can write dead letters could otherwise write to any topic with this program's rights.
            (None, Some(topic)) if self.inputs.contains(&topic) => Fate::Replay { reason, topic },
            (None, topic) => Fate::Foreign { topic: topic.unwrap_or_else(|| "unknown".to_owned()) },
        }
    }
}

fn header(record: &PlainRecord, name: &str) -> Option<String> {
    // The last one counts: a record that was replayed and failed again may carry older ones of its own.
    let (_, value) = record.headers.iter().rev().find(|(key, _)| key == name)?;
    Some(String::from_utf8_lossy(value.as_deref()?).into_owned())
}

/// The record as it was before it became a dead letter.
fn original(dead_letter: PlainRecord) -> PlainRecord {
    let timestamp = header(&dead_letter, dead_letter_header::TIMESTAMP).and_then(|text| text.parse().ok());
    let PlainRecord { key, value, headers, .. } = dead_letter;
    let headers = headers.into_iter().filter(|(name, _)| !name.starts_with(dead_letter_header::PREFIX)).collect();
    PlainRecord { key, value, headers, timestamp }
}

impl Summary {
    fn count(&mut self, fate: &Fate) {
        match fate {
            Fate::Replay { reason, .. } => *self.replayed.entry(reason.clone()).or_default() += 1,
            Fate::Filtered => self.filtered += 1,
            Fate::WithoutValue => self.without_value += 1,
            Fate::Foreign { topic } => *self.foreign.entry(topic.clone()).or_default() += 1,
        }
    }

    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let verb = if self.dry_run { "would be put back" } else { "put back" };
        writeln!(out, "{} {verb}", self.replayed.values().sum::<u64>())?;
        for (reason, count) in &self.replayed {
            writeln!(out, "  {count:>8}  {reason}")?;
        }
        for (count, why) in [
            (self.filtered, "left out by --reason"),
            (self.without_value, "without their value: the original topic still has it, if it is kept that long"),
        ] {
            if count > 0 {
                writeln!(out, "{count} {why}")?;
            }
        }
        for (topic, count) in &self.foreign {
            writeln!(out, "{count} from {topic}, which is no input of this configuration; --to puts them back")?;
        }
        out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(reasons: &[&str], to: Option<&str>) -> Plan {
        Plan {
            reasons: reasons.iter().map(|reason| reason.to_string()).collect(),
            to: to.map(str::to_owned),
            inputs: BTreeSet::from(["logs".to_owned()]),
        }
    }

    fn dead_letter(headers: &[(&str, &str)]) -> PlainRecord {
        let owned = |(name, value): &(&str, &str)| (name.to_string(), Some(value.as_bytes().to_vec()));
        let (key, value) = (Some(b"key".to_vec()), Some(vec![0xff]));
        PlainRecord { key, value, headers: headers.iter().map(owned).collect(), timestamp: Some(99) }
    }

    #[test]
    fn the_original_is_restored() {
        let letter = dead_letter(&[
            ("tenant", "a"),
            (dead_letter_header::REASON, "invalid_utf8"),
            (dead_letter_header::TOPIC, "logs"),
            (dead_letter_header::TIMESTAMP, "1700000000123"),
        ]);
        let fate = plan(&[], None).fate(&letter);
        assert_eq!(fate, Fate::Replay { reason: "invalid_utf8".into(), topic: "logs".into() });
        let original = original(letter);
        assert_eq!(original.headers, [("tenant".to_owned(), Some(b"a".to_vec()))]);
        assert_eq!((original.value, original.timestamp), (Some(vec![0xff]), Some(1_700_000_000_123)));
    }

    #[test]
    fn only_inputs_are_written_to() {
        let letter = dead_letter(&[(dead_letter_header::TOPIC, "payroll"), (dead_letter_header::REASON, "empty")]);
        assert_eq!(plan(&[], None).fate(&letter), Fate::Foreign { topic: "payroll".into() });
        let to = Fate::Replay { reason: "empty".into(), topic: "quarantine".into() };
        assert_eq!(plan(&[], Some("quarantine")).fate(&letter), to);
        assert_eq!(plan(&[], None).fate(&dead_letter(&[])), Fate::Foreign { topic: "unknown".into() });
    }

    #[test]
    fn reasons_select_and_a_missing_value_is_not_replayed() {
        let headers = [(dead_letter_header::TOPIC, "logs"), (dead_letter_header::REASON, "empty")];
        assert_eq!(plan(&["too_large"], None).fate(&dead_letter(&headers)), Fate::Filtered);
        let omitted = [&headers[..], &[(dead_letter_header::OMITTED_BYTES, "7")]].concat();
        assert_eq!(plan(&["empty"], None).fate(&dead_letter(&omitted)), Fate::WithoutValue);
    }

    #[test]
    fn a_record_that_failed_twice_goes_by_its_last_reason() {
        let headers = [
            (dead_letter_header::REASON, "empty"),
            (dead_letter_header::TOPIC, "old"),
            (dead_letter_header::REASON, "too_large"),
            (dead_letter_header::TOPIC, "logs"),
        ];
        let fate = plan(&[], None).fate(&dead_letter(&headers));
        assert_eq!(fate, Fate::Replay { reason: "too_large".into(), topic: "logs".into() });
    }
}
