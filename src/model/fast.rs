//! The fast model: a trained head packed for serving.
//!
//! The Burn module in `head.rs` is the definition; this is the same sum as a plain loop. A word always adds the same
//! row to the scores (its own weights and those of its character n-grams), so that row is computed when a thread meets
//! the word for the first time and remembered in its `Scratch`. Tests hold the scores equal to the Burn module's.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::calibration::Grasp;
use super::corpus::factor;
use super::features::{self, damped};
use super::head::{self, Head};
use super::package::{Manifest, Package, PackageError, PackedWeights};
use super::registry;
use super::sparse::add_scaled;
use super::tables::{Counter, RowTable, WordCache, WordEntry, WordNumbers};
use crate::config::{DeviceKind, ModelSettings};
use crate::record::{Kind, Record};

/// Memory for remembered words in one `Scratch`. Smaller: rare words are computed again; larger: it leaves the core's
/// second-level cache.
const WORD_CACHE_BYTES: usize = 1024 * 1024;

/// Scores of serving and of the Burn module may differ by rounding, not more.
const MAX_DISTANCE: f32 = 1e-4;

/// Numbers a model's instances, so that a `Scratch` notices when it is used with another one.
static INSTANCES: AtomicU64 = AtomicU64::new(1);

/// A loaded model. Shared by all threads; each brings its own `Scratch`.
pub struct FastModel {
    id: String,
    manifest: Manifest,
    labels: Vec<Arc<str>>,
    instance: u64,
    rows: RowTable,
    /// Scales times weights: features × classes.
    weighted: Vec<f32>,
    scales: Vec<f32>,
    bias: Vec<f32>,
}

/// One decision. It borrows from the `Scratch` that it was made with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Prediction<'a> {
    /// Place in `labels()`.
    pub label: usize,
    /// Calibrated probability that the label is right, 0 to 1.
    pub confidence: f32,
    /// Share of the text's words that training saw, 0 to 1.
    pub coverage: f32,
    /// Calibrated probability of every label; they add up to 1.
    pub probabilities: &'a [f32],
}

/// A thread's working memory. After some records it has grown to what they need and allocates no more.
#[derive(Default)]
pub struct Scratch {
    instance: u64,
    word: Vec<u8>,
    grams: Grams,
    words: Counter,
    pairs: Counter,
    cache: WordCache,
    word_scores: Vec<f32>,
    char_scores: Vec<f32>,
    probabilities: Vec<f32>,
}

#[derive(Debug, Default)]
struct Grams {
    padded: Vec<u8>,
    keys: Vec<u32>,
}

impl fmt::Debug for FastModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FastModel").field("id", &self.id).finish_non_exhaustive()
    }
}

impl fmt::Debug for Scratch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scratch").field("instance", &self.instance).finish_non_exhaustive()
    }
}

impl Scratch {
    pub fn new() -> Self {
        Scratch::default()
    }

    /// What `score` or `classify` left here, by label.
    pub(super) fn scores(&self) -> &[f32] {
        &self.probabilities
    }
}

impl FastModel {
    /// Loads `builtin:NAME` or a folder. The Burn module of the same weights must compute the same scores on `device`.
    pub fn load(spec: &str, device: DeviceKind) -> Result<FastModel, PackageError> {
        let package = Package::load(spec)?;
        let head = Head::new(package.weights.weight.clone(), package.weights.bias.clone(), &head::device(device));
        let model = FastModel::from_package(package);
        match model.distance_to(&head) {
            distance if distance <= MAX_DISTANCE => Ok(model),
            distance => Err(PackageError::Invalid {
                place: spec.to_owned(),
                problem: format!("on {device:?} the scores are {distance} away from those that are served"),
            }),
        }
    }

    /// Loads what the configuration names: `registry:NAME` too, as its current version.
    pub fn load_configured(spec: &str, settings: &ModelSettings) -> Result<FastModel, PackageError> {
        let folder = registry::resolve(spec, settings.registry.as_deref())?;
        FastModel::load(folder.as_deref().unwrap_or(spec), settings.device)
    }

