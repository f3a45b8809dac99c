//! What training is worth on a data set: whole packages trained on some rows and tried on the others.
//!
//! The figures in a manifest come from one search over all rows; these here repeat the search for every split.

use std::collections::HashMap;

use serde::Serialize;

use super::Scratch;
use super::dataset::Dataset;
use super::evaluation::{Outcome, Report};
use super::selection::{class_of, shuffled, stratified_folds};
use super::train::{Progress, TrainError, TrainSettings, train};

/// Predictions for rows that their models never saw, each by a model trained from nothing on other rows.
#[derive(Debug, Serialize)]
pub struct CrossValidated {
    #[serde(flatten)]
    pub report: Report,
    /// Accuracy of each model.
    pub accuracies: Vec<f64>,
}

/// Rows to train on and rows to predict, several times.
#[derive(Debug, Clone)]
pub struct Splits {
    pub splits: Vec<(Vec<usize>, Vec<usize>)>,
    /// How the rows are kept unseen.
    pub method: String,
}

impl Splits {
    /// Deals the rows to `folds` parts; each is predicted once, by what the others teach.
    pub fn parts(dataset: &Dataset, folds: usize, seed: u64) -> Splits {
        let fold_of = stratified_folds(&class_numbers(dataset), folds, seed);
        let splits = (0..folds).map(|fold| (0..fold_of.len()).partition(|&row| fold_of[row] != fold)).collect();
        Splits { splits, method: format!("{folds}-fold cross-validation of the whole training, seed {seed}") }
    }

    /// Draws `per_label` rows of each label, `draws` times; all others are predicted.
    pub fn draws(dataset: &Dataset, per_label: usize, draws: usize, seed: u64) -> Splits {
        let labels = class_numbers(dataset);
        let splits = (0..draws as u64)
            .map(|draw| {
                let mut taken = HashMap::new();
                let mut chosen = vec![false; labels.len()];
                for row in shuffled(&labels, seed + draw) {
                    let taken = taken.entry(labels[row]).or_insert(0);
                    *taken += 1;
                    chosen[row] = *taken <= per_label;
                }
                (0..labels.len()).partition(|&row| chosen[row])
            })
            .collect();
        Splits { splits, method: format!("{draws} draws of {per_label} rows a label, seeds from {seed}") }
    }
}

/// Splits the rows into `folds` parts; each part is predicted by a package trained, with its whole choice of settings,
/// on the other parts.
pub fn cross_validate(
    dataset: &Dataset,
    settings: &TrainSettings,
    folds: usize,
    progress: &mut dyn FnMut(Progress),
) -> Result<CrossValidated, TrainError> {
    validate_splits(dataset, settings, &Splits::parts(dataset, folds, settings.seed), progress)
}

/// Trains on `per_label` rows of each label, drawn `draws` times, and predicts all others.
pub fn few_rows(
    dataset: &Dataset,
    settings: &TrainSettings,
    per_label: usize,
    draws: usize,
    progress: &mut dyn FnMut(Progress),
) -> Result<CrossValidated, TrainError> {
    validate_splits(dataset, settings, &Splits::draws(dataset, per_label, draws, settings.seed), progress)
}

fn validate_splits(
    dataset: &Dataset,
    settings: &TrainSettings,
    Splits { splits, method }: &Splits,
    progress: &mut dyn FnMut(Progress),
) -> Result<CrossValidated, TrainError> {
    let names = dataset.labels();
    let mut outcomes = Vec::new();
    let mut accuracies = Vec::new();
    let mut scratch = Scratch::new();
    for (done, (train_rows, held_out)) in splits.iter().enumerate() {
        progress(Progress { done, of: splits.len(), best: accuracies.last().copied() });
        let model = train(&dataset.subset(train_rows), settings, &mut |_| {})?.model();
        let before = outcomes.len();
        for &row in held_out {
            let example = &dataset.examples[row];
            let found = model.classify(&example.record, &mut scratch);
            let (predicted, confidence) = (class_of(&model.labels()[found.label], &names), found.confidence);
            outcomes.push(Outcome { label: class_of(&example.label, &names), predicted, confidence });
        }
        accuracies.push(Report::new(&outcomes[before..], &names, method).summary.accuracy);
    }
    Ok(CrossValidated { report: Report::new(&outcomes, &names, method), accuracies })
}

fn class_numbers(dataset: &Dataset) -> Vec<u32> {
    let names = dataset.labels();
    dataset.examples.iter().map(|example| class_of(&example.label, &names) as u32).collect()
}
