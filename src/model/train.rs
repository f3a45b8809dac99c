//! Training: choose settings by cross-validation, calibrate on held-out scores, fit on all rows.
//!
//! Every reported figure comes from rows that the predicting model never saw: a row is predicted by the model of its
//! fold, whose settings and calibration were chosen on the other folds.

use std::path::Path;
use std::time::Instant;

use serde::Serialize;
use thiserror::Error;

use super::FastModel;
use super::calibration::Calibration;
use super::dataset::{Dataset, Example, shape_hash};
use super::evaluation::{Outcome, Report, SMALL_LABEL_ROWS, coverage_at};
use super::package::{
    DataSource, Manifest, Package, PackageError, PackedWeights, Reproduce, Thresholds, WeightsFile, sha256,
};
use super::selection::Bench;
use crate::config::DeviceKind;
use crate::record::Kind;

/// Seconds of work for the search when nothing else is said.
pub const DEFAULT_TIME_BUDGET: f64 = 60.0;

#[derive(Debug, Error)]
pub enum TrainError {
    #[error("the rows have {0} label; at least two are needed")]
    OneLabel(usize),
    #[error("{rows} rows cannot be split into {folds} folds; at least two rows a fold and two folds are needed")]
    TooFewRows { rows: usize, folds: usize },
    #[error(transparent)]
    Package(#[from] PackageError),
}

/// What training is told.
#[derive(Debug, Clone)]
pub struct TrainSettings {
    pub kind: Kind,
    pub name: String,
    pub seed: u64,
    pub folds: usize,
    /// Work that the search for settings may do, in seconds of a small server's two cores.
    pub time_budget: f64,
    pub target_precision: Option<f32>,
    pub device: DeviceKind,
    pub data_name: String,
    pub licence: Option<String>,
    pub origin: Option<String>,
    /// The command line that is being run, for the manifest.
    pub command: String,
}

impl TrainSettings {
    /// The usual settings for a model of this name.
    pub fn new(kind: Kind, name: &str) -> Self {
        TrainSettings {
            kind,
            name: name.to_owned(),
            seed: 42,
            folds: 5,
            time_budget: DEFAULT_TIME_BUDGET,
            target_precision: None,
            device: DeviceKind::Flex,
            data_name: name.to_owned(),
            licence: None,
            origin: None,
            command: String::new(),
        }
    }
}

/// How far training has come.
#[derive(Debug, Clone)]
pub struct Progress {
    pub done: usize,
    pub of: usize,
    /// Accuracy of the best settings so far.
    pub best: Option<f64>,
}

/// A row whose label a confident model of other rows disagrees with.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Suspect {
    pub id: String,
    pub label: String,
    pub predicted: String,
    pub confidence: f32,
}

/// What came out of training.
#[derive(Debug)]
pub struct Trained {
    package: Package,
    /// By cross-validation.
    pub report: Report,
    pub duplicates: usize,
    /// Ids of rows whose text occurs with another label too.
    pub conflicts: Vec<String>,
    /// Most confident first.
    pub suspects: Vec<Suspect>,
    /// Rows that have a twin in another fold which differs only in numbers, case or punctuation: their figures flatter.
    pub rows_with_twins: usize,
    pub seconds: f64,
}

impl Trained {
    pub fn manifest(&self) -> &Manifest {
        &self.package.manifest
    }

    /// The model, ready to serve.
    pub fn model(&self) -> FastModel {
        FastModel::from_package(self.package.clone())
    }

    /// Writes the package as a folder, whole or not at all.
    pub fn write(&self, out: &Path) -> Result<(), PackageError> {
        self.package.write(out)
    }
}

/// A suspect's label is contradicted with at least this confidence.
const SUSPECT_CONFIDENCE: f32 = 0.9;

