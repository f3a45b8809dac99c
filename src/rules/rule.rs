//! One checked rule: its conditions, its outcome, its examples. Plain data.

use std::sync::Arc;

use crate::record::{Kind, Priority};

use super::fault::Problem;
use super::pattern::Pattern;

/// A shorter literal occurs in nearly every text, so it says nothing.
pub(super) const MIN_LITERAL_BYTES: usize = 2;
/// Longer literals are likely pasted texts; they only make the index bigger.
pub(super) const MAX_LITERAL_BYTES: usize = 256;
/// Bounds the work of confirming one rule.
pub(super) const MAX_LITERALS: usize = 4096;
pub(super) const MAX_ID_BYTES: usize = 64;
pub(super) const MAX_TAGS: usize = 16;
/// Names (queue, category, source, tag) travel in every event.
pub(super) const MAX_NAME_BYTES: usize = 128;

/// The kinds of records that a rule applies to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    Ticket,
    Log,
    Any,
}

impl Scope {
    pub fn covers(self, kind: Kind) -> bool {
        matches!((self, kind), (Scope::Any, _) | (Scope::Ticket, Kind::Ticket) | (Scope::Log, Kind::Log))
    }
}

/// What a matching rule says about a record. It may be partial.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    pub queue: Option<String>,
    pub category: Option<String>,
    pub priority: Option<Priority>,
    pub tags: Vec<String>,
    /// The record is discarded.
    pub drop: bool,
    /// The fast model is not asked: a slower tier decides.
    pub escalate: bool,
}

impl Outcome {
    /// Whether the outcome settles where the record goes; otherwise it is a priority or a tag only.
    pub fn decides(&self) -> bool {
        self.queue.is_some() || self.category.is_some() || self.drop || self.escalate
    }

    pub(super) fn check(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if !self.decides() && self.priority.is_none() && self.tags.is_empty() {
            problems.push(Problem::NoOutcome);
        }
        let named = [
            ("escalate", self.escalate),
            ("queue", self.queue.is_some()),
            ("category", self.category.is_some()),
            ("priority", self.priority.is_some()),
            ("tags", !self.tags.is_empty()),
        ];
        for (second, _) in named.into_iter().filter(|(_, set)| *set && self.drop) {
            problems.push(Problem::Conflict { first: "drop", second });
        }
        for (second, _) in named[1..3].iter().filter(|(_, set)| *set && self.escalate) {
            problems.push(Problem::Conflict { first: "escalate", second });
        }
        problems
    }
}

/// A text that a rule must match, or must not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    pub text: String,
    pub source: Option<String>,
    pub kind: Kind,
}

/// A rule that was checked. All conditions that it has must hold.
#[derive(Debug, Clone)]
pub struct Rule {
    pub id: String,
    pub description: String,
    pub file: Arc<str>,
    /// Counted from 1.
    pub line: usize,
    pub scope: Scope,
    /// The record's source is one of these, ASCII case ignored. Empty: any source, or none.
    pub sources: Vec<String>,
    /// At least one of these occurs, unless there are none.
    pub any: Vec<String>,
    /// All of these occur.
    pub all: Vec<String>,
    /// None of these occurs.
    pub none: Vec<String>,
    pub regex: Option<Pattern>,
    /// Otherwise ASCII letters match in both cases, in literals and in the regex.
    pub case_sensitive: bool,
    /// A literal's end that is an ASCII letter, digit or `_` may not touch another one in the text.
    pub whole_words: bool,
    pub outcome: Outcome,
    pub match_examples: Vec<Example>,
    pub no_match_examples: Vec<Example>,
}

impl Rule {
    pub(super) fn has_text_condition(&self) -> bool {
        !self.any.is_empty() || !self.all.is_empty() || !self.none.is_empty() || self.regex.is_some()
    }

    /// What is wrong with the rule as a whole, its single values being right.
    pub(super) fn check(&self) -> Vec<Problem> {
        let mut problems = self.outcome.check();
        if self.sources.is_empty() && !self.has_text_condition() {
            problems.push(Problem::NoCondition);
        }
        let forbidden_in = |needed: &String| self.none.iter().find(|none| self.implies(needed, none));
        for needed in &self.all {
            if let Some(forbidden) = forbidden_in(needed) {
                problems.push(contradiction(needed, forbidden));
            }
        }
        let forbidden: Option<Vec<_>> =
            self.any.iter().map(|needed| forbidden_in(needed).map(|f| (needed, f))).collect();
        if let Some((needed, forbidden)) = forbidden.as_deref().and_then(<[_]>::first) {
            problems.push(contradiction(needed, forbidden));
        }
        problems
    }

    /// Whether every text that holds `needed` holds `other` too.
    fn implies(&self, needed: &str, other: &str) -> bool {
        let fold = |text: &str| {
            if self.case_sensitive { text.to_owned() } else { text.to_ascii_lowercase() }
        };
        let (needed, other) = (fold(needed), fold(other));
        if self.whole_words { needed == other } else { needed.contains(&other) }
    }
}

fn contradiction(needed: &str, forbidden: &str) -> Problem {
    Problem::Contradiction { needed: needed.to_owned(), forbidden: forbidden.to_owned() }
}
