//! `triaged classify`: files through the daemon's own classifier, without Kafka.

use std::borrow::Cow;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use rayon::prelude::*;
use serde::Serialize;

use crate::classify::{Action, Classifier, Scratch, Verdict};
use crate::config::{Config, DecodeSettings, Format as RecordFormat};
use crate::decode::{Decoder, Reject};
use crate::record::{Alternative, Indicators, Kind, Priority, Reason, Record, Routing};
use crate::rules::indicators;

use super::rows::{self, Layout, Row, Rows};
use super::{Format, Globals, UsageError};

/// Records held at a time: enough work for all cores, and memory stays bounded whatever the file's size.
const SLICE_RECORDS: usize = 4096;
const SLICE_BYTES: usize = 16 << 20;
/// Records that one thread takes at a time.
const CHUNK: usize = 64;
/// Reasons that `--explain` lists when it names no number.
const REASONS: &str = "5";
/// Characters of the text that a table shows.
const SHOWN_TEXT: usize = 60;

/// Classify files or the standard input, without Kafka
///
/// Uses the same rules, cache, models and thresholds as the daemon. Each line, or each row of a CSV file, is one
/// record, written as a producer would write it: a log line in any known format, or a ticket in JSON.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
                             triaged classify --kind log app.log\n  \
                             triaged classify --kind ticket tickets.csv --format csv > routed.csv\n  \
                             triaged classify --kind log --explain=8 --format table app.log\n  \
                             triaged generate --count 100 --tickets 0 | triaged classify --kind log --json | jq .queue")]
pub(super) struct Arguments {
    /// Files; none or `-` reads the standard input
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,

    /// What the records are
    #[arg(long, value_name = "KIND", value_parser = ["ticket", "log"], required_unless_present = "topic")]
    kind: Option<String>,

    /// Decode as this input topic of the configuration is decoded
    #[arg(long, value_name = "TOPIC", conflicts_with = "kind")]
    topic: Option<String>,

    /// How files are divided into records; without it .csv files are CSV and all others lines
    #[arg(long, value_enum)]
    input: Option<Layout>,

    /// How results are written; without it a table on a terminal and JSON lines elsewhere
    #[arg(long, value_enum, conflicts_with = "json")]
    format: Option<Format>,

    /// Name the words, pairs of words, letters and signals that moved the model most, with their weights
    #[arg(long, value_name = "NUMBER", num_args = 0..=1, require_equals = true, default_missing_value = REASONS)]
    explain: Option<usize>,
}

/// The result for one record that could be read.
#[derive(Debug, Serialize)]
struct Decision<'a> {
    file: &'a str,
    line: u64,
    kind: Kind,
    #[serde(skip_serializing_if = "Option::is_none")]
    ticket_id: Option<Cow<'a, str>>,
    queue: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    category: Option<&'a str>,
    priority: Priority,
    confidence: f32,
    routing: Routing,
    decided_by: String,
    /// publish, drop, or escalate when a slower tier would be asked.
    action: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    alternatives: Vec<Alternative<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    reasons: Vec<Reason<'static>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tags: Vec<&'a str>,
    #[serde(skip_serializing_if = "Indicators::is_empty")]
    indicators: Indicators,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a str>,
    /// The beginning of the text, for the table alone.
    #[serde(skip)]
    shown: String,
}

/// The result for one that could not.
#[derive(Debug, Serialize)]
struct Unreadable<'a> {
    file: &'a str,
    line: u64,
    reason: &'static str,
    error: String,
}

type Outcome<'a> = Result<Decision<'a>, Unreadable<'a>>;

#[derive(Debug, Default)]
struct Totals {
    records: u64,
    unreadable: u64,
    auto_routed: u64,
}

