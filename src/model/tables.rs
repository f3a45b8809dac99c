//! The hash tables of serving: fixed or growing once, flat, and free of allocation when warm.

/// Marks a slot or a note that holds no row.
const NONE: u32 = u32::MAX;

/// From a feature's hash to its row of weights. Never changes after loading.
#[derive(Debug)]
pub(crate) struct RowTable {
    /// Open addressing with linear probing, at most half full. The keys are hashes, so their low bits choose the slot.
    slots: Vec<(u32, u32)>,
}

impl RowTable {
    /// Row `n` belongs to `keys[n]`; keys occur once.
    pub(crate) fn new(keys: &[u32]) -> Self {
        let mut slots = vec![(0, NONE); (keys.len() * 2).next_power_of_two().max(2)];
        let mask = slots.len() - 1;
        for (row, &key) in keys.iter().enumerate() {
            let mut at = key as usize & mask;
            while slots[at].1 != NONE {
                at = (at + 1) & mask;
            }
            slots[at] = (key, row as u32);
        }
        RowTable { slots }
    }

    #[inline]
    pub(crate) fn find(&self, key: u32) -> Option<usize> {
        let mask = self.slots.len() - 1;
        let mut at = key as usize & mask;
        loop {
            let (found, row) = self.slots[at];
            if row == NONE {
                return None;
            }
            if found == key {
                return Some(row as usize);
            }
            at = (at + 1) & mask;
        }
    }
}

/// Counts keys within one record, with a row remembered beside each.
#[derive(Debug)]
pub(crate) struct Counter {
    slots: Vec<Slot>,
    used: usize,
    /// Slots of an earlier record carry an older stamp and count as empty, so clearing costs nothing.
    stamp: u32,
}

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    key: u64,
    stamp: u32,
    count: u32,
    row: u32,
}

impl Default for Counter {
    fn default() -> Self {
        Counter { slots: vec![Slot::default(); 512], used: 0, stamp: 1 }
    }
}

impl Counter {
    pub(crate) fn clear(&mut self) {
        self.used = 0;
        self.stamp = self.stamp.wrapping_add(1);
        if self.stamp == 0 {
            self.slots.fill(Slot::default());
            self.stamp = 1;
        }
    }

    /// Counts `key` once more. At its first occurrence `row` says which row belongs to it. Returns count and row.
    #[inline]
    pub(crate) fn add(&mut self, key: u64, row: impl FnOnce() -> Option<usize>) -> (u32, Option<usize>) {
        if self.used * 2 >= self.slots.len() {
            self.grow();
        }
        let at = self.place(key);
        let slot = &mut self.slots[at];
        if slot.stamp == self.stamp {
            slot.count += 1;
        } else {
            self.used += 1;
            *slot = Slot { key, stamp: self.stamp, count: 1, row: row().map_or(NONE, |row| row as u32) };
        }
        (slot.count, (slot.row != NONE).then_some(slot.row as usize))
    }

    fn place(&self, key: u64) -> usize {
        let mask = self.slots.len() - 1;
        let mut at = key as usize & mask;
        while self.slots[at].stamp == self.stamp && self.slots[at].key != key {
            at = (at + 1) & mask;
        }
        at
    }

    fn grow(&mut self) {
        let larger = vec![Slot::default(); self.slots.len() * 2];
        let smaller = std::mem::replace(&mut self.slots, larger);
        for slot in smaller.into_iter().filter(|slot| slot.stamp == self.stamp) {
            let at = self.place(slot.key);
            self.slots[at] = slot;
        }
    }
}

/// What a word adds to a text at its first occurrence.
#[derive(Debug)]
pub(crate) struct WordEntry<'a> {
    /// Of the word itself, by class.
    pub(crate) word_scores: &'a mut [f32],
    /// Of its character n-grams, by class.
    pub(crate) char_scores: &'a mut [f32],
    pub(crate) numbers: &'a mut WordNumbers,
}

/// Squared lengths that go with the scores, and whether training saw the word.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct WordNumbers {
    pub(crate) word_square: f32,
    pub(crate) char_square: f32,
    pub(crate) known: f32,
}

/// Remembers words. A word has one slot, and the latest word of a slot stays.
#[derive(Debug, Default)]
pub(crate) struct WordCache {
    hashes: Vec<u64>,
    numbers: Vec<WordNumbers>,
    /// Word scores then character scores of each slot.
    scores: Vec<f32>,
    classes: usize,
}

impl WordCache {
    /// Forgets everything and makes room for words with `classes` scores in about `bytes`.
    pub(crate) fn reset(&mut self, classes: usize, bytes: usize) {
        let slot_bytes = size_of::<u64>() + size_of::<WordNumbers>() + 2 * classes * size_of::<f32>();
        let slots = (bytes / slot_bytes + 1).next_power_of_two() / 2;
        let slots = slots.max(256);
        self.hashes = vec![0; slots];
        self.numbers = vec![WordNumbers::default(); slots];
        self.scores = vec![0.0; slots * 2 * classes];
        self.classes = classes;
    }

    /// The entry of the word `hash`, which `compute` fills if it is not there.
    #[inline]
    pub(crate) fn entry(&mut self, hash: u64, compute: impl FnOnce(&mut WordEntry<'_>)) -> WordEntry<'_> {
        let slot = hash as usize & (self.hashes.len() - 1);
        let begin = slot * 2 * self.classes;
        let (word_scores, char_scores) = self.scores[begin..begin + 2 * self.classes].split_at_mut(self.classes);
        let mut entry = WordEntry { word_scores, char_scores, numbers: &mut self.numbers[slot] };
        // Zero marks an empty slot.
        let hash = hash | 1;
        if self.hashes[slot] != hash {
            self.hashes[slot] = hash;
            compute(&mut entry);
        }
        entry
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_found_by_key_and_by_nothing_else() {
        let keys = [3, 7, 11, 0xffff_fff0, 0xffff_ffff];
        let table = RowTable::new(&keys);
        for (row, &key) in keys.iter().enumerate() {
            assert_eq!(table.find(key), Some(row));
        }
        assert_eq!(table.find(4), None);
        assert_eq!(RowTable::new(&[]).find(0), None);
    }

    #[test]
    fn counts_survive_growing_and_end_with_the_record() {
        let mut counter = Counter::default();
        for round in 1..=2 {
            for key in 0..2000 {
                assert_eq!(counter.add(key, || Some(key as usize)), (round, Some(key as usize)));
            }
        }
        counter.clear();
        assert_eq!(counter.add(5, || None), (1, None));
    }

    #[test]
    fn a_word_is_computed_once_until_its_slot_is_taken() {
        let mut cache = WordCache::default();
        cache.reset(2, 0);
        let fill = |value: f32| move |entry: &mut WordEntry<'_>| entry.char_scores.fill(value);
        assert_eq!(cache.entry(5, fill(1.0)).char_scores, [1.0, 1.0]);
        assert_eq!(cache.entry(5, fill(2.0)).char_scores, [1.0, 1.0]);
        assert_eq!(cache.entry(5 + (1 << 40), fill(3.0)).char_scores, [3.0, 3.0]);
        assert_eq!(cache.entry(5, fill(4.0)).char_scores, [4.0, 4.0]);
    }
}
