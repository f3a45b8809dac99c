//! A training corpus as counted features, and the weights that features get from the rows a model learns from.
//!
//! Texts are read once, with the widest settings. Every fit then takes its features, their document frequencies and
//! their weights from its training rows alone, so held-out rows stay unseen.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3Builder;

use super::calibration::Grasp;
use super::features::{self, FeatureSettings, damped};
use super::sparse::{Sparse, add_scaled};
use crate::record::Record;

type Map<K, V> = std::collections::HashMap<K, V, Xxh3Builder>;

/// Weight of an unseen feature relative to that of a rare one. More: texts with many new words are judged too timidly
/// when there are few training rows; less: texts of another domain are judged too boldly.
const UNSEEN_SHARE: f32 = 0.5;

/// Share of the training rows whose vector is shorter than the floor that they are brought up to.
const SHORT_SHARE: f64 = 0.05;

/// Bytes that a package's weights may take. What training rows hold beyond that is dropped, the rarest first.
const MAX_WEIGHT_BYTES: usize = 7_500_000;

/// Added to the mass of a feature in a class, so that absence is weak evidence.
const SMOOTHING: f32 = 0.5;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FeatureKind {
    Word,
    Bigram,
    Signal,
    /// A character n-gram of this length.
    Gram(u8),
}

impl FeatureKind {
    fn used_by(self, settings: &FeatureSettings) -> bool {
        match self {
            FeatureKind::Word => true,
            FeatureKind::Bigram => settings.bigrams,
            FeatureKind::Signal => settings.signals,
            FeatureKind::Gram(length) => {
                settings.uses_chars() && (settings.char_min..=settings.char_max).contains(&usize::from(length))
            }
        }
    }
}

/// All rows of a data set as counted features.
#[derive(Debug)]
pub(crate) struct Corpus {
    kinds: Vec<FeatureKind>,
    /// The hash of each feature, rising.
    keys: Vec<u32>,
    /// Damped counts of words, pairs and signals: rows × features.
    terms: Sparse,
    /// Damped counts of words: rows × words.
    words: Sparse,
    /// Counts of character n-grams in each word: words × features.
    grams: Sparse,
    /// `words` × `grams`: rows × features.
    chars: Sparse,
    /// The feature that each word itself is.
    word_features: Vec<u32>,
}

/// What a fit makes of the corpus: the features that have weights, and every row as a vector of them.
#[derive(Debug)]
pub(crate) struct Vectors {
    /// Hashes of the features, rising: one for each column of `rows`.
    pub(crate) keys: Vec<u32>,
    /// Weight of each feature.
    pub(crate) scales: Vec<f32>,
    pub(crate) lengths: Lengths,
    /// All rows of the corpus, training and held-out, as vectors of length 1 at most.
    pub(crate) rows: Sparse,
    /// How much of each row can be read.
    pub(crate) grasps: Vec<Grasp>,
}

/// How features are chosen and weighed; chosen by validation, stored in the package.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Weighing {
    /// A feature must occur in this many training rows.
    pub(crate) min_rows: u32,
    /// Exponent of the class ratios; 0: plain TF-IDF.
    pub(crate) ratio_power: f32,
}

/// What keeps a text unlike the training rows from looking like one of them. A text's vector is divided by its length,
/// and that length counts what the weights do not: words and n-grams never seen, and a text too short to judge.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Lengths {
    /// Weights of an unseen word and of an unseen character n-gram.
    pub(crate) unseen_word: f32,
    pub(crate) unseen_gram: f32,
    /// Lengths of the word part and of the character part that all but a few training rows reach; shorter ones count as
    /// this long, so their scores stay small.
    pub(crate) floor_words: f32,
    pub(crate) floor_chars: f32,
}

impl Lengths {
    pub(crate) fn are_valid(&self) -> bool {
        let all = [self.unseen_word, self.unseen_gram, self.floor_words, self.floor_chars];
        all.iter().all(|length| length.is_finite() && *length >= 0.0)
    }
}

