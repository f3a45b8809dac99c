//! Base rows and corrections as one data set: the newest label of a text wins, and every label that it changes is told.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use crate::model::dataset::{Dataset, Example, shape_hash, text_hash};

use super::corrections::Correction;

/// One in so many rows of each label is held out.
const HELD_OUT: usize = 5;

/// A text that had another label before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Conflict {
    /// The base row's id, or the event of the older feedback.
    pub id: String,
    pub label: String,
    /// The event whose feedback is newer.
    pub event_id: String,
    pub new_label: String,
}

/// The rows to learn from.
#[derive(Debug, Clone)]
pub struct Merged {
    pub dataset: Dataset,
    /// Corrections whose text was not among the base rows.
    pub added: usize,
    pub conflicts: Vec<Conflict>,
}

/// Merges corrections into the base rows.
pub fn merge(base: Dataset, mut corrections: Vec<Correction>) -> Merged {
    corrections.sort_by(|a, b| (a.given_at, &a.event_id).cmp(&(b.given_at, &b.event_id)));
    let sha256 = Dataset::hash_of(
        std::iter::once(base.sha256.as_str())
            .chain(corrections.iter().flat_map(|correction| [correction.event_id.as_str(), correction.label.as_str()])),
    );
    let mut examples = base.examples;
    let mut places: HashMap<u128, Vec<usize>> = HashMap::new();
    for (place, example) in examples.iter().enumerate() {
        places.entry(text_hash(&example.record)).or_default().push(place);
    }
    let mut conflicts = Vec::new();
    let mut added = 0;
    for Correction { event_id, label, record, .. } in corrections {
        let same_text = places.entry(text_hash(&record)).or_default();
        if same_text.is_empty() {
            added += 1;
            same_text.push(examples.len());
            examples.push(Example { id: event_id, label, record });
            continue;
        }
        for &place in same_text.iter() {
            let example = &mut examples[place];
            if example.label != label {
                conflicts.push(Conflict {
                    id: std::mem::replace(&mut example.id, event_id.clone()),
                    label: std::mem::replace(&mut example.label, label.clone()),
                    event_id: event_id.clone(),
                    new_label: label.clone(),
                });
            }
        }
    }
    Merged { dataset: Dataset { examples, sha256 }, added, conflicts }
}

/// Rows to learn from and rows to try on. Which is which follows from the texts alone, so that it is the same from one
/// training to the next; rows that differ only in numbers, case or punctuation stay together, and a label with fewer
/// than five different rows is not held out.
pub fn held_out_rows(dataset: &Dataset) -> (Vec<usize>, Vec<usize>) {
    let mut shapes: BTreeMap<&str, BTreeMap<u128, Vec<usize>>> = BTreeMap::new();
    for (row, example) in dataset.examples.iter().enumerate() {
        let of_label = shapes.entry(&example.label).or_default();
        of_label.entry(shape_hash(&example.record)).or_default().push(row);
    }
    let (mut learn, mut held_out) = (Vec::new(), Vec::new());
    for of_label in shapes.into_values() {
        // In order of their hashes, which is any order, and the same each time.
        for (place, rows) in of_label.into_values().enumerate() {
            if place % HELD_OUT == HELD_OUT - 1 { &mut held_out } else { &mut learn }.extend(rows);
        }
    }
    learn.sort_unstable();
    held_out.sort_unstable();
    (learn, held_out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::record::{LogLine, Record};

    fn line(text: &str) -> Record<'static> {
        Record::Log(LogLine { text: text.to_owned().into(), source: None, level: None, occurred_at: 0 })
    }

    fn base(rows: &[(&str, &str)]) -> Dataset {
        let example = |(row, (text, label)): (usize, &(&str, &str))| Example {
            id: row.to_string(),
            label: (*label).to_owned(),
            record: line(text),
        };
        Dataset { examples: rows.iter().enumerate().map(example).collect(), sha256: "0".repeat(64) }
    }

    fn correction(event: &str, text: &str, label: &str, given_at: i64) -> Correction {
        Correction { event_id: event.to_owned(), label: label.to_owned(), given_at, record: line(text) }
    }

    #[test]
    fn the_newest_label_wins_and_conflicts_are_told() {
        let base = base(&[("disk full", "a"), ("mail late", "b")]);
        let corrections = vec![
            correction("e3", "Disk  FULL", "c", 30),
            correction("e2", "disk full", "b", 20),
            correction("e4", "new text", "b", 10),
            correction("e5", "mail late", "b", 40),
        ];
        let merged = merge(base.clone(), corrections);
        let labels: Vec<&str> = merged.dataset.examples.iter().map(|example| example.label.as_str()).collect();
        assert_eq!((labels, merged.added), (vec!["c", "b", "b"], 1));
        let told: Vec<(&str, &str, &str)> = merged
            .conflicts
            .iter()
            .map(|conflict| (conflict.id.as_str(), conflict.label.as_str(), conflict.new_label.as_str()))
            .collect();
        assert_eq!(told, [("0", "a", "b"), ("e2", "b", "c")]);
        assert_ne!(merged.dataset.sha256, base.sha256);
    }

    proptest! {
        #[test]
        fn each_row_is_learned_from_or_held_out(rows in prop::collection::vec(("[a-z]{1,6}", 0usize..3), 0..80)) {
            let named: Vec<(&str, &str)> = rows.iter().map(|(text, label)| (text.as_str(), ["x", "y", "z"][*label])).collect();
            let dataset = base(&named);
            let (learn, held_out) = held_out_rows(&dataset);
            let mut all: Vec<usize> = learn.iter().chain(&held_out).copied().collect();
            all.sort_unstable();
            prop_assert_eq!(all, (0..rows.len()).collect::<Vec<_>>());
            for row in held_out {
                prop_assert!(learn.iter().any(|other| dataset.examples[*other].label == dataset.examples[row].label));
            }
        }
    }
}
