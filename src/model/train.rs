//! Training: choose settings by cross-validation, calibrate on held-out scores, fit on all rows.
//!
//! Every reported figure comes from rows that the predicting model never saw: a row is predicted by the model of its
//! fold, whose settings and calibration were chosen on the other folds.

use std::time::Instant;

use rayon::prelude::*;
use serde::Serialize;
use thiserror::Error;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::calibration::Calibration;
use super::corpus::{Corpus, Vectors};
use super::dataset::{Dataset, shape_hash};
use super::evaluation::{Outcome, Report, SMALL_LABEL_ROWS, coverage_at};
use super::features::FeatureSettings;
use super::head::{self, FitSettings, Loss, Weights};
use super::package::{
    DataSource, Manifest, Package, PackageError, PackedWeights, Reproduce, Thresholds, WeightsFile, sha256,
};
use crate::config::DeviceKind;
use crate::record::{Kind, Record};

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
    pub target_precision: Option<f32>,
    pub device: DeviceKind,
    pub data_name: String,
    pub licence: Option<String>,
    pub origin: Option<String>,
    /// The command line that is being run, for the manifest.
    pub command: String,
}

/// A combination of settings that validation can choose.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Recipe {
    features: FeatureSettings,
    fit: FitSettings,
    ratio_power: f32,
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

    /// Writes the package as a folder, whole or not at all.
    pub fn write(&self, out: &std::path::Path) -> Result<(), PackageError> {
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
    let bench = Bench::new(dataset, settings)?;
    let mut trials: Vec<Trial> = Vec::new();
    let recipes = recipes();
    for (done, recipe) in recipes.iter().enumerate() {
        progress(Progress {
            done,
            of: recipes.len() + 1,
            best: best_trial(&bench, &trials).map(|best| bench.accuracy(&trials[best])),
        });
        trials.push(bench.cross_validate(recipe));
    }
    let best = best_trial(&bench, &trials).expect("there is at least one recipe");
    progress(Progress { done: recipes.len(), of: recipes.len() + 1, best: Some(bench.accuracy(&trials[best])) });
    let recipe = trials[best].recipe;
    let calibration = Calibration::fit(&trials[best].scores, &bench.labels, bench.names.len());
    let outcomes = bench.honest_outcomes(&trials);
    let method = format!("{}-fold cross-validation, seed {}", settings.folds, settings.seed);
    let report = Report::new(&outcomes, &bench.names, &method);

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
        fit: recipe.fit,
        ratio_power: recipe.ratio_power,
        unseen: vectors.unseen,
        calibration,
        thresholds,
        data: DataSource {
            name: settings.data_name.clone(),
            sha256: dataset.sha256.clone(),
            licence: settings.licence.clone(),
            origin: settings.origin.clone(),
            rows: dataset.rows,
            rows_used: dataset.examples.len(),
        },
        metrics: report.summary.clone(),
        weights: WeightsFile { sha256: sha256(&bytes), features: weights.keys.len() },
        reproduce: Reproduce {
            program: concat!("triaged ", env!("CARGO_PKG_VERSION")).to_owned(),
            command: settings.command.clone(),
            seed: settings.seed,
        },
    };
    let suspects = suspects(dataset, &bench.names, &outcomes);
    let rows_with_twins = bench.rows_with_twins(dataset);
    Ok(Trained {
        package: Package { manifest, weights },
        report,
        suspects,
        rows_with_twins,
        seconds: started.elapsed().as_secs_f64(),
    })
}

fn recipes() -> Vec<Recipe> {
    let base = Recipe {
        features: FeatureSettings { bigrams: true, char_min: 2, char_max: 5, char_share: 0.7, signals: false },
        fit: FitSettings { loss: Loss::SquaredHinge, cost: 0.3, balance: 1.0 },
        ratio_power: 1.0,
    };
    vec![base]
}

/// The trial with the least error.
fn best_trial(bench: &Bench<'_>, trials: &[Trial]) -> Option<usize> {
    let all: Vec<usize> = (0..bench.labels.len()).collect();
    bench.least_error(trials, &all)
}

fn suspects(dataset: &Dataset, names: &[String], outcomes: &[Outcome]) -> Vec<Suspect> {
    let mut suspects: Vec<Suspect> = outcomes
        .iter()
        .zip(&dataset.examples)
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

/// A recipe with the scores that its fold models gave to the rows they did not see.
struct Trial {
    recipe: Recipe,
    /// Rows × classes.
    scores: Vec<f32>,
    /// Log loss and 1 for an error, by row.
    losses: Vec<f32>,
    errors: Vec<bool>,
}

/// The rows, their folds, and the corpus that all fits share.
struct Bench<'a> {
    corpus: Corpus,
    labels: Vec<u32>,
    names: Vec<String>,
    folds: Vec<usize>,
    settings: &'a TrainSettings,
}

/// Weight of the log loss beside the error rate when settings are compared: it decides between near-equals.
const LOG_LOSS_WEIGHT: f64 = 0.1;

