//! The encoder tier's model: what a transformer makes of a text and what the fast model says about it, weighed by a
//! linear head. It is asked about what the fast model is not sure of.
//!
//! A package is a folder: `head.json` and `head.safetensors`, in `fast/` the fast model whose scores the head was trained
//! to read, and if the encoder's last layers were trained on, these in `tuned.safetensors`. The encoder itself lies
//! elsewhere, as it is shared; the package names its hash.

mod package;
#[cfg(test)]
mod tests;
mod train;

use std::path::Path;
use std::sync::Arc;

use super::calibration::{Calibration, Grasp};
use super::encoder::{Classifier, Encoder, EncoderError, Precision};
use super::fast::{FastModel, Scratch, best};
use super::sparse::Sparse;
use crate::config::DeviceKind;
use crate::record::Record;

pub use package::{DeepManifest, DeepModelError};
pub use train::{DeepProgress, DeepTrainError, DeepTrained, FineTune, train_deep};

/// A served model.
#[derive(Debug)]
pub struct DeepModel {
    id: String,
    labels: Vec<Arc<str>>,
    encoder: Arc<Encoder>,
    tuned: Option<TunedEncoder>,
    fast: FastModel,
    reading: Reading,
    /// Features × classes.
    weight: Vec<f32>,
    bias: Vec<f32>,
    calibration: Calibration,
}

/// What the model says about one record.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DeepPrediction {
    /// Place in `labels`.
    pub label: usize,
    /// Calibrated probability that the label is right.
    pub confidence: f32,
}

/// The encoder with layers that were trained on, and the classifier that was trained with them.
#[derive(Debug)]
struct TunedEncoder {
    encoder: Encoder,
    classifier: Classifier,
}

/// How scores and embedding become the head's features.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Reading {
    /// The fast model's scores are multiplied by this, so that they weigh as much as the embedding.
    pub(crate) score_scale: f32,
    /// The scores of the encoder with trained layers are multiplied by this. 0 leaves them out.
    #[serde(default)]
    pub(crate) tuned: f32,
    /// Length of each part of the embedding: mean, first token, maximum. 0 leaves it out.
    pub(crate) mean: f32,
    pub(crate) first: f32,
    pub(crate) largest: f32,
}

impl Reading {
    /// The fast model's scores as they are.
    pub(crate) const SCORES: Reading = Reading { score_scale: 1.0, tuned: 0.0, mean: 0.0, first: 0.0, largest: 0.0 };

    /// Features for one record: `scores` of the fast model, those of the `tuned` encoder, and the encoder's `summary`.
    /// What the reading leaves out may be empty.
    pub(crate) fn features(&self, scores: &[f32], tuned: &[f32], summary: &[f32], features: &mut Vec<f32>) {
        features.clear();
        features.extend(scores.iter().map(|score| score * self.score_scale));
        if self.tuned > 0.0 {
            features.extend(tuned.iter().map(|score| score * self.tuned));
        }
        let width = summary.len() / PARTS;
        for (part, share) in summary.chunks_exact(width.max(1)).zip([self.mean, self.first, self.largest]) {
            if share > 0.0 {
                let length = part.iter().map(|value| value * value).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
                features.extend(part.iter().map(|value| value * share / length));
            }
        }
    }

    /// How many features there are for so many classes and an embedding of this width.
    pub(crate) fn count(&self, classes: usize, width: usize) -> usize {
        let scores = if self.tuned > 0.0 { 2 * classes } else { classes };
        scores + [self.mean, self.first, self.largest].iter().filter(|share| **share > 0.0).count() * width
    }

    /// Whether the encoder as it is has to read the text.
    pub(crate) fn has_summary(&self) -> bool {
        self.mean > 0.0 || self.first > 0.0 || self.largest > 0.0
    }
}

/// Parts of an encoder's summary.
const PARTS: usize = 3;

impl DeepModel {
    /// Loads a package over the encoder that it was trained with.
    pub fn load(folder: &Path, encoder: Arc<Encoder>, device: DeviceKind) -> Result<DeepModel, DeepModelError> {
        package::read(folder, encoder, device)
    }

    /// Name and version, such as `tickets-minilm@1a2b3c4d`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Sorted.
    pub fn labels(&self) -> &[Arc<str>] {
        &self.labels
    }

    /// Decides on each record. Only what the head reads is computed.
    pub fn predict(&self, records: &[Record<'_>]) -> Result<Vec<DeepPrediction>, EncoderError> {
        let texts: Vec<&str> = records.iter().map(Record::text).collect();
        let summaries = match self.reading.has_summary() {
            true => self.encoder.summarise(&texts)?,
            false => Vec::new(),
        };
        let tuned = self.tuned.as_ref().map_or_else(|| Ok(Vec::new()), |tuned| tuned.scores(&texts))?;
        let mut scratch = Scratch::new();
        let mut features = Vec::new();
        let of_row = |values: &[f32], at: usize| {
            let width = values.len() / records.len();
            at * width..(at + 1) * width
        };
        Ok(records
            .iter()
            .enumerate()
            .map(|(at, record)| {
                let grasp = self.fast.score(record, &mut scratch);
                let (tuned, summary) = (&tuned[of_row(&tuned, at)], &summaries[of_row(&summaries, at)]);
                self.reading.features(scratch.scores(), tuned, summary, &mut features);
                self.decide(&features, grasp)
            })
            .collect())
    }

    /// What the encoder computes in.
    pub fn precision(&self) -> Precision {
        self.encoder.precision()
    }

    /// The fast model in the package, whose scores the head reads.
    pub fn fast(&self) -> &FastModel {
        &self.fast
    }

    fn decide(&self, features: &[f32], grasp: Grasp) -> DeepPrediction {
        let mut scores = linear(features, &self.weight, &self.bias);
        let label = best(&scores);
        self.calibration.apply(&mut scores, grasp);
        DeepPrediction { label, confidence: scores[label] }
    }
}

impl TunedEncoder {
    /// Texts × classes.
    fn scores<T: AsRef<str> + Sync>(&self, texts: &[T]) -> Result<Vec<f32>, EncoderError> {
        let summaries = self.encoder.summarise(texts)?;
        let Classifier { weight, bias } = &self.classifier;
        let rows = summaries.chunks_exact(PARTS * self.encoder.dimension());
        Ok(rows.flat_map(|summary| linear(summary, weight, bias)).collect())
    }
}

/// `features × weight + bias`; the weight is features × classes.
fn linear(features: &[f32], weight: &[f32], bias: &[f32]) -> Vec<f32> {
    let mut scores = bias.to_vec();
    for (feature, weights) in features.iter().zip(weight.chunks_exact(bias.len())) {
        scores.iter_mut().zip(weights).for_each(|(score, weight)| *score += feature * weight);
    }
    scores
}

/// Dense rows as training wants them.
fn to_sparse(rows: &[Vec<f32>], width: usize) -> Sparse {
    let mut sparse = Sparse::new(width);
    for row in rows {
        let mut entries: Vec<(u32, f32)> = row.iter().enumerate().map(|(at, &value)| (at as u32, value)).collect();
        sparse.push(&mut entries);
    }
    sparse
}
