//! Keys, tokens and passwords.

use std::ops::Range;

use super::patterns::one;
use super::{Find, Sort};

/// A longer value is cut there; the rest is most likely text.
const MAX_VALUE_BYTES: usize = 512;

/// What is said about a password without being one.
const STATES: &[&str] = &[
    "a",
    "accepted",
    "again",
    "an",
    "and",
    "any",
    "authentication",
    "automatically",
    "bad",
    "been",
    "being",
    "blank",
    "blocked",
    "by",
    "cannot",
    "case",
    "change",
    "changed",
    "correct",
    "denied",
    "disabled",
    "does",
    "email",
    "empty",
    "enabled",
    "error",
    "expired",
    "expires",
    "expiring",
    "expiry",
    "failed",
    "failure",
    "false",
    "field",
    "for",
    "from",
    "has",
    "hidden",
    "in",
    "incorrect",
    "invalid",
    "is",
    "it",
    "known",
    "leaked",
    "locked",
    "login",
    "manager",
    "missing",
    "mismatch",
    "must",
    "needed",
    "never",
    "no",
    "none",
    "not",
    "now",
    "null",
    "of",
    "ok",
    "on",
    "only",
    "or",
    "out",
    "policy",
    "prompt",
    "protected",
    "reject",
    "rejected",
    "request",
    "required",
    "reset",
    "resets",
    "same",
    "security",
    "sent",
    "set",
    "shared",
    "still",
    "success",
    "that",
    "the",
    "this",
    "to",
    "too",
    "true",
    "unknown",
    "until",
    "update",
    "updated",
    "user",
    "valid",
    "very",
    "was",
    "weak",
    "with",
    "wrong",
    "your",
    "abgelaufen",
    "falsch",
    "gesperrt",
    "nicht",
    "ungültig",
    "vergessen",
];

/// Of something that looks random, by which it is judged.
const LOOKED_AT_BYTES: usize = 64;

const SCHEMES: [&str; 7] = ["bearer", "basic", "digest", "negotiate", "token", "apikey", "aws4-hmac-sha256"];

/// Up to the end line, or to the end of the text when it is not there.
pub(super) fn private_key(text: &str, at: Range<usize>) -> Vec<Find> {
    const END: &str = "-----END ";
    /// Longer than the name of any sort of key with its closing hyphens.
    const MAX_END_BYTES: usize = 80;
    let Some(end) = text[at.end..].find(END).map(|end| at.end + end + END.len()) else {
        return one(at.start..text.len(), Sort::Secret);
    };
    let limit = text.floor_char_boundary(text.len().min(end + MAX_END_BYTES));
    let closing = text[end..limit].find("-----").map_or(0, |closing| closing + 5);
    one(at.start..end + closing, Sort::Secret)
}

/// A key that was known by its first letters, to its end.
pub(super) fn token(text: &str, at: Range<usize>) -> Vec<Find> {
    one(at.start..token_end(text, at.end), Sort::Secret)
}

/// `Authorization: Bearer ...`, but not "basic understanding".
pub(super) fn bearer(text: &str, at: Range<usize>) -> Vec<Find> {
    let start = at.start + text[at.clone()].find([' ', '\t']).unwrap_or(0);
    let start = start + text[start..].len() - text[start..].trim_start_matches([' ', '\t']).len();
    let end = token_end(text, at.end);
    if looks_random(&text[start..end]) { one(start..end, Sort::Secret) } else { vec![] }
}

/// `https://jane:hunter2@host`.
pub(super) fn in_url(_: &str, at: Range<usize>) -> Vec<Find> {
    one(at.start + 3..at.end - 1, Sort::Secret)
}

pub(super) fn rest_of_line(text: &str, at: Range<usize>) -> Vec<Find> {
    let line = text[at.end..].find('\n').unwrap_or(text[at.end..].len());
    let end = text.floor_char_boundary(at.end + line.min(8 * MAX_VALUE_BYTES));
    if end > at.end { one(at.end..end, Sort::Secret) } else { vec![] }
}

/// The value of a key, quoted or up to the next blank.
pub(super) fn value(text: &str, at: Range<usize>) -> Vec<Find> {
    let element = text[..at.end].trim_end().ends_with('>');
    let mut value = value_at(text, at.end, element);
    if SCHEMES.contains(&text[value.clone()].to_lowercase().as_str()) {
        let blanks = text[value.end..].len() - text[value.end..].trim_start_matches([' ', '\t']).len();
        value = value_at(text, value.end + blanks, element);
    }
    if is_value(&text[value.clone()]) { one(value, Sort::Secret) } else { vec![] }
}