impl Corpus {
    /// Reads all texts. `widest` bounds the character n-grams that any fit may use.
    pub(crate) fn read<'a>(records: impl Iterator<Item = &'a Record<'a>>, widest: &FeatureSettings) -> Self {
        let mut reader = Reader::new(widest);
        for record in records {
            reader.read(record);
        }
        reader.finish()
    }

    pub(crate) fn len(&self) -> usize {
        self.words.rows()
    }

    /// Entries that the rows have at most with these features.
    pub(crate) fn entries(&self, settings: &FeatureSettings) -> usize {
        self.terms.columns.len() + if settings.uses_chars() { self.chars.columns.len() } else { 0 }
    }

    /// The highest `min_rows` up to `most` at which a row keeps `enough` different words on average; at least 1. In long
    /// texts words that few rows have are noise; in short ones they are all there is.
    pub(crate) fn affordable_min_rows(&self, most: u32, enough: usize) -> u32 {
        let mut frequency = vec![0u32; self.word_features.len()];
        for row in 0..self.len() {
            for (word, _) in self.words.entries(row) {
                frequency[word] += 1;
            }
        }
        // A word stands in as many rows as it has frequency.
        let kept = |min_rows: u32| -> usize {
            frequency.iter().filter(|&&rows| rows >= min_rows).map(|&rows| rows as usize).sum()
        };
        (2..=most).take_while(|&min_rows| kept(min_rows) >= enough * self.len()).last().unwrap_or(1)
    }

    /// Chooses and weighs features by the rows `train`, whose classes are `labels[row]`, and turns every row into a vector.
    pub(crate) fn vectors(
        &self,
        train: &[usize],
        labels: &[u32],
        classes: usize,
        settings: &FeatureSettings,
        weighing: &Weighing,
    ) -> Vectors {
        let mut frequency = vec![0u32; self.keys.len()];
        for &row in train {
            for (feature, _) in self.terms.entries(row).chain(self.chars.entries(row)) {
                frequency[feature] += 1;
            }
        }
        let idf = |rows: u32| ((1.0 + train.len() as f32) / (1.0 + rows as f32)).ln() + 1.0;
        let mut scales: Vec<f32> = (0..self.keys.len())
            .map(|feature| {
                let kept = frequency[feature] >= weighing.min_rows && self.kinds[feature].used_by(settings);
                if kept { idf(frequency[feature]) } else { 0.0 }
            })
            .collect();
        if weighing.ratio_power > 0.0 {
            for part in [&self.terms, &self.chars] {
                let ratios = self.class_ratios(part, train, labels, classes, &scales);
                for (feature, ratio) in ratios {
                    scales[feature] *= ratio.powf(weighing.ratio_power);
                }
            }
        }
        keep_most(&mut scales, &frequency, MAX_WEIGHT_BYTES / feature_bytes(classes));
        // The rarest kept features are the best guess for one that was not seen at all.
        let rare = |of_kind: fn(FeatureKind) -> bool| {
            let kept = || (0..scales.len()).filter(|&feature| scales[feature] > 0.0 && of_kind(self.kinds[feature]));
            let rarest = kept().map(|feature| frequency[feature]).min();
            let weights = kept().filter(|&feature| Some(frequency[feature]) == rarest).map(|feature| scales[feature]);
            UNSEEN_SHARE * quantile(weights.collect(), 0.5)
        };
        let mut lengths = Lengths {
            unseen_word: rare(|kind| kind == FeatureKind::Word),
            unseen_gram: rare(|kind| matches!(kind, FeatureKind::Gram(_))),
            floor_words: 0.0,
            floor_chars: 0.0,
        };
        let measures = self.measure(&scales, &lengths, settings);
        let of_train =
            |part: fn(&Measure) -> f32| quantile(train.iter().map(|&row| part(&measures[row])).collect(), SHORT_SHARE);
        lengths.floor_words = of_train(|row| row.word_square.sqrt());
        lengths.floor_chars = of_train(|row| row.char_square.sqrt());
        let rows = self.vectorize(&scales, &lengths, &measures, settings);
        let grasps =
            measures.iter().map(|row| Grasp { coverage: row.coverage, length: row.distinct_square.sqrt() }).collect();
        self.compact(scales, lengths, rows, grasps)
    }

    /// How much each kept feature of `part` speaks for or against one class: the largest |log ratio| over the classes of
    /// its share of the class's mass to its share of all others' (Wang and Manning 2012, NB-SVM, taken over classes).
    fn class_ratios(
        &self,
        part: &Sparse,
        train: &[usize],
        labels: &[u32],
        classes: usize,
        scales: &[f32],
    ) -> Vec<(usize, f32)> {
        let mut place = vec![u32::MAX; scales.len()];
        let mut features = Vec::new();
        for &row in train {
            for (feature, _) in part.entries(row) {
                if scales[feature] > 0.0 && place[feature] == u32::MAX {
                    place[feature] = features.len() as u32;
                    features.push(feature);
                }
            }
        }
        // Mass of each feature by class; a row's mass is its vector scaled to length 1, so long texts do not dominate.
        let mut mass = vec![0.0f32; features.len() * classes];
        for &row in train {
            let length =
                part.entries(row).map(|(feature, value)| (value * scales[feature]).powi(2)).sum::<f32>().sqrt();
            if length > 0.0 {
                for (feature, value) in part.entries(row).filter(|&(feature, _)| scales[feature] > 0.0) {
                    mass[place[feature] as usize * classes + labels[row] as usize] += value * scales[feature] / length;
                }
            }
        }
        let mut class_mass = vec![0.0f32; classes];
        for masses in mass.chunks(classes) {
            add_scaled(&mut class_mass, masses, 1.0);
        }
        let smoothing = SMOOTHING * features.len() as f32;
        let all: f32 = class_mass.iter().sum();
        let log_totals: Vec<f32> =
            class_mass.iter().map(|&own| ((own + smoothing) / (all - own + smoothing)).ln()).collect();
        features
            .into_iter()
            .zip(mass.chunks(classes))
            .map(|(feature, masses)| {
                let total: f32 = masses.iter().sum();
                let ratio = masses
                    .iter()
                    .zip(&log_totals)
                    .map(|(&own, log_total)| (((own + SMOOTHING) / (total - own + SMOOTHING)).ln() - log_total).abs())
                    .fold(0.0, f32::max);
                (feature, ratio)
            })
            .collect()
    }

    /// Squared lengths and coverage of every row.
    fn measure(&self, scales: &[f32], lengths: &Lengths, settings: &FeatureSettings) -> Vec<Measure> {
        let gram_squares: Vec<f32> = (0..self.grams.rows())
            .map(|word| {
                let enabled = |feature: usize| self.kinds[feature].used_by(settings);
                let scale = |feature: usize| if scales[feature] > 0.0 { scales[feature] } else { lengths.unseen_gram };
                let grams = self.grams.entries(word).filter(|&(feature, _)| enabled(feature));
                grams.map(|(feature, count)| (count * scale(feature)).powi(2)).sum()
            })
            .collect();
        (0..self.len())
            .map(|row| {
                let mut measure = Measure::default();
                let terms = self.terms.entries(row);
                for (feature, value) in terms {
                    measure.word_square += (value * scales[feature]).powi(2);
                    measure.distinct_square += scales[feature].powi(2);
                }
                let (mut seen, mut all) = (0.0, 0.0);
                for (word, value) in self.words.entries(row) {
                    all += 1.0;
                    if scales[self.word_features[word] as usize] > 0.0 {
                        seen += 1.0;
                    } else {
                        measure.word_square += (value * lengths.unseen_word).powi(2);
                        measure.distinct_square += lengths.unseen_word.powi(2);
                    }
                    measure.char_square += value * value * gram_squares[word];
                }
                measure.coverage = if all > 0.0 { seen / all } else { 0.0 };
                measure
            })
            .collect()
    }

    /// Every row as a vector: words, pairs and signals scaled to one length, character n-grams to another.
    fn vectorize(&self, scales: &[f32], lengths: &Lengths, measures: &[Measure], settings: &FeatureSettings) -> Sparse {
        let (word_share, char_share) = settings.shares();
        let mut rows = Sparse::new(self.keys.len());
        let mut entries = Vec::new();
        for (row, measure) in measures.iter().enumerate() {
            let word_factor = factor(word_share, measure.word_square, lengths.floor_words);
            let char_factor = factor(char_share, measure.char_square, lengths.floor_chars);
            entries.clear();
            for (part, factor) in [(&self.terms, word_factor), (&self.chars, char_factor)] {
                let weighed =
                    part.entries(row).map(|(feature, value)| (feature as u32, value * scales[feature] * factor));
                entries.extend(weighed.filter(|&(_, value)| value != 0.0));
            }
            rows.push(&mut entries);
        }
        rows
    }

    /// Drops features without a weight.
    fn compact(&self, scales: Vec<f32>, lengths: Lengths, mut rows: Sparse, grasps: Vec<Grasp>) -> Vectors {
        let mut column = vec![u32::MAX; scales.len()];
        let mut keys = Vec::new();
        let mut kept = Vec::new();
        for (feature, &scale) in scales.iter().enumerate().filter(|&(_, &scale)| scale > 0.0) {
            column[feature] = keys.len() as u32;
            keys.push(self.keys[feature]);
            kept.push(scale);
        }
        for feature in &mut rows.columns {
            *feature = column[*feature as usize];
        }
        rows.width = keys.len();
        Vectors { keys, scales: kept, lengths, rows, grasps }
    }
}

