//! `triaged check`: everything that can be wrong before the first record, found without a connection.

use std::io::{self, Write};

use clap::Args;
use serde::Serialize;

use crate::classify::ModelError;
use crate::config::Config;
use crate::finding::Finding;
use crate::model::FastModel;
use crate::record::Kind;
use crate::rules::{Rule, RuleSet};
use crate::stream::{PropertyFaults, check_properties};

use super::{FaultsListed, Globals, write_json};

/// Check configuration, rules with their examples, and models
///
/// Reads everything that `run` would read, without connecting to anything, and lists every fault with its place.
/// Exits with 2 when there is one. Warnings alone are not faults, unless --strict is given.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
                             triaged check --config triaged.toml\n  \
                             triaged check --strict --json | jq '.faults[]'")]
pub(super) struct Arguments {
    /// Treat warnings as faults
    #[arg(long)]
    strict: bool,
}

/// What was looked at and what was found.
#[derive(Debug, Default, Serialize)]
struct Report {
    ok: bool,
    /// One line for each part that is right.
    checked: Vec<String>,
    faults: Vec<Finding>,
    warnings: Vec<Finding>,
}

pub(super) fn run(arguments: Arguments, globals: &Globals) -> anyhow::Result<()> {
    globals.log_warnings();
    let mut report = Report::default();
    match globals.load_config_without_properties() {
        Ok(config) => {
            check_config(&config, &mut report);
            check_rules(&config, &mut report);
            check_models(&config, &mut report);
        }
        Err(faults) => report.faults.extend(faults.as_slice().iter().map(Finding::from)),
    }
    report.ok = report.faults.is_empty() && (report.warnings.is_empty() || !arguments.strict);
    if globals.json {
        write_json(&report)?
    } else {
        write_text(&report, &mut io::stdout().lock())?
    }
    if report.ok { Ok(()) } else { Err(FaultsListed.into()) }
}

fn check_config(config: &Config, report: &mut Report) {
    let topics: Vec<&str> = config.inputs.iter().map(|input| &*input.topic).collect();
    report.checked.push(format!("configuration: reads {} from {}", topics.join(", "), config.kafka.brokers));
    if let Err(PropertyFaults(faults)) = check_properties(&config.kafka) {
        report.faults.extend(faults.into_iter().map(|fault| Finding {
            part: "config",
            place: None,
            key: Some(format!("kafka.properties.\"{}\"", fault.name)),
            value: None,
            problem: fault.problem,
        }));
    }
    let warnings = config.warnings().into_iter();
    report.warnings.extend(warnings.map(Finding::of_config));
}

fn check_rules(config: &Config, report: &mut Report) {
    let rules = match RuleSet::load(&config.rules.files) {
        Ok(rules) => rules,
        Err(faults) => return report.faults.extend(faults.iter().map(Finding::from)),
    };
    report.warnings.extend(rules.warnings().iter().map(Finding::from));
    let faults = rules.check_examples();
    if faults.is_empty() {
        let count = |examples: fn(&Rule) -> usize| rules.rules().iter().map(examples).sum::<usize>();
        let examples = count(|rule| rule.match_examples.len() + rule.no_match_examples.len());
        let (rules, files) = (rules.rules().len(), config.rules.files.len());
        report.checked.push(format!("rules: {rules} in {files} files, {examples} examples hold"));
    }
    report.faults.extend(faults.iter().map(Finding::from));
}

fn check_models(config: &Config, report: &mut Report) {
    let (model, challenger) = (&config.model, &config.model.challenger);
    for (setting, kind, spec) in [
        ("model", Kind::Ticket, &model.ticket),
        ("model", Kind::Log, &model.log),
        ("model.challenger", Kind::Ticket, &challenger.ticket),
        ("model.challenger", Kind::Log, &challenger.log),
    ] {
        let (role, mode) = match setting {
            "model" => ("model", ""),
            _ => ("challenger", challenger.mode.as_str()),
        };
        let Some(spec) = spec else {
            if setting == "model" {
                report.checked.push(format!("no model for {kind} records: rules alone decide"));
            }
            continue;
        };
        match FastModel::load_configured(spec, model) {
            Ok(loaded) if loaded.kind() == kind => {
                let labels = loaded.labels().len();
                let mode = if mode.is_empty() { String::new() } else { format!(", {mode}") };
                report.checked.push(format!("{role} of {kind} records: {}, {labels} labels{mode}", loaded.id()));
            }
            Ok(loaded) => {
                let error = ModelError::Kind(loaded.kind());
                report.faults.push(Finding::of_model(setting, kind, spec, error));
            }
            Err(error) => report.faults.push(Finding::of_model(setting, kind, spec, error)),
        }
    }
}

fn write_text(report: &Report, out: &mut impl Write) -> io::Result<()> {
    for line in &report.checked {
        writeln!(out, "ok       {line}")?;
    }
    let findings = [("warning", &report.warnings), ("fault", &report.faults)];
    for (word, finding) in findings.into_iter().flat_map(|(word, list)| list.iter().map(move |one| (word, one))) {
        writeln!(out, "{word:<8} {finding}")?;
    }
    let (faults, warnings) = (report.faults.len(), report.warnings.len());
    let plural = |count: usize| if count == 1 { "" } else { "s" };
    let verdict = if report.ok { "good" } else { "not good" };
    let (s_of_faults, s_of_warnings) = (plural(faults), plural(warnings));
    writeln!(out, "{verdict}: {faults} fault{s_of_faults}, {warnings} warning{s_of_warnings}")
}