pub(super) fn run(arguments: Arguments, globals: &Globals) -> anyhow::Result<()> {
    globals.log_warnings();
    let config = globals.load_config()?;
    let settings = decode_settings(&arguments, &config)?;
    let format = match (globals.json, arguments.format) {
        (true, _) => Format::Jsonl,
        (false, Some(format)) => format,
        (false, None) if io::stdout().is_terminal() => Format::Table,
        (false, None) => Format::Jsonl,
    };
    if arguments.explain.is_some() && format == Format::Csv {
        return Err(
            UsageError("--explain needs --format table or jsonl; a CSV row has no room for reasons".into()).into()
        );
    }
    let session = Session {
        explain: arguments.explain.unwrap_or(config.output.explain),
        classifier: Classifier::load(&config)?,
        decoder: Decoder::new(&settings),
        indicators: config.output.indicators,
    };
    let started = Instant::now();
    let mut sink = Sink::new(format, BufWriter::new(io::stdout().lock()))?;
    let mut totals = Totals::default();
    for path in rows::paths(arguments.files) {
        let mut rows = Rows::open(&path, arguments.input, settings.max_record_bytes)?;
        session.classify_file(&path, &mut rows, &mut sink, &mut totals)?;
    }
    sink.out.flush()?;
    tracing::info!(elapsed = ?started.elapsed(), "classified");
    if io::stderr().is_terminal() {
        let Totals { records, unreadable, auto_routed } = totals;
        let mut out = io::stderr().lock();
        writeln!(out, "{records} records: {auto_routed} sure enough to be routed, {unreadable} unreadable")?;
    }
    Ok(())
}

/// The settings of the topic that was named; else those of the kind, for records in any format.
fn decode_settings(arguments: &Arguments, config: &Config) -> anyhow::Result<DecodeSettings> {
    if let Some(topic) = &arguments.topic {
        let found = config.inputs.iter().find(|input| *input.topic == **topic);
        let known: Vec<&str> = config.inputs.iter().map(|input| &*input.topic).collect();
        let refused = || UsageError(format!("`{topic}` is no input topic; the inputs are {}", known.join(", ")));
        return Ok(found.ok_or_else(refused)?.decode.clone());
    }
    let kind: Kind = arguments.kind.as_deref().unwrap_or("log").parse().map_err(UsageError)?;
    let of_kind = config.inputs.iter().find(|input| input.decode.kind == kind);
    let refused = || UsageError(format!("the configuration has no input of kind {kind}"));
    Ok(DecodeSettings { format: RecordFormat::Auto, ..of_kind.ok_or_else(refused)?.decode.clone() })
}

/// What all records share.
struct Session {
    classifier: Classifier,
    decoder: Decoder,
    indicators: bool,
    explain: usize,
}

impl Session {
    fn classify_file(
        &self,
        path: &Path,
        rows: &mut Rows,
        sink: &mut Sink<impl Write>,
        totals: &mut Totals,
    ) -> anyhow::Result<()> {
        let file = path.to_string_lossy();
        let mut slice: Vec<Row> = Vec::new();
        loop {
            slice.clear();
            let mut bytes = 0;
            while slice.len() < SLICE_RECORDS && bytes < SLICE_BYTES {
                let Some(row) = rows.next_row()? else { break };
                bytes += row.value.len();
                slice.push(row);
            }
            if slice.is_empty() {
                return Ok(());
            }
            let now = chrono::Utc::now().timestamp_millis();
            let outcomes: Vec<Outcome<'_>> = slice
                .par_iter()
                .with_min_len(CHUNK)
                .map_init(Scratch::default, |scratch, row| self.classify_row(&file, row, now, scratch))
                .collect();
            for outcome in &outcomes {
                totals.records += 1;
                match outcome {
                    Ok(decision) => totals.auto_routed += u64::from(decision.routing == Routing::AutoRoute),
                    Err(_) => totals.unreadable += 1,
                }
                sink.write(outcome)?;
            }
        }
    }

    fn classify_row<'a>(&'a self, file: &'a str, row: &'a Row, now: i64, scratch: &mut Scratch) -> Outcome<'a> {
        let unreadable =
            |reject: Reject| Unreadable { file, line: row.line, reason: reject.reason(), error: reject.to_string() };
        let record = self.decoder.decode(&row.value, now).map_err(unreadable)?;
        let key = record.ticket_id().unwrap_or(record.text()).as_bytes();
        let verdict = self.classifier.classify(&record, key, scratch);
        let reasons = self.classifier.explain(&record, &verdict, self.explain);
        let indicators = if self.indicators { indicators::extract(record.text()) } else { Indicators::default() };
        Ok(decision(file, row.line, record, verdict, indicators, reasons))
    }
}

