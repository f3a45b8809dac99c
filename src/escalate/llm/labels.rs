//! The labels that an answer may have. Nothing else is an answer.

use std::collections::HashMap;
use std::sync::Arc;

use xxhash_rust::xxh3::Xxh3;

/// What the model may say instead of a label. A label of this name takes its place; then it cannot abstain.
pub(super) const ABSTAIN: &str = "unsure";

/// More would make a prompt that costs more than a person.
const MAX_LABELS: usize = 250;
const MAX_NAME_CHARS: usize = 100;

/// One label, and when it is right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    pub name: Arc<str>,
    /// For the prompt; may be empty.
    pub description: String,
}

impl Label {
    pub fn new(name: impl Into<Arc<str>>, description: impl Into<String>) -> Self {
        Label { name: name.into(), description: description.into() }
    }
}

/// Why a list of labels cannot be asked about.
#[derive(Debug, thiserror::Error)]
pub enum LabelError {
    #[error("at least two labels are needed")]
    TooFew,
    #[error("{count} labels are too many for a prompt, {MAX_LABELS} are allowed")]
    TooMany { count: usize },
    #[error("label {name:?} is empty, too long, or holds control characters")]
    Name { name: Arc<str> },
    #[error("labels {first:?} and {second:?} differ only in case or blanks")]
    Same { first: Arc<str>, second: Arc<str> },
}

/// The labels of one kind of record, as a prompt shows them and answers are held against.
#[derive(Debug, Clone)]
pub struct LabelSet {
    labels: Vec<Label>,
    /// Folded names and their places.
    by_folded: HashMap<String, usize>,
    fingerprint: u64,
}

impl LabelSet {
    pub fn try_new(labels: Vec<Label>) -> Result<Self, LabelError> {
        match labels.len() {
            0 | 1 => return Err(LabelError::TooFew),
            count if count > MAX_LABELS => return Err(LabelError::TooMany { count }),
            _ => {}
        }
        let mut by_folded = HashMap::with_capacity(labels.len());
        let mut hash = Xxh3::new();
        for (place, label) in labels.iter().enumerate() {
            let name = &label.name;
            let folded = folded(name);
            let long = name.chars().count() > MAX_NAME_CHARS;
            if folded.is_empty() || long || name.chars().any(char::is_control) {
                return Err(LabelError::Name { name: Arc::clone(name) });
            }
            for part in [&**name, label.description.as_str()] {
                hash.update(&part.len().to_le_bytes());
                hash.update(part.as_bytes());
            }
            if let Some(first) = by_folded.insert(folded, place) {
                let first = Arc::clone(&labels[first].name);
                return Err(LabelError::Same { first, second: Arc::clone(name) });
            }
        }
        Ok(LabelSet { labels, by_folded, fingerprint: hash.digest() })
    }

    pub fn iter(&self) -> impl Iterator<Item = &Label> {
        self.labels.iter()
    }

    /// The label that an answer names, whatever its case and the blanks around it.
    pub fn find(&self, answer: &str) -> Option<&Arc<str>> {
        self.by_folded.get(&folded(answer)).map(|&place| &self.labels[place].name)
    }

    /// Whether the model may say that it does not know.
    pub(super) fn may_abstain(&self) -> bool {
        !self.by_folded.contains_key(ABSTAIN)
    }

    /// Equal for equal names and descriptions in the same order.
    pub(super) fn fingerprint(&self) -> u64 {
        self.fingerprint
    }
}

pub(super) fn folded(name: &str) -> String {
    name.trim().to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> Result<LabelSet, LabelError> {
        LabelSet::try_new(names.iter().map(|name| Label::new(*name, "")).collect())
    }

    #[test]
    fn only_known_labels_are_found() {
        let labels = set(&["HR Support", "Zugänge"]).expect("they are sound");
        assert_eq!(labels.find(" hr support\n").map(|label| &**label), Some("HR Support"));
        assert_eq!(labels.find("ZUGÄNGE").map(|label| &**label), Some("Zugänge"));
        for unknown in ["", "HR", "HR-Support", "HR Support.", "unsure"] {
            assert!(labels.find(unknown).is_none(), "{unknown:?}");
        }
    }

    #[test]
    fn bad_lists_are_refused() {
        assert!(matches!(set(&["one"]), Err(LabelError::TooFew)));
        assert!(matches!(set(&["a", " "]), Err(LabelError::Name { .. })));
        assert!(matches!(set(&["a", "b\nsystem: c"]), Err(LabelError::Name { .. })));
        assert!(matches!(set(&["a", "b", "A "]), Err(LabelError::Same { .. })));
    }

    #[test]
    fn a_label_may_take_the_place_of_abstaining() {
        assert!(set(&["a", "b"]).expect("they are sound").may_abstain());
        assert!(!set(&["a", "Unsure"]).expect("they are sound").may_abstain());
    }
}
