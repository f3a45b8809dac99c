//! What predictions on labelled rows are worth: accuracy, F1, calibration error, risk and coverage, comparison.

use serde::{Deserialize, Serialize};

/// A label with fewer rows than this is reported as too small to trust.
pub const SMALL_LABEL_ROWS: usize = 10;

/// Bins of equal width in the calibration error.
const CALIBRATION_BINS: usize = 10;

/// Precisions of the risk-coverage table.
const PRECISIONS: [f32; 4] = [0.99, 0.98, 0.95, 0.90];

/// One row's outcome. Classes are places in a list of labels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outcome {
    pub label: usize,
    pub predicted: usize,
    pub confidence: f32,
}

impl Outcome {
    fn is_right(&self) -> bool {
        self.label == self.predicted
    }
}

/// The figures that a manifest carries.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Summary {
    /// How the rows were kept unseen.
    pub method: String,
    pub rows: usize,
    pub accuracy: f64,
    /// Mean F1 over the labels that occur.
    pub macro_f1: f64,
    /// Expected calibration error: mean gap between confidence and accuracy over ten bins, weighted by rows.
    pub ece: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClassReport {
    pub label: String,
    pub precision: f64,
    pub recall: f64,
    pub f1: f64,
    /// Rows of this label.
    pub support: usize,
    /// Too few rows for the other figures to mean much.
    pub too_small: bool,
}

/// Which share of the rows can be routed by themselves at a precision.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct CoverageAt {
    pub precision: f32,
    /// Share of rows whose confidence is at least `threshold`.
    pub coverage: f64,
    /// `None` when no threshold reaches the precision.
    pub threshold: Option<f32>,
}

/// Everything that `evaluate` prints.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    #[serde(flatten)]
    pub summary: Summary,
    pub per_class: Vec<ClassReport>,
    pub labels: Vec<String>,
    /// `confusion[label][predicted]`.
    pub confusion: Vec<Vec<usize>>,
    pub risk_coverage: Vec<CoverageAt>,
}

impl Report {
    /// `labels` are the names of the classes in `outcomes`.
    pub fn new(outcomes: &[Outcome], labels: &[String], method: &str) -> Self {
        let mut confusion = vec![vec![0; labels.len()]; labels.len()];
        for outcome in outcomes {
            confusion[outcome.label][outcome.predicted] += 1;
        }
        let per_class: Vec<ClassReport> =
            (0..labels.len()).map(|class| class_report(&confusion, class, &labels[class])).collect();
        let occurring: Vec<&ClassReport> = per_class.iter().filter(|class| class.support > 0).collect();
        let right = outcomes.iter().filter(|outcome| outcome.is_right()).count();
        let summary = Summary {
            method: method.to_owned(),
            rows: outcomes.len(),
            accuracy: share(right, outcomes.len()),
            macro_f1: occurring.iter().map(|class| class.f1).sum::<f64>() / occurring.len().max(1) as f64,
            ece: calibration_error(outcomes),
        };
        let risk_coverage = PRECISIONS.iter().map(|&precision| coverage_at(outcomes, precision)).collect();
        Report { summary, per_class, labels: labels.to_vec(), confusion, risk_coverage }
    }
}

fn share(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

fn class_report(confusion: &[Vec<usize>], class: usize, label: &str) -> ClassReport {
    let right = confusion[class][class];
    let support: usize = confusion[class].iter().sum();
    let predicted: usize = confusion.iter().map(|row| row[class]).sum();
    ClassReport {
        label: label.to_owned(),
        precision: share(right, predicted),
        recall: share(right, support),
        f1: share(2 * right, support + predicted),
        support,
        too_small: support < SMALL_LABEL_ROWS,
    }
}

/// Expected calibration error of the confidences (Naeini et al. 2015), ten bins of equal width.
pub fn calibration_error(outcomes: &[Outcome]) -> f64 {
    let mut bins = [(0usize, 0.0f64, 0usize); CALIBRATION_BINS];
    for outcome in outcomes {
        let bin = ((outcome.confidence * CALIBRATION_BINS as f32) as usize).min(CALIBRATION_BINS - 1);
        bins[bin].0 += 1;
        bins[bin].1 += f64::from(outcome.confidence);
        bins[bin].2 += usize::from(outcome.is_right());
    }
    let gap: f64 = bins.iter().map(|&(_, confidence, right)| (confidence - right as f64).abs()).sum();
    if outcomes.is_empty() { 0.0 } else { gap / outcomes.len() as f64 }
}

/// The lowest confidence at and above which `precision` of the rows are right.
pub fn coverage_at(outcomes: &[Outcome], precision: f32) -> CoverageAt {
    let mut sorted: Vec<&Outcome> = outcomes.iter().collect();
    sorted.sort_by(|a, b| b.confidence.total_cmp(&a.confidence));
    let mut right = 0;
    let mut found = CoverageAt { precision, coverage: 0.0, threshold: None };
    for (at, outcome) in sorted.iter().enumerate() {
        right += usize::from(outcome.is_right());
        // A threshold takes all rows of its confidence or none.
        let ends_group = sorted.get(at + 1).is_none_or(|next| next.confidence < outcome.confidence);
        if ends_group && share(right, at + 1) >= f64::from(precision) {
            found.coverage = share(at + 1, outcomes.len());
            found.threshold = Some(outcome.confidence);
        }
    }
    found
}

/// McNemar's test of whether two models differ on the same rows.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct McNemar {
    pub only_first_right: usize,
    pub only_second_right: usize,
    /// Two-sided exact probability of a split at least this uneven if both were equally good.
    pub p_value: f64,
}

