//! Turns a text into hashed features: words, pairs of neighbouring words, character n-grams inside words, and signals.
//!
//! A word's features depend on the word alone, so serving computes them once a word and remembers the sum (see
//! `fast.rs`), and training counts by word. Both walk texts through the functions of this file and nothing else.
//!
//! Features are named by 32-bit hashes. Only hashes that occur in training have a row of weights, so a collision
//! between two of a package's 50,000 features happens about once in three packages, and an unknown feature is taken
//! for a known one once in 80,000 lookups.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::record::{Priority, Record};

/// Bytes of a text that are read; what follows is ignored. Bounds the time that one record may take.
pub const MAX_TEXT_BYTES: usize = 64 * 1024;

/// A longer word is not read by letters: it is an encoded blob, not language.
const MAX_WORD_BYTES: usize = 48;

/// A longer word of letters and digits mixed is an identifier: a request id, a hash, a key.
const MAX_MIXED_BYTES: usize = 12;

/// Numbers of up to this many digits keep their digits (status codes, ports); longer ones are all alike.
const MAX_NUMBER_DIGITS: usize = 3;

const CHAR_SEED: u64 = 1;
const SIGNAL_SEED: u64 = 2;

/// Which features a model reads; chosen by validation, stored in the package.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeatureSettings {
    /// Pairs of neighbouring words.
    pub bigrams: bool,
    /// Shortest and longest character n-gram; both 0: none.
    pub char_min: usize,
    pub char_max: usize,
    /// Length of the vector of character n-grams when that of the words is 1.
    pub char_share: f32,
    /// Counts of indicators, length, priority, sender's domain, source.
    pub signals: bool,
}

impl FeatureSettings {
    pub fn uses_chars(&self) -> bool {
        self.char_max > 0
    }

    /// Factors of the word part and the character part, so that the whole vector has length 1.
    pub(crate) fn shares(&self) -> (f32, f32) {
        let share = if self.uses_chars() { self.char_share } else { 0.0 };
        let length = (1.0 + share * share).sqrt();
        (1.0 / length, share / length)
    }
}

/// Weight of a term that occurs `count` times in a text: 1 + ln(count).
pub(crate) fn damped(count: u32) -> f32 {
    if count == 1 { 1.0 } else { 1.0 + (count as f32).ln() }
}

/// A word's identity. Its upper half names the word's own feature.
pub(crate) fn word_hash(word: &[u8]) -> u64 {
    xxh3_64(word)
}

pub(crate) fn word_key(hash: u64) -> u32 {
    (hash >> 32) as u32
}

/// Names the pair of two words in this order.
pub(crate) fn bigram_key(first: u64, second: u64) -> u32 {
    let mixed = (first.rotate_left(23) ^ second).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 32) as u32
}

fn char_key(gram: &[u8]) -> u32 {
    (xxh3_64_with_seed(gram, CHAR_SEED) >> 32) as u32
}

/// Calls `each` with every word of `text` in order: letters and digits in lower case, numbers and identifiers folded.
///
/// A Chinese, Japanese or Korean ideograph is a word of its own, since those scripts put no spaces between words.
pub(crate) fn for_each_word(text: &str, word: &mut Vec<u8>, mut each: impl FnMut(&[u8])) {
    let text = truncated(text);
    let bytes = text.as_bytes();
    let mut digits = 0;
    let mut at = 0;
    word.clear();
    let mut finish = |word: &mut Vec<u8>, digits: &mut usize| {
        if !word.is_empty() {
            fold(word, *digits);
            each(word);
            word.clear();
            *digits = 0;
        }
    };
    while at < bytes.len() {
        let byte = bytes[at];
        if byte.is_ascii_alphabetic() {
            word.push(byte | 0x20);
            at += 1;
        } else if byte.is_ascii_digit() {
            word.push(byte);
            digits += 1;
            at += 1;
        } else if byte.is_ascii() {
            finish(word, &mut digits);
            at += 1;
        } else {
            // `at` is always at a character's first byte, so there is one.
            let Some(character) = text[at..].chars().next() else {
                break;
            };
            at += character.len_utf8();
            if is_ideograph(character) {
                finish(word, &mut digits);
                push_char(word, character);
                finish(word, &mut digits);
            } else if character.is_alphanumeric() {
                for lower in character.to_lowercase() {
                    push_char(word, lower);
                }
            } else {
                finish(word, &mut digits);
            }
        }
    }
    finish(word, &mut digits);
}

