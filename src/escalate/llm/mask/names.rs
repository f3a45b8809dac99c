//! Names of people and users, where something around them says that they are names.

use std::ops::Range;

use super::patterns::one;
use super::{Find, Sort, secrets};

const MAX_WORDS: usize = 5;
/// Recipients of an e-mail that are read; who has more is a mailing list.
const MAX_RECIPIENTS: usize = 64;
/// A line that is a name is not longer.
const MAX_NAME_BYTES: usize = 60;

const TITLES: &[&str] = &[
    "mr",
    "mrs",
    "ms",
    "miss",
    "mx",
    "dr",
    "prof",
    "professor",
    "sir",
    "madam",
    "herr",
    "herrn",
    "frau",
    "dipl-ing",
    "monsieur",
    "madame",
    "mme",
    "m",
    "mlle",
    "señor",
    "señora",
    "sr",
    "sra",
    "sig",
    "signor",
    "signora",
    "mevrouw",
    "heer",
    "meneer",
    "pan",
    "pani",
];

/// Small words within names.
const PARTICLES: &[&str] = &[
    "von", "van", "de", "der", "den", "di", "da", "del", "della", "dos", "la", "le", "el", "al", "bin", "ibn", "zu",
    "ter",
];

/// What stands after a greeting, or begins the sentence behind it, without being a name.
const NO_NAMES: &[&str] = &[
    "a",
    "after",
    "all",
    "an",
    "and",
    "any",
    "are",
    "as",
    "at",
    "before",
    "both",
    "but",
    "can",
    "colleague",
    "colleagues",
    "could",
    "customer",
    "customers",
    "damen",
    "das",
    "der",
    "desk",
    "die",
    "do",
    "does",
    "error",
    "es",
    "everybody",
    "everyone",
    "folks",
    "for",
    "from",
    "guys",
    "he",
    "help",
    "helpdesk",
    "how",
    "hr",
    "i",
    "i'm",
    "ich",
    "if",
    "in",
    "is",
    "it",
    "its",
    "ladies",
    "manager",
    "my",
    "no",
    "not",
    "on",
    "one",
    "our",
    "please",
    "server",
    "service",
    "she",
    "since",
    "support",
    "system",
    "team",
    "thank",
    "thanks",
    "that",
    "the",
    "there",
    "these",
    "they",
    "this",
    "to",
    "today",
    "user",
    "users",
    "we",
    "what",
    "when",
    "why",
    "wir",
    "with",
    "world",
    "yesterday",
    "you",
    "your",
    "zusammen",
    "windows",
    "outlook",
    "sent",
    "re",
    "fw",
    "fwd",
    "aw",
    "wg",
    "subject",
    "betreff",
    "date",
    "cc",
    "tel",
    "phone",
];

/// Closings that are also ordinary words: only a line of its own is a name there.
const WEAK_CLOSINGS: &[&str] = &[
    "thanks",
    "thank you",
    "thx",
    "cheers",
    "best",
    "danke",
    "dank",
    "merci",
    "gracias",
    "grazie",
    "obrigado",
    "obrigada",
    "bedankt",
    "tack",
    "lg",
    "vg",
    "br",
];

/// Accounts that are nobody's.
const NOBODY: &[&str] =
    &["root", "admin", "administrator", "system", "guest", "public", "default", "shared", "all users", "test"];

/// Behind a phrase that a name follows.
pub(super) fn after_phrase(text: &str, at: Range<usize>) -> Vec<Find> {
    // A word that goes on behind the phrase was not the phrase: "highway", "best-effort".
    let next_to = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '-' || c == '\'');
    let phrase = &text[at.clone()];
    if phrase.ends_with(char::is_alphanumeric) && next_to(text[at.end..].chars().next()) {
        return vec![];
    }
    let lower = phrase.to_lowercase();
    let bare = lower.trim_matches(|c: char| !c.is_alphanumeric());
    if phrase.trim_end().ends_with(':') && is_head(bare) {
        return recipients(text, at.end);
    }
    let new_line = phrase.contains('\n');
    let weak = WEAK_CLOSINGS.iter().any(|closing| bare.starts_with(closing));
    let line = line_at(text, at.end);
    if new_line && is_name_line(&text[line.clone()], weak && !text[line.end..].trim().is_empty()) {
        return one(line, Sort::Name);
    }
    let Some(name) = name_at(text, at.end) else { return vec![] };
    let rest = text[name.end..].trim_start_matches([' ', '\t', '.', ',']);
    let ends_line = rest.is_empty() || rest.starts_with(['\n', '\r']);
    let separated = phrase.ends_with(|c: char| !c.is_alphanumeric());
    // "Thanks, Jane" ends the text; "Best Buy card declined" does not.
    if !separated || weak && !ends_line { vec![] } else { one(name, Sort::Name) }
}

/// `user=jane`, `for user jane from`.
pub(super) fn user_value(text: &str, at: Range<usize>) -> Vec<Find> {
    let found = secrets::value(text, at.clone());
    let Some(Find { at: value, .. }) = found.first().cloned() else { return vec![] };
    let name = name_at(text, value.start).filter(|name| name.end > value.end).unwrap_or(value);
    let word = text[name.clone()].to_lowercase();
    let known =
        NOBODY.contains(&word.as_str()) || word.bytes().all(|byte| byte.is_ascii_digit()) || word.starts_with('<');
    if known { vec![] } else { one(name, Sort::User) }
}

