//! Choosing settings by cross-validation.
//!
//! Every candidate is tried on the same folds. The choice is a walk: from a good start, one setting at a time, keeping
//! what helps, until the work that training may do is used up. Work is counted, not timed, so that the choice does not
//! depend on the machine.

use std::collections::HashMap;

use rayon::prelude::*;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::calibration::{Calibration, Grasp};
use super::corpus::{Corpus, Vectors, Weighing};
use super::dataset::Example;
use super::evaluation::Outcome;
use super::fast::best;
use super::features::FeatureSettings;
use super::head::{self, FitSettings, Loss, MAX_ITERATIONS, Weights};
use crate::config::DeviceKind;
use crate::record::Record;

/// The widest features that a candidate may use.
const WIDEST: FeatureSettings =
    FeatureSettings { bigrams: true, char_min: 2, char_max: 5, char_share: 0.7, signals: true };

const START: Recipe = Recipe {
    features: FeatureSettings { signals: false, ..WIDEST },
    weighing: Weighing { min_rows: 2, ratio_power: 0.5 },
    fit: FitSettings { loss: Loss::SquaredHinge, cost: 0.3, balance: 1.0 },
};

/// Weight of the log loss beside the error rate when candidates are compared: it decides between near-equals.
const LOG_LOSS_WEIGHT: f64 = 0.1;

/// Multiplications that count as one second of the time budget: what two cores of a small server do.
const WORK_PER_SECOND: f64 = 3.0e9;

/// A combination of settings that validation can choose.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Recipe {
    pub(super) features: FeatureSettings,
    pub(super) weighing: Weighing,
    pub(super) fit: FitSettings,
}

/// What to try instead in the recipe that is best so far, stage by stage, what matters most first.
fn stages() -> Vec<Vec<fn(&mut Recipe)>> {
    vec![
        vec![|_| {}, |recipe| recipe.weighing.ratio_power = 0.0, |recipe| recipe.weighing.ratio_power = 1.0],
        vec![|recipe| recipe.weighing.min_rows = 5],
        vec![|recipe| recipe.fit.cost *= 4.0],
        vec![|recipe| recipe.fit.balance = 0.0],
        vec![|recipe| (recipe.features.char_min, recipe.features.char_max) = (0, 0)],
        vec![|recipe| recipe.features.signals = true],
        vec![|recipe| recipe.features.bigrams = false],
        vec![|recipe| recipe.fit.loss = Loss::Logistic],
    ]
}

/// A recipe with the scores that its fold models gave to the rows they did not see.
#[derive(Debug)]
pub(super) struct Trial {
    pub(super) recipe: Recipe,
    /// Rows × classes.
    pub(super) scores: Vec<f32>,
    /// How much of each row could be read.
    pub(super) grasps: Vec<Grasp>,
    losses: Vec<f32>,
    errors: Vec<bool>,
}

/// The rows, their folds, and the corpus that all fits share.
pub(super) struct Bench {
    corpus: Corpus,
    /// Class of each row: its place in `names`.
    pub(super) labels: Vec<u32>,
    pub(super) names: Vec<String>,
    folds: usize,
    fold_of: Vec<usize>,
    device: DeviceKind,
}

