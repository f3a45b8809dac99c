//! Training of the head: the fast model first, then a head over its held-out scores and the encoder's embeddings; and if
//! that is asked for, the encoder's last layers are trained on, for each fold without its rows and at the end with all.
//!
//! The scores that the head learns from are those that the fast models of the folds gave to rows they did not see, as
//! in serving (stacking, Wolpert 1992). Candidates are compared on the same folds, and one replaces a simpler one only
//! if it is clearly better, so that few rows never make the tier worse than the fast model.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use rayon::prelude::*;

use super::package::{self, DeepManifest, DeepModelError, EncoderReference, Parts, TunedReference};
use super::{DeepModel, PARTS, Reading, to_sparse};
use crate::model::calibration::{Calibration, Grasp};
use crate::model::dataset::Dataset;
use crate::model::encoder::tune::{TuneSettings, Tuner};
use crate::model::encoder::{Encoder, EncoderError};
use crate::model::evaluation::{Outcome, Report};
use crate::model::fast::best;
use crate::model::head::{self, FitSettings, Loss, Weights};
use crate::model::package::{sha256, write_folder};
use crate::model::selection::{class_of, stratified_folds};
use crate::model::sparse::Sparse;
use crate::model::train::{Progress, TrainError, TrainSettings, Trained, train};

/// Texts that the encoder reads at a time, so that progress is seen.
const TEXTS_AT_A_TIME: usize = 128;

/// A candidate replaces the one before if it is better by this many standard errors of their difference.
const NEEDED_ERRORS: f64 = 1.0;

/// Weight of the log loss beside the error rate.
const LOG_LOSS_WEIGHT: f64 = 0.1;

/// How far training has come.
#[derive(Debug, Clone)]
pub enum DeepProgress {
    /// The fast model's search.
    Fast(Progress),
    /// Texts that the encoder has read.
    Embedding { done: usize, of: usize },
    /// Texts that the encoder's last layers were trained on, in all folds and epochs.
    Tuning { done: usize, of: usize },
    /// Candidates for the head.
    Head { done: usize, of: usize, best: f64 },
}

/// Training an encoder's last layers on.
#[derive(Debug, Clone)]
pub struct FineTune {
    /// Where the encoder was loaded from.
    pub folder: PathBuf,
    /// How many layers: from 1 to all that it has.
    pub layers: usize,
    /// How often each text is seen at most.
    pub epochs: usize,
}

