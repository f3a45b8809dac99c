//! The encoder tier's model: what a transformer makes of a text and what the fast model says about it, weighed by a
//! linear head. It is asked about what the fast model is not sure of.
//!
//! A package is a folder: `head.json` and `head.safetensors`, and in `fast/` the fast model whose scores the head was
//! trained to read. The encoder lies elsewhere, as it is shared; the package names its hash.

mod package;
mod train;

use std::path::Path;
use std::sync::Arc;

use super::calibration::{Calibration, Grasp};
use super::encoder::{Encoder, EncoderError};
use super::fast::{FastModel, Scratch, best};
use super::sparse::Sparse;
use crate::config::DeviceKind;
use crate::record::Record;

pub use package::{DeepManifest, DeepModelError};
pub use train::{DeepProgress, DeepTrained, train_deep};

/// A served model.
#[derive(Debug)]
pub struct DeepModel {
    id: String,
    labels: Vec<Arc<str>>,
    encoder: Arc<Encoder>,
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

/// How scores and embedding become the head's features.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Reading {
    /// The fast model's scores are multiplied by this, so that they weigh as much as the embedding.
    pub(crate) score_scale: f32,
    /// Length of each part of the embedding: mean, first token, maximum. 0 leaves it out.
    pub(crate) mean: f32,
    pub(crate) first: f32,
    pub(crate) largest: f32,
}

impl Reading {
    /// Features for one record: `scores` of the fast model and the encoder's `summary`.
    pub(crate) fn features(&self, scores: &[f32], summary: &[f32], features: &mut Vec<f32>) {
        features.clear();
        features.extend(scores.iter().map(|score| score * self.score_scale));
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
        classes + [self.mean, self.first, self.largest].iter().filter(|share| **share > 0.0).count() * width
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

    /// Decides on each record.
    pub fn predict(&self, records: &[Record<'_>]) -> Result<Vec<DeepPrediction>, EncoderError> {
        let texts: Vec<&str> = records.iter().map(Record::text).collect();
        let summaries = self.encoder.summarise(&texts)?;
        let mut scratch = Scratch::new();
        let mut features = Vec::new();
        let width = PARTS * self.encoder.dimension();
        Ok(records
            .iter()
            .zip(summaries.chunks_exact(width))
            .map(|(record, summary)| {
                let grasp = self.fast.score(record, &mut scratch);
                self.reading.features(scratch.scores(), summary, &mut features);
                self.decide(&features, grasp)
            })
            .collect())
    }

    fn decide(&self, features: &[f32], grasp: Grasp) -> DeepPrediction {
        let mut scores = self.bias.clone();
        for (feature, weights) in features.iter().zip(self.weight.chunks_exact(self.bias.len())) {
            scores.iter_mut().zip(weights).for_each(|(score, weight)| *score += feature * weight);
        }
        let label = best(&scores);
        self.calibration.apply(&mut scores, grasp);
        DeepPrediction { label, confidence: scores[label] }
    }
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
