//! `triaged train --from-feedback`: base rows and what people said since, as a new version of the registry.

use std::io::{self, Write, stdout};
use std::path::Path;

use anyhow::Context;
use chrono::Utc;
use serde::Serialize;

use crate::cli::evaluate::write_summary;
use crate::cli::{Globals, UsageError, write_json};
use crate::config::{Config, ModelSettings, StoreKind};
use crate::model::dataset::Dataset;
use crate::model::train::{TrainSettings, train};
use crate::model::{FastModel, Registry};
use crate::record::Kind;
use crate::retrain::{Comparison, Conflict, Corrections, Ruling, Unusable, compare, held_out_rows, merge};
use crate::volumes::{JudgementQuery, VolumeStore};

use super::{Arguments, progress_bar, show, some};

/// Feedback of one training. More is years of it.
const MOST_JUDGEMENTS: usize = 500_000;

/// What became of the feedback and of the challenger.
#[derive(Debug, Serialize)]
struct Outcome {
    name: String,
    version: String,
    promoted: bool,
    /// The model that was in use; absent when there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    champion: Option<String>,
    judgements: usize,
    corrections: usize,
    added: usize,
    unusable: Unusable,
    conflicts: Vec<Conflict>,
    /// Corrections that the champion and the new version get right; the latter has learned them.
    #[serde(skip_serializing_if = "Option::is_none")]
    corrections_right_before: Option<usize>,
    corrections_right_after: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    comparison: Option<Comparison>,
    accuracy: f64,
    seconds: f64,
}

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
    let settings = TrainSettings { name: name.clone(), ..settings };
    let base = Dataset::read(&arguments.data, kind, &arguments.columns.columns())?;
    let champion = champion(&config.model, &registry, &name, kind)?;

    let judgements = judgements(&config, arguments)?;
    let Corrections { usable, unusable } = Corrections::of(&judgements, kind, &config.decide.queues, &base.labels());
    let said = Dataset {
        examples: usable.iter().map(|correction| correction.clone().into_example()).collect(),
        sha256: String::new(),
    };
    let merged = merge(base, usable);
    let bar = progress_bar();
    let mut progress = |progress| show(&bar, &progress);
    let comparison = match &champion {
        None => None,
        Some(champion) => {
            let (learn, held_out) = held_out_rows(&merged.dataset);
            let challenger = train(&merged.dataset.subset(&learn), &settings, &mut progress)?.model();
            Some(compare(champion, &challenger, &merged.dataset.subset(&held_out)))
        }
    };
    let trained = train(&merged.dataset, &settings, &mut progress)?;
    bar.finish_and_clear();
    let model = trained.model();
    let version = registry.add(&name, |folder| trained.write(folder))?;
    let allowed = comparison.as_ref().is_none_or(|comparison| comparison.ruling.allows());
    let promoted = allowed || arguments.promote;
    if promoted {
        registry.promote(&name, &version)?;
    }
    let outcome = Outcome {
        name,
        version,
        promoted,
        champion: champion.as_ref().map(|champion| champion.id().to_owned()),
        judgements: judgements.len(),
        corrections: said.examples.len(),
        added: merged.added,
        unusable,
        conflicts: merged.conflicts,
        corrections_right_before: champion.as_ref().map(|champion| right_answers(champion, &said)),
        corrections_right_after: right_answers(&model, &said),
        comparison,
        accuracy: trained.report.summary.accuracy,
        seconds: trained.seconds,
    };
    if globals.json {
        return write_json(&outcome);
    }
    write_outcome(&mut stdout().lock(), &outcome, &registry.folder(&outcome.name, &outcome.version))?;
    Ok(())
}

/// `registry:NAME` and `builtin:NAME` have a name; a folder is one.
fn model_name(settings: &ModelSettings, kind: Kind) -> String {
    let spec = match kind {
        Kind::Ticket => &settings.ticket,
        Kind::Log => &settings.log,
    };
    let spec = spec.as_deref().unwrap_or_default();
    let name = spec.split_once(':').map_or(spec, |(_, name)| name);
    Path::new(name).file_name().map_or_else(|| format!("{kind}s"), |name| name.to_string_lossy().into_owned())
}

/// The version in use, else what the configuration names for the kind.
fn champion(
    settings: &ModelSettings,
    registry: &Registry,
    name: &str,
    kind: Kind,
) -> anyhow::Result<Option<FastModel>> {
    if registry.current(name)?.is_some() {
        let folder = registry.current_folder(name)?;
        return Ok(Some(FastModel::load(&folder.to_string_lossy(), settings.device)?));
    }
    let spec = match kind {
        Kind::Ticket => &settings.ticket,
        Kind::Log => &settings.log,
    };
    match spec {
        Some(spec) if !spec.starts_with("registry:") => Ok(Some(FastModel::load_configured(spec, settings)?)),
        _ => Ok(None),
    }
}

fn judgements(config: &Config, arguments: &Arguments) -> anyhow::Result<Vec<crate::volumes::Judgement>> {
    let store = VolumeStore::new(config);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let to = Utc::now().timestamp_millis() + 1;
    let from = to - arguments.since.as_millis() as i64;
    let query = JudgementQuery { from: from.max(0), to, with_text: true, limit: MOST_JUDGEMENTS };
    runtime.block_on(store.judgements(&query)).context("reading the feedback")
}

fn right_answers(model: &FastModel, said: &Dataset) -> usize {
    let mut scratch = crate::model::Scratch::new();
    let is_right = |example: &&crate::model::dataset::Example| {
        *model.labels()[model.classify(&example.record, &mut scratch).label] == *example.label
    };
    said.examples.iter().filter(is_right).count()
}

fn write_outcome(out: &mut impl Write, outcome: &Outcome, folder: &Path) -> io::Result<()> {
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