#[derive(Debug, thiserror::Error)]
pub enum DeepTrainError {
    #[error("{asked} layers cannot be trained on: the encoder has {layers}")]
    Layers { asked: usize, layers: usize },
    #[error(transparent)]
    Train(#[from] TrainError),
    #[error("the encoder failed")]
    Encoder(#[from] EncoderError),
}

/// What came out of training.
#[derive(Debug)]
pub struct DeepTrained {
    parts: Parts,
    fast: Trained,
    /// By cross-validation.
    pub report: Report,
    pub seconds: f64,
}

impl DeepTrained {
    pub fn manifest(&self) -> &DeepManifest {
        &self.parts.manifest
    }

    /// The model, ready to serve over the encoder that it was trained with, at whatever precision.
    pub fn model(&self, encoder: Arc<Encoder>) -> Result<DeepModel, DeepModelError> {
        package::assemble(Path::new(&self.parts.manifest.name), self.parts.clone(), self.fast.model(), encoder)
    }

    #[cfg(test)]
    pub(super) fn manifest_mut(&mut self) -> &mut DeepManifest {
        &mut self.parts.manifest
    }

    #[cfg(test)]
    pub(super) fn set_parts(&mut self, weights: Vec<u8>, tuned: Vec<u8>) {
        (self.parts.weights, self.parts.tuned) = (weights, tuned);
    }

    /// What came out of the fast model's training.
    pub fn fast(&self) -> &Trained {
        &self.fast
    }

    /// Writes the package as a folder, whole or not at all.
    pub fn write(&self, out: &Path) -> Result<(), DeepModelError> {
        let (fast_manifest, fast_weights) = self.fast.to_bytes()?;
        let files = package::files(&self.parts, fast_manifest, fast_weights);
        Ok(write_folder(out, package::MARK, &files)?)
    }
}

/// One way to read scores and embedding, and to fit to them.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    reading: Reading,
    cost: f32,
}

/// A candidate with what its fold models gave to rows they did not see.
struct Trial {
    candidate: Candidate,
    scores: Vec<f32>,
    errors: Vec<bool>,
    losses: Vec<f32>,
}

/// Trains a package on `dataset`.
pub fn train_deep(
    dataset: &Dataset,
    settings: &TrainSettings,
    encoder: &Encoder,
    fine_tune: Option<&FineTune>,
    progress: &mut dyn FnMut(DeepProgress),
) -> Result<DeepTrained, DeepTrainError> {
    let started = Instant::now();
    if let Some(FineTune { layers: asked, .. }) = fine_tune
        && !(1..=encoder.layers()).contains(asked)
    {
        return Err(DeepTrainError::Layers { asked: *asked, layers: encoder.layers() });
    }
    let fast = train(dataset, settings, &mut |step| progress(DeepProgress::Fast(step)))?;
    let distinct = dataset.distinct();
    let names = dataset.labels();
    let labels: Vec<u32> = distinct.examples.iter().map(|example| class_of(&example.label, &names) as u32).collect();
    let texts: Vec<&str> = distinct.examples.iter().map(|example| example.record.text()).collect();
    let mut summaries = Vec::with_capacity(texts.len() * PARTS * encoder.dimension());
    for (chunk, some) in texts.chunks(TEXTS_AT_A_TIME).enumerate() {
        progress(DeepProgress::Embedding { done: chunk * TEXTS_AT_A_TIME, of: texts.len() });
        summaries.extend(encoder.summarise(some)?);
    }
    let fold_of = stratified_folds(&labels, settings.folds, settings.seed);
    let tuning = fine_tune
        .map(|fine_tune| Tuning::run(fine_tune, encoder, &texts, (&labels, names.len()), &fold_of, settings, progress))
        .transpose()?;
    let bench = HeadBench {
        labels: &labels,
        classes: names.len(),
        fold_of,
        folds: settings.folds,
        tuned: tuning.as_ref().map_or(&[], |tuning| &tuning.held_out_scores),
        scores: fast.held_out_scores(),
        grasps: fast.held_out_grasps(),
        summaries: &summaries,
        width: PARTS * encoder.dimension(),
        settings,
    };
    let trials = bench.search(|done, of, best| progress(DeepProgress::Head { done, of, best }));
    let all: Vec<usize> = (0..labels.len()).collect();
    let chosen = &trials[bench.best_on(&trials, &all)];
    let calibration = Calibration::fit(&chosen.scores, &labels, names.len(), bench.grasps);
    let method = format!("{}-fold cross-validation, seed {}", settings.folds, settings.seed);
    let report = Report::new(&bench.outcomes(&trials), &names, &method);
    let weights = bench.fit(&bench.features(&chosen.candidate.reading), &all, &chosen.candidate);
    let bytes = package::weights_to_bytes(&weights.weight, &weights.bias).expect("shapes follow from the lengths");
    // Layers that the head does not read are not trained once more.
    let read = tuning.filter(|_| chosen.candidate.reading.tuned > 0.0);
    let tuned = read.map(|tuning| tuning.finish(&all, progress)).transpose()?;
    let manifest = DeepManifest {
        format_version: package::FORMAT_VERSION,
        name: settings.name.clone(),
        kind: settings.kind,
        labels: names,
        encoder: EncoderReference::of(encoder),
        tuned: tuned
            .as_ref()
            .zip(fine_tune)
            .map(|(bytes, fine_tune)| TunedReference { layers: fine_tune.layers, sha256: sha256(bytes) }),
        reading: chosen.candidate.reading,
        calibration,
        data: fast.manifest().data.clone(),
        metrics: report.summary.clone(),
        fast_metrics: fast.report.summary.clone(),
        weights_sha256: sha256(&bytes),
        reproduce: fast.manifest().reproduce.clone(),
    };
    let parts = Parts { manifest, weights: bytes, tuned: tuned.unwrap_or_default() };
    Ok(DeepTrained { parts, fast, report, seconds: started.elapsed().as_secs_f64() })
}

/// The encoder's last layers, trained on for each fold on the rows of the others.
struct Tuning<'a> {
    tuner: Tuner<'a>,
    /// Rows × classes, each by the layers of its fold.
    held_out_scores: Vec<f32>,
    /// Texts gone through, and how many there are at most.
    done: usize,
    of: usize,
}