/// Calls `each` with the key and the bytes of every character n-gram of `word`, which is taken with a space at either
/// end, so that beginnings and endings are features of their own.
pub(crate) fn for_each_gram(
    word: &[u8],
    settings: &FeatureSettings,
    padded: &mut Vec<u8>,
    mut each: impl FnMut(u32, &[u8]),
) {
    padded.clear();
    padded.push(b' ');
    padded.extend_from_slice(word);
    padded.push(b' ');
    let is_start = |at: usize| at >= padded.len() || padded[at] & 0xc0 != 0x80;
    for start in (0..padded.len()).filter(|&at| is_start(at)) {
        let mut characters = 0;
        for end in start + 1..=padded.len() {
            if !is_start(end) {
                continue;
            }
            characters += 1;
            if characters > settings.char_max {
                break;
            }
            if characters >= settings.char_min {
                let gram = &padded[start..end];
                each(char_key(gram), gram);
            }
        }
    }
}

fn truncated(text: &str) -> &str {
    if text.len() <= MAX_TEXT_BYTES {
        return text;
    }
    &text[..text.floor_char_boundary(MAX_TEXT_BYTES)]
}

fn push_char(word: &mut Vec<u8>, character: char) {
    let mut buffer = [0; 4];
    word.extend_from_slice(character.encode_utf8(&mut buffer).as_bytes());
}

fn is_ideograph(character: char) -> bool {
    matches!(character, '\u{2e80}'..='\u{9fff}' | '\u{ac00}'..='\u{d7af}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3ffff}')
}

/// Makes numbers alike whose digits carry no meaning beyond one record.
fn fold(word: &mut Vec<u8>, digits: usize) {
    if digits == 0 && word.len() <= MAX_WORD_BYTES {
        return;
    }
    let identifier = digits > 0 && digits < word.len() && word.len() > MAX_MIXED_BYTES;
    if identifier || (digits < word.len() && word.len() > MAX_WORD_BYTES) {
        word.clear();
        word.extend_from_slice(b"0id");
    } else if digits < word.len() || digits > MAX_NUMBER_DIGITS {
        // Every run of digits becomes one zero.
        let mut kept = 0;
        let mut in_digits = false;
        for at in 0..word.len() {
            let digit = word[at].is_ascii_digit();
            if !(digit && in_digits) {
                word[kept] = if digit { b'0' } else { word[at] };
                kept += 1;
            }
            in_digits = digit;
        }
        word.truncate(kept);
    }
}

/// Calls `each` with the key of every signal of `record`: facts beside its words, in coarse steps.
pub(crate) fn for_each_signal(record: &Record<'_>, mut each: impl FnMut(u32, Signal<'_>)) {
    let mut emit = |signal: Signal<'_>| {
        let (name, value) = signal.parts();
        let mut hash = xxh3_64_with_seed(name.as_bytes(), SIGNAL_SEED);
        hash = match value {
            SignalValue::Step(step) => xxh3_64_with_seed(&[step], hash),
            SignalValue::Text(text) => xxh3_64_with_seed(text.as_bytes(), hash),
        };
        each((hash >> 32) as u32, signal);
    };
    let counts = IndicatorCounts::of(truncated(record.text()));
    for (name, count) in [("urls", counts.urls), ("emails", counts.emails), ("ips", counts.ips), ("cves", counts.cves)]
    {
        if count > 0 {
            emit(Signal::Count(name, doublings(count)));
        }
    }
    emit(Signal::Count("length", doublings(record.text().len() as u32)));
    if let Some(source) = record.source() {
        emit(Signal::Text("source", source));
    }
    match record {
        Record::Ticket(ticket) => {
            if let Some(priority) = ticket.priority {
                emit(Signal::Priority(priority));
            }
            if let Some((_, domain)) = ticket.email_address.as_deref().and_then(|address| address.rsplit_once('@')) {
                emit(Signal::Text("sender", domain));
            }
        }
        Record::Log(line) => {
            if let Some(level) = line.level.as_deref() {
                emit(Signal::Text("level", level));
            }
        }
    }
}

/// One fact beside the words.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Signal<'a> {
    /// A count in doublings: 1 for 1, 2 for 2 to 3, 3 for 4 to 7.
    Count(&'static str, u8),
    Text(&'static str, &'a str),
    Priority(Priority),
}

enum SignalValue<'a> {
    Step(u8),
    Text(&'a str),
}

impl<'a> Signal<'a> {
    fn parts(&self) -> (&'static str, SignalValue<'a>) {
        match *self {
            Signal::Count(name, step) => (name, SignalValue::Step(step)),
            Signal::Text(name, text) => (name, SignalValue::Text(text)),
            Signal::Priority(priority) => ("priority", SignalValue::Text(priority.as_str())),
        }
    }
}