impl Bench {
    pub(super) fn new(examples: &[&Example], names: Vec<String>, folds: usize, seed: u64, device: DeviceKind) -> Self {
        let labels: Vec<u32> = examples.iter().map(|example| class_of(&example.label, &names) as u32).collect();
        let records = examples.iter().map(|example| &example.record as &Record<'_>);
        let fold_of = stratified_folds(&labels, folds, seed);
        Bench { corpus: Corpus::read(records, &WIDEST), labels, names, folds, fold_of, device }
    }

    /// Tries candidates for about `seconds` of work, the first stage in any case; tells after each how many of how many
    /// are done and the best accuracy so far.
    pub(super) fn search(&self, seconds: f64, mut progress: impl FnMut(usize, usize, f64)) -> Vec<Trial> {
        let stages = stages();
        let of = stages.iter().map(Vec::len).sum();
        let mut trials: Vec<Trial> = Vec::new();
        let mut left = seconds * WORK_PER_SECOND;
        for (stage, variations) in stages.into_iter().enumerate() {
            let current = self.best(&trials).map_or(START, |best| trials[best].recipe);
            for vary in variations {
                let mut recipe = current;
                vary(&mut recipe);
                left -= self.work(&recipe);
                if stage > 0 && left < 0.0 {
                    return trials;
                }
                trials.push(self.cross_validate(&recipe));
                let best = self.best(&trials).map_or(0.0, |best| self.accuracy(&trials[best]));
                progress(trials.len(), of, best);
            }
        }
        trials
    }

    /// Multiplications that a recipe's cross-validation takes at most.
    fn work(&self, recipe: &Recipe) -> f64 {
        let per_pass = self.corpus.entries(&recipe.features) * self.names.len();
        // Forward and backward, and about as much again in the optimiser.
        4.0 * per_pass as f64 * (self.folds * MAX_ITERATIONS) as f64
    }

    /// Fits `recipe` to the rows `train`, and turns all rows into vectors.
    pub(super) fn fit(&self, train: &[usize], recipe: &Recipe) -> (Vectors, Weights) {
        let classes = self.names.len();
        let vectors = self.corpus.vectors(train, &self.labels, classes, &recipe.features, &recipe.weighing);
        let labels: Vec<u32> = train.iter().map(|&row| self.labels[row]).collect();
        let device = head::device(self.device);
        let weights = head::fit(&vectors.rows.select(train), &labels, classes, &recipe.fit, &device);
        (vectors, weights)
    }

    fn split(&self, fold: usize) -> (Vec<usize>, Vec<usize>) {
        (0..self.labels.len()).partition(|&row| self.fold_of[row] == fold)
    }

    fn cross_validate(&self, recipe: &Recipe) -> Trial {
        let classes = self.names.len();
        let by_fold: Vec<_> = (0..self.folds)
            .into_par_iter()
            .map(|fold| {
                let (held_out, train) = self.split(fold);
                let (vectors, weights) = self.fit(&train, recipe);
                let scores = weights.scores(&vectors.rows.select(&held_out));
                let grasps: Vec<Grasp> = held_out.iter().map(|&row| vectors.grasps[row]).collect();
                (held_out, scores, grasps)
            })
            .collect();
        let mut scores = vec![0.0; self.labels.len() * classes];
        let mut grasps = vec![Grasp { coverage: 0.0, length: 0.0 }; self.labels.len()];
        for (held_out, fold_scores, fold_grasps) in by_fold {
            for ((row, values), grasp) in held_out.into_iter().zip(fold_scores.chunks(classes)).zip(fold_grasps) {
                scores[row * classes..(row + 1) * classes].copy_from_slice(values);
                grasps[row] = grasp;
            }
        }
        let calibration = Calibration::fit(&scores, &self.labels, classes, &grasps);
        let mut row_scores = vec![0.0; classes];
        let (mut losses, mut errors) = (Vec::new(), Vec::new());
        for ((row, &label), &grasp) in scores.chunks(classes).zip(&self.labels).zip(&grasps) {
            row_scores.copy_from_slice(row);
            calibration.apply(&mut row_scores, grasp);
            losses.push(-row_scores[label as usize].max(1e-9).ln());
            errors.push(best(row) != label as usize);
        }
        Trial { recipe: *recipe, scores, grasps, losses, errors }
    }

    pub(super) fn accuracy(&self, trial: &Trial) -> f64 {
        1.0 - trial.errors.iter().filter(|&&error| error).count() as f64 / trial.errors.len() as f64
    }

    /// Place of the trial that does best.
    pub(super) fn best(&self, trials: &[Trial]) -> Option<usize> {
        let all: Vec<usize> = (0..self.labels.len()).collect();
        best_on(trials, &all)
    }

    /// Each row predicted by its fold's model, with settings and calibration chosen on the other folds.
    pub(super) fn outcomes(&self, trials: &[Trial]) -> Vec<Outcome> {
        let classes = self.names.len();
        let mut outcomes = vec![Outcome { label: 0, predicted: 0, confidence: 0.0 }; self.labels.len()];
        for fold in 0..self.folds {
            let (held_out, others) = self.split(fold);
            let Some(chosen) = best_on(trials, &others) else { continue };
            let trial = &trials[chosen];
            let scores_of = |row: usize| &trial.scores[row * classes..(row + 1) * classes];
            let scores: Vec<f32> = others.iter().flat_map(|&row| scores_of(row)).copied().collect();
            let labels: Vec<u32> = others.iter().map(|&row| self.labels[row]).collect();
            let grasps: Vec<Grasp> = others.iter().map(|&row| trial.grasps[row]).collect();
            let calibration = Calibration::fit(&scores, &labels, classes, &grasps);
            for row in held_out {
                let mut probabilities = scores_of(row).to_vec();
                let predicted = best(&probabilities);
                calibration.apply(&mut probabilities, trial.grasps[row]);
                outcomes[row] =
                    Outcome { label: self.labels[row] as usize, predicted, confidence: probabilities[predicted] };
            }
        }
        outcomes
    }

    /// Rows of which another fold has one with the same `shapes` entry.
    pub(super) fn rows_with_twins(&self, shapes: &[u128]) -> usize {
        let mut folds_of: HashMap<u128, Vec<usize>> = HashMap::new();
        for (shape, &fold) in shapes.iter().zip(&self.fold_of) {
            folds_of.entry(*shape).or_default().push(fold);
        }
        let has_twin = |(shape, fold): &(&u128, &usize)| folds_of[*shape].iter().any(|other| other != *fold);
        shapes.iter().zip(&self.fold_of).filter(has_twin).count()
    }
}

fn best_on(trials: &[Trial], rows: &[usize]) -> Option<usize> {
    let cost = |trial: &Trial| -> f64 {
        rows.iter().map(|&row| f64::from(trial.errors[row]) + LOG_LOSS_WEIGHT * f64::from(trial.losses[row])).sum()
    };
    let costs: Vec<f64> = trials.iter().map(cost).collect();
    (0..trials.len()).min_by(|&a, &b| costs[a].total_cmp(&costs[b]))
}

/// Place of `label` in `names`, which are sorted and hold it.
pub(super) fn class_of(label: &str, names: &[String]) -> usize {
    names.binary_search_by(|name| name.as_str().cmp(label)).expect("the names were taken from the rows")
}

/// All rows, by class, within a class in an order that only the seed decides.
pub(super) fn shuffled(labels: &[u32], seed: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..labels.len()).collect();
    order.sort_by_key(|&row| (labels[row], xxh3_64_with_seed(&(row as u64).to_le_bytes(), seed)));
    order
}

/// Deals the rows of each class to the folds in an order that only the seed decides.
pub(super) fn stratified_folds(labels: &[u32], folds: usize, seed: u64) -> Vec<usize> {
    let mut fold_of = vec![0; labels.len()];
    for (at, row) in shuffled(labels, seed).into_iter().enumerate() {
        fold_of[row] = at % folds;
    }
    fold_of
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folds_share_every_class_evenly_and_depend_on_the_seed_alone() {
        let labels: Vec<u32> = (0..103).map(|row| u32::from(row % 10 == 0)).collect();
        let folds = stratified_folds(&labels, 5, 1);
        for class in 0..2 {
            let sizes: Vec<usize> =
                (0..5).map(|fold| (0..103).filter(|&row| labels[row] == class && folds[row] == fold).count()).collect();
            assert!(sizes.iter().max().expect("folds") - sizes.iter().min().expect("folds") <= 1, "{sizes:?}");
        }
        assert_eq!(folds, stratified_folds(&labels, 5, 1));
        assert_ne!(folds, stratified_folds(&labels, 5, 2));
    }
}