/// Bytes of a feature in a package: its hash, its scale, and an f16 for each class.
fn feature_bytes(classes: usize) -> usize {
    size_of::<u32>() + size_of::<f32>() + 2 * classes
}

/// Sets the scales of all but `most` features to 0; those in the most rows stay, and of equals those that weigh most.
fn keep_most(scales: &mut [f32], frequency: &[u32], most: usize) {
    let mut kept: Vec<usize> = (0..scales.len()).filter(|&feature| scales[feature] > 0.0).collect();
    if kept.len() <= most {
        return;
    }
    kept.sort_by(|&a, &b| frequency[b].cmp(&frequency[a]).then(scales[b].total_cmp(&scales[a])).then(a.cmp(&b)));
    for &feature in &kept[most..] {
        scales[feature] = 0.0;
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Measure {
    word_square: f32,
    char_square: f32,
    /// As `word_square`, with every word and pair counted once.
    distinct_square: f32,
    coverage: f32,
}

/// The value that the share `at` of all values lies below; 0 of nothing.
pub(crate) fn quantile(mut values: Vec<f32>, at: f64) -> f32 {
    values.sort_by(f32::total_cmp);
    values.get((values.len() as f64 * at) as usize).copied().unwrap_or(0.0)
}

/// Brings a vector whose square is `square` to length `share`, or less when it is shorter than `floor`.
pub(crate) fn factor(share: f32, square: f32, floor: f32) -> f32 {
    let length = square.sqrt().max(floor);
    if length > 0.0 { share / length } else { 0.0 }
}

/// Reads texts into tables whose ids are given in order of first sight, then orders features by hash.
struct Reader {
    widest: FeatureSettings,
    feature_ids: Map<u32, u32>,
    features: Vec<(u32, FeatureKind)>,
    word_ids: Map<u64, u32>,
    word_features: Vec<u32>,
    terms: Vec<Vec<(u32, f32)>>,
    words: Vec<Vec<(u32, f32)>>,
    grams: Vec<Vec<(u32, f32)>>,
    word: Vec<u8>,
    padded: Vec<u8>,
}

impl Reader {
    fn new(widest: &FeatureSettings) -> Self {
        Reader {
            widest: *widest,
            feature_ids: Map::default(),
            features: Vec::new(),
            word_ids: Map::default(),
            word_features: Vec::new(),
            terms: Vec::new(),
            words: Vec::new(),
            grams: Vec::new(),
            word: Vec::new(),
            padded: Vec::new(),
        }
    }

    fn feature(
        feature_ids: &mut Map<u32, u32>,
        features: &mut Vec<(u32, FeatureKind)>,
        key: u32,
        kind: FeatureKind,
    ) -> u32 {
        *feature_ids.entry(key).or_insert_with(|| {
            features.push((key, kind));
            features.len() as u32 - 1
        })
    }

    fn read(&mut self, record: &Record<'_>) {
        let Reader { widest, feature_ids, features, word_ids, word_features, grams, word, padded, .. } = self;
        let mut word_counts: BTreeMap<u32, u32> = BTreeMap::new();
        let mut pair_counts: BTreeMap<u32, u32> = BTreeMap::new();
        let mut previous = None;
        features::for_each_word(record.text(), word, |word| {
            let hash = features::word_hash(word);
            let id = *word_ids.entry(hash).or_insert_with(|| {
                word_features.push(Self::feature(feature_ids, features, features::word_key(hash), FeatureKind::Word));
                let mut entries = Vec::new();
                if widest.uses_chars() {
                    features::for_each_gram(word, widest, padded, |key, gram| {
                        let length = std::str::from_utf8(gram).map_or(gram.len(), |gram| gram.chars().count());
                        let kind = FeatureKind::Gram(length as u8);
                        entries.push((Self::feature(feature_ids, features, key, kind), 1.0));
                    });
                }
                grams.push(entries);
                word_features.len() as u32 - 1
            });
            *word_counts.entry(id).or_default() += 1;
            if let Some(previous) = previous {
                let key = features::bigram_key(previous, hash);
                let pair = Self::feature(feature_ids, features, key, FeatureKind::Bigram);
                *pair_counts.entry(pair).or_default() += 1;
            }
            previous = Some(hash);
        });
        let words: Vec<(u32, f32)> = word_counts.iter().map(|(&word, &count)| (word, damped(count))).collect();
        let mut terms: Vec<(u32, f32)> =
            words.iter().map(|&(word, value)| (word_features[word as usize], value)).collect();
        terms.extend(pair_counts.iter().map(|(&pair, &count)| (pair, damped(count))));
        if widest.signals {
            features::for_each_signal(record, |key, _| {
                terms.push((Self::feature(feature_ids, features, key, FeatureKind::Signal), 1.0));
            });
        }
        self.terms.push(terms);
        self.words.push(words);
    }

    fn finish(self) -> Corpus {
        let mut order: Vec<u32> = (0..self.features.len() as u32).collect();
        order.sort_by_key(|&id| self.features[id as usize].0);
        let mut rank = vec![0; order.len()];
        for (at, &id) in order.iter().enumerate() {
            rank[id as usize] = at as u32;
        }
        let ranked = |lists: Vec<Vec<(u32, f32)>>| {
            let mut matrix = Sparse::new(order.len());
            for mut entries in lists {
                entries.iter_mut().for_each(|(id, _)| *id = rank[*id as usize]);
                matrix.push(&mut entries);
            }
            matrix
        };
        let (terms, grams) = (ranked(self.terms), ranked(self.grams));
        let mut words = Sparse::new(grams.rows());
        let mut chars = Sparse::new(order.len());
        let mut entries = Vec::new();
        for mut row in self.words {
            entries.clear();
            for &(word, value) in &row {
                entries.extend(grams.entries(word as usize).map(|(feature, count)| (feature as u32, count * value)));
            }
            words.push(&mut row);
            chars.push(&mut entries);
        }
        Corpus {
            kinds: order.iter().map(|&id| self.features[id as usize].1).collect(),
            keys: order.iter().map(|&id| self.features[id as usize].0).collect(),
            terms,
            words,
            grams,
            chars,
            word_features: self.word_features.iter().map(|&id| rank[id as usize]).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rarest_features_go_when_a_package_would_grow_too_large() {
        let mut scales = [1.0, 0.0, 2.0, 3.0, 1.5];
        keep_most(&mut scales, &[5, 9, 2, 2, 2], 3);
        assert_eq!(scales, [1.0, 0.0, 2.0, 3.0, 0.0]);
        keep_most(&mut scales, &[5, 9, 2, 2, 2], 3);
        assert_eq!(scales, [1.0, 0.0, 2.0, 3.0, 0.0]);
        assert!(MAX_WEIGHT_BYTES / feature_bytes(77) > 40_000);
    }
}
