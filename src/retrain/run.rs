//! One training from feedback, from the rows to a version of the registry: for the command line and for the schedule.

use std::path::Path;

use serde::Serialize;

use crate::config::{Config, ModelSettings};
use crate::model::dataset::{Dataset, Example};
use crate::model::train::{Progress, TrainError, TrainSettings, train};
use crate::model::{FastModel, PackageError, Registry, RegistryError, Scratch};
use crate::record::Kind;
use crate::volumes::Judgement;

use super::{Comparison, Conflict, Corrections, Unusable, compare, held_out_rows, merge};

/// Feedback of one training. More is years of it.
pub const MOST_JUDGEMENTS: usize = 500_000;

/// Why there is no new version.
#[derive(Debug, thiserror::Error)]
pub enum RetrainError {
    #[error("the model in use cannot be loaded")]
    Champion(#[source] PackageError),
    #[error("the training failed")]
    Train(#[from] TrainError),
    #[error("the version cannot be written")]
    Write(#[source] PackageError),
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

/// What became of the feedback and of the challenger.
#[derive(Debug, Serialize)]
pub struct Retrained {
    pub name: String,
    pub version: String,
    pub promoted: bool,
    /// The model that was in use; absent when there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub champion: Option<String>,
    pub judgements: usize,
    pub corrections: usize,
    pub added: usize,
    pub unusable: Unusable,
    pub conflicts: Vec<Conflict>,
    /// Corrections that the champion and the new version get right; the latter has learned them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub corrections_right_before: Option<usize>,
    pub corrections_right_after: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comparison: Option<Comparison>,
    pub accuracy: f64,
    pub seconds: f64,
}

/// Trains a version from base rows and judgements; `settings` name the model. `may_promote` is asked at the end, with
/// whether the guard lets it through.
pub fn retrain(
    config: &Config,
    registry: &Registry,
    settings: &TrainSettings,
    base: Dataset,
    judgements: &[Judgement],
    progress: &mut dyn FnMut(Progress),
    may_promote: impl FnOnce(bool) -> bool,
) -> Result<Retrained, RetrainError> {
    let (name, kind) = (settings.name.clone(), settings.kind);
    let champion = champion(&config.model, registry, &name, kind)?;
    let Corrections { usable, unusable } = Corrections::of(judgements, kind, &config.decide.queues, &base.labels());
    let said: Vec<Example> = usable.iter().map(|correction| correction.clone().into_example()).collect();
    let merged = merge(base, usable);
    let comparison = match &champion {
        None => None,
        Some(champion) => {
            let (learn, held_out) = held_out_rows(&merged.dataset);
            let challenger = train(&merged.dataset.subset(&learn), settings, &mut *progress)?.model();
            Some(compare(champion, &challenger, &merged.dataset.subset(&held_out)))
        }
    };
    let trained = train(&merged.dataset, settings, &mut *progress)?;
    let model = trained.model();
    let version = registry.add(&name, |folder| trained.write(folder)).map_err(RetrainError::Write)?;
    let promoted = may_promote(comparison.as_ref().is_none_or(|comparison| comparison.ruling.allows()));
    if promoted {
        registry.promote(&name, &version)?;
    }
    Ok(Retrained {
        name,
        version,
        promoted,
        champion: champion.as_ref().map(|champion| champion.id().to_owned()),
        judgements: judgements.len(),
        corrections: said.len(),
        added: merged.added,
        unusable,
        conflicts: merged.conflicts,
        corrections_right_before: champion.as_ref().map(|champion| right_answers(champion, &said)),
        corrections_right_after: right_answers(&model, &said),
        comparison,
        accuracy: trained.report.summary.accuracy,
        seconds: trained.seconds,
    })
}

/// The name of the model that decides a kind: `registry:NAME` and `builtin:NAME` have one; a folder is one.
pub fn model_name(settings: &ModelSettings, kind: Kind) -> String {
    let spec = spec_of(settings, kind).unwrap_or_default();
    let name = spec.split_once(':').map_or(spec, |(_, name)| name);
    Path::new(name).file_name().map_or_else(|| format!("{kind}s"), |name| name.to_string_lossy().into_owned())
}

fn spec_of(settings: &ModelSettings, kind: Kind) -> Option<&str> {
    match kind {
        Kind::Ticket => settings.ticket.as_deref(),
        Kind::Log => settings.log.as_deref(),
    }
}

/// The version in use, else what the configuration names for the kind.
fn champion(
    settings: &ModelSettings,
    registry: &Registry,
    name: &str,
    kind: Kind,
) -> Result<Option<FastModel>, RetrainError> {
    if registry.current(name)?.is_some() {
        let folder = registry.current_folder(name)?;
        return FastModel::load(&folder.to_string_lossy(), settings.device).map(Some).map_err(RetrainError::Champion);
    }
    match spec_of(settings, kind) {
        Some(spec) if !spec.starts_with("registry:") => {
            FastModel::load_configured(spec, settings).map(Some).map_err(RetrainError::Champion)
        }
        _ => Ok(None),
    }
}

fn right_answers(model: &FastModel, said: &[Example]) -> usize {
    let mut scratch = Scratch::new();
    let is_right =
        |example: &&Example| *model.labels()[model.classify(&example.record, &mut scratch).label] == *example.label;
    said.iter().filter(is_right).count()
}
