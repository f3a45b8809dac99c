//! ArcSight Common Event Format, versions 0 and 1:
//! `CEF:0|vendor|product|version|signature|name|severity|key=value key=value`.
//!
//! The text is the name, then `msg`, then the values that carry evidence as `key=value`, because rules and indicators
//! read nothing but the text. `\|` and `\\` are unescaped in the header, `\=`, `\\`, `\n` and `\r` in values.

use std::borrow::Cow;

use super::time::{self, Reference};
use super::{Fault, Parts, priority};

/// What rules, indicators and analysts need besides name and `msg`.
fn is_evidence(key: &str) -> bool {
    matches!(
        key,
        "act"
            | "app"
            | "dhost"
            | "dpt"
            | "dst"
            | "duser"
            | "fileHash"
            | "filePath"
            | "fname"
            | "outcome"
            | "proto"
            | "reason"
            | "request"
            | "shost"
            | "sproc"
            | "src"
            | "suser"
    )
}

/// A few dozen keys are usual; more than this is not read.
const MAX_EXTENSIONS: usize = 256;

pub(super) fn starts_here(text: &str) -> bool {
    text.strip_prefix("CEF:").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// Reads a text that starts with `CEF:`.
pub(super) fn parse(text: &str, reference: Reference) -> Result<Parts<'_>, Fault> {
    let mut fields = [""; 6];
    let mut at = end_of_field(text, 0).ok_or(Fault { at: 0, rule: "seven fields end with `|`" })? + 1;
    for field in &mut fields {
        let end = end_of_field(text, at).ok_or(Fault { at, rule: "seven fields end with `|`" })?;
        *field = text[at..end].trim();
        at = end + 1;
    }
    let [vendor, product, _version, _signature, name, severity] = fields;
    let extensions = extensions(&text[at..]);
    let value = |key: &str| extensions.iter().find(|(found, _)| *found == key).map(|&(_, value)| value);
    let time = ["rt", "end", "start"].into_iter().find_map(|key| time::parse(&unescape(value(key)?), reference));
    Ok(Parts {
        ticket_id: value("externalId").map(unescape),
        text: Some(describe(name, &extensions)),
        priority: priority::parse(level(severity)),
        source: Some(source(vendor, product)).filter(|source| !source.is_empty()),
        level: Some(Cow::Borrowed(level(severity))).filter(|level| !level.is_empty()),
        time,
        ..Parts::default()
    })
}

/// The place of the next `|` that no backslash escapes.
fn end_of_field(text: &str, from: usize) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut at = from;
    loop {
        match bytes.get(at)? {
            b'\\' => at += 2,
            b'|' => return Some(at),
            _ => at += 1,
        }
    }
}

/// Keys with their raw values. A key is the word before an `=` that no backslash escapes; a value ends where the
/// blank before the next key begins, so values may contain blanks, and `=` as in `request=https://a/?b=c`.
fn extensions(text: &str) -> Vec<(&str, &str)> {
    let mut found: Vec<(&str, &str)> = Vec::with_capacity(16);
    let bytes = text.as_bytes();
    let (mut word_start, mut open, mut at) = (0, None, 0);
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'\\' => at += 1,
            b' ' => word_start = at + 1,
            b'=' if is_key(&bytes[word_start..at]) && found.len() < MAX_EXTENSIONS => {
                if let Some((key, value_start)) = open {
                    found.push((key, text[value_start..word_start].trim_end_matches(' ')));
                }
                open = Some((&text[word_start..at], at + 1));
                // What follows up to the next blank is value, whatever it contains.
                word_start = at;
            }
            _ => {}
        }
        at += 1;
    }
    if let Some((key, value_start)) = open {
        found.push((key, text[value_start..].trim_end_matches(' ')));
    }
    found
}

fn is_key(word: &[u8]) -> bool {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-' | b'[' | b']');
    !word.is_empty() && word.iter().all(allowed)
}