impl<'a> Bench<'a> {
    fn new(dataset: &Dataset, settings: &'a TrainSettings) -> Result<Self, TrainError> {
        let names = dataset.labels();
        if names.len() < 2 {
            return Err(TrainError::OneLabel(names.len()));
        }
        let rows = dataset.examples.len();
        if settings.folds < 2 || rows < 2 * settings.folds {
            return Err(TrainError::TooFewRows { rows, folds: settings.folds });
        }
        let labels: Vec<u32> = dataset
            .examples
            .iter()
            .map(|example| names.binary_search(&example.label).expect("labels were taken from these rows") as u32)
            .collect();
        let widest = FeatureSettings { bigrams: true, char_min: 2, char_max: 5, char_share: 1.0, signals: true };
        let records = dataset.examples.iter().map(|example| &example.record as &Record<'_>);
        Ok(Bench {
            corpus: Corpus::read(records, &widest),
            folds: stratified_folds(&labels, settings),
            labels,
            names,
            settings,
        })
    }

    fn fit(&self, train: &[usize], recipe: &Recipe) -> (Vectors, Weights) {
        let vectors = self.corpus.vectors(train, &self.labels, self.names.len(), &recipe.features, recipe.ratio_power);
        let labels: Vec<u32> = train.iter().map(|&row| self.labels[row]).collect();
        let device = head::device(self.settings.device);
        let weights = head::fit(&vectors.rows.select(train), &labels, self.names.len(), &recipe.fit, &device);
        (vectors, weights)
    }

    fn cross_validate(&self, recipe: &Recipe) -> Trial {
        let classes = self.names.len();
        let by_fold: Vec<(Vec<usize>, Vec<f32>)> = (0..self.settings.folds)
            .into_par_iter()
            .map(|fold| {
                let (held_out, train): (Vec<usize>, Vec<usize>) =
                    (0..self.labels.len()).partition(|&row| self.folds[row] == fold);
                let (vectors, weights) = self.fit(&train, recipe);
                let mut scores = vectors.rows.select(&held_out).times(&weights.weight, classes);
                for row in scores.chunks_mut(classes) {
                    row.iter_mut().zip(&weights.bias).for_each(|(score, bias)| *score += bias);
                }
                (held_out, scores)
            })
            .collect();
        let mut scores = vec![0.0; self.labels.len() * classes];
        for (held_out, of_fold) in by_fold {
            for (row, values) in held_out.into_iter().zip(of_fold.chunks(classes)) {
                scores[row * classes..(row + 1) * classes].copy_from_slice(values);
            }
        }
        let calibration = Calibration::fit(&scores, &self.labels, classes);
        let mut probabilities = scores.clone();
        let (mut losses, mut errors) = (Vec::new(), Vec::new());
        for (row, &label) in probabilities.chunks_mut(classes).zip(&self.labels) {
            calibration.apply(row, 1.0);
            losses.push(-row[label as usize].max(1e-9).ln());
            errors.push(largest(row).0 != label as usize);
        }
        Trial { recipe: *recipe, scores, losses, errors }
    }

    fn accuracy(&self, trial: &Trial) -> f64 {
        1.0 - trial.errors.iter().filter(|&&error| error).count() as f64 / trial.errors.len() as f64
    }

    /// The trial that does best on `rows`.
    fn least_error(&self, trials: &[Trial], rows: &[usize]) -> Option<usize> {
        let cost = |trial: &Trial| {
            let sum: f64 = rows
                .iter()
                .map(|&row| f64::from(trial.errors[row]) + LOG_LOSS_WEIGHT * f64::from(trial.losses[row]))
                .sum();
            sum / rows.len() as f64
        };
        (0..trials.len()).min_by(|&a, &b| cost(&trials[a]).total_cmp(&cost(&trials[b])))
    }

    /// Each row predicted by its fold's model, with settings and calibration chosen on the other folds.
    fn honest_outcomes(&self, trials: &[Trial]) -> Vec<Outcome> {
        let classes = self.names.len();
        let mut outcomes = vec![Outcome { label: 0, predicted: 0, confidence: 0.0 }; self.labels.len()];
        for fold in 0..self.settings.folds {
            let (held_out, others): (Vec<usize>, Vec<usize>) =
                (0..self.labels.len()).partition(|&row| self.folds[row] == fold);
            let Some(best) = self.least_error(trials, &others) else {
                continue;
            };
            let trial = &trials[best];
            let of_row = |row: usize| &trial.scores[row * classes..(row + 1) * classes];
            let scores: Vec<f32> = others.iter().flat_map(|&row| of_row(row)).copied().collect();
            let labels: Vec<u32> = others.iter().map(|&row| self.labels[row]).collect();
            let calibration = Calibration::fit(&scores, &labels, classes);
            for row in held_out {
                let mut probabilities = of_row(row).to_vec();
                calibration.apply(&mut probabilities, 1.0);
                let (predicted, confidence) = largest(&probabilities);
                outcomes[row] = Outcome { label: self.labels[row] as usize, predicted, confidence };
            }
        }
        outcomes
    }

    fn rows_with_twins(&self, dataset: &Dataset) -> usize {
        let shapes: Vec<u128> = dataset.examples.iter().map(|example| shape_hash(&example.record)).collect();
        let mut folds_of: std::collections::HashMap<u128, Vec<usize>> = std::collections::HashMap::new();
        for (shape, &fold) in shapes.iter().zip(&self.folds) {
            folds_of.entry(*shape).or_default().push(fold);
        }
        shapes
            .iter()
            .zip(&self.folds)
            .filter(|(shape, fold)| folds_of[shape].iter().any(|other| other != *fold))
            .count()
    }
}

/// Deals the rows of each class to the folds in an order that only the seed decides.
fn stratified_folds(labels: &[u32], settings: &TrainSettings) -> Vec<usize> {
    let mut order: Vec<usize> = (0..labels.len()).collect();
    order.sort_by_key(|&row| (labels[row], xxh3_64_with_seed(&(row as u64).to_le_bytes(), settings.seed)));
    let mut folds = vec![0; labels.len()];
    for (at, row) in order.into_iter().enumerate() {
        folds[row] = at % settings.folds;
    }
    folds
}

fn largest(values: &[f32]) -> (usize, f32) {
    super::fast::best(values)
}
