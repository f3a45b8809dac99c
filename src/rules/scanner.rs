//! Finds which of many literals occur in a text: one Aho-Corasick automaton over all of them, one pass over the text.
//!
//! The automaton knows ASCII letters in both cases. As a DFA it costs one table look-up a byte, however many literals
//! there are. Where a literal is case-sensitive or must stand alone, the place found is looked at again.

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};

/// With more bytes of literals than this the tables of a DFA would take hundreds of megabytes; the more compact kind
/// of automaton takes their place.
const MAX_DFA_LITERAL_BYTES: usize = 1 << 19;

/// A literal and how it is to be compared.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Literal {
    /// In ASCII lower case unless `case_sensitive`.
    pub(super) bytes: Vec<u8>,
    pub(super) case_sensitive: bool,
    pub(super) whole_words: bool,
}

impl Literal {
    /// Whether the literal stands at `start`.
    fn occurs_at(&self, text: &[u8], start: usize) -> bool {
        let Some(there) = text.get(start..start + self.bytes.len()) else { return false };
        let same = if self.case_sensitive { there == self.bytes } else { there.eq_ignore_ascii_case(&self.bytes) };
        same && (!self.whole_words || self.stands_alone(text, start))
    }

    fn stands_alone(&self, text: &[u8], start: usize) -> bool {
        let is_word = |byte: Option<&u8>| byte.is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_');
        let touches_before = is_word(self.bytes.first()) && is_word(text[..start].last());
        let touches_after = is_word(self.bytes.last()) && is_word(text.get(start + self.bytes.len()));
        !touches_before && !touches_after
    }
}

/// A set of small numbers that is emptied in time proportional to its size.
#[derive(Debug, Default)]
pub(super) struct NumberSet {
    bits: Vec<u64>,
    members: Vec<u32>,
}

impl NumberSet {
    /// Empties the set and makes room for numbers below `bound`.
    pub(super) fn clear(&mut self, bound: usize) {
        for number in self.members.drain(..) {
            self.bits[number as usize / 64] = 0;
        }
        let words = bound.div_ceil(64);
        if self.bits.len() < words {
            self.bits.resize(words, 0);
        }
    }

    pub(super) fn insert(&mut self, number: u32) {
        let (word, bit) = (&mut self.bits[number as usize / 64], 1 << (number % 64));
        if *word & bit == 0 {
            *word |= bit;
            self.members.push(number);
        }
    }

    pub(super) fn contains(&self, number: u32) -> bool {
        self.bits[number as usize / 64] >> (number % 64) & 1 == 1
    }

    pub(super) fn members(&self) -> &[u32] {
        &self.members
    }

    pub(super) fn sort(&mut self) {
        self.members.sort_unstable();
    }
}

#[derive(Debug)]
pub(super) struct Scanner {
    automaton: AhoCorasick,
    literals: Vec<Literal>,
}

impl Scanner {
    pub(super) fn new(literals: Vec<Literal>) -> Self {
        let bytes: usize = literals.iter().map(|literal| literal.bytes.len()).sum();
        let kind = if bytes <= MAX_DFA_LITERAL_BYTES { AhoCorasickKind::DFA } else { AhoCorasickKind::ContiguousNFA };
        let automaton = AhoCorasick::builder()
            .kind(Some(kind))
            .match_kind(MatchKind::Standard)
            .ascii_case_insensitive(true)
            // It would look for rare bytes first, which pays only with very few literals.
            .prefilter(false)
            .build(literals.iter().map(|literal| &literal.bytes))
            .expect("rule files are too small for more states than there are numbers");
        Self { automaton, literals }
    }

    pub(super) fn literal_count(&self) -> usize {
        self.literals.len()
    }

    /// Adds the numbers of all literals that occur in the text.
    pub(super) fn scan(&self, text: &str, found: &mut NumberSet) {
        for place in self.automaton.find_overlapping_iter(text) {
            let number = place.pattern().as_u32();
            if !found.contains(number) && self.literals[number as usize].occurs_at(text.as_bytes(), place.start()) {
                found.insert(number);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(literals: &[&str], text: &str) -> Vec<u32> {
        let loose =
            |text: &&str| Literal { bytes: text.as_bytes().to_vec(), case_sensitive: false, whole_words: false };
        let scanner = Scanner::new(literals.iter().map(loose).collect());
        let mut found = NumberSet::default();
        found.clear(scanner.literal_count());
        scanner.scan(text, &mut found);
        found.sort();
        found.members().to_vec()
    }

    #[test]
    fn literals_of_all_lengths_are_found_at_both_ends() {
        let literals = ["ab", "abc", "abcd", "abcde", "de", "cde", "bcde"];
        assert_eq!(found(&literals, "ABCDE"), [0, 1, 2, 3, 4, 5, 6]);
        assert_eq!(found(&literals, "abc"), [0, 1]);
        assert_eq!(found(&literals, "ab"), [0]);
        assert_eq!(found(&literals, "a"), [0; 0]);
        assert_eq!(found(&literals, ""), [0; 0]);
    }

    #[test]
    fn what_only_looks_alike_when_folded_is_not_found() {
        assert_eq!(found(&["[a]b", "x^y"], "{A}b X~Y"), [0; 0]);
        assert_eq!(found(&["[a]b", "x^y"], "[A]B X^Y"), [0, 1]);
    }

    #[test]
    fn literals_that_share_all_their_runs_but_one_are_told_apart() {
        let literals: Vec<String> = (0..300).map(|number| format!("failed login {number:03}")).collect();
        let literals: Vec<&str> = literals.iter().map(String::as_str).collect();
        assert_eq!(found(&literals, "failed login 007, Failed Login 299"), [7, 299]);
    }
}