fn decision<'a>(
    file: &'a str,
    line: u64,
    record: Record<'a>,
    verdict: Verdict<'a>,
    indicators: Indicators,
    reasons: Vec<Reason<'static>>,
) -> Decision<'a> {
    let alternatives = verdict.alternatives.into_iter();
    Decision {
        file,
        line,
        kind: record.kind(),
        shown: shown(record.text()),
        queue: verdict.queue,
        category: verdict.category,
        priority: verdict.priority,
        confidence: verdict.confidence,
        routing: verdict.routing,
        decided_by: verdict.decided_by.to_string(),
        action: match verdict.action {
            Action::Publish => "publish",
            Action::Drop => "drop",
            Action::Escalate(_) => "escalate",
        },
        alternatives: alternatives
            .map(|(label, probability)| Alternative { label: label.into(), probability, decided_by: None })
            .collect(),
        reasons,
        tags: verdict.tags,
        indicators,
        model: verdict.model,
        ticket_id: match record {
            Record::Ticket(ticket) => ticket.ticket_id,
            Record::Log(_) => None,
        },
    }
}

/// The beginning of a text on one line; control characters could do harm on a terminal.
fn shown(text: &str) -> String {
    let start = text.chars().take(SHOWN_TEXT);
    start.map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// A feature on one line; the space that begins or ends the letters of a word is made visible.
fn shown_feature(feature: &str) -> String {
    match feature.strip_prefix("letters ") {
        Some(letters) => format!("letters {}", shown(letters).replace(' ', "_")),
        None => shown(feature),
    }
}

/// Where results go, in the order of the input.
struct Sink<W: Write> {
    format: Format,
    out: W,
}

const CSV_HEADER: [&str; 12] = [
    "file",
    "line",
    "kind",
    "ticket_id",
    "queue",
    "category",
    "priority",
    "confidence",
    "routing",
    "decided_by",
    "action",
    "error",
];

impl<W: Write> Sink<W> {
    fn new(format: Format, mut out: W) -> io::Result<Self> {
        match format {
            Format::Jsonl => {}
            Format::Csv => writeln!(out, "{}", CSV_HEADER.join(","))?,
            Format::Table => {
                let (queue, priority, share) = ("queue", "priority", "conf.");
                let (routing, by, text) = ("routing", "decided by", "text");
                writeln!(out, "{:>6}  {queue:<22} {priority:<8} {share:<5} {routing:<13} {by:<24} {text}", "line")?;
            }
        }
        Ok(Sink { format, out })
    }

    fn write(&mut self, outcome: &Outcome<'_>) -> anyhow::Result<()> {
        match (self.format, outcome) {
            (Format::Jsonl, Ok(decision)) => self.write_json(decision)?,
            (Format::Jsonl, Err(unreadable)) => self.write_json(unreadable)?,
            (Format::Csv, outcome) => self.write_csv(outcome)?,
            (Format::Table, Ok(one)) => {
                let Decision { line, queue, confidence, decided_by, shown, .. } = one;
                let (priority, routing) = (one.priority.as_str(), one.routing.as_str());
                writeln!(
                    self.out,
                    "{line:>6}  {queue:<22} {priority:<8} {confidence:<5.2} {routing:<13} {decided_by:<24} {shown}"
                )?;
                if !one.reasons.is_empty() {
                    let reasons: Vec<String> = one
                        .reasons
                        .iter()
                        .map(|Reason { feature, weight }| format!("{} {weight:+.3}", shown_feature(feature)))
                        .collect();
                    writeln!(self.out, "{:>6}  because: {}", "", reasons.join(", "))?;
                }
            }
            (Format::Table, Err(Unreadable { line, error, .. })) => {
                writeln!(self.out, "{line:>6}  (unreadable: {error})")?;
            }
        }
        Ok(())
    }

    fn write_json(&mut self, value: &impl Serialize) -> anyhow::Result<()> {
        serde_json::to_writer(&mut self.out, value).map_err(io::Error::from)?;
        self.out.write_all(b"\n")?;
        Ok(())
    }

    fn write_csv(&mut self, outcome: &Outcome<'_>) -> anyhow::Result<()> {
        let mut writer = csv::WriterBuilder::new().from_writer(Vec::new());
        match outcome {
            Ok(one) => writer.write_record([
                one.file,
                &one.line.to_string(),
                one.kind.as_str(),
                one.ticket_id.as_deref().unwrap_or(""),
                one.queue,
                one.category.unwrap_or(""),
                one.priority.as_str(),
                &format!("{:.4}", one.confidence),
                one.routing.as_str(),
                &one.decided_by,
                one.action,
                "",
            ])?,
            Err(bad) => {
                let line = bad.line.to_string();
                let mut fields = [""; CSV_HEADER.len()];
                (fields[0], fields[1], fields[CSV_HEADER.len() - 1]) = (bad.file, &line, &bad.error);
                writer.write_record(fields)?;
            }
        }
        self.out.write_all(&writer.into_inner().map_err(|error| error.into_error())?)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::classify::Models;
    use crate::rules::RuleSet;

    fn session(kind: Kind, models: Models) -> Session {
        let config = Config::from_toml("").unwrap();
        let rule = "[[rule]]\nid = \"ssh\"\ndescription = \"x\"\nkind = \"any\"\nany = [\"failed password\"]\n\
                    queue = \"soc\"\npriority = \"high\"\n";
        let rules = RuleSet::parse(&[("test.toml".into(), rule.to_owned())]).unwrap();
        let input = config.inputs.iter().find(|input| input.decode.kind == kind).unwrap();
        let settings = DecodeSettings { format: RecordFormat::Auto, ..input.decode.clone() };
        Session {
            classifier: Classifier::new(&config, rules, models),
            decoder: Decoder::new(&settings),
            indicators: true,
            explain: 3,
        }
    }

    fn run_session(session: &Session, text: &str, format: Format) -> (String, Totals) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("records.txt");
        std::fs::write(&path, text).unwrap();
        let mut rows = Rows::open(&path, None, 1024).unwrap();
        let mut sink = Sink::new(format, Vec::new()).unwrap();
        let mut totals = Totals::default();
        session.classify_file(Path::new("records.txt"), &mut rows, &mut sink, &mut totals).unwrap();
        (String::from_utf8(sink.out).unwrap(), totals)
    }

    /// Rules alone decide, so that nothing depends on what a model has learned.
    fn classify(kind: Kind, text: &str, format: Format) -> (String, Totals) {
        run_session(&session(kind, Models::default()), text, format)
    }

    const LINES: &str = "Failed password for root from 10.1.2.3\n{\"nothing\": 1}\nhello\n";

    #[test]
    fn each_record_gives_one_json_line_in_order() {
        let (text, totals) = classify(Kind::Log, LINES, Format::Jsonl);
        let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!((totals.records, totals.unreadable, totals.auto_routed), (3, 1, 1));
        assert_eq!((&lines[0]["queue"], &lines[0]["decided_by"]), (&"soc".into(), &"rule:ssh".into()));
        assert_eq!(lines[0]["indicators"]["ips"][0], "10.1.2.3");
        assert_eq!((&lines[1]["line"], &lines[1]["reason"]), (&2.into(), &"missing_text".into()));
        assert_eq!((&lines[2]["queue"], &lines[2]["routing"]), (&"triage".into(), &"manual_triage".into()));
    }

    #[test]
    fn a_csv_result_has_as_many_fields_as_its_header() {
        let (text, _) = classify(Kind::Log, LINES, Format::Csv);
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        let rows: Vec<csv::StringRecord> = reader.records().collect::<Result<_, _>>().unwrap();
        assert_eq!(rows.len(), 3);
        assert_eq!((&rows[0][4], &rows[0][6], &rows[1][4]), ("soc", "high", ""));
        assert!(rows[1][11].contains("holds text"), "{:?}", rows[1]);
    }

    #[test]
    fn reasons_are_named_with_their_weights_where_the_model_decided() {
        let text = "Failed password for root from 10.1.2.3\nMultiple login failures occurred on user 6454 account\n";
        let session = session(Kind::Log, Models::load(&Config::from_toml("").unwrap()).unwrap());
        let (json, _) = run_session(&session, text, Format::Jsonl);
        let lines: Vec<serde_json::Value> = json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert!(lines[0].get("reasons").is_none(), "a rule is its own reason: {json}");
        let reasons = lines[1]["reasons"].as_array().unwrap();
        let weights: Vec<f64> = reasons.iter().map(|reason| reason["weight"].as_f64().unwrap().abs()).collect();
        assert!(weights.len() == 3 && weights.is_sorted_by(|a, b| a >= b), "{json}");
        let (table, _) = run_session(&session, text, Format::Table);
        assert_eq!(table.matches("because: ").count(), 1, "{table}");
    }

    #[test]
    fn a_ticket_keeps_its_id_and_a_table_shows_no_control_characters() {
        let ticket = r#"{"ticket_id": "T-1", "title": "SSH", "content": "failed password\u001b[31m"}"#;
        let (json, _) = classify(Kind::Ticket, ticket, Format::Jsonl);
        assert!(json.contains(r#""ticket_id":"T-1""#), "{json}");
        let (table, _) = classify(Kind::Ticket, ticket, Format::Table);
        assert!(table.contains("soc") && !table.contains('\u{1b}'), "{table:?}");
    }
}
