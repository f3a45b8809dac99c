//! The slow way through the fast model: every feature by name, with its value and its weights.
//!
//! It explains decisions to people, and it gives the vectors on which the Burn module is compared with serving. It
//! shares no loop with `fast.rs`: features are counted in ordered maps, then scaled.

use std::collections::BTreeMap;

use super::corpus::factor;
use super::fast::FastModel;
use super::features::{self, damped};
use super::head::Head;
use super::sparse::Sparse;
use crate::record::{Kind, LogLine, Reason, Record, Ticket};

/// One feature of a record.
struct Use {
    name: String,
    key: u32,
    /// Damped count, not yet scaled.
    value: f32,
    is_gram: bool,
}

impl FastModel {
    /// The `limit` features that moved the score of `label` most, strongest first.
    pub fn explain(&self, record: &Record<'_>, label: usize, limit: usize) -> Vec<Reason<'static>> {
        let mut reasons: Vec<Reason<'static>> = self
            .named_entries(record)
            .into_iter()
            .map(|(name, row, value)| Reason { feature: name.into(), weight: value * self.weight(row, label) })
            .collect();
        reasons.sort_by(|a, b| b.weight.abs().total_cmp(&a.weight.abs()).then_with(|| a.feature.cmp(&b.feature)));
        reasons.truncate(limit);
        reasons
    }

    /// The largest difference between the scores of serving and those of the Burn module `head` on sample texts.
    pub(super) fn distance_to(&self, head: &Head) -> f32 {
        let texts = [
            "Failed password for root from 10.0.0.1: please reset my account password, the password has expired",
            "The quarterly report; printer on floor 3 is offline, der Drucker druckt nicht, 日本語",
            "",
        ];
        let texts = texts.into_iter().chain(self.labels().iter().map(|label| &**label));
        let mut input = Sparse::new(self.feature_count());
        let mut served = Vec::new();
        let mut scratch = super::fast::Scratch::new();
        for text in texts {
            let record = match self.kind() {
                Kind::Ticket => Record::Ticket(Ticket {
                    ticket_id: None,
                    text: text.into(),
                    title_len: 0,
                    email_address: None,
                    priority: None,
                    source: None,
                    occurred_at: 0,
                }),
                Kind::Log => Record::Log(LogLine { text: text.into(), source: None, level: None, occurred_at: 0 }),
            };
            input.push(&mut self.vector(&record));
            self.score(&record, &mut scratch);
            served.extend_from_slice(scratch.scores());
        }
        head.scores(&input).iter().zip(&served).map(|(burn, served)| (burn - served).abs()).fold(0.0, f32::max)
    }

    /// The record as the Burn module reads it: rows of weights and values.
    pub(super) fn vector(&self, record: &Record<'_>) -> Vec<(u32, f32)> {
        self.named_entries(record).into_iter().map(|(_, row, value)| (row as u32, value)).collect()
    }

    fn named_entries(&self, record: &Record<'_>) -> Vec<(String, usize, f32)> {
        let manifest = self.manifest();
        let (uses, word_squares) = self.uses(record);
        let mut term_square = 0.0;
        for each in uses.iter().filter(|each| !each.is_gram) {
            if let Some(row) = self.find(each.key) {
                term_square += (each.value * self.scale(row)).powi(2);
            }
        }
        let (mut unseen_square, mut char_square) = (0.0, 0.0);
        for (unseen, chars) in word_squares {
            unseen_square += unseen;
            char_square += chars;
        }
        let lengths = &manifest.lengths;
        let (word_share, char_share) = manifest.features.shares();
        let term_factor = factor(word_share, term_square + unseen_square, lengths.floor_words);
        let char_factor = factor(char_share, char_square, lengths.floor_chars);
        uses.into_iter()
            .filter_map(|each| {
                let row = self.find(each.key)?;
                let factor = if each.is_gram { char_factor } else { term_factor };
                Some((each.name, row, each.value * self.scale(row) * factor))
            })
            .collect()
    }

    /// Features of the record, and for each distinct word the squared lengths of the unseen word and of its n-grams.
    fn uses(&self, record: &Record<'_>) -> (Vec<Use>, Vec<(f32, f32)>) {
        let settings = &self.manifest().features;
        let lengths = self.manifest().lengths;
        let mut words: BTreeMap<Vec<u8>, u32> = BTreeMap::new();
        let mut pairs: BTreeMap<(Vec<u8>, Vec<u8>), u32> = BTreeMap::new();
        let mut previous: Option<Vec<u8>> = None;
        features::for_each_word(record.text(), &mut Vec::new(), |word| {
            *words.entry(word.to_vec()).or_default() += 1;
            if let Some(previous) = previous.replace(word.to_vec()) {
                *pairs.entry((previous, word.to_vec())).or_default() += 1;
            }
        });
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let mut uses = Vec::new();
        let mut squares = Vec::new();
        let mut gram_values: BTreeMap<u32, (String, f32)> = BTreeMap::new();
        for (word, &count) in &words {
            let key = features::word_key(features::word_hash(word));
            let value = damped(count);
            let unseen_square = if self.find(key).is_some() { 0.0 } else { (value * lengths.unseen_word).powi(2) };
            uses.push(Use { name: format!("word {}", text(word)), key, value, is_gram: false });
            let mut counts: BTreeMap<u32, f32> = BTreeMap::new();
            if settings.uses_chars() {
                features::for_each_gram(word, settings, &mut Vec::new(), |key, gram| {
                    *counts.entry(key).or_default() += 1.0;
                    gram_values.entry(key).or_insert_with(|| (format!("letters {}", text(gram)), 0.0)).1 += value;
                });
            }
            let scale = |key: u32| self.find(key).map_or(lengths.unseen_gram, |row| self.scale(row));
            let char_square = counts.iter().map(|(&key, &count)| (value * count * scale(key)).powi(2)).sum();
            squares.push((unseen_square, char_square));
        }
        if settings.bigrams {
            uses.extend(pairs.iter().map(|((first, second), &count)| Use {
                name: format!("pair {} {}", text(first), text(second)),
                key: features::bigram_key(features::word_hash(first), features::word_hash(second)),
                value: damped(count),
                is_gram: false,
            }));
        }
        if settings.signals {
            features::for_each_signal(record, |key, signal| {
                uses.push(Use { name: format!("signal {signal}"), key, value: 1.0, is_gram: false });
            });
        }
        uses.extend(gram_values.into_iter().map(|(key, (name, value))| Use { name, key, value, is_gram: true }));
        (uses, squares)
    }
}