/// Trains a model on `dataset`.
pub fn train(
    dataset: &Dataset,
    settings: &TrainSettings,
    progress: &mut dyn FnMut(Progress),
) -> Result<Trained, TrainError> {
    let started = Instant::now();
    let distinct = dataset.distinct();
    let names = dataset.labels();
    if names.len() < 2 {
        return Err(TrainError::OneLabel(names.len()));
    }
    let rows = distinct.examples.len();
    if settings.folds < 2 || rows < 2 * settings.folds {
        return Err(TrainError::TooFewRows { rows, folds: settings.folds });
    }
    let bench = Bench::new(&distinct.examples, names, settings.folds, settings.seed, settings.device);
    let mut of = 0;
    let trials = bench.search(settings.time_budget, |done, all, best| {
        of = all + 1;
        progress(Progress { done, of, best: Some(best) });
    });
    let chosen = &trials[bench.best(&trials).expect("the first stage is always tried")];
    let recipe = chosen.recipe;
    let calibration = Calibration::fit(&chosen.scores, &bench.labels, bench.names.len(), &chosen.grasps);
    let outcomes = bench.outcomes(&trials);
    let method = format!("{}-fold cross-validation, seed {}", settings.folds, settings.seed);
    let report = Report::new(&outcomes, &bench.names, &method);
    progress(Progress { done: of - 1, of, best: Some(bench.accuracy(chosen)) });

    let all: Vec<usize> = (0..bench.labels.len()).collect();
    let (vectors, weights) = bench.fit(&all, &recipe);
    let mut weights =
        PackedWeights { keys: vectors.keys, scales: vectors.scales, weight: weights.weight, bias: weights.bias };
    weights.round();
    let bytes = weights.to_bytes().map_err(|source| PackageError::Weights { place: settings.name.clone(), source })?;
    let thresholds = settings.target_precision.and_then(|target_precision| {
        let auto_route = coverage_at(&outcomes, target_precision).threshold?;
        Some(Thresholds { target_precision, auto_route })
    });
    let manifest = Manifest {
        format_version: Manifest::VERSION,
        name: settings.name.clone(),
        kind: settings.kind,
        small_labels: report
            .per_class
            .iter()
            .filter(|class| class.support < SMALL_LABEL_ROWS)
            .map(|class| class.label.clone())
            .collect(),
        labels: bench.names.clone(),
        features: recipe.features,
        weighing: recipe.weighing,
        fit: recipe.fit,
        lengths: vectors.lengths,
        calibration,
        thresholds,
        data: DataSource {
            name: settings.data_name.clone(),
            sha256: dataset.sha256.clone(),
            licence: settings.licence.clone(),
            origin: settings.origin.clone(),
            rows: dataset.examples.len(),
            rows_used: distinct.examples.len(),
        },
        metrics: report.summary.clone(),
        weights: WeightsFile { sha256: sha256(&bytes), features: weights.keys.len() },
        reproduce: Reproduce {
            program: concat!("triaged ", env!("CARGO_PKG_VERSION")).to_owned(),
            command: settings.command.clone(),
            seed: settings.seed,
        },
    };
    let shapes: Vec<u128> = distinct.examples.iter().map(|example| shape_hash(&example.record)).collect();
    Ok(Trained {
        suspects: suspects(&distinct.examples, &bench.names, &outcomes),
        rows_with_twins: bench.rows_with_twins(&shapes),
        package: Package { manifest, weights },
        report,
        duplicates: distinct.duplicates,
        conflicts: distinct.conflicts,
        seconds: started.elapsed().as_secs_f64(),
    })
}

fn suspects(examples: &[&Example], names: &[String], outcomes: &[Outcome]) -> Vec<Suspect> {
    let mut suspects: Vec<Suspect> = outcomes
        .iter()
        .zip(examples)
        .filter(|(outcome, _)| outcome.label != outcome.predicted && outcome.confidence >= SUSPECT_CONFIDENCE)
        .map(|(outcome, example)| Suspect {
            id: example.id.clone(),
            label: example.label.clone(),
            predicted: names[outcome.predicted].clone(),
            confidence: outcome.confidence,
        })
        .collect();
    suspects.sort_by(|a, b| b.confidence.total_cmp(&a.confidence));
    suspects
}
