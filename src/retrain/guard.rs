//! Whether a challenger may replace the champion: both predict the same rows that the challenger has not learned from.
//!
//! The champion may have: it keeps the benefit of that doubt. It is replaced unless McNemar's test shows that the challenger
//! is worse, or a label that has enough rows loses too many of them.

use serde::Serialize;

use crate::model::dataset::Dataset;
use crate::model::evaluation::{McNemar, Outcome, Report, mcnemar};
use crate::model::{FastModel, Scratch};

/// A difference that chance alone makes this seldom is none of chance.
const SIGNIFICANT: f64 = 0.05;
/// With fewer rows nothing can be said.
const FEWEST_ROWS: usize = 20;
/// Labels with fewer rows move by too much with each.
const FEWEST_ROWS_OF_LABEL: usize = 10;
/// Recall that a label may lose.
const MOST_LOST: f64 = 0.1;

/// A label that fares otherwise.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LabelChange {
    pub label: String,
    pub rows: usize,
    pub recall_before: f64,
    pub recall_after: f64,
}

/// What follows.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "ruling", rename_all = "snake_case")]
pub enum Ruling {
    NotWorse,
    TooFewRows { rows: usize },
    Worse { p_value: f64 },
    LabelsLost { labels: Vec<LabelChange> },
}

impl Ruling {
    pub fn allows(&self) -> bool {
        *self == Ruling::NotWorse
    }
}

/// Champion and challenger on the same rows.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    pub champion: Report,
    pub challenger: Report,
    pub mcnemar: McNemar,
    #[serde(flatten)]
    pub ruling: Ruling,
}

/// Lets both predict the rows.
pub fn compare(champion: &FastModel, challenger: &FastModel, held_out: &Dataset) -> Comparison {
    let mut names = held_out.labels();
    names.extend(champion.labels().iter().chain(challenger.labels()).map(|label| label.to_string()));
    names.sort_unstable();
    names.dedup();
    let before = outcomes(champion, held_out, &names);
    let after = outcomes(challenger, held_out, &names);
    let report = |outcomes: &[Outcome]| Report::new(outcomes, &names, "rows held out");
    let (first, second) = (report(&before), report(&after));
    let test = mcnemar(&before, &after);
    Comparison { ruling: rule(&first, &second, &test), champion: first, challenger: second, mcnemar: test }
}

/// A model's answers, as places in `names`, which has all of its labels.
fn outcomes(model: &FastModel, dataset: &Dataset, names: &[String]) -> Vec<Outcome> {
    let place = |label: &str| names.binary_search_by(|name| name.as_str().cmp(label)).unwrap_or_default();
    let of_model: Vec<usize> = model.labels().iter().map(|label| place(label)).collect();
    let mut scratch = Scratch::new();
    let outcome = |example: &crate::model::dataset::Example| {
        let found = model.classify(&example.record, &mut scratch);
        Outcome { label: place(&example.label), predicted: of_model[found.label], confidence: found.confidence }
    };
    dataset.examples.iter().map(outcome).collect()
}

fn rule(champion: &Report, challenger: &Report, test: &McNemar) -> Ruling {
    let rows = champion.summary.rows;
    if rows < FEWEST_ROWS {
        return Ruling::TooFewRows { rows };
    }
    if test.only_first_right > test.only_second_right && test.p_value < SIGNIFICANT {
        return Ruling::Worse { p_value: test.p_value };
    }
    let labels: Vec<LabelChange> = champion
        .per_class
        .iter()
        .zip(&challenger.per_class)
        .filter(|(before, after)| before.support >= FEWEST_ROWS_OF_LABEL && before.recall - after.recall > MOST_LOST)
        .map(|(before, after)| LabelChange {
            label: before.label.clone(),
            rows: before.support,
            recall_before: before.recall,
            recall_after: after.recall,
        })
        .collect();
    if labels.is_empty() { Ruling::NotWorse } else { Ruling::LabelsLost { labels } }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many rows of each of two labels, of which so many are right.
    fn reports(rows: usize, before: [usize; 2], after: [usize; 2]) -> Ruling {
        let names = ["a".to_owned(), "b".to_owned()];
        let outcomes = |right: [usize; 2]| -> Vec<Outcome> {
            (0..2)
                .flat_map(|label| {
                    (0..rows).map(move |row| Outcome {
                        label,
                        predicted: if row < right[label] { label } else { 1 - label },
                        confidence: 1.0,
                    })
                })
                .collect()
        };
        let (before, after) = (outcomes(before), outcomes(after));
        rule(&Report::new(&before, &names, "test"), &Report::new(&after, &names, "test"), &mcnemar(&before, &after))
    }

    #[test]
    fn a_challenger_that_is_as_good_is_let_through() {
        assert_eq!(reports(50, [45, 45], [45, 45]), Ruling::NotWorse);
        assert_eq!(reports(50, [45, 45], [46, 44]), Ruling::NotWorse);
        assert_eq!(reports(50, [30, 45], [48, 45]), Ruling::NotWorse);
    }

    #[test]
    fn one_that_is_worse_or_ruins_a_label_is_not() {
        assert!(matches!(reports(50, [48, 48], [40, 44]), Ruling::Worse { .. }));
        let lost = reports(50, [40, 45], [50, 38]);
        assert!(matches!(&lost, Ruling::LabelsLost { labels } if labels[0].label == "b"), "{lost:?}");
        assert_eq!(reports(5, [5, 5], [5, 5]), Ruling::TooFewRows { rows: 10 });
    }
}
