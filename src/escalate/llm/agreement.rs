//! How far two labelings of the same rows agree: the fast model and the LLM, or either and a person. Pure.

use std::collections::BTreeMap;

use serde::Serialize;

/// 97.5 % of a normal distribution lie below: two-sided intervals of 95 %.
const Z95: f64 = 1.959_964;

/// One row with what each side said; `None` where it gave no answer.
#[derive(Debug, Clone, Copy)]
pub struct Pair<'a> {
    /// The row's number or name in the file.
    pub row: usize,
    pub first: Option<&'a str>,
    pub second: Option<&'a str>,
}

/// A row on which the two differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mismatch {
    pub row: usize,
    pub first: String,
    pub second: String,
}

/// How often the first said one label and the second another, or the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Confusion {
    pub first: String,
    pub second: String,
    pub rows: u64,
}

/// One label in both labelings.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LabelAgreement {
    pub label: String,
    pub first: u64,
    pub second: u64,
    pub both: u64,
    /// Rows with this label on both sides among those with it on either: the Jaccard index.
    pub overlap: f64,
    /// 2·both / (first + second): F1 of either side against the other, whichever is taken for the truth.
    pub f1: f64,
}

/// The whole comparison.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Agreement {
    pub rows: u64,
    /// Rows that both sides answered; all figures below are about these.
    pub compared: u64,
    pub only_first: u64,
    pub only_second: u64,
    pub neither: u64,
    pub agreed: u64,
    /// Share of the compared rows; `None` when there are none.
    pub agreement: Option<f64>,
    /// Wilson's interval of 95 % around it.
    pub agreement95: Option<(f64, f64)>,
    /// Cohen's kappa: agreement beyond what the labels' frequencies give by chance. `None` when one label is all there
    /// is, because then chance alone agrees always.
    pub kappa: Option<f64>,
    /// By label, those with the most differing rows first.
    pub labels: Vec<LabelAgreement>,
    /// By pair of labels, the most frequent first; agreeing pairs included.
    pub confusion: Vec<Confusion>,
    /// In the order of the rows.
    pub mismatches: Vec<Mismatch>,
}

#[derive(Default)]
struct Counts {
    first: u64,
    second: u64,
    both: u64,
}

impl Agreement {
    pub fn of<'a>(pairs: impl IntoIterator<Item = Pair<'a>>) -> Self {
        let (mut rows, mut only_first, mut only_second, mut neither, mut agreed) = (0, 0, 0, 0, 0);
        let mut by_label: BTreeMap<&str, Counts> = BTreeMap::new();
        let mut by_pair: BTreeMap<(&str, &str), u64> = BTreeMap::new();
        let mut mismatches = Vec::new();
        for Pair { row, first, second } in pairs {
            rows += 1;
            let (first, second) = match (first, second) {
                (Some(first), Some(second)) => (first, second),
                (Some(_), None) => {
                    only_first += 1;
                    continue;
                }
                (None, Some(_)) => {
                    only_second += 1;
                    continue;
                }
                (None, None) => {
                    neither += 1;
                    continue;
                }
            };
            by_label.entry(first).or_default().first += 1;
            by_label.entry(second).or_default().second += 1;
            *by_pair.entry((first, second)).or_default() += 1;
            if first == second {
                agreed += 1;
                by_label.entry(first).or_default().both += 1;
            } else {
                mismatches.push(Mismatch { row, first: first.to_owned(), second: second.to_owned() });
            }
        }
        let compared = rows - only_first - only_second - neither;
        let kappa = kappa(agreed, compared, by_label.values());
        let mut labels: Vec<LabelAgreement> = by_label.into_iter().map(LabelAgreement::of).collect();
        labels.sort_by_key(|label| std::cmp::Reverse(label.first + label.second - 2 * label.both));
        let mut confusion: Vec<Confusion> = by_pair
            .into_iter()
            .map(|((first, second), rows)| Confusion { first: first.to_owned(), second: second.to_owned(), rows })
            .collect();
        confusion.sort_by_key(|pair| std::cmp::Reverse(pair.rows));
        Agreement {
            rows,
            compared,
            only_first,
            only_second,
            neither,
            agreed,
            agreement: (compared > 0).then(|| agreed as f64 / compared as f64),
            agreement95: wilson(agreed, compared),
            kappa,
            labels,
            confusion,
            mismatches,
        }
    }
}

