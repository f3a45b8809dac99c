//! Makes probabilities of scores, so that of the records with confidence 0.9 nine in ten are right.

use serde::{Deserialize, Serialize};

/// How scores become probabilities: softmax of the scores times `scale`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Calibration {
    pub(crate) scale: f32,
}

impl Calibration {
    /// Finds the scale with the smallest mean log loss on scores of rows that the scoring model never saw.
    pub(crate) fn fit(scores: &[f32], labels: &[u32], classes: usize) -> Self {
        let loss = |log_scale: f64| {
            let scale = log_scale.exp();
            let mut sum = 0.0;
            for (row, &label) in scores.chunks(classes).zip(labels) {
                let top = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let total: f64 = row.iter().map(|&score| (scale * f64::from(score - top)).exp()).sum();
                sum += total.ln() - scale * f64::from(row[label as usize] - top);
            }
            sum
        };
        Calibration { scale: golden_section(loss, -3.0, 5.0).exp() as f32 }
    }

    /// Replaces scores by probabilities.
    pub(crate) fn apply(&self, scores: &mut [f32], _coverage: f32) {
        let top = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let mut total = 0.0;
        for score in scores.iter_mut() {
            *score = ((*score - top) * self.scale).exp();
            total += *score;
        }
        scores.iter_mut().for_each(|score| *score /= total);
    }

    pub(crate) fn check(&self, _classes: usize) -> Result<(), String> {
        if self.scale.is_finite() && self.scale > 0.0 {
            Ok(())
        } else {
            Err(format!("calibration scale {}", self.scale))
        }
    }
}

/// Minimum of a function with one valley between `low` and `high`.
fn golden_section(f: impl Fn(f64) -> f64, mut low: f64, mut high: f64) -> f64 {
    let ratio = (5f64.sqrt() - 1.0) / 2.0;
    let (mut left, mut right) = (high - ratio * (high - low), low + ratio * (high - low));
    let (mut at_left, mut at_right) = (f(left), f(right));
    while high - low > 1e-4 {
        if at_left <= at_right {
            (high, right, at_right) = (right, left, at_left);
            left = high - ratio * (high - low);
            at_left = f(left);
        } else {
            (low, left, at_left) = (left, right, at_right);
            right = low + ratio * (high - low);
            at_right = f(right);
        }
    }
    (low + high) / 2.0
}
