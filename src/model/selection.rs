//! Choosing settings by cross-validation.
//!
//! Every candidate is tried on the same folds. The choice is a walk: from a good start, one setting at a time, keeping
//! what helps, until the work that training may do is used up. Work is counted, not timed, so that the choice does not
//! depend on the machine. Where trying every candidate on all folds would take too long, candidates are compared on some
//! of the folds, and the chosen one is then tried on all.

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

/// Where the walk starts.
const START: Recipe = Recipe {
    features: FeatureSettings { signals: false, ..WIDEST },
    weighing: Weighing { min_rows: 5, ratio_power: 0.25 },
    fit: FitSettings { loss: Loss::SquaredHinge, cost: 5.0, balance: 1.0 },
};

/// With fewer rows a class than this, ratios between classes are mostly chance, and validation on so few rows rarely moves
/// the choice, so the start is what counts. Letters count as much as words then, and rare words count where texts are short.
/// Ten rows of each class, mean of 15 draws with scikit-learn's LinearSVC on these features: IT tickets 0.542 with words of
/// one row and 0.487 with words of three; CERT tickets, whose texts are seven times as long, 0.980 and 0.987.
const FEW_ROWS: usize = 30;
/// Different words that are enough to leave rarer ones out, and the rows that a word must be in then.
const ENOUGH_WORDS: usize = 60;
const FEW_ROWS_MIN_ROWS: u32 = 3;

fn start(corpus: &Corpus, classes: usize) -> Recipe {
    if corpus.len() >= FEW_ROWS * classes {
        return START;
    }
    let min_rows = corpus.affordable_min_rows(FEW_ROWS_MIN_ROWS, ENOUGH_WORDS);
    Recipe {
        features: FeatureSettings { char_share: 1.0, ..START.features },
        weighing: Weighing { min_rows, ratio_power: 0.0 },
        ..START
    }
}

/// A candidate replaces the best so far only if it is better by this many standard errors of their difference: what
/// looks better by chance must not win.
const NEEDED_ERRORS: f64 = 1.2;

/// Weight of the log loss beside the error rate when candidates are compared: it decides between near-equals.
const LOG_LOSS_WEIGHT: f64 = 0.1;

/// Candidates that are tried whatever they take: costs of an error, and words that occur in few rows. A wrong choice of
/// these is worse than a training that takes longer.
const ALWAYS_TRIED: usize = 4;

/// If all folds can be afforded for this many candidates, comparing them on fewer is not worth its noise.
const ENOUGH_TRIED: usize = 6;

