//! `triaged migrate`: the ClickHouse tables, created or brought up to this version.

use std::io::{self, Write};

use clap::Args;
use serde::Serialize;

use crate::volumes::{Pending, VolumeStore};

use super::{Globals, UsageError, write_json};

/// Create or update the ClickHouse tables
///
/// Applies what is missing of schemas/clickhouse, in order, and records it in schema_migrations. What is there already
/// is left alone, and several instances may do this at the same time. The daemon does it by itself when it starts,
/// unless clickhouse.migrate is false.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
                             triaged migrate --dry-run\n  \
                             TRIAGED_CLICKHOUSE__URL=http://clickhouse:8123 triaged migrate")]
pub(super) struct Arguments {
    /// Print the statements that are missing and run none
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Serialize)]
struct Step<'a> {
    name: &'a str,
    statements: &'a [String],
    applied: bool,
}

pub(super) fn run(arguments: Arguments, globals: &Globals) -> anyhow::Result<()> {
    let config = globals.load_config()?;
    globals.log_warnings();
    let VolumeStore::ClickHouse(store) = VolumeStore::new(&config) else {
        return Err(UsageError("volumes.store is memory, which has no tables".to_owned()).into());
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let pending = runtime.block_on(store.pending())?;
    if !arguments.dry_run {
        runtime.block_on(store.migrate())?;
    }
    if globals.json {
        let step = |pending: &Pending| -> serde_json::Value {
            let step = Step { name: pending.name(), statements: pending.statements(), applied: !arguments.dry_run };
            serde_json::to_value(step).expect("plain data")
        };
        return write_json(&pending.iter().map(step).collect::<Vec<_>>());
    }
    let mut out = io::stdout().lock();
    if pending.is_empty() {
        writeln!(out, "-- nothing is missing")?;
    }
    for step in &pending {
        if arguments.dry_run {
            writeln!(out, "-- {}", step.name())?;
            for statement in step.statements() {
                writeln!(out, "{statement};\n")?;
            }
        } else {
            writeln!(out, "applied {}", step.name())?;
        }
    }
    Ok(())
}