impl<'a> Tuning<'a> {
    fn run(
        fine_tune: &FineTune,
        encoder: &'a Encoder,
        texts: &[&str],
        (labels, classes): (&'a [u32], usize),
        fold_of: &[usize],
        settings: &TrainSettings,
        progress: &mut dyn FnMut(DeepProgress),
    ) -> Result<Tuning<'a>, EncoderError> {
        let FineTune { folder, layers, epochs } = fine_tune;
        let tune = TuneSettings { layers: *layers, epochs: *epochs, seed: settings.seed };
        let tuner = Tuner::new(folder, encoder, texts, (labels, classes), tune, &head::device(settings.device))?;
        let folds = settings.folds;
        // Each row is in all folds but its own, and in the training at the end.
        let of = labels.len() * folds * epochs;
        let mut tuning = Tuning { tuner, held_out_scores: vec![0.0; labels.len() * classes], done: 0, of };
        for fold in 0..folds {
            let (held_out, others): (Vec<usize>, Vec<usize>) = (0..labels.len()).partition(|&row| fold_of[row] == fold);
            let tuned = tuning.tuner.fit(&others, &mut |texts| {
                tuning.done += texts;
                progress(DeepProgress::Tuning { done: tuning.done, of });
            })?;
            let scores = tuning.tuner.scores(&tuned, &held_out)?;
            for (row, scores) in held_out.into_iter().zip(scores.chunks_exact(classes)) {
                tuning.held_out_scores[row * classes..][..classes].copy_from_slice(scores);
            }
        }
        Ok(tuning)
    }

    /// Trains on all rows, and returns the file of what came out.
    fn finish(mut self, rows: &[usize], progress: &mut dyn FnMut(DeepProgress)) -> Result<Vec<u8>, EncoderError> {
        let tuned = self.tuner.fit(rows, &mut |texts| {
            self.done += texts;
            progress(DeepProgress::Tuning { done: self.done, of: self.of });
        })?;
        Ok(self.tuner.to_bytes(&tuned))
    }
}

/// Rows, folds, and what the head may read.
struct HeadBench<'a> {
    labels: &'a [u32],
    classes: usize,
    fold_of: Vec<usize>,
    folds: usize,
    /// Of the fast models of the folds: rows × classes.
    scores: &'a [f32],
    grasps: &'a [Grasp],
    /// Rows × width.
    summaries: &'a [f32],
    width: usize,
    /// Scores of layers that were trained on: rows × classes, or nothing.
    tuned: &'a [f32],
    settings: &'a TrainSettings,
}

