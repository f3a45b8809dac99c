//! Labelled rows from JSONL or CSV files, and what is wrong with them: duplicates, contradictions, twins.
//!
//! Column names are given or guessed from those that ticket systems and log corpora use. A row that cannot be used is
//! an error with its line, never a silent skip: a corpus that is read wrongly makes a model that is wrong.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;
use thiserror::Error;
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use super::features;
use super::package::sha256;
use crate::record::{Kind, LogLine, Record, Ticket};

const TITLE_COLUMNS: [&str; 2] = ["title", "subject"];
const TEXT_COLUMNS: [&str; 6] = ["content", "description", "body", "log_message", "message", "text"];
const LABEL_COLUMNS: [&str; 6] = ["assigned_queue", "target_label", "label", "category", "queue", "intent"];
const ID_COLUMNS: [&str; 2] = ["ticket_id", "id"];

/// Why a data set cannot be used.
#[derive(Debug, Error)]
pub enum DatasetError {
    #[error("cannot read {}", .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{}:{line}: not a JSON object", .path.display())]
    Json { path: PathBuf, line: usize, source: serde_json::Error },
    #[error("{}: not a CSV file", .path.display())]
    Csv { path: PathBuf, source: csv::Error },
    #[error("{}: no {role} column; tried {tried}, the file has {found}", .path.display())]
    NoColumn { path: PathBuf, role: &'static str, tried: String, found: String },
    #[error("{}:{line}: the {role} is missing or empty", .path.display())]
    MissingValue { path: PathBuf, line: usize, role: &'static str },
    #[error("{}: no rows", .0.display())]
    Empty(PathBuf),
}

/// Names of columns; `None`: found by the usual names.
#[derive(Debug, Clone, Default)]
pub struct Columns {
    pub title: Option<String>,
    pub text: Option<String>,
    pub label: Option<String>,
    pub id: Option<String>,
}

/// One labelled row.
#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    pub id: String,
    pub label: String,
    pub record: Record<'static>,
}

/// A data set as read.
#[derive(Debug, Clone)]
pub struct Dataset {
    pub examples: Vec<Example>,
    /// Of the file's bytes.
    pub sha256: String,
}

/// Rows to learn from: no row twice.
#[derive(Debug)]
pub struct Distinct<'a> {
    pub examples: Vec<&'a Example>,
    /// Rows dropped because an earlier row has the same text and label.
    pub duplicates: usize,
    /// Ids of rows whose text occurs before with another label; they are kept.
    pub conflicts: Vec<String>,
}

/// Rows of a held-out file that training has seen, or as good as: figures measured on them flatter.
#[derive(Debug, Default, PartialEq, Serialize)]
pub struct Leakage {
    /// Ids of rows whose text is among the training rows, but for case and space.
    pub same_text: Vec<String>,
    /// Ids of further rows that differ from a training row only in case, punctuation, identifiers or numbers of more than
    /// three digits.
    pub same_shape: Vec<String>,
}

type Row = BTreeMap<String, String>;

