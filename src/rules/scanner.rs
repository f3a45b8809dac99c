//! Finds which of many literals occur in a text.
//!
//! Every literal is filed under the rarest run of four bytes in it (two, for the shortest), ASCII case folded. A scan
//! hashes each run of the text into a bitmap that fits the first-level cache, and only where a bit is set looks the run up
//! and compares the literals filed under it. Positions do not depend on one another, so the processor overlaps them; an
//! Aho-Corasick automaton must finish each byte before the next.

use std::collections::BTreeMap;

use super::cost::frequency;

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
    literals: Vec<Literal>,
    /// Literals of at least three bytes, filed under runs of four.
    long: RunIndex<4>,
    /// Literals of two bytes. Most rule sets have none, and then this costs nothing.
    short: RunIndex<2>,
}

impl Scanner {
    pub(super) fn new(literals: Vec<Literal>) -> Self {
        let (mut long, mut short) = (BTreeMap::new(), BTreeMap::new());
        for (number, literal) in literals.iter().enumerate() {
            match *literal.bytes {
                [_, _] => file_whole::<2>(&mut short, number as u32, literal),
                [_, _, _] => file_whole::<4>(&mut long, number as u32, literal),
                _ => file_rarest(&mut long, number as u32, literal),
            }
        }
        Self { literals, long: RunIndex::new(long), short: RunIndex::new(short) }
    }

    pub(super) fn literal_count(&self) -> usize {
        self.literals.len()
    }

    /// Adds the numbers of all literals that occur in the text.
    pub(super) fn scan(&self, text: &str, found: &mut NumberSet) {
        self.long.scan(text.as_bytes(), &self.literals, found);
        self.short.scan(text.as_bytes(), &self.literals, found);
    }
}

/// A literal filed under a run of its bytes.
#[derive(Debug, Clone, Copy)]
struct Entry {
    literal: u32,
    /// Offset of the run in the literal.
    offset: u32,
    /// A second run of the literal and its offset, compared first: it tells most literals of one run apart without
    /// looking at them. Zero where there is none.
    check: u32,
    check_offset: u32,
}

type Filed = BTreeMap<u32, Vec<Entry>>;

/// Files a literal under its rarest run of four bytes.
fn file_rarest(filed: &mut Filed, number: u32, literal: &Literal) {
    // Literals that share a run are spread over their others.
    let cost = |run: &[u8]| frequency(run) * (1 + filed.get(&fold(run)).map_or(0, Vec::len)) as f64;
    let runs = literal.bytes.windows(4).map(cost).enumerate();
    let offset = runs.min_by(|a, b| a.1.total_cmp(&b.1)).map_or(0, |(offset, _)| offset);
    let last = literal.bytes.len() - 4;
    let check_offset = if offset * 2 < last { last } else { 0 };
    let run_at = |offset: usize| fold(&literal.bytes[offset..offset + 4]);
    filed.entry(run_at(offset)).or_default().push(Entry {
        literal: number,
        offset: offset as u32,
        check: run_at(check_offset),
        check_offset: check_offset as u32,
    });
}

/// Files a literal of `N` bytes, or of one less, then under each run that begins with it.
fn file_whole<const N: usize>(filed: &mut Filed, number: u32, literal: &Literal) {
    let entry = Entry { literal: number, offset: 0, check: 0, check_offset: 0 };
    let mut run = literal.bytes.clone();
    if run.len() == N {
        filed.entry(fold(&run)).or_default().push(entry);
        return;
    }
    run.push(0);
    for byte in (0..=u8::MAX).filter(|byte| byte & CASE_BIT != 0) {
        run[N - 1] = byte;
        filed.entry(fold(&run)).or_default().push(entry);
    }
}

/// Literals by a run of `N` of their bytes.
#[derive(Debug)]
struct RunIndex<const N: usize> {
    /// A bit for each hash of a run.
    bitmap: Box<[u64; BITMAP_WORDS]>,
    /// A hash table with open addressing.
    slots: Vec<Slot>,
    /// A hash is shifted to the right by this.
    slots_shift: u32,
    entries: Vec<Entry>,
}

