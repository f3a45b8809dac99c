//! Training: choose settings by cross-validation, calibrate on held-out scores, fit on all rows.
//!
//! Every reported figure comes from rows that the predicting model never saw: a row is predicted by the model of its
//! fold, whose settings and calibration were chosen on the other folds.

use std::path::Path;
use std::time::Instant;

use serde::Serialize;
use thiserror::Error;

use super::FastModel;
use super::calibration::{Calibration, Grasp};
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
    /// Scores (rows × classes) of distinct rows by the models of their folds, and how much of each could be read.
    held_out_scores: Vec<f32>,
    held_out_grasps: Vec<Grasp>,
}

impl Trained {
    pub fn manifest(&self) -> &Manifest {
        &self.package.manifest
    }

    /// The model, ready to serve.
    pub fn model(&self) -> FastModel {
        FastModel::from_package(self.package.clone())
    }

    /// Scores of the distinct rows, each by the model of its fold: rows × classes.
    pub(crate) fn held_out_scores(&self) -> &[f32] {
        &self.held_out_scores
    }

    pub(crate) fn held_out_grasps(&self) -> &[Grasp] {
        &self.held_out_grasps
    }

    /// Manifest and weights, as they are written.
    pub(crate) fn to_bytes(&self) -> Result<(Vec<u8>, Vec<u8>), PackageError> {
        self.package.to_bytes()
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
    progress(Progress { done: of - 1, of, best: Some(chosen.accuracy) });

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
        label_rows: report.per_class.iter().map(|class| class.support).collect(),
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
        held_out_scores: chosen.scores.clone(),
        held_out_grasps: chosen.grasps.clone(),
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

#[cfg(test)]
mod tests {
    use super::super::Scratch;
    use super::super::package::{MANIFEST_FILE, WEIGHTS_FILE};
    use super::super::validation::{cross_validate, few_rows};
    use super::*;
    use crate::record::{LogLine, Record};

    /// Lines of three classes, of which one has only two rows.
    fn dataset() -> Dataset {
        let texts = ["user {} logged in from {}", "disk {} is {} percent full", "legacy api {} is deprecated since {}"];
        let labels = ["login", "disk", "deprecation"];
        let hosts = ["alpha", "beta", "gamma", "delta", "omega", "sigma"];
        let examples = (0..62)
            .map(|row| {
                let class = if row < 2 { 2 } else { row % 2 };
                let text = texts[class].replacen("{}", hosts[row % 6], 1).replacen("{}", &format!("{row}"), 1);
                let record = Record::Log(LogLine { text: text.into(), source: None, level: None, occurred_at: 0 });
                Example { id: row.to_string(), label: labels[class].to_owned(), record }
            })
            .collect();
        Dataset { examples, sha256: "0".repeat(64) }
    }

    fn settings() -> TrainSettings {
        TrainSettings { target_precision: Some(0.9), time_budget: 0.0, ..TrainSettings::new(Kind::Log, "lines") }
    }

    #[test]
    fn the_same_rows_and_seed_give_the_same_bytes_on_any_number_of_threads() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let bytes_with = |threads: usize| {
            let out = folder.path().join(threads.to_string());
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a thread pool");
            let trained = pool.install(|| train(&dataset(), &settings(), &mut |_| {})).expect("trained");
            trained.write(&out).expect("written");
            [MANIFEST_FILE, WEIGHTS_FILE].map(|file| std::fs::read(out.join(file)).expect("written"))
        };
        assert_eq!(bytes_with(1), bytes_with(3));
    }

    #[test]
    fn a_trained_model_serves_and_names_what_is_too_small() {
        let trained = train(&dataset(), &settings(), &mut |_| {}).expect("trained");
        assert_eq!(trained.manifest().small_labels, ["deprecation"]);
        assert!(trained.manifest().thresholds.is_some());
        assert!(trained.report.summary.accuracy > 0.9, "{:?}", trained.report.summary);
        let model = trained.model();
        let record = Record::Log(LogLine {
            text: "user kappa logged in from 99".into(),
            source: None,
            level: None,
            occurred_at: 0,
        });
        let mut scratch = Scratch::new();
        assert_eq!(&*model.labels()[model.classify(&record, &mut scratch).label], "login");
        let strange = Record::Log(LogLine { text: "zqx vvkp wwrt".into(), source: None, level: None, occurred_at: 0 });
        assert!(model.classify(&strange, &mut scratch).confidence < 0.65);
    }

    #[test]
    fn a_wrong_label_is_contradicted() {
        let mut data = dataset();
        assert_eq!(data.examples[20].label, "login");
        data.examples[20].label = "disk".to_owned();
        let trained = train(&data, &settings(), &mut |_| {}).expect("trained");
        // Labels in order: deprecation, disk, login.
        assert_eq!(trained.report.confusion[1][2], 1, "{:?}", trained.report.confusion);
        assert!(trained.suspects.iter().all(|suspect| suspect.predicted != suspect.label));
    }

    #[test]
    fn validation_predicts_only_rows_that_were_not_trained_on() {
        let folds = cross_validate(&dataset(), &settings(), 3, &mut |_| {}).expect("validated");
        assert_eq!((folds.report.summary.rows, folds.accuracies.len()), (62, 3));
        let few = few_rows(&dataset(), &settings(), 10, 2, &mut |_| {}).expect("validated");
        // All rows but the ten of either large class; the small class has no row left.
        assert_eq!(few.report.summary.rows, 2 * (62 - 22));
    }

    #[test]
    fn too_little_is_refused() {
        let refuse = |rows: std::ops::Range<usize>| {
            let rows: Vec<usize> = rows.collect();
            train(&dataset().subset(&rows), &settings(), &mut |_| {}).expect_err("refused")
        };
        assert!(matches!(refuse(0..2), TrainError::OneLabel(1)));
        assert!(matches!(refuse(0..8), TrainError::TooFewRows { rows: 8, folds: 5 }));
    }
}
