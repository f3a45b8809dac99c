//! Finds which of many literals occur in a text.

use aho_corasick::automaton::Automaton;
use aho_corasick::dfa::DFA;
use aho_corasick::{Anchored, MatchKind};

/// A literal and how it is to be compared.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Literal {
    pub(super) bytes: Vec<u8>,
    pub(super) case_sensitive: bool,
    pub(super) whole_words: bool,
}

/// A set of small numbers that is emptied in time proportional to its size.
#[derive(Debug, Default)]
pub(super) struct NumberSet {
    bits: Vec<u64>,
    members: Vec<u32>,
}

impl NumberSet {
    /// Makes room for numbers below `bound`.
    pub(super) fn reserve(&mut self, bound: usize) {
        let words = bound.div_ceil(64);
        if self.bits.len() < words {
            self.bits.resize(words, 0);
        }
    }

    /// Whether `number` is new.
    pub(super) fn insert(&mut self, number: u32) -> bool {
        let (word, bit) = (&mut self.bits[number as usize / 64], 1 << (number % 64));
        let new = *word & bit == 0;
        if new {
            *word |= bit;
            self.members.push(number);
        }
        new
    }

    pub(super) fn contains(&self, number: u32) -> bool {
        self.bits[number as usize / 64] >> (number % 64) & 1 == 1
    }

    pub(super) fn members_mut(&mut self) -> &mut [u32] {
        &mut self.members
    }

    pub(super) fn members(&self) -> &[u32] {
        &self.members
    }

    pub(super) fn clear(&mut self) {
        for number in self.members.drain(..) {
            self.bits[number as usize / 64] = 0;
        }
    }
}

#[derive(Debug)]
pub(super) struct Scanner {
    dfa: DFA,
    literals: Vec<Literal>,
}

impl Scanner {
    pub(super) fn new(literals: Vec<Literal>) -> Self {
        let dfa = DFA::builder()
            .match_kind(MatchKind::Standard)
            .ascii_case_insensitive(true)
            .prefilter(false)
            .start_kind(aho_corasick::StartKind::Unanchored)
            .build(literals.iter().map(|l| &l.bytes))
            .expect("few literals");
        Self { dfa, literals }
    }

    pub(super) fn literal_count(&self) -> usize {
        self.literals.len()
    }

    pub(super) fn scan(&self, text: &str, found: &mut NumberSet) {
        let Ok(mut state) = self.dfa.start_state(Anchored::No) else {
            return;
        };
        let bytes = text.as_bytes();
        for (at, &byte) in bytes.iter().enumerate() {
            state = self.dfa.next_state(Anchored::No, state, byte);
            if self.dfa.is_special(state) && self.dfa.is_match(state) {
                for index in 0..self.dfa.match_len(state) {
                    let id = self.dfa.match_pattern(state, index).as_u32();
                    let literal = &self.literals[id as usize];
                    let exact = !literal.case_sensitive && !literal.whole_words;
                    if exact || !found.contains(id) && literal.occurs_at(bytes, at + 1 - literal.bytes.len()) {
                        found.insert(id);
                    }
                }
            }
        }
    }
}

impl Literal {
    /// Whether the literal stands at `start`.
    fn occurs_at(&self, text: &[u8], start: usize) -> bool {
        let Some(there) = text.get(start..start + self.bytes.len()) else {
            return false;
        };
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