/// 2^18 bits are 32 KiB: more would not stay in the first-level cache, fewer would give false hits with thousands of
/// literals.
const BITMAP_BITS: u32 = 18;
const BITMAP_WORDS: usize = 1 << (BITMAP_BITS - 6);

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    run: u32,
    begin: u32,
    /// Equal to `begin` in a free slot.
    end: u32,
}

impl<const N: usize> RunIndex<N> {
    fn new(filed: Filed) -> Self {
        // At most half of the slots are taken.
        let slot_bits = usize::BITS - (filed.len() * 2).leading_zeros();
        let slots_shift = 32 - slot_bits;
        let mut bitmap = Box::new([0; BITMAP_WORDS]);
        let mut slots = vec![Slot::default(); 1 << slot_bits];
        let mut entries = Vec::new();
        for (run, of_run) in filed {
            let hash = hash(run);
            let bit = hash >> (32 - BITMAP_BITS);
            bitmap[bit as usize / 64] |= 1 << (bit % 64);
            let begin = entries.len() as u32;
            entries.extend(of_run);
            let mut at = (hash >> slots_shift) as usize;
            while slots[at].begin != slots[at].end {
                at = (at + 1) % slots.len();
            }
            slots[at] = Slot { run, begin, end: entries.len() as u32 };
        }
        Self { bitmap, slots, slots_shift, entries }
    }

    fn scan(&self, text: &[u8], literals: &[Literal], found: &mut NumberSet) {
        if self.entries.is_empty() {
            return;
        }
        for (at, run) in text.windows(N).enumerate() {
            self.probe(fold(run), at, text, literals, found);
        }
        // A literal that is one byte shorter than a run may end the text.
        if let (4, Some(at)) = (N, text.len().checked_sub(3)) {
            self.probe(fold(&[text[at], text[at + 1], text[at + 2], b' ']), at, text, literals, found);
        }
    }

    #[inline(always)]
    fn probe(&self, run: u32, at: usize, text: &[u8], literals: &[Literal], found: &mut NumberSet) {
        let hash = hash(run);
        let bit = hash >> (32 - BITMAP_BITS);
        if self.bitmap[bit as usize / 64] >> (bit % 64) & 1 == 1 {
            self.look_up(run, hash, at, text, literals, found);
        }
    }

    // Kept out of the loop over the text, which it would slow down.
    #[inline(never)]
    fn look_up(&self, run: u32, hash: u32, at: usize, text: &[u8], literals: &[Literal], found: &mut NumberSet) {
        let mut at_slot = (hash >> self.slots_shift) as usize;
        let entries = loop {
            let slot = self.slots[at_slot];
            if slot.begin == slot.end {
                return;
            }
            if slot.run == run {
                break &self.entries[slot.begin as usize..slot.end as usize];
            }
            at_slot = (at_slot + 1) % self.slots.len();
        };
        for entry in entries {
            let Some(start) = at.checked_sub(entry.offset as usize) else { continue };
            let check_at = start + entry.check_offset as usize;
            if entry.check != 0 && text.get(check_at..check_at + N).map(fold) != Some(entry.check) {
                continue;
            }
            if !found.contains(entry.literal) && literals[entry.literal as usize].occurs_at(text, start) {
                found.insert(entry.literal);
            }
        }
    }
}

/// The bit in which the cases of an ASCII letter differ.
const CASE_BIT: u8 = 0x20;

/// A run of four or two bytes as a number, ASCII case folded. Setting the bit joins a few other bytes as well, which
/// does no harm, because literals are compared afterwards.
fn fold(run: &[u8]) -> u32 {
    match *run {
        [a, b, c, d] => u32::from_le_bytes([a, b, c, d]) | u32::from_le_bytes([CASE_BIT; 4]),
        [a, b] => u32::from_le_bytes([a, b, 0, 0]) | u32::from_le_bytes([CASE_BIT, CASE_BIT, 0, 0]),
        _ => 0,
    }
}

/// Multiplicative hashing, Knuth, The Art of Computer Programming 6.4; the upper bits are the good ones.
fn hash(run: u32) -> u32 {
    run.wrapping_mul(0x9e37_79b1)
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