    pub(crate) fn from_package(package: Package) -> FastModel {
        let Package { manifest, weights: PackedWeights { keys, scales, mut weight, bias } } = package;
        let classes = bias.len();
        for (row, &scale) in weight.chunks_mut(classes).zip(&scales) {
            row.iter_mut().for_each(|value| *value *= scale);
        }
        FastModel {
            id: manifest.id(),
            labels: manifest.labels.iter().map(|label| Arc::from(label.as_str())).collect(),
            instance: INSTANCES.fetch_add(1, Ordering::Relaxed),
            rows: RowTable::new(&keys),
            weighted: weight,
            scales,
            bias,
            manifest,
        }
    }

    /// Name and version, such as `tickets@1a2b3c4d`.
    pub fn id(&self) -> &str {
        &self.id
    }

    pub fn kind(&self) -> Kind {
        self.manifest.kind
    }

    /// Sorted.
    pub fn labels(&self) -> &[Arc<str>] {
        &self.labels
    }

    /// The confidence from which this model may route by itself, if it was trained for a precision.
    pub fn auto_route(&self) -> Option<f32> {
        self.manifest.thresholds.map(|thresholds| thresholds.auto_route)
    }

    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Decides on one record.
    pub fn classify<'a>(&self, record: &Record<'_>, scratch: &'a mut Scratch) -> Prediction<'a> {
        let grasp = self.score(record, scratch);
        let probabilities = &mut scratch.probabilities;
        let label = best(probabilities);
        self.manifest.calibration.apply(probabilities, grasp);
        Prediction { label, confidence: probabilities[label], coverage: grasp.coverage, probabilities }
    }

    /// Fills `scratch.probabilities` with the scores of the classes, not yet calibrated; returns how
    /// much of the text could be read.
    pub(crate) fn score(&self, record: &Record<'_>, scratch: &mut Scratch) -> Grasp {
        let classes = self.bias.len();
        if scratch.instance != self.instance {
            scratch.instance = self.instance;
            scratch.cache.reset(classes, WORD_CACHE_BYTES);
        }
        let settings = &self.manifest.features;
        let Scratch { word, grams, words, pairs, cache, word_scores, char_scores, probabilities, .. } = scratch;
        words.clear();
        pairs.clear();
        for scores in [&mut *word_scores, &mut *char_scores] {
            scores.clear();
            scores.resize(classes, 0.0);
        }
        let (mut word_square, mut char_square) = (0.0f32, 0.0f32);
        // Of words and pairs at their first occurrence: a text does not become familiar by repeating itself.
        let (mut seen, mut all, mut distinct_square) = (0.0f32, 0.0f32, 0.0f32);
        let mut previous = None;
        features::for_each_word(record.text(), word, |word| {
            let hash = features::word_hash(word);
            let (count, _) = words.add(hash, || None);
            let (gain, square_gain) = gains(count);
            let entry = cache.entry(hash, |entry| self.compute_word(hash, word, grams, entry));
            add_scaled(word_scores, entry.word_scores, gain);
            add_scaled(char_scores, entry.char_scores, gain);
            word_square += square_gain * entry.numbers.word_square;
            char_square += square_gain * entry.numbers.char_square;
            if count == 1 {
                seen += entry.numbers.known;
                all += 1.0;
                distinct_square += entry.numbers.word_square;
            }
            if settings.bigrams
                && let Some(previous) = previous.replace(hash)
            {
                let key = features::bigram_key(previous, hash);
                let (count, row) = pairs.add(u64::from(key), || self.rows.find(key));
                if let Some(row) = row {
                    let (gain, square_gain) = gains(count);
                    add_scaled(word_scores, self.row(row), gain);
                    word_square += square_gain * self.scales[row].powi(2);
                    distinct_square += if count == 1 { self.scales[row].powi(2) } else { 0.0 };
                }
            }
        });
        if settings.signals {
            features::for_each_signal(record, |key, _| {
                if let Some(row) = self.rows.find(key) {
                    add_scaled(word_scores, self.row(row), 1.0);
                    word_square += self.scales[row].powi(2);
                    distinct_square += self.scales[row].powi(2);
                }
            });
        }
        let lengths = &self.manifest.lengths;
        let (word_share, char_share) = settings.shares();
        probabilities.clear();
        probabilities.extend_from_slice(&self.bias);
        add_scaled(probabilities, word_scores, factor(word_share, word_square, lengths.floor_words));
        add_scaled(probabilities, char_scores, factor(char_share, char_square, lengths.floor_chars));
        Grasp { coverage: if all > 0.0 { seen / all } else { 0.0 }, length: distinct_square.sqrt() }
    }