/// Multiplications that count as one second of the time budget: what two cores of a small server do.
const WORK_PER_SECOND: f64 = 1.8e9;

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
        vec![|_| {}, |recipe| recipe.fit.cost = 1.2, |recipe| recipe.fit.cost = 0.3],
        vec![|recipe| recipe.weighing.min_rows = 2],
        vec![|recipe| recipe.fit.cost = 20.0],
        vec![|recipe| recipe.weighing.ratio_power = 0.5, |recipe| recipe.weighing.ratio_power = 1.0, |recipe| {
            recipe.weighing.ratio_power = 0.0
        }],
        vec![|recipe| recipe.weighing.min_rows = 1],
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
    /// Of each row; 0 and `false` for rows of folds that were left out.
    losses: Vec<f32>,
    errors: Vec<bool>,
    pub(super) accuracy: f64,
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

    /// Tries candidates for about `seconds` of work, the most important ones in any case; tells after each how many of how
    /// many are done and the best accuracy so far. Every trial that is returned was tried on all folds.
    pub(super) fn search(&self, seconds: f64, mut progress: impl FnMut(usize, usize, f64)) -> Vec<Trial> {
        let stages = stages();
        let of = stages.iter().map(Vec::len).sum();
        let mut trials: Vec<Trial> = Vec::new();
        let mut left = seconds * WORK_PER_SECOND;
        let start = start(&self.corpus, self.names.len());
        let all_folds = self.work(&start);
        let folds = match left < all_folds * ENOUGH_TRIED as f64 {
            true => (((left - all_folds) / all_folds * self.folds as f64 / of as f64) as usize).clamp(1, self.folds),
            false => self.folds,
        };
        let share = folds as f64 / self.folds as f64;
        left -= if folds < self.folds { all_folds } else { 0.0 };
        'walk: for variations in stages {
            let current = self.best(&trials).map_or(start, |best| trials[best].recipe);
            for vary in variations {
                let mut recipe = current;
                vary(&mut recipe);
                if trials.iter().any(|trial| trial.recipe == recipe) {
                    continue;
                }
                left -= self.work(&recipe) * share;
                if trials.len() >= ALWAYS_TRIED && left < 0.0 {
                    break 'walk;
                }
                trials.push(self.cross_validate(&recipe, folds));
                let best = self.best(&trials).map_or(0.0, |best| trials[best].accuracy);
                progress(trials.len(), of, best);
            }
        }
        if folds < self.folds
            && let Some(best) = self.best(&trials)
        {
            trials = vec![self.cross_validate(&trials[best].recipe, self.folds)];
            progress(of, of, trials[0].accuracy);
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

    /// Fits a model for each of the first `folds` folds, and scores the rows that it did not see.
    fn cross_validate(&self, recipe: &Recipe, folds: usize) -> Trial {
        let classes = self.names.len();
        let by_fold: Vec<_> = (0..folds)
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
        let tried: Vec<usize> = (0..self.labels.len()).filter(|&row| self.fold_of[row] < folds).collect();
        let calibration = self.calibrate(&scores, &grasps, &tried);
        let mut row_scores = vec![0.0; classes];
        let (mut losses, mut errors) = (vec![0.0; self.labels.len()], vec![false; self.labels.len()]);
        for &row in &tried {
            let label = self.labels[row] as usize;
            row_scores.copy_from_slice(&scores[row * classes..(row + 1) * classes]);
            errors[row] = best(&row_scores) != label;
            calibration.apply(&mut row_scores, grasps[row]);
            losses[row] = -row_scores[label].max(1e-9).ln();
        }
        let wrong = errors.iter().filter(|&&error| error).count();
        let accuracy = 1.0 - wrong as f64 / tried.len().max(1) as f64;
        Trial { recipe: *recipe, scores, grasps, losses, errors, accuracy }
    }

    /// Fits a calibration to the scores of these rows alone.
    fn calibrate(&self, scores: &[f32], grasps: &[Grasp], rows: &[usize]) -> Calibration {
        let classes = self.names.len();
        let of_rows: Vec<f32> =
            rows.iter().flat_map(|&row| &scores[row * classes..(row + 1) * classes]).copied().collect();
        let labels: Vec<u32> = rows.iter().map(|&row| self.labels[row]).collect();
        let grasps: Vec<Grasp> = rows.iter().map(|&row| grasps[row]).collect();
        Calibration::fit(&of_rows, &labels, classes, &grasps)
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
            let calibration = self.calibrate(&trial.scores, &trial.grasps, &others);
            for row in held_out {
                let mut probabilities = trial.scores[row * classes..(row + 1) * classes].to_vec();
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

/// Place of the trial that the walk ends with when it sees these rows only.
fn best_on(trials: &[Trial], rows: &[usize]) -> Option<usize> {
    let cost = |trial: &Trial, row: usize| {
        f64::from(u8::from(trial.errors[row])) + LOG_LOSS_WEIGHT * f64::from(trial.losses[row])
    };
    let is_better = |candidate: &Trial, best: &Trial| {
        let gains = || rows.iter().map(|&row| cost(best, row) - cost(candidate, row));
        let (sum, squares) = (gains().sum::<f64>(), gains().map(|gain| gain * gain).sum::<f64>());
        sum > NEEDED_ERRORS * squares.sqrt()
    };
    (0..trials.len())
        .reduce(|best, candidate| if is_better(&trials[candidate], &trials[best]) { candidate } else { best })
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
    use crate::record::LogLine;

    fn bench(rows: usize, classes: usize) -> (Vec<Example>, usize) {
        let words = ["login", "disk", "mail", "badge", "printer", "backup", "router", "invoice"];
        let example = |row: usize| {
            let class = row % classes;
            let (word, pair) = (words[class % 8], words[(class / 8 + row / classes) % 8]);
            let text = format!("please look at the {word} {class} and the {pair}");
            let record = Record::Log(LogLine { text: text.into(), source: None, level: None, occurred_at: 0 });
            Example { id: row.to_string(), label: format!("label {class:03}"), record }
        };
        ((0..rows).map(example).collect(), classes)
    }

    #[test]
    fn little_time_compares_candidates_on_fewer_folds_and_still_validates_all_rows() {
        let (examples, classes) = bench(400, 20);
        let names: Vec<String> = (0..classes).map(|class| format!("label {class:03}")).collect();
        let bench = Bench::new(&examples.iter().collect::<Vec<_>>(), names, 4, 1, DeviceKind::Flex);
        let mut steps = 0;
        let trials = bench.search(0.0, |_, _, _| steps += 1);
        assert_eq!((trials.len(), steps), (1, ALWAYS_TRIED + 1));
        // A row that no fold has scored would have no score at all.
        assert!(trials[0].scores.chunks(classes).all(|row| row.iter().any(|&score| score != 0.0)));
        assert_eq!(bench.outcomes(&trials).len(), 400);
    }

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
