//! Writing results: text for people, JSON for programs, errors with their causes.

use std::io::{self, Write};

use clap::ValueEnum;
use serde::Serialize;

use crate::telemetry::colours;

/// How a table of results is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// One JSON object a line, complete
    Jsonl,
    /// Comma-separated, the main columns, with a header
    Csv,
    /// Aligned columns for people
    Table,
}

/// Writes one JSON value and a line feed to the standard output.
pub(crate) fn write_json(value: &impl Serialize) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, value).map_err(io::Error::from)?;
    writeln!(out)?;
    Ok(())
}

/// Writes `error: ` and the chain of causes to the standard error.
pub(super) fn write_error(error: &anyhow::Error) {
    let mut out = io::stderr().lock();
    let (start, end) = if colours(&out) { ("\x1b[1;31m", "\x1b[0m") } else { ("", "") };
    // Nobody is left to tell when the standard error is closed.
    drop(writeln!(out, "{start}error:{end} {error:#}"));
}
