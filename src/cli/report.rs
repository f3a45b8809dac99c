//! `triaged report`: how sure the decisions were, and what people said about them.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, ValueEnum};

use crate::config::StoreKind;
use crate::reports::{self, DetailFilter, Mailer, Part};
use crate::volumes::VolumeStore;

use super::{Globals, UsageError};

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// One page with charts that needs nothing else
    Html,
    /// One table; --part says which
    Csv,
    /// Everything
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Table {
    /// Precision and recall of each queue
    Queues,
    /// Events and accuracy by confidence
    Confidence,
    /// Judgements by day
    Feedback,
    /// Each judgement
    Detail,
}

/// Report on decisions and feedback
///
/// Confidence of all events in a time, and what the judged ones say about each queue: precision and recall with 95 %
/// intervals. Those are mostly events that were unsure; the figures say how good the decisions on such events are.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
                             triaged report --from 2026-01-01 --to 2026-02-01 --output january.html\n  \
                             triaged report --format csv --part detail --queue soc --output soc.csv\n  \
                             triaged report --send")]
pub(super) struct Arguments {
    /// First day or time, UTC [default: a week before --to]
    #[arg(long, value_name = "TIME", value_parser = reports::parse_time)]
    from: Option<i64>,

    /// Day or time that is no longer included, UTC [default: now]
    #[arg(long, value_name = "TIME", value_parser = reports::parse_time)]
    to: Option<i64>,

    /// How it is written
    #[arg(long, value_enum, default_value_t = Format::Html)]
    format: Format,

    /// With --format csv: which table
    #[arg(long, value_enum, default_value_t = Table::Queues)]
    part: Table,

    /// Only judgements of this queue in the detail, as it was predicted or as it is right
    #[arg(long)]
    queue: Option<String>,

    /// Only judgements of this person or system in the detail
    #[arg(long, value_name = "NAME")]
    given_by: Option<String>,

    /// Only right (true) or wrong (false) decisions in the detail
    #[arg(long, value_name = "BOOL")]
    correct: Option<bool>,

    /// Most rows of the detail
    #[arg(long, value_name = "ROWS", default_value_t = reports::USUAL_DETAIL)]
    limit: usize,

    /// File to write to [default: the standard output]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Send it to reports.email_to instead
    #[arg(long, conflicts_with = "output")]
    send: bool,
}

pub(super) fn run(arguments: Arguments, globals: &Globals) -> anyhow::Result<()> {
    let config = globals.load_config()?;
    globals.log_warnings();
    if config.volumes.store == StoreKind::Memory {
        return Err(UsageError("volumes.store is memory, which another process cannot read".to_owned()).into());
    }
    if arguments.send && config.reports.email_to.is_empty() {
        return Err(UsageError("--send needs reports.email_to and smtp.server".to_owned()).into());
    }
    let (week_ago, now) = reports::last_week();
    let to = arguments.to.unwrap_or(now);
    let from = arguments.from.unwrap_or(to - (now - week_ago));
    if from >= to {
        return Err(UsageError("--from must be before --to".to_owned()).into());
    }
    let filter = DetailFilter {
        queue: arguments.queue,
        given_by: arguments.given_by,
        correct: arguments.correct,
        limit: Some(arguments.limit),
    };
    let store = VolumeStore::new(&config);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = runtime.block_on(reports::report(&store, from, to, &filter)).context("reading events and feedback")?;
    if arguments.send {
        let mailer = Mailer::new(&config.smtp, &config.reports.email_to)?;
        return Ok(runtime.block_on(mailer.send(&report))?);
    }
    let text = match if globals.json { Format::Json } else { arguments.format } {
        Format::Html => reports::html(&report),
        Format::Json => serde_json::to_string_pretty(&report)? + "\n",
        Format::Csv => reports::csv(&report, part(arguments.part)),
    };
    match &arguments.output {
        Some(path) => fs::write(path, text).with_context(|| format!("cannot write {}", path.display())),
        None => Ok(io::stdout().lock().write_all(text.as_bytes())?),
    }
}

fn part(table: Table) -> Part {
    match table {
        Table::Queues => Part::Queues,
        Table::Confidence => Part::Confidence,
        Table::Feedback => Part::Feedback,
        Table::Detail => Part::Detail,
    }
}