/// "My password is ..."
pub(super) fn told_value(text: &str, at: Range<usize>) -> Vec<Find> {
    value(text, at)
}

/// Without a sign between, only what does not look like a word.
pub(super) fn bare_value(text: &str, at: Range<usize>) -> Vec<Find> {
    let value = value_at(text, at.end, false);
    let word = &text[value.clone()];
    let credentials = text[at].trim_end().ends_with("-u") && word.contains(':');
    if credentials || word.len() >= 6 && looks_random(word) { one(value, Sort::Secret) } else { vec![] }
}

/// 32 characters or more of a key, a hash, or encoded bytes. Names of functions have few figures.
pub(super) fn random_looking(text: &str, at: Range<usize>) -> Vec<Find> {
    // The search comes back for each later place in the run, so the look at it has a bound.
    let looked_at = text.floor_char_boundary(text.len().min(at.start + LOOKED_AT_BYTES));
    let run = &text[at.start..at.end.max(token_end(&text[..looked_at], at.end))];
    let digits = run.bytes().filter(u8::is_ascii_digit).count();
    let letters = run.bytes().filter(u8::is_ascii_alphabetic).count();
    let blank_before = !text[..at.start].ends_with(|c: char| c.is_alphanumeric());
    if digits >= 4 && letters >= 4 && blank_before {
        let sort = if run.bytes().all(|byte| byte.is_ascii_hexdigit()) { Sort::Hash } else { Sort::Secret };
        return one(at.start..token_end(text, at.end), sort);
    }
    vec![]
}

fn token_end(text: &str, from: usize) -> usize {
    let more =
        text[from..].bytes().take_while(|byte| byte.is_ascii_alphanumeric() || b"_.~+/=-".contains(byte)).count();
    let run = &text[..from + more];
    from.max(run.trim_end_matches(['.', '-', '~']).len())
}

fn value_at(text: &str, from: usize, element: bool) -> Range<usize> {
    let rest = &text[from..];
    // In JSON within JSON the quotes are escaped.
    let opened = rest.len() - rest.trim_start_matches('\\').len();
    let quote = rest[opened..].chars().next().filter(|c| matches!(c, '"' | '\'' | '`' | '“' | '„' | '‘' | '«'));
    if let Some(open) = quote {
        let start = from + opened + open.len_utf8();
        let close = match open {
            '“' | '„' => '”',
            '‘' => '’',
            '«' => '»',
            same => same,
        };
        let limit = text.floor_char_boundary(text.len().min(start + MAX_VALUE_BYTES));
        let inside = &text[start..limit];
        let end = inside.find([close, '\n']).unwrap_or(inside.len());
        return start..start + inside[..end].trim_end_matches('\\').len();
    }
    let limit = text.floor_char_boundary(text.len().min(from + MAX_VALUE_BYTES));
    let ends = |c: char| c.is_whitespace() || if element { c == '<' } else { matches!(c, '"' | '\'' | '<') };
    let word = &text[from..limit];
    let word = &word[..word.find(ends).unwrap_or(word.len())];
    // `a=1&token=x&b=2`, `(token=x)`; a password may hold these signs, but not at its end.
    let word = word.split_once('&').map_or(word, |(first, _)| first);
    from..from + word.trim_end_matches([',', ';', '.', ')', ']', '}', '?', '!', ':']).len()
}

fn is_value(word: &str) -> bool {
    let stars = word.chars().all(|c| matches!(c, '*' | '.' | '•' | 'x' | 'X' | '-' | '_' | '…'));
    let bare = word.trim_matches(|c: char| !c.is_alphanumeric()).to_lowercase();
    word.chars().count() >= 3 && !stars && !STATES.contains(&bare.as_str())
}

/// Not a word of a language: a figure or a sign within letters, or letters of both cases mixed.
fn looks_random(word: &str) -> bool {
    let digit = word.bytes().any(|byte| byte.is_ascii_digit());
    let sign = word.trim_end_matches(['.', ',', '!', '?', ':']).bytes().any(|byte| b"=+/~!#$%&*@^".contains(&byte));
    let inner_capital = word.chars().skip(1).any(char::is_uppercase) && word.chars().any(char::is_lowercase);
    let placeholder = word.starts_with('<');
    (digit || sign || inner_capital) && !placeholder
}