impl Dataset {
    /// Reads a `.csv` file as CSV with a header, anything else as JSON lines.
    pub fn read(path: &Path, kind: Kind, columns: &Columns) -> Result<Dataset, DatasetError> {
        let bytes = fs::read(path).map_err(|source| DatasetError::Read { path: path.to_owned(), source })?;
        let is_csv = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("csv"));
        let rows = if is_csv { csv_rows(path, &bytes)? } else { json_rows(path, &bytes)? };
        let first = rows.first().ok_or_else(|| DatasetError::Empty(path.to_owned()))?;
        let names = Names::resolve(path, columns, &first.1)?;
        let mut examples = Vec::with_capacity(rows.len());
        for (line, row) in &rows {
            let missing = |role| DatasetError::MissingValue { path: path.to_owned(), line: *line, role };
            let value = |name: &str| row.get(name).map(|value| value.trim()).filter(|value| !value.is_empty());
            let label = value(&names.label).ok_or_else(|| missing("label"))?.to_owned();
            let title = names.title.as_deref().and_then(value);
            let content = value(&names.text);
            let (text, title_len) = match (title, content) {
                (Some(title), Some(content)) => (format!("{title}\n{content}"), title.len()),
                (Some(title), None) => (title.to_owned(), title.len()),
                (None, Some(content)) => (content.to_owned(), 0),
                (None, None) => return Err(missing("text")),
            };
            let id = names.id.as_deref().and_then(value).map_or_else(|| line.to_string(), str::to_owned);
            examples.push(Example { record: record(kind, row, &id, text, title_len), id, label });
        }
        Ok(Dataset { examples, sha256: sha256(&bytes) })
    }

    /// A name for rows that come from several places: the hash of what names them.
    pub fn hash_of<'a>(parts: impl Iterator<Item = &'a str>) -> String {
        sha256(parts.collect::<Vec<_>>().join("\n").as_bytes())
    }

    /// The rows at these places, in this order.
    pub fn subset(&self, rows: &[usize]) -> Dataset {
        Dataset { examples: rows.iter().map(|&row| self.examples[row].clone()).collect(), sha256: self.sha256.clone() }
    }

    /// Labels, sorted, each once.
    pub fn labels(&self) -> Vec<String> {
        let mut labels: Vec<String> = self.examples.iter().map(|example| example.label.clone()).collect();
        labels.sort_unstable();
        labels.dedup();
        labels
    }

    /// Keeps the first of rows that agree in text (but for case and space) and label.
    pub fn distinct(&self) -> Distinct<'_> {
        let mut labels_of: HashMap<u128, Vec<&str>> = HashMap::new();
        let mut distinct = Distinct { examples: Vec::new(), duplicates: 0, conflicts: Vec::new() };
        for example in &self.examples {
            let labels = labels_of.entry(text_hash(&example.record)).or_default();
            if labels.contains(&example.label.as_str()) {
                distinct.duplicates += 1;
                continue;
            }
            if !labels.is_empty() {
                distinct.conflicts.push(example.id.clone());
            }
            labels.push(&example.label);
            distinct.examples.push(example);
        }
        distinct
    }

    /// Which rows of `held_out` are among these rows.
    pub fn leakage(&self, held_out: &Dataset) -> Leakage {
        let seen = |hash: fn(&Record<'_>) -> u128| -> HashSet<u128> {
            self.examples.iter().map(|example| hash(&example.record)).collect()
        };
        let (texts, shapes) = (seen(text_hash), seen(shape_hash));
        let mut leakage = Leakage::default();
        for Example { id, record, .. } in &held_out.examples {
            if texts.contains(&text_hash(record)) {
                leakage.same_text.push(id.clone());
            } else if shapes.contains(&shape_hash(record)) {
                leakage.same_shape.push(id.clone());
            }
        }
        leakage
    }
}

struct Names {
    title: Option<String>,
    text: String,
    label: String,
    id: Option<String>,
}

impl Names {
    fn resolve(path: &Path, columns: &Columns, row: &Row) -> Result<Names, DatasetError> {
        let required = |role, given: &Option<String>, usual: &[&str]| {
            find(given, usual, row).ok_or_else(|| DatasetError::NoColumn {
                path: path.to_owned(),
                role,
                tried: given.clone().unwrap_or_else(|| usual.join(", ")),
                found: row.keys().cloned().collect::<Vec<_>>().join(", "),
            })
        };
        Ok(Names {
            text: required("text", &columns.text, &TEXT_COLUMNS)?,
            label: required("label", &columns.label, &LABEL_COLUMNS)?,
            title: find(&columns.title, &TITLE_COLUMNS, row),
            id: find(&columns.id, &ID_COLUMNS, row),
        })
    }
}

fn find(given: &Option<String>, usual: &[&str], row: &Row) -> Option<String> {
    match given {
        Some(name) => row.contains_key(name).then(|| name.clone()),
        None => usual.iter().find(|name| row.contains_key(**name)).map(|name| (*name).to_owned()),
    }
}

fn record(kind: Kind, row: &Row, id: &str, text: String, title_len: usize) -> Record<'static> {
    let optional = |names: &[&str]| {
        names.iter().find_map(|name| row.get(*name)).filter(|value| !value.is_empty()).map(|value| value.clone().into())
    };
    match kind {
        Kind::Ticket => Record::Ticket(Ticket {
            ticket_id: Some(id.to_owned().into()),
            text: text.into(),
            title_len,
            email_address: optional(&["email_address", "email"]),
            priority: row.get("priority").and_then(|priority| priority.parse().ok()),
            source: optional(&["source"]),
            occurred_at: 0,
        }),
        Kind::Log => Record::Log(LogLine {
            text: text.into(),
            source: optional(&["source", "app", "application", "service", "host"]),
            level: optional(&["level", "severity"]),
            occurred_at: 0,
        }),
    }
}

fn json_rows(path: &Path, bytes: &[u8]) -> Result<Vec<(usize, Row)>, DatasetError> {
    let mut rows = Vec::new();
    for (at, line) in bytes.split(|&byte| byte == b'\n').enumerate().filter(|(_, line)| !line.trim_ascii().is_empty()) {
        let line_number = at + 1;
        let failed = |source| DatasetError::Json { path: path.to_owned(), line: line_number, source };
        let object: BTreeMap<String, Value> = serde_json::from_slice(line).map_err(failed)?;
        let row = object.into_iter().filter_map(|(name, value)| Some((name, text_of(value)?))).collect();
        rows.push((line_number, row));
    }
    Ok(rows)
}

