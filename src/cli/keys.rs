//! `triaged keys`: who may call the API.

use std::io::{self, Write};
use std::time::Duration;

use clap::{Args, Subcommand};
use serde::Serialize;

use crate::config::parse_duration;
use crate::ops::{KeyRecord, KeyState, KeysFile, Moment, Permission};

use super::{Globals, UsageError, write_json};

/// Make, list and revoke the keys of the HTTP API
///
/// They lie in the file that api.keys_file names, secrets as hashes. A daemon that runs notices every change within a few
/// seconds.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
                             triaged keys create --config my.toml --role admin --name ann\n  \
                             triaged keys create --config my.toml --role read --name dashboard --expires 90d\n  \
                             triaged keys list --config my.toml --json | jq '.[] | select(.state == \"valid\")'\n  \
                             triaged keys revoke --config my.toml 1f0c9a2b3d")]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Make a key and show it, this once
    Create(Create),
    /// List all keys, without their secrets
    List,
    /// Revoke a key for ever
    Revoke(Revoke),
}

#[derive(Debug, Args)]
struct Create {
    /// What its holder may do: read looks and classifies, write also gives feedback, admin also changes the daemon
    #[arg(long, value_name = "ROLE", value_parser = ["read", "write", "admin"])]
    role: String,

    /// Who or what will have it; it stands in the audit log
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    name: String,

    /// When it expires, from now; without it never
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    expires: Option<Duration>,
}

#[derive(Debug, Args)]
struct Revoke {
    /// The key's id, which is the middle part of the key
    #[arg(value_name = "ID")]
    id: String,
}

/// A key as it is shown.
#[derive(Debug, Serialize)]
struct Shown {
    id: String,
    name: String,
    role: Permission,
    state: KeyState,
    created_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revoked_at: Option<String>,
    /// Of a new key alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
}

impl Shown {
    fn new(record: KeyRecord) -> Self {
        Shown {
            state: record.state(Moment::now()),
            created_at: record.created_at.into(),
            expires_at: record.expires_at.map(String::from),
            revoked_at: record.revoked_at.map(String::from),
            id: record.id,
            name: record.name,
            role: record.role,
            key: None,
        }
    }
}

pub(super) fn run(arguments: Arguments, globals: &Globals) -> anyhow::Result<()> {
    globals.log_warnings();
    let config = globals.load_config_without_properties()?;
    let path = config.api.keys_file.ok_or_else(|| {
        UsageError(
            "there is no keys file: set api.keys_file (or TRIAGED_API__KEYS_FILE) to the path it shall have".into(),
        )
    })?;
    let file = KeysFile::at(&path);
    match arguments.action {
        Action::Create(create) => create_key(&file, create, globals),
        Action::List => list_keys(&file, globals),
        Action::Revoke(Revoke { id }) => {
            let revoked = Shown::new(file.revoke(&id)?);
            match globals.json {
                true => write_json(&revoked),
                false => Ok(writeln!(io::stdout().lock(), "{} is revoked", revoked.id)?),
            }
        }
    }
}

fn create_key(file: &KeysFile, create: Create, globals: &Globals) -> anyhow::Result<()> {
    let role: Permission = create.role.parse().map_err(|rule: &str| UsageError(rule.to_owned()))?;
    let name = create.name.trim();
    if name.chars().any(char::is_control) {
        return Err(UsageError("--name must not have control characters".to_owned()).into());
    }
    let key = file.create(name, role, create.expires)?;
    let shown = Shown { key: Some(key.text.reveal().to_owned()), ..Shown::new(key.record) };
    if globals.json {
        return write_json(&shown);
    }
    // The key alone goes to the standard output, so that it can be put where it belongs without being seen.
    writeln!(io::stdout().lock(), "{}", key.text.reveal())?;
    let until = shown.expires_at.map_or_else(|| "never expires".to_owned(), |time| format!("expires at {time}"));
    writeln!(io::stderr().lock(), "key {} with the role {role} {until}; it is shown this once", shown.id)?;
    Ok(())
}

fn list_keys(file: &KeysFile, globals: &Globals) -> anyhow::Result<()> {
    let keys: Vec<Shown> = file.read()?.into_iter().map(Shown::new).collect();
    if globals.json {
        return write_json(&keys);
    }
    let mut out = io::stdout().lock();
    let (id, role, state, created, expires) = ("id", "role", "state", "created", "expires");
    writeln!(out, "{id:<10}  {role:<5}  {state:<7}  {created:<24}  {expires:<24}  name")?;
    for key in keys {
        let Shown { id, name, role, state, created_at, expires_at, .. } = key;
        let (state, expires) = (state.as_str(), expires_at.unwrap_or_else(|| "never".to_owned()));
        writeln!(out, "{id:<10}  {role:<5}  {state:<7}  {created_at:<24}  {expires:<24}  {name}")?;
    }
    Ok(())
}