pub fn mcnemar(first: &[Outcome], second: &[Outcome]) -> McNemar {
    let pairs = || first.iter().zip(second);
    let only_first_right = pairs().filter(|(a, b)| a.is_right() && !b.is_right()).count();
    let only_second_right = pairs().filter(|(a, b)| !a.is_right() && b.is_right()).count();
    mcnemar_of(only_first_right, only_second_right)
}

/// The same for what has been counted.
pub fn mcnemar_of(only_first_right: usize, only_second_right: usize) -> McNemar {
    let trials = only_first_right + only_second_right;
    let fewer = only_first_right.min(only_second_right);
    // Binomial(trials, 1/2), summed in logarithms: 2^-trials underflows.
    let mut log_choose = 0.0;
    let mut tail = 0.0;
    for successes in 0..=fewer {
        tail += (log_choose - trials as f64 * std::f64::consts::LN_2).exp();
        log_choose += ((trials - successes) as f64).ln() - ((successes + 1) as f64).ln();
    }
    McNemar { only_first_right, only_second_right, p_value: (2.0 * tail).min(1.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(label: usize, predicted: usize, confidence: f32) -> Outcome {
        Outcome { label, predicted, confidence }
    }

    #[test]
    fn figures_of_a_small_example() {
        let outcomes = [outcome(0, 0, 0.95), outcome(0, 1, 0.6), outcome(1, 1, 0.9), outcome(1, 1, 0.8)];
        let report = Report::new(&outcomes, &["a".into(), "b".into(), "never".into()], "test");
        assert_eq!(report.summary.accuracy, 0.75);
        assert_eq!(report.confusion[0], [1, 1, 0]);
        // F1 of a: 2/3, of b: 4/5; a label without rows does not count.
        assert!((report.summary.macro_f1 - (2.0 / 3.0 + 0.8) / 2.0).abs() < 1e-12);
        assert_eq!(report.per_class[1].precision, 2.0 / 3.0);
        assert!((report.summary.ece - (0.15 + 0.6 + 0.2) / 4.0).abs() < 1e-6);
    }

    #[test]
    fn coverage_takes_rows_of_one_confidence_together() {
        let outcomes = [outcome(0, 0, 0.9), outcome(0, 0, 0.8), outcome(0, 1, 0.8), outcome(0, 0, 0.7)];
        assert_eq!(coverage_at(&outcomes, 0.99), CoverageAt { precision: 0.99, coverage: 0.25, threshold: Some(0.9) });
        assert_eq!(coverage_at(&outcomes, 0.75).coverage, 1.0);
        assert_eq!(coverage_at(&[outcome(0, 1, 0.9)], 0.5).threshold, None);
    }

    #[test]
    fn mcnemar_is_the_exact_binomial_test() {
        let right = outcome(0, 0, 1.0);
        let wrong = outcome(0, 1, 1.0);
        let first = [right, right, right, right, right, right, wrong, right];
        let second = [wrong, wrong, wrong, wrong, wrong, wrong, right, right];
        let test = mcnemar(&first, &second);
        assert_eq!((test.only_first_right, test.only_second_right), (6, 1));
        assert!((test.p_value - 0.125).abs() < 1e-12);
        assert_eq!(mcnemar(&first, &first).p_value, 1.0);
    }
}
