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
    /// Literals of at least four bytes.
    long: GramIndex<4>,
    /// Literals of two or three bytes.
    short: GramIndex<2>,
}

impl Scanner {
    pub(super) fn new(literals: Vec<Literal>) -> Self {
        let numbered = || literals.iter().enumerate().map(|(number, literal)| (number as u32, literal));
        let long = GramIndex::new(numbered().filter(|(_, literal)| literal.bytes.len() >= 4));
        let short = GramIndex::new(numbered().filter(|(_, literal)| literal.bytes.len() < 4));
        Self { literals, long, short }
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

/// Literals filed under a run of `N` of their bytes.
#[derive(Debug)]
struct GramIndex<const N: usize> {
    /// A bit for each hash of a run.
    bitmap: Box<[u64; BITMAP_WORDS]>,
    /// Open addressing: the run, and where its entries begin and end.
    slots: Vec<Slot>,
    slots_shift: u32,
    entries: Vec<Entry>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    gram: u32,
    begin: u32,
    /// Equal to `begin` in a free slot.
    end: u32,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    literal: u32,
    /// Offset of the run in the literal.
    offset: u32,
    /// A second run of the literal and its offset, compared first: it tells most literals of one run apart without
    /// looking at them.
    check: u32,
    check_offset: u32,
}

/// 2^18 bits are 32 KiB: more would not stay in the first-level cache, fewer would give false hits with thousands of
/// literals.
const BITMAP_BITS: u32 = 18;
const BITMAP_WORDS: usize = 1 << (BITMAP_BITS - 6);

impl<const N: usize> GramIndex<N> {
    fn new<'l>(literals: impl Iterator<Item = (u32, &'l Literal)>) -> Self {
        let mut filed: BTreeMap<u32, Vec<Entry>> = BTreeMap::new();
        for (number, literal) in literals {
            // Spread out literals that share a run.
            let cost = |(_, run): &(usize, &[u8])| {
                let company = filed.get(&gram(run)).map_or(0, Vec::len);
                frequency(run) * (1 + company) as f64
            };
            let grams = || literal.bytes.windows(N).enumerate();
            let Some((offset, run)) = grams().min_by(|a, b| cost(a).total_cmp(&cost(b))) else { continue };
            let last = literal.bytes.len() - N;
            let check_offset = if offset * 2 < last { last } else { 0 };
            let entry = Entry {
                literal: number,
                offset: offset as u32,
                check: gram(&literal.bytes[check_offset..check_offset + N]),
                check_offset: check_offset as u32,
            };
            filed.entry(gram(run)).or_default().push(entry);
        }
        if filed.is_empty() {
            return Self { bitmap: Box::new([0; BITMAP_WORDS]), slots: vec![], slots_shift: 0, entries: vec![] };
        }
        let mut bitmap = Box::new([0u64; BITMAP_WORDS]);
        let slot_bits = usize::BITS - (filed.len() * 2).leading_zeros();
        let slots_shift = 32 - slot_bits;
        let mut slots = vec![Slot::default(); 1 << slot_bits];
        let mut entries = Vec::new();
        for (gram, of_gram) in filed {
            let hash = hash(gram);
            let bit = hash >> (32 - BITMAP_BITS);
            bitmap[bit as usize / 64] |= 1 << (bit % 64);
            let begin = entries.len() as u32;
            entries.extend(of_gram);
            let mut at = (hash >> slots_shift) as usize;
            while slots[at].begin != slots[at].end {
                at = (at + 1) % slots.len();
            }
            slots[at] = Slot { gram, begin, end: entries.len() as u32 };
        }
        Self { bitmap, slots, slots_shift, entries }
    }

    fn scan(&self, text: &[u8], literals: &[Literal], found: &mut NumberSet) {
        if self.entries.is_empty() {
            return;
        }
        for (at, run) in text.windows(N).enumerate() {
            let gram = gram(run);
            let hash = hash(gram);
            let bit = hash >> (32 - BITMAP_BITS);
            if self.bitmap[bit as usize / 64] >> (bit % 64) & 1 == 1 {
                self.look_up(gram, hash, at, text, literals, found);
            }
        }
    }

    #[inline(never)]
    fn look_up(&self, gram: u32, hash: u32, at: usize, text: &[u8], literals: &[Literal], found: &mut NumberSet) {
        let mut slot = (hash >> self.slots_shift) as usize;
        while self.slots[slot].begin != self.slots[slot].end {
            let Slot { gram: filed, begin, end } = self.slots[slot];
            if filed == gram {
                for entry in &self.entries[begin as usize..end as usize] {
                    let Some(start) = at.checked_sub(entry.offset as usize) else { continue };
                    let check_at = start + entry.check_offset as usize;
                    if text.get(check_at..check_at + N).is_none_or(|run| self::gram(run) != entry.check) {
                        continue;
                    }
                    if !found.contains(entry.literal) && literals[entry.literal as usize].occurs_at(text, start) {
                        found.insert(entry.literal);
                    }
                }
                return;
            }
            slot = (slot + 1) % self.slots.len();
        }
    }
}

/// A run of up to four bytes as a number. Setting bit 5 folds ASCII case; that it also joins a few other bytes does no
/// harm, because literals are compared afterwards.
fn gram(run: &[u8]) -> u32 {
    match *run {
        [a, b, c, d] => u32::from_le_bytes([a, b, c, d]) | 0x2020_2020,
        [a, b] => u32::from(u16::from_le_bytes([a, b]) | 0x2020),
        _ => 0,
    }
}

fn hash(gram: u32) -> u32 {
    gram.wrapping_mul(0x9e37_79b1)
}
