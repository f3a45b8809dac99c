//! Makes probabilities of scores, so that of the records with confidence 0.9 nine in ten are right, and lowers them
//! for texts that are unlike what training saw.

use serde::{Deserialize, Serialize};

use super::corpus::quantile;

/// How scores become probabilities: each class's sigmoid against the rest, then scaled to a sum of 1 (Zadrozny and Elkan
/// 2002). The order of the classes stays that of the scores.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Calibration {
    pub(crate) slope: f32,
    pub(crate) offset: f32,
    /// What all but a few rows reach. A text below it is moved towards "any class" in proportion.
    pub(crate) usual: Grasp,
}

/// How much of a text the model can read.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Grasp {
    /// Share of its distinct words that training saw.
    pub(crate) coverage: f32,
    /// Length of the vector of its distinct words before it is scaled: how much there is to judge by.
    pub(crate) length: f32,
}

impl Grasp {
    /// 1 for a text as `usual` or better, down to 0.
    fn familiarity(&self, usual: &Grasp) -> f32 {
        let reached = |value: f32, usual: f32| if value < usual { value / usual } else { 1.0 };
        // Evidence adds up in squares: twice the length is four times the words. Few of the rows that training was
        // validated on have less than the usual coverage, so what lies below it is rather another domain than bad luck.
        reached(self.coverage, usual.coverage).powi(3) * reached(self.length, usual.length).powi(2)
    }
}

/// Share of the held-out rows that lie below either of the usual values.
const UNUSUAL_SHARE: f64 = 0.02;

/// Bounds of the search for slope (its logarithm) and offset.
const LOG_SLOPE: (f64, f64) = (-3.0, 4.0);
const OFFSET: (f64, f64) = (-8.0, 8.0);

/// Slope and offset are improved in turn; more rounds change the fourth digit.
const ROUNDS: usize = 8;

impl Calibration {
    /// Finds slope and offset with the smallest mean log loss on `scores` (rows × classes) of rows that the scoring models
    /// never saw. `grasps` are those of the same rows.
    pub(crate) fn fit(scores: &[f32], labels: &[u32], classes: usize, grasps: &[Grasp]) -> Self {
        // Labels are softened as if one more row had been wrong, so that scores without an error do not give certainty.
        let doubt = 1.0 / (labels.len() + 2) as f64;
        let loss = |log_slope: f64, offset: f64| {
            let (slope, offset) = (log_slope.exp() as f32, offset as f32);
            let mut sum = 0.0;
            for (row, &label) in scores.chunks(classes).zip(labels) {
                let mut total = 0.0f64;
                let mut logs = 0.0f64;
                for &score in row {
                    let log = log_sigmoid(slope * score + offset);
                    total += f64::from(log.exp());
                    logs += f64::from(log);
                }
                let of_label = f64::from(log_sigmoid(slope * row[label as usize] + offset));
                sum += total.max(f64::MIN_POSITIVE).ln() - (1.0 - doubt) * of_label - doubt * logs / classes as f64;
            }
            sum
        };
        let (mut log_slope, mut offset) = (1.0, 0.0);
        for _ in 0..ROUNDS {
            log_slope = golden_section(|log_slope| loss(log_slope, offset), LOG_SLOPE);
            offset = golden_section(|offset| loss(log_slope, offset), OFFSET);
        }
        let usual = |value: fn(&Grasp) -> f32| quantile(grasps.iter().map(value).collect(), UNUSUAL_SHARE);
        let usual = Grasp { coverage: usual(|grasp| grasp.coverage), length: usual(|grasp| grasp.length) };
        Calibration { slope: log_slope.exp() as f32, offset: offset as f32, usual }
    }

    /// Replaces scores by probabilities.
    pub(crate) fn apply(&self, scores: &mut [f32], grasp: Grasp) {
        let mut top = f32::NEG_INFINITY;
        for score in scores.iter_mut() {
            *score = log_sigmoid(self.slope * *score + self.offset);
            top = top.max(*score);
        }
        let mut total = 0.0;
        for score in scores.iter_mut() {
            *score = (*score - top).exp();
            total += *score;
        }
        let familiar = grasp.familiarity(&self.usual);
        let any = (1.0 - familiar) / scores.len() as f32;
        scores.iter_mut().for_each(|score| *score = *score / total * familiar + any);
    }

