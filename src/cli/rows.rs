//! Files as records: each line, or each row of a CSV file, is the value that a producer would send.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::ValueEnum;

/// How a file is divided into records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Layout {
    /// One record a line: plain text, JSON, syslog or CEF
    Lines,
    /// Comma-separated with a header; column names are field names
    Csv,
}

/// One record and the line of the file where it begins.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) line: u64,
    pub(super) value: Vec<u8>,
}

/// The records of one file or of the standard input (`-`).
pub(super) enum Rows {
    Lines { reader: Box<dyn BufRead>, line: u64, longest: usize },
    Csv { reader: Box<csv::Reader<Box<dyn BufRead>>>, header: Vec<String> },
}

impl Rows {
    /// Opens a file; without a layout its name tells. A line is cut after `longest` bytes and one more, so that
    /// whoever decodes it sees that it is too long.
    pub(super) fn open(path: &Path, layout: Option<Layout>, longest: usize) -> anyhow::Result<Self> {
        let is_csv = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("csv"));
        let layout = layout.unwrap_or(if is_csv { Layout::Csv } else { Layout::Lines });
        let reader: Box<dyn BufRead> = if path == Path::new("-") {
            Box::new(BufReader::new(io::stdin()))
        } else {
            Box::new(BufReader::new(File::open(path).with_context(|| format!("cannot open {}", path.display()))?))
        };
        Rows::new(reader, layout, longest).with_context(|| format!("cannot read {}", path.display()))
    }

    fn new(reader: Box<dyn BufRead>, layout: Layout, longest: usize) -> anyhow::Result<Self> {
        match layout {
            Layout::Lines => Ok(Rows::Lines { reader, line: 0, longest }),
            Layout::Csv => {
                let mut reader = Box::new(csv::ReaderBuilder::new().flexible(true).from_reader(reader));
                let header = reader.headers()?.iter().map(|name| name.trim_start_matches('\u{feff}').to_owned());
                let header = header.collect();
                Ok(Rows::Csv { reader, header })
            }
        }
    }

    /// The next record; empty lines are none.
    pub(super) fn next_row(&mut self) -> anyhow::Result<Option<Row>> {
        match self {
            Rows::Lines { reader, line, longest } => loop {
                let mut value = Vec::new();
                if !read_line(reader, *longest, &mut value)? {
                    return Ok(None);
                }
                *line += 1;
                if !value.trim_ascii().is_empty() {
                    return Ok(Some(Row { line: *line, value }));
                }
            },
            Rows::Csv { reader, header } => {
                let mut record = csv::StringRecord::new();
                if !reader.read_record(&mut record)? {
                    return Ok(None);
                }
                let line = record.position().map_or(0, csv::Position::line);
                let fields = header.iter().zip(&record).filter(|(_, value)| !value.is_empty());
                let object: serde_json::Map<String, serde_json::Value> =
                    fields.map(|(name, value)| (name.clone(), value.into())).collect();
                Ok(Some(Row { line, value: serde_json::to_vec(&object)? }))
            }
        }
    }
}

/// Reads one line without its end, at most `longest` bytes and one more; the rest of a longer one is skipped. Says
/// whether there was a line.
fn read_line(reader: &mut dyn BufRead, longest: usize, line: &mut Vec<u8>) -> io::Result<bool> {
    let limit = longest as u64 + 2;
    if Read::take(&mut *reader, limit).read_until(b'\n', line)? == 0 {
        return Ok(false);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
    } else if line.len() as u64 == limit {
        line.truncate(longest + 1);
        reader.skip_until(b'\n')?;
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    Ok(true)
}

/// The files to read; none means the standard input.
pub(super) fn paths(given: Vec<PathBuf>) -> Vec<PathBuf> {
    if given.is_empty() { vec![PathBuf::from("-")] } else { given }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &'static [u8], layout: Layout, longest: usize) -> Vec<(u64, String)> {
        let mut rows = Rows::new(Box::new(text), layout, longest).unwrap();
        let mut read = Vec::new();
        while let Some(row) = rows.next_row().unwrap() {
            read.push((row.line, String::from_utf8(row.value).unwrap()));
        }
        read
    }

    #[test]
    fn lines_are_counted_and_empty_ones_skipped() {
        let expected = [(1, "a".to_owned()), (4, "b".to_owned())];
        assert_eq!(read(b"a\r\n\n  \nb", Layout::Lines, 10), expected);
    }

    #[test]
    fn a_line_that_is_too_long_is_cut_where_it_can_still_be_seen() {
        let lines = read(b"12345\n123456\n12345678\n1234", Layout::Lines, 5);
        let texts: Vec<&str> = lines.iter().map(|(_, text)| &**text).collect();
        assert_eq!(texts, ["12345", "123456", "123456", "1234"]);
    }

    #[test]
    fn a_csv_row_is_an_object_of_its_columns() {
        let text = b"title,content,id\nA,\"two\nlines\",\nB,b,7,extra\n";
        let expected = [
            (2, r#"{"content":"two\nlines","title":"A"}"#.to_owned()),
            (4, r#"{"content":"b","id":"7","title":"B"}"#.to_owned()),
        ];
        assert_eq!(read(text, Layout::Csv, 100), expected);
    }
}