impl std::fmt::Display for Signal<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.parts() {
            (name, SignalValue::Step(step)) => write!(f, "{name}>={}", 1u64 << (step - 1)),
            (name, SignalValue::Text(text)) => write!(f, "{name}={text}"),
        }
    }
}

fn doublings(count: u32) -> u8 {
    (u32::BITS - count.max(1).leading_zeros()) as u8
}

/// How many indicators a text seems to hold. Cheap and rough: a signal for the model, not an extraction.
#[derive(Debug, Default, PartialEq, Eq)]
struct IndicatorCounts {
    urls: u32,
    emails: u32,
    ips: u32,
    cves: u32,
}

impl IndicatorCounts {
    fn of(text: &str) -> Self {
        let bytes = text.as_bytes();
        let mut counts = IndicatorCounts::default();
        let (mut groups, mut digits) = (0, 0);
        for (at, &byte) in bytes.iter().enumerate() {
            match byte {
                b'0'..=b'9' => digits += 1,
                b'.' if (1..=3).contains(&digits) => {
                    groups += 1;
                    digits = 0;
                    continue;
                }
                _ => {
                    counts.ips += u32::from(groups == 3 && (1..=3).contains(&digits));
                    (groups, digits) = (0, 0);
                }
            }
            match byte {
                b':' => counts.urls += u32::from(bytes[at..].starts_with(b"://")),
                b'@' => {
                    let is_word = |at: Option<&u8>| at.is_some_and(u8::is_ascii_alphanumeric);
                    counts.emails += u32::from(at > 0 && is_word(bytes.get(at - 1)) && is_word(bytes.get(at + 1)));
                }
                b'-' if at >= 3 => counts.cves += u32::from(bytes[at - 3..at].eq_ignore_ascii_case(b"cve")),
                _ => {}
            }
        }
        counts.ips += u32::from(groups == 3 && (1..=3).contains(&digits));
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        let mut found = Vec::new();
        for_each_word(text, &mut Vec::new(), |word| {
            found.push(String::from_utf8(word.to_vec()).expect("words are UTF-8"))
        });
        found
    }

    const CHARS: FeatureSettings =
        FeatureSettings { bigrams: true, char_min: 2, char_max: 3, char_share: 1.0, signals: true };

    fn grams(word: &str) -> Vec<String> {
        let mut found = Vec::new();
        for_each_gram(word.as_bytes(), &CHARS, &mut Vec::new(), |_, gram| {
            found.push(String::from_utf8(gram.to_vec()).expect("grams are UTF-8"));
        });
        found
    }

    #[test]
    fn words_are_lower_case_runs_of_letters_and_digits() {
        assert_eq!(words("Disk /dev/sda1 is FULL!"), ["disk", "dev", "sda0", "is", "full"]);
        assert_eq!(words("Ärger über Straße"), ["ärger", "über", "straße"]);
        assert_eq!(words("日本 ok"), ["日", "本", "ok"]);
        assert_eq!(words("  \n "), [""; 0]);
    }

    #[test]
    fn numbers_that_differ_by_record_are_alike() {
        assert_eq!(words("status 404, user 4373"), words("status 404, user 88121"));
        assert_ne!(words("status 404"), words("status 200"));
        assert_eq!(words("req-54fadb412c4e40cdbaed9335e4c35a9e"), ["req", "0id"]);
        assert_eq!(words(&"x".repeat(400)), ["0id"]);
        assert_eq!(words("10.11.10.1 v2beta17"), ["10", "11", "10", "1", "v0beta0"]);
    }

    #[test]
    fn grams_know_where_a_word_begins_and_ends() {
        assert_eq!(grams("ab"), [" a", " ab", "ab", "ab ", "b "]);
        assert_eq!(grams("é"), [" é", " é ", "é "]);
    }

    #[test]
    fn long_texts_are_cut_at_a_character() {
        let text = "é".repeat(MAX_TEXT_BYTES);
        assert_eq!(truncated(&format!("a{text}")).len(), MAX_TEXT_BYTES - 1);
    }

    #[test]
    fn indicators_are_counted() {
        let counts =
            IndicatorCounts::of("see https://a.b/c and CVE-2024-1, from 10.0.0.1 or 1.2.3, by a@b.c 192.168.1.20");
        assert_eq!(counts, IndicatorCounts { urls: 1, emails: 1, ips: 2, cves: 1 });
        assert_eq!([1, 2, 3, 4, 7, 8].map(doublings), [1, 2, 2, 3, 3, 4]);
    }

    #[test]
    fn the_order_of_a_pair_matters() {
        let (a, b) = (word_hash(b"password"), word_hash(b"reset"));
        assert_ne!(bigram_key(a, b), bigram_key(b, a));
    }
}