    pub(crate) fn check(&self) -> Result<(), String> {
        let good = self.slope.is_finite() && self.slope > 0.0 && self.offset.is_finite();
        let usual = [self.usual.coverage, self.usual.length];
        if !good || !usual.iter().all(|value| value.is_finite() && *value >= 0.0) {
            return Err(format!("calibration {self:?}"));
        }
        Ok(())
    }
}

/// ln(1 / (1 + e^-x)), without overflow.
fn log_sigmoid(x: f32) -> f32 {
    x.min(0.0) - (-x.abs()).exp().ln_1p()
}

/// Minimum of a function with one valley between the bounds.
fn golden_section(f: impl Fn(f64) -> f64, (mut low, mut high): (f64, f64)) -> f64 {
    let ratio = (5f64.sqrt() - 1.0) / 2.0;
    let (mut left, mut right) = (high - ratio * (high - low), low + ratio * (high - low));
    let (mut at_left, mut at_right) = (f(left), f(right));
    while high - low > 1e-3 {
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FULL: Grasp = Grasp { coverage: 1.0, length: 10.0 };

    /// Scores of two classes that are right three times in four when they differ by 2.
    fn three_in_four() -> (Vec<f32>, Vec<u32>) {
        let scores = [1.0, -1.0].repeat(400);
        (scores, (0..400).map(|row| u32::from(row % 4 == 0)).collect())
    }

    #[test]
    fn confidence_becomes_the_share_that_is_right() {
        let (scores, labels) = three_in_four();
        let calibration = Calibration::fit(&scores, &labels, 2, &[FULL; 400]);
        let mut row = [1.0, -1.0];
        calibration.apply(&mut row, FULL);
        assert!((row[0] - 0.75).abs() < 0.01, "{row:?}");
    }

    #[test]
    fn rows_without_an_error_do_not_make_certainty() {
        let calibration = Calibration::fit(&[1.0, -1.0].repeat(20), &[0; 20], 2, &[FULL; 20]);
        let mut row = [1.0, -1.0];
        calibration.apply(&mut row, FULL);
        assert!((0.9..0.999).contains(&row[0]), "{row:?}");
    }

    #[test]
    fn unfamiliar_text_is_less_certain() {
        let calibration = Calibration { slope: 4.0, offset: 0.0, usual: Grasp { coverage: 0.8, length: 5.0 } };
        let confidence = |coverage, length| {
            let mut row = [2.0, -2.0, -2.0];
            calibration.apply(&mut row, Grasp { coverage, length });
            row[0]
        };
        assert_eq!(confidence(1.0, 9.0), confidence(0.8, 5.0));
        assert!(confidence(0.4, 9.0) < 0.7 && confidence(0.4, 9.0) > confidence(0.3, 9.0));
        assert!(confidence(0.4, 9.0) < confidence(0.9, 2.5));
        assert!((confidence(0.0, 9.0) - 1.0 / 3.0).abs() < 1e-6);
    }

    proptest! {
        #[test]
        fn probabilities_add_up_and_keep_the_order(
            scores in prop::collection::vec(-50f32..50.0, 2..20),
            slope in 0.05f32..50.0,
            offset in -8f32..8.0,
            coverage in 0f32..=1.0,
        ) {
            let calibration = Calibration { slope, offset, usual: Grasp { coverage: 0.9, length: 5.0 } };
            let mut probabilities = scores.clone();
            calibration.apply(&mut probabilities, Grasp { coverage, length: 9.0 });
            prop_assert!((probabilities.iter().sum::<f32>() - 1.0).abs() < 1e-4);
            for (a, pa) in scores.iter().zip(&probabilities) {
                for (b, pb) in scores.iter().zip(&probabilities) {
                    prop_assert!(a < b || pa >= pb, "{a} {b} {pa} {pb}");
                }
            }
        }
    }
}