impl HeadBench<'_> {
    /// From the simplest to the richest.
    fn candidates(&self) -> Vec<Candidate> {
        let scale = |scores: &[f32]| {
            let square = scores.iter().map(|score| score * score).sum::<f32>() / self.labels.len().max(1) as f32;
            1.0 / square.sqrt().max(f32::MIN_POSITIVE)
        };
        let score_scale = scale(self.scores);
        let reading = |mean, first, largest| Reading { score_scale, tuned: 0.0, mean, first, largest };
        let mut candidates = Vec::new();
        for (mean, first, largest) in
            [(0.0, 0.0, 0.0), (0.5, 0.0, 0.0), (1.0, 0.0, 0.0), (1.0, 0.5, 0.5), (1.0, 1.0, 1.0)]
        {
            for cost in [1.0, 4.0, 16.0] {
                candidates.push(Candidate { reading: reading(mean, first, largest), cost });
            }
        }
        if !self.tuned.is_empty() {
            let tuned = scale(self.tuned);
            // Weighed sums of both scores have one number to choose, heads over them many.
            for share in [0.15, 0.3, 0.5, 0.8] {
                let reading = Reading { tuned: share * tuned / score_scale, ..Reading::SCORES };
                candidates.push(Candidate { reading, cost: 0.0 });
            }
            for cost in [0.3, 1.0, 4.0] {
                candidates.push(Candidate { reading: Reading { tuned, ..reading(0.0, 0.0, 0.0) }, cost });
            }
        }
        candidates
    }

    fn search(&self, mut progress: impl FnMut(usize, usize, f64)) -> Vec<Trial> {
        // The fast model as it is comes first: a head must earn its place.
        let identity = Candidate { reading: Reading::SCORES, cost: 0.0 };
        let mut trials = vec![self.judge(identity, self.scores.to_vec())];
        let candidates = self.candidates();
        for (done, candidate) in candidates.iter().enumerate() {
            let all: Vec<usize> = (0..self.labels.len()).collect();
            let best = &trials[self.best_on(&trials, &all)];
            let wrong = best.errors.iter().filter(|error| **error).count();
            progress(done, candidates.len(), 1.0 - wrong as f64 / self.labels.len().max(1) as f64);
            trials.push(self.judge(*candidate, self.cross_validate(candidate)));
        }
        trials
    }

    fn features(&self, reading: &Reading) -> Sparse {
        let rows: Vec<Vec<f32>> = self
            .scores
            .chunks_exact(self.classes)
            .zip(self.summaries.chunks_exact(self.width))
            .enumerate()
            .map(|(row, (scores, summary))| {
                let mut features = Vec::new();
                let tuned = self.tuned.get(row * self.classes..(row + 1) * self.classes).unwrap_or_default();
                reading.features(scores, tuned, summary, &mut features);
                features
            })
            .collect();
        to_sparse(&rows, reading.count(self.classes, self.width / PARTS))
    }

    fn fit(&self, features: &Sparse, rows: &[usize], candidate: &Candidate) -> Weights {
        if candidate.cost == 0.0 {
            // The sum of the scores, as the reading scales them.
            let features = candidate.reading.count(self.classes, 0);
            let mut weight = vec![0.0; features * self.classes];
            (0..features).for_each(|feature| weight[feature * self.classes + feature % self.classes] = 1.0);
            return Weights { weight, bias: vec![0.0; self.classes] };
        }
        let labels: Vec<u32> = rows.iter().map(|&row| self.labels[row]).collect();
        let settings = FitSettings { loss: Loss::Logistic, cost: candidate.cost, balance: 0.0 };
        let device = head::device(self.settings.device);
        head::fit(&features.select(rows), &labels, self.classes, &settings, &device)
    }

    fn split(&self, fold: usize) -> (Vec<usize>, Vec<usize>) {
        (0..self.labels.len()).partition(|&row| self.fold_of[row] == fold)
    }

    fn cross_validate(&self, candidate: &Candidate) -> Vec<f32> {
        let features = self.features(&candidate.reading);
        let by_fold: Vec<(Vec<usize>, Vec<f32>)> = (0..self.folds)
            .into_par_iter()
            .map(|fold| {
                let (held_out, train) = self.split(fold);
                let weights = self.fit(&features, &train, candidate);
                let scores = weights.scores(&features.select(&held_out));
                (held_out, scores)
            })
            .collect();
        let mut scores = vec![0.0; self.labels.len() * self.classes];
        for (held_out, of_fold) in by_fold {
            for (row, values) in held_out.into_iter().zip(of_fold.chunks_exact(self.classes)) {
                scores[row * self.classes..][..self.classes].copy_from_slice(values);
            }
        }
        scores
    }

    fn judge(&self, candidate: Candidate, scores: Vec<f32>) -> Trial {
        let calibration = Calibration::fit(&scores, self.labels, self.classes, self.grasps);
        let mut errors = Vec::with_capacity(self.labels.len());
        let mut losses = Vec::with_capacity(self.labels.len());
        for ((row, &label), grasp) in scores.chunks_exact(self.classes).zip(self.labels).zip(self.grasps) {
            let mut probabilities = row.to_vec();
            errors.push(best(&probabilities) != label as usize);
            calibration.apply(&mut probabilities, *grasp);
            losses.push(-probabilities[label as usize].max(1e-9).ln());
        }
        Trial { candidate, scores, errors, losses }
    }

    /// Place of the trial that the search ends with when it sees these rows only.
    fn best_on(&self, trials: &[Trial], rows: &[usize]) -> usize {
        let cost = |trial: &Trial, row: usize| {
            f64::from(u8::from(trial.errors[row])) + LOG_LOSS_WEIGHT * f64::from(trial.losses[row])
        };
        let is_better = |candidate: &Trial, best: &Trial| {
            let gains = || rows.iter().map(|&row| cost(best, row) - cost(candidate, row));
            let (sum, squares) = (gains().sum::<f64>(), gains().map(|gain| gain * gain).sum::<f64>());
            // A better log loss does not buy more errors.
            let errors = |trial: &Trial| rows.iter().filter(|&&row| trial.errors[row]).count();
            sum > NEEDED_ERRORS * squares.sqrt() && errors(candidate) <= errors(best)
        };
        (1..trials.len()).fold(0, |best, next| if is_better(&trials[next], &trials[best]) { next } else { best })
    }

    /// Each row predicted by its fold's head, with candidate and calibration chosen on the other folds.
    fn outcomes(&self, trials: &[Trial]) -> Vec<Outcome> {
        let mut outcomes = vec![Outcome { label: 0, predicted: 0, confidence: 0.0 }; self.labels.len()];
        for fold in 0..self.folds {
            let (held_out, others) = self.split(fold);
            let trial = &trials[self.best_on(trials, &others)];
            let scores: Vec<f32> =
                others.iter().flat_map(|&row| &trial.scores[row * self.classes..][..self.classes]).copied().collect();
            let labels: Vec<u32> = others.iter().map(|&row| self.labels[row]).collect();
            let grasps: Vec<Grasp> = others.iter().map(|&row| self.grasps[row]).collect();
            let calibration = Calibration::fit(&scores, &labels, self.classes, &grasps);
            for row in held_out {
                let mut probabilities = trial.scores[row * self.classes..][..self.classes].to_vec();
                let predicted = best(&probabilities);
                calibration.apply(&mut probabilities, self.grasps[row]);
                let label = self.labels[row] as usize;
                outcomes[row] = Outcome { label, predicted, confidence: probabilities[predicted] };
            }
        }
        outcomes
    }
}
