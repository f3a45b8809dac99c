//! `triaged train --from-feedback`: base rows and what people said since, as a new version of the registry.

use std::io::{self, Write, stdout};
use std::path::Path;

use anyhow::Context;
use chrono::Utc;

use crate::cli::evaluate::write_summary;
use crate::cli::{Globals, UsageError, write_json};
use crate::config::{Config, StoreKind};
use crate::model::Registry;
use crate::model::dataset::Dataset;
use crate::model::train::TrainSettings;
use crate::retrain::{MOST_JUDGEMENTS, Retrained, Ruling, Unusable, model_name, retrain};
use crate::volumes::{JudgementQuery, VolumeStore};

use super::{Arguments, progress_bar, show, some};

pub(super) fn run(arguments: &Arguments, settings: TrainSettings, globals: &Globals) -> anyhow::Result<()> {
    let config = globals.load_config()?;
    globals.log_warnings();
    let folder =
        config.model.registry.clone().ok_or_else(|| UsageError("--from-feedback needs model.registry".into()))?;
    if config.volumes.store == StoreKind::Memory {
        return Err(UsageError("volumes.store is memory, which another process cannot read".to_owned()).into());
    }
    let registry = Registry::new(&folder);
    let kind = arguments.kind;
    let name = arguments.name.clone().unwrap_or_else(|| model_name(&config.model, kind));
    let settings = TrainSettings { name, ..settings };
    let base = Dataset::read(&arguments.data, kind, &arguments.columns.columns())?;
    let judgements = judgements(&config, arguments)?;
    let bar = progress_bar();
    let mut progress = |progress| show(&bar, &progress);
    let may_promote = |is_not_worse| is_not_worse || arguments.promote;
    let outcome = retrain(&config, &registry, &settings, base, &judgements, &mut progress, may_promote)?;
    bar.finish_and_clear();
    if globals.json {
        return write_json(&outcome);
    }
    write_outcome(&mut stdout().lock(), &outcome, &registry.folder(&outcome.name, &outcome.version))?;
    Ok(())
}

fn judgements(config: &Config, arguments: &Arguments) -> anyhow::Result<Vec<crate::volumes::Judgement>> {
    let store = VolumeStore::new(config);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let to = Utc::now().timestamp_millis() + 1;
    let from = to - arguments.since.as_millis() as i64;
    let query = JudgementQuery { from: from.max(0), to, with_text: true, limit: MOST_JUDGEMENTS };
    runtime.block_on(store.judgements(&query)).context("reading the feedback")
}

fn write_outcome(out: &mut impl Write, outcome: &Retrained, folder: &Path) -> io::Result<()> {
    writeln!(
        out,
        "{} judgements, {} of use, {} with a text that is new",
        outcome.judgements, outcome.corrections, outcome.added
    )?;
    let Unusable { without_text, without_queue, ambiguous } = &outcome.unusable;
    if without_text + without_queue > 0 || !ambiguous.is_empty() {
        writeln!(out, "not of use: {without_text} without a text, {without_queue} without the right queue")?;
    }
    for (queue, count) in ambiguous {
        writeln!(out, "  {count} name the queue {queue}, which stands for several categories; give the category too")?;
    }
    if !outcome.conflicts.is_empty() {
        let changed: Vec<String> = outcome
            .conflicts
            .iter()
            .map(|conflict| format!("{} ({} to {})", conflict.id, conflict.label, conflict.new_label))
            .collect();
        writeln!(out, "{} labels were changed: {}", changed.len(), some(&changed))?;
    }
    if let Some(comparison) = &outcome.comparison {
        let champion = outcome.champion.as_deref().unwrap_or_default();
        writeln!(out, "\nchampion {champion}, which may have learned the held-out rows")?;
        write_summary(out, &comparison.champion)?;
        writeln!(out, "challenger, trained without them")?;
        write_summary(out, &comparison.challenger)?;
        let test = &comparison.mcnemar;
        writeln!(
            out,
            "only the champion is right on {} rows, only the challenger on {} (McNemar's exact test: p = {:.4})",
            test.only_first_right, test.only_second_right, test.p_value
        )?;
        match &comparison.ruling {
            Ruling::NotWorse => writeln!(out, "the challenger is not worse")?,
            Ruling::TooFewRows { rows } => writeln!(out, "{rows} rows held out are too few to tell")?,
            Ruling::Worse { .. } => writeln!(out, "the challenger is worse")?,
            Ruling::LabelsLost { labels } => {
                for label in labels {
                    let (name, rows) = (&label.label, label.rows);
                    let (before, after) = (label.recall_before, label.recall_after);
                    writeln!(out, "the recall of {name} falls from {before:.3} to {after:.3} ({rows} rows)")?;
                }
            }
        }
    }
    let before = outcome.corrections_right_before.map_or_else(|| "no champion".to_owned(), |right| right.to_string());
    let (after, all) = (outcome.corrections_right_after, outcome.corrections);
    writeln!(out, "\nright on the corrections: before {before}, now {after} of {all}")?;
    writeln!(out, "{} written after {:.1} s", folder.display(), outcome.seconds)?;
    match outcome.promoted {
        true => writeln!(out, "promoted: it is what registry:{} means from now on", outcome.name),
        false => writeln!(
            out,
            "not promoted; `triaged model promote {} {}` does it all the same",
            outcome.name, outcome.version
        ),
    }
}