/// `/home/jane/`, `C:\Users\Jane Doe\`.
pub(super) fn user_folder(text: &str, at: Range<usize>) -> Vec<Find> {
    let rest = &text[at.end..text.floor_char_boundary(text.len().min(at.end + MAX_NAME_BYTES))];
    let ends = |c: char| c.is_whitespace() || "/\\\"'<>|:*?;,()".contains(c);
    let mut end = rest.find(ends).unwrap_or(rest.len());
    // Windows allows a blank; it is the name's when a backslash follows before anything that no name holds.
    if text[..at.end].ends_with('\\') && rest[end..].starts_with(' ') {
        let spaced = rest.find(|c: char| c.is_control() || "/\\\"<>|:*?".contains(c));
        end = spaced.filter(|at| rest[*at..].starts_with('\\')).unwrap_or(end);
    }
    let name = rest[..end].trim_end_matches('.');
    if name.is_empty() || NOBODY.contains(&name.to_lowercase().as_str()) {
        return vec![];
    }
    one(at.end..at.end + name.len(), Sort::User)
}

/// `CORP\jane`, but neither a folder nor a key of the registry.
pub(super) fn domain_user(text: &str, at: Range<usize>) -> Vec<Find> {
    let before = text[..at.start].chars().next_back();
    let backslash = at.start + text[at.clone()].find('\\').unwrap_or(0);
    let registry = text[at.start..].starts_with("HK");
    let folder = matches!(before, Some('\\' | '/' | ':' | '%')) || text[at.end..].starts_with('\\');
    if registry || folder {
        return vec![];
    }
    let start = backslash + text[backslash..].len() - text[backslash..].trim_start_matches('\\').len();
    one(start..at.end, Sort::User)
}

fn is_head(phrase: &str) -> bool {
    ["from", "to", "cc", "bcc", "von", "an", "de", "para", "à", "reply-to", "sent by"].contains(&phrase)
}

/// `Jane Doe <...>; Doe, John`.
fn recipients(text: &str, from: usize) -> Vec<Find> {
    let end = from + text[from..].find('\n').unwrap_or(text[from..].len());
    let mut finds = Vec::new();
    let mut at = from;
    while at < end && finds.len() < MAX_RECIPIENTS {
        if let Some(name) = name_at(&text[..end], at) {
            at = name.end;
            finds.push(Find { at: name, sort: Sort::Name });
        }
        match text[at..end].find([',', ';', '>']) {
            Some(next) => at += next + 1,
            None => break,
        }
        at += text[at..end].len() - text[at..end].trim_start_matches([' ', '"', '\'', '<', ',', ';']).len();
    }
    finds
}

fn line_at(text: &str, from: usize) -> Range<usize> {
    let end = text[from..].find('\n').unwrap_or(text[from..].len());
    from..from + text[from..from + end].trim_end_matches([' ', '\t', '\r', ',', '.']).len()
}

/// A line of one to four words and nothing else. `strict`: each with a capital, because it may as well be a sentence.
fn is_name_line(line: &str, strict: bool) -> bool {
    let words: Vec<&str> = line.split([' ', '\t']).filter(|word| !word.is_empty()).collect();
    let letters = |word: &str| {
        word.chars().all(|c| c.is_alphabetic() || ".'’-,".contains(c)) && word.contains(char::is_alphabetic)
    };
    let good = |word: &&str| {
        let known = NO_NAMES.contains(&word.to_lowercase().as_str());
        letters(word) && !known && (!strict || word.starts_with(char::is_uppercase) || PARTICLES.contains(word))
    };
    (1..=4).contains(&words.len()) && line.len() <= MAX_NAME_BYTES && words.iter().all(good)
}

/// Words with a capital from here on, behind titles; the titles stay.
fn name_at(text: &str, from: usize) -> Option<Range<usize>> {
    let (mut at, mut name): (usize, Option<Range<usize>>) = (from, None);
    for _ in 0..MAX_WORDS + 2 {
        let blanks = text[at..].len() - text[at..].trim_start_matches([' ', '\t', '"', '\'']).len();
        let start = at + blanks;
        let word = &text[start..start + word_len(&text[start..])];
        let bare = word.trim_end_matches('.').to_lowercase();
        if name.is_none() && TITLES.contains(&bare.as_str()) {
            at = start + word.len() + text[start + word.len()..].starts_with('.') as usize;
            continue;
        }
        let capital = word.starts_with(char::is_uppercase) && !NO_NAMES.contains(&bare.as_str());
        let particle = name.is_some() && PARTICLES.contains(&word);
        // A quotation mark within a name ends it.
        let apart = name.is_some() && text[at..start].contains(['"', '\'']);
        if word.is_empty() || apart || !(capital || particle) {
            break;
        }
        at = start + word.len();
        if capital {
            name = Some(name.map_or(start, |name| name.start)..at);
        }
        // `J. Doe`
        if word.chars().count() == 1 && text[at..].starts_with('.') {
            at += 1;
        }
    }
    name.filter(|name| text[name.clone()].chars().count() > 1)
}

fn word_len(text: &str) -> usize {
    let belongs = |c: char| c.is_alphabetic() || matches!(c, '\'' | '’' | '-');
    let run = text
        .char_indices()
        .take(40)
        .find(|(_, c)| !belongs(*c))
        .map_or_else(|| text.char_indices().nth(40).map_or(text.len(), |(at, _)| at), |(at, _)| at);
    text[..run].trim_end_matches(['\'', '’', '-']).len()
}