    pub(super) fn find(&self, key: u32) -> Option<usize> {
        self.rows.find(key)
    }

    pub(super) fn feature_count(&self) -> usize {
        self.scales.len()
    }

    pub(super) fn scale(&self, row: usize) -> f32 {
        self.scales[row]
    }

    /// Weight of a feature for a label, as the Burn module has it.
    pub(super) fn weight(&self, row: usize, label: usize) -> f32 {
        self.row(row)[label] / self.scales[row]
    }

    /// A feature's weights times its scale, by class.
    fn row(&self, row: usize) -> &[f32] {
        let classes = self.bias.len();
        &self.weighted[row * classes..(row + 1) * classes]
    }

    /// Computes what a word adds: the work that the cache saves.
    fn compute_word(&self, hash: u64, word: &[u8], grams: &mut Grams, entry: &mut WordEntry<'_>) {
        let lengths = self.manifest.lengths;
        entry.char_scores.fill(0.0);
        *entry.numbers = match self.rows.find(features::word_key(hash)) {
            Some(row) => {
                entry.word_scores.copy_from_slice(self.row(row));
                WordNumbers { word_square: self.scales[row].powi(2), char_square: 0.0, known: 1.0 }
            }
            None => {
                entry.word_scores.fill(0.0);
                WordNumbers { word_square: lengths.unseen_word.powi(2), char_square: 0.0, known: 0.0 }
            }
        };
        if !self.manifest.features.uses_chars() {
            return;
        }
        let Grams { padded, keys } = grams;
        keys.clear();
        features::for_each_gram(word, &self.manifest.features, padded, |key, _| keys.push(key));
        keys.sort_unstable();
        for same in keys.chunk_by(|a, b| a == b) {
            let count = same.len() as f32;
            let scale = match self.rows.find(same[0]) {
                Some(row) => {
                    add_scaled(entry.char_scores, self.row(row), count);
                    self.scales[row]
                }
                None => lengths.unseen_gram,
            };
            entry.numbers.char_square += (count * scale).powi(2);
        }
    }
}

/// Weight and squared weight that the `count`-th occurrence of a term adds to those of the earlier ones.
#[inline]
fn gains(count: u32) -> (f32, f32) {
    if count == 1 {
        return (1.0, 1.0);
    }
    let (before, now) = (damped(count - 1), damped(count));
    (now - before, now * now - before * before)
}