impl LabelAgreement {
    fn of((label, counts): (&str, Counts)) -> Self {
        let Counts { first, second, both } = counts;
        LabelAgreement {
            label: label.to_owned(),
            first,
            second,
            both,
            overlap: both as f64 / (first + second - both) as f64,
            f1: 2.0 * both as f64 / (first + second) as f64,
        }
    }
}

/// Cohen 1960: (observed − expected) / (1 − expected).
fn kappa<'a>(agreed: u64, compared: u64, labels: impl Iterator<Item = &'a Counts>) -> Option<f64> {
    let rows = compared as f64;
    let by_chance: f64 = labels.map(|counts| counts.first as f64 / rows * (counts.second as f64 / rows)).sum();
    (compared > 0 && by_chance < 1.0).then(|| (agreed as f64 / rows - by_chance) / (1.0 - by_chance))
}

/// Wilson 1927: holds for few rows and near 0 and 1, where the usual interval does not.
fn wilson(hits: u64, rows: u64) -> Option<(f64, f64)> {
    if rows == 0 {
        return None;
    }
    let (n, p) = (rows as f64, hits as f64 / rows as f64);
    let denominator = 1.0 + Z95 * Z95 / n;
    let centre = (p + Z95 * Z95 / (2.0 * n)) / denominator;
    let half = Z95 / denominator * (p * (1.0 - p) / n + Z95 * Z95 / (4.0 * n * n)).sqrt();
    Some(((centre - half).max(0.0), (centre + half).min(1.0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs<'a>(rows: &'a [(&'a str, &'a str)]) -> impl Iterator<Item = Pair<'a>> {
        let answered = |label: &'a str| (!label.is_empty()).then_some(label);
        rows.iter().enumerate().map(move |(row, (first, second))| Pair {
            row,
            first: answered(first),
            second: answered(second),
        })
    }

    #[test]
    fn kappa_of_the_textbook() {
        // 20 yes/yes, 5 yes/no, 10 no/yes, 15 no/no: 0.7 observed, 0.5 by chance, kappa 0.4.
        let mut rows = vec![("yes", "yes"); 20];
        rows.extend([("yes", "no"); 5]);
        rows.extend([("no", "yes"); 10]);
        rows.extend([("no", "no"); 15]);
        let agreement = Agreement::of(pairs(&rows));
        assert_eq!((agreement.agreed, agreement.compared, agreement.mismatches.len()), (35, 50, 15));
        assert!((agreement.kappa.expect("two labels") - 0.4).abs() < 1e-9);
        let (low, high) = agreement.agreement95.expect("there are rows");
        assert!((low - 0.5625).abs() < 1e-3 && (high - 0.8090).abs() < 1e-3, "{low} {high}");
        assert_eq!(agreement.confusion[0], Confusion { first: "yes".into(), second: "yes".into(), rows: 20 });
        let no = agreement.labels.iter().find(|label| label.label == "no").expect("it occurs");
        assert_eq!((no.first, no.second, no.both), (25, 20, 15));
        assert!((no.f1 - 30.0 / 45.0).abs() < 1e-9 && (no.overlap - 0.5).abs() < 1e-9);
    }

    #[test]
    fn rows_without_an_answer_are_counted_apart() {
        let agreement = Agreement::of(pairs(&[("a", "a"), ("a", ""), ("", "b"), ("", ""), ("b", "a")]));
        assert_eq!((agreement.rows, agreement.compared, agreement.agreed), (5, 2, 1));
        assert_eq!((agreement.only_first, agreement.only_second, agreement.neither), (1, 1, 1));
        assert_eq!(agreement.mismatches, [Mismatch { row: 4, first: "b".into(), second: "a".into() }]);
    }

    #[test]
    fn nothing_to_compare_gives_no_figures() {
        let empty = Agreement::of(pairs(&[]));
        assert_eq!((empty.agreement, empty.agreement95, empty.kappa), (None, None, None));
        let single = Agreement::of(pairs(&[("a", "a"), ("a", "a")]));
        assert_eq!((single.agreement, single.kappa), (Some(1.0), None));
        assert_eq!(Agreement::of(pairs(&[("a", "b"), ("b", "a")])).kappa, Some(-1.0));
    }
}
