//! `triaged model`: the versions of the registry, and which of them is in use; and encoders from elsewhere.

mod fetch;

use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::model::{Registry, Version};

use super::{Globals, UsageError, write_json};

/// List, promote or take back trained versions; fetch an encoder
///
/// The registry is the folder `model.registry`; `model.ticket = "registry:NAME"` uses the version of NAME that was
/// promoted last. A running daemon takes a change up by itself (`reload.watch`).
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
                             triaged model list\n  \
                             triaged model promote tickets 0003\n  \
                             triaged model rollback tickets\n  \
                             triaged model fetch minilm")]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Action,

    /// Folder of the registry [default: model.registry]
    #[arg(long, global = true, value_name = "FOLDER")]
    registry: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List all versions with their accuracy; `*` marks the one in use
    List {
        /// Only those of this model
        name: Option<String>,
    },
    /// Put a version into use
    Promote {
        /// Name of the model
        name: String,
        /// Its version, such as 0003
        version: String,
    },
    /// Go back to the version that was in use before
    Rollback {
        /// Name of the model
        name: String,
    },
    Fetch(fetch::Arguments),
}

pub(super) fn run(arguments: Arguments, globals: &Globals) -> anyhow::Result<()> {
    if let Action::Fetch(arguments) = arguments.action {
        return fetch::run(arguments, globals);
    }
    let folder = match arguments.registry {
        Some(folder) => folder,
        None => globals
            .load_config()?
            .model
            .registry
            .ok_or_else(|| UsageError("model.registry is empty; set it or give --registry".to_owned()))?,
    };
    let registry = Registry::new(&folder);
    match arguments.action {
        Action::List { name } => list(&registry, name, globals),
        Action::Promote { name, version } => {
            registry.promote(&name, &version)?;
            tell(&name, &version, globals)
        }
        Action::Rollback { name } => {
            let version = registry.rollback(&name)?;
            tell(&name, &version, globals)
        }
        Action::Fetch(_) => unreachable!("it needs no registry and was run above"),
    }
}

fn list(registry: &Registry, name: Option<String>, globals: &Globals) -> anyhow::Result<()> {
    let names = match name {
        Some(name) => vec![name],
        None => registry.names()?,
    };
    let mut versions: Vec<Version> = Vec::new();
    for name in &names {
        versions.extend(registry.versions(name)?);
    }
    if globals.json {
        return write_json(&versions);
    }
    let mut out = io::stdout().lock();
    writeln!(out, "  {:<20} {:<8} {:>8} {:>7} {:>9}", "name", "version", "rows", "labels", "accuracy")?;
    for Version { name, version, is_current, labels, rows, accuracy } in versions {
        let mark = if is_current { '*' } else { ' ' };
        writeln!(out, "{mark} {name:<20} {version:<8} {rows:>8} {labels:>7} {accuracy:>9.4}")?;
    }
    Ok(())
}

fn tell(name: &str, version: &str, globals: &Globals) -> anyhow::Result<()> {
    if globals.json {
        return write_json(&serde_json::json!({ "name": name, "version": version }));
    }
    writeln!(
        io::stdout().lock(),
        "{name} {version} is in use; a running daemon takes it up when it sees the change, or on SIGHUP"
    )?;
    Ok(())
}