fn describe<'a>(name: &'a str, extensions: &[(&str, &'a str)]) -> Cow<'a, str> {
    let mut text = unescape(name);
    let mut add = |before: &str, key: &str, equals: &str, value: &str| {
        let text = text.to_mut();
        let separator = if text.is_empty() { "" } else { before };
        text.extend([separator, key, equals, &unescape(value)]);
    };
    if let Some((_, message)) = extensions.iter().find(|(key, value)| *key == "msg" && *value != name) {
        add(": ", "", "", message);
    }
    for (key, value) in extensions.iter().filter(|(key, value)| is_evidence(key) && !value.is_empty()) {
        add(" ", key, "=", value);
    }
    text
}

fn source<'a>(vendor: &'a str, product: &'a str) -> Cow<'a, str> {
    match (vendor, product) {
        ("", only) | (only, "") => unescape(only),
        _ => Cow::Owned([&unescape(vendor), "/", &unescape(product)].concat()),
    }
}

/// The scale of the specification's section on severity; words are kept as they are.
fn level(severity: &str) -> &str {
    match severity.parse::<u8>() {
        Ok(0..=3) => "low",
        Ok(4..=6) => "medium",
        Ok(7..=8) => "high",
        Ok(9..=10) => "very-high",
        _ => severity,
    }
}

fn unescape(raw: &str) -> Cow<'_, str> {
    if !raw.contains('\\') {
        return Cow::Borrowed(raw);
    }
    let mut text = String::with_capacity(raw.len());
    let mut characters = raw.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => match characters.next() {
                Some('n') => text.push('\n'),
                Some('r') => text.push('\r'),
                Some(escaped @ ('\\' | '|' | '=')) => text.push(escaped),
                // Not an escape of the format: Windows paths often come unescaped.
                Some(other) => text.extend(['\\', other]),
                None => text.push('\\'),
            },
            _ => text.push(character),
        }
    }
    Cow::Owned(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2025-01-24T12:00:00Z.
    const NOW: Reference = Reference { now_ms: 1_737_720_000_000, utc_offset: 0 };

    #[test]
    fn the_specifications_example() {
        let parts = parse(
            "CEF:0|Security|threatmanager|1.0|100|worm successfully stopped|10|src=10.0.0.1 dst=2.1.2.2 spt=1232",
            NOW,
        )
        .unwrap();
        assert_eq!(parts.text.unwrap(), "worm successfully stopped src=10.0.0.1 dst=2.1.2.2");
        assert_eq!(parts.source.unwrap(), "Security/threatmanager");
        assert_eq!(parts.level.unwrap(), "very-high");
        assert_eq!(parts.time, None);
    }

    #[test]
    fn escapes_blanks_and_equals_signs() {
        let parts = parse(
            r"CEF:1|A\|B|p\\q|1|x|detected a \| in name|Low|rt=1737709674123 request=https://a/?b=c&d=e msg=two words\nand \= more  fname=C:\temp\x.exe",
            NOW,
        )
        .unwrap();
        assert_eq!(
            parts.text.unwrap(),
            "detected a | in name: two words\nand = more request=https://a/?b=c&d=e fname=C:\\temp\\x.exe"
        );
        assert_eq!(parts.source.unwrap(), r"A|B/p\q");
        assert_eq!(parts.level.unwrap(), "Low");
        assert_eq!(parts.time, Some(1_737_709_674_123));
    }

    #[test]
    fn extensions_keep_their_order_and_their_blanks() {
        assert_eq!(extensions("a=1 b=two words c= d=x=y"), [("a", "1"), ("b", "two words"), ("c", ""), ("d", "x=y")]);
        assert_eq!(extensions("no pairs at all"), []);
        assert_eq!(extensions("=x a=1"), [("a", "1")]);
    }

    #[test]
    fn a_short_header_is_placed() {
        assert_eq!(parse("CEF:0|Security|product|1.0", NOW).unwrap_err().at, 23);
        assert_eq!(parse("CEF:0", NOW).unwrap_err().at, 0);
        assert_eq!(parse("CEF:0|a|b|c|d|e|f\\", NOW).unwrap_err().at, 16);
    }
}