/// Place of the first of the largest values.
pub(crate) fn best(values: &[f32]) -> usize {
    let mut best = 0;
    for (at, value) in values.iter().enumerate() {
        if *value > values[best] {
            best = at;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::super::sparse::Sparse;
    use super::*;
    use crate::record::{LogLine, Ticket};

    fn line(text: &str) -> Record<'_> {
        Record::Log(LogLine { text: text.into(), source: None, level: None, occurred_at: 0 })
    }

    fn ticket(text: &str) -> Record<'_> {
        Record::Ticket(Ticket {
            ticket_id: None,
            text: text.into(),
            title_len: 0,
            email_address: Some("someone@example.org".into()),
            priority: None,
            source: None,
            occurred_at: 0,
        })
    }

    const TEXTS: [&str; 6] = [
        "User 4373 has escalated admin privileges without authorization, user 4373 again",
        "nova.osapi_compute.wsgi.server [req-52c0125b] 10.11.10.1 \"GET /v2/servers/detail HTTP/1.1\" status: 200 len: 1893",
        "Phishing Alert: a fake update prompt. Die Anmeldung schlägt fehl; 不明なエラー. Ångström ångström",
        "",
        "?!  --",
        "banana banana bandana ana",
    ];

    #[test]
    fn serving_gives_the_scores_of_the_burn_module() {
        for (spec, record) in [("builtin:tickets", ticket as fn(&str) -> Record<'_>), ("builtin:logs", line)] {
            for kind in [DeviceKind::Flex, DeviceKind::NdArray] {
                let package = Package::load(spec).expect("a shipped package");
                let head = Head::new(package.weights.weight.clone(), package.weights.bias.clone(), &head::device(kind));
                let model = FastModel::from_package(package);
                let mut scratch = Scratch::new();
                for text in TEXTS {
                    let mut input = Sparse::new(model.feature_count());
                    input.push(&mut model.vector(&record(text)));
                    let expected = head.scores(&input);
                    // Twice: with the words computed, and with the words remembered.
                    for _ in 0..2 {
                        model.score(&record(text), &mut scratch);
                        for (found, expected) in scratch.scores().iter().zip(&expected) {
                            assert!((found - expected).abs() < 1e-5, "{spec} {kind:?} {text}: {found} for {expected}");
                        }
                    }
                }
            }
        }
    }

    const PHISHING: &str = "Suspicious e-mail asking for credentials, reported by several colleagues\nDear CERT-EU team,\n\n\
        I am writing to report a suspicious email that I received this morning. The message claims to come from our IT \
        helpdesk and says that my mailbox will be suspended unless I confirm my account within 24 hours. It contains a link \
        to a page that looks like our login portal, but the domain is not ours and the sender address does not match. \
        Several colleagues in our unit have received the same phishing email, and one of them clicked the link and may \
        have entered her username and password before she noticed that the page was fake.\n\n\
        I have not clicked anything myself. The original email with its full headers is attached, together with a \
        screenshot of the page. Could you please check whether other staff were targeted, block the sender and the \
        domain, and tell us whether the affected credentials need to be reset?\n\nThank you for your assistance.\n\
        Kind regards,\nPolicy Officer";

    #[test]
    fn shipped_models_decide() {
        let mut scratch = Scratch::new();
        let tickets = FastModel::load("builtin:tickets", DeviceKind::Flex).expect("a shipped package");
        let found = tickets.classify(&ticket(PHISHING), &mut scratch);
        assert_eq!(&*tickets.labels()[found.label], "DFIR::phishing");
        let logs = FastModel::load("builtin:logs", DeviceKind::Flex).expect("a shipped package");
        let found = logs.classify(&line("Multiple login failures occurred on user 6454 account"), &mut scratch);
        assert_eq!(&*logs.labels()[found.label], "Security Alert");
        assert!((found.probabilities.iter().sum::<f32>() - 1.0).abs() < 1e-5);
    }

    #[test]
    fn a_scratch_may_serve_several_models_and_remembers_nothing_wrong() {
        let tickets = FastModel::load("builtin:tickets", DeviceKind::Flex).expect("a shipped package");
        let logs = FastModel::load("builtin:logs", DeviceKind::Flex).expect("a shipped package");
        let mut shared = Scratch::new();
        for text in TEXTS {
            let fresh = tickets.classify(&ticket(text), &mut Scratch::new()).probabilities.to_vec();
            assert_eq!(tickets.classify(&ticket(text), &mut shared).probabilities, fresh);
            let fresh = logs.classify(&line(text), &mut Scratch::new()).probabilities.to_vec();
            assert_eq!(logs.classify(&line(text), &mut shared).probabilities, fresh);
        }
    }

    #[test]
    fn explanations_add_up_to_the_score() {
        let model = FastModel::load("builtin:logs", DeviceKind::Flex).expect("a shipped package");
        let mut scratch = Scratch::new();
        let record = line(TEXTS[0]);
        model.score(&record, &mut scratch);
        let reasons = model.explain(&record, 2, usize::MAX);
        let sum: f32 = reasons.iter().map(|reason| reason.weight).sum::<f32>() + model.bias[2];
        assert!((sum - scratch.scores()[2]).abs() < 1e-4);
        assert!(reasons[0].weight.abs() >= reasons[1].weight.abs());
    }
}