fn text_of(value: Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

fn csv_rows(path: &Path, bytes: &[u8]) -> Result<Vec<(usize, Row)>, DatasetError> {
    let failed = |source| DatasetError::Csv { path: path.to_owned(), source };
    let mut reader = csv::Reader::from_reader(bytes);
    let headers = reader.headers().map_err(failed)?.clone();
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record.map_err(failed)?;
        let line = record.position().map_or(0, |position| position.line() as usize);
        rows.push((line, headers.iter().map(str::to_owned).zip(record.iter().map(str::to_owned)).collect()));
    }
    Ok(rows)
}

/// A number that rows share whose texts differ only in case and space.
pub(crate) fn text_hash(record: &Record<'_>) -> u128 {
    xxh3_128(record.text().split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase().as_bytes())
}

/// A number that rows share which differ only in numbers, identifiers, case or punctuation.
pub(crate) fn shape_hash(record: &Record<'_>) -> u128 {
    let mut hasher = Xxh3::new();
    features::for_each_word(record.text(), &mut Vec::new(), |word| {
        hasher.update(word);
        hasher.update(b" ");
    });
    hasher.digest128()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn file(extension: &str, content: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::Builder::new().suffix(extension).tempfile().expect("a temporary file");
        file.write_all(content.as_bytes()).expect("written");
        file
    }

    #[test]
    fn json_and_csv_give_the_same_rows() {
        let json = file(
            ".jsonl",
            "{\"id\":1,\"title\":\"A, b\",\"text\":\"c\",\"label\":\"x\"}\n\n{\"id\":2,\"title\":\"\",\"text\":\"d\",\"label\":\"y\"}\n",
        );
        let csv = file(".csv", "id,title,text,label\n1,\"A, b\",c,x\n2,,d,y\n");
        let read = |file: &tempfile::NamedTempFile| {
            Dataset::read(file.path(), Kind::Ticket, &Columns::default()).expect("readable").examples
        };
        assert_eq!(read(&json), read(&csv));
        assert_eq!(read(&json)[0].record.text(), "A, b\nc");
        assert_eq!(read(&json)[1].id, "2");
    }

    #[test]
    fn duplicates_go_and_conflicts_are_told() {
        let rows = file(
            ".jsonl",
            "{\"text\":\"Disk  full\",\"label\":\"a\"}\n{\"text\":\"disk full\",\"label\":\"a\"}\n{\"text\":\"disk full\",\"label\":\"b\"}\n",
        );
        let data = Dataset::read(rows.path(), Kind::Log, &Columns::default()).expect("readable");
        let distinct = data.distinct();
        assert_eq!((distinct.duplicates, distinct.examples.len()), (1, 2));
        assert_eq!(distinct.conflicts, ["3"]);
    }

    #[test]
    fn rows_of_a_held_out_file_that_training_saw_are_named() {
        let rows = |texts: &[&str]| {
            let lines: Vec<String> =
                texts.iter().map(|text| format!("{{\"text\":\"{text}\",\"label\":\"a\"}}")).collect();
            Dataset::read(file(".jsonl", &lines.join("\n")).path(), Kind::Log, &Columns::default()).expect("readable")
        };
        let training = rows(&["Disk full on sda1", "User 4373 logged in"]);
        let leakage = training.leakage(&rows(&["mail is late", "disk  FULL on sda1", "user 99121 logged in!"]));
        assert_eq!(leakage, Leakage { same_text: vec!["2".to_owned()], same_shape: vec!["3".to_owned()] });
    }

    #[test]
    fn faults_name_the_line_or_the_columns() {
        let message = |content: &str, columns: &Columns| {
            let rows = file(".jsonl", content);
            Dataset::read(rows.path(), Kind::Log, columns).expect_err("a fault").to_string()
        };
        assert!(
            message("{\"text\":\"a\",\"label\":\"b\"}\nnonsense\n", &Columns::default())
                .contains(":2: not a JSON object")
        );
        assert!(
            message("{\"text\":\"a\",\"label\":\"b\"}\n{\"text\":\"a\"}\n", &Columns::default())
                .contains(":2: the label is missing")
        );
        let columns = Columns { label: Some("team".to_owned()), ..Columns::default() };
        assert!(message("{\"text\":\"a\",\"label\":\"b\"}\n", &columns).contains("no label column; tried team"));
        assert!(message("\n", &Columns::default()).contains("no rows"));
    }

    #[test]
    fn rows_that_differ_in_numbers_have_one_shape() {
        let line =
            |text: &'static str| Record::Log(LogLine { text: text.into(), source: None, level: None, occurred_at: 0 });
        assert_eq!(shape_hash(&line("User 4373 logged in.")), shape_hash(&line("user 99121 logged in")));
        assert_ne!(shape_hash(&line("User 4373 logged in.")), shape_hash(&line("User 4373 logged out.")));
    }
}
