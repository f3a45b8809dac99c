//! JSON objects: takes the configured fields and skips the rest.
//!
//! Every value is first taken as a raw slice, which validates it without building anything; only the fields that are
//! wanted are unescaped, and only when they have escapes. Numbers keep their own digits, so an id such as
//! 12345678901234567890 stays exact.
//!
//! - A wanted value counts when it is a number or a string that is not blank; anything else is as if the field were
//!   missing, and the next name of that meaning is tried.
//! - Of several equal keys the last that counts wins, as in most parsers.
//! - Half a surrogate pair in an escape (`"\ud83d"`), as cut-off texts have, becomes U+FFFD.

use std::borrow::Cow;
use std::cell::Cell;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::fields::{Field, FieldTree, Level, Meaning};
use super::time::{self, Reference};
use super::{Parts, Reject, priority};

pub(super) fn parse<'a>(
    text: &'a str,
    fields: &FieldTree,
    max_depth: usize,
    reference: Reference,
) -> Result<Parts<'a>, Reject> {
    let start = text.trim_start_matches([' ', '\t', '\r', '\n']);
    if start.is_empty() {
        return Err(Reject::Empty);
    }
    if !start.starts_with('{') {
        return Err(Reject::NotAnObject);
    }
    let mut found = Found::default();
    let too_deep = Cell::new(false);
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let object = Object { level: &fields.root, found: &mut found, depth_left: max_depth, too_deep: &too_deep };
    let outcome = object.deserialize(&mut deserializer).and_then(|()| deserializer.end());
    if let Err(error) = outcome {
        return Err(if too_deep.get() {
            Reject::TooDeep { limit: max_depth, line: error.line(), column: error.column() }
        } else {
            Reject::BrokenJson(error)
        });
    }
    Ok(Parts {
        ticket_id: found.text(Meaning::TicketId),
        title: found.text(Meaning::Title),
        text: found.text(Meaning::Text),
        email_address: found.text(Meaning::EmailAddress),
        priority: found.text(Meaning::Priority).and_then(|text| priority::parse(&text)),
        source: found.text(Meaning::Source),
        level: found.text(Meaning::Level),
        time: found.text(Meaning::Timestamp).and_then(|text| time::parse(&text, reference)),
    })
}

/// The best raw value for each meaning so far, with the rank of its name.
#[derive(Default)]
struct Found<'a>([Option<(usize, &'a str)>; Meaning::COUNT]);

impl<'a> Found<'a> {
    fn offer(&mut self, field: &Field, raw: &'a str) {
        for &(meaning, rank) in &field.meanings {
            let slot = &mut self.0[meaning as usize];
            if slot.is_none_or(|(best, _)| rank <= best) {
                *slot = Some((rank, raw));
            }
        }
    }

    fn text(&self, meaning: Meaning) -> Option<Cow<'a, str>> {
        let (_, raw) = self.0[meaning as usize]?;
        Some(match raw.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
            Some(inner) => unescape(inner),
            None => Cow::Borrowed(raw),
        })
    }
}

fn counts(raw: &str) -> bool {
    match raw.as_bytes() {
        [b'"', inner @ .., b'"'] => !inner.trim_ascii().is_empty(),
        [first, ..] => *first == b'-' || first.is_ascii_digit(),
        [] => false,
    }
}

/// An object whose keys are looked up in `level`.
struct Object<'s, 'a> {
    level: &'s Level,
    found: &'s mut Found<'a>,
    /// How many levels this object and what lies in it may still have.
    depth_left: usize,
    too_deep: &'s Cell<bool>,
}

impl Object<'_, '_> {
    fn refuse_depth<E: Error>(&self) -> E {
        self.too_deep.set(true);
        E::custom("nested too deep")
    }
}

impl<'a> DeserializeSeed<'a> for Object<'_, 'a> {
    type Value = ();

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'a> Visitor<'a> for Object<'_, 'a> {
    type Value = ();

    fn expecting(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<M: MapAccess<'a>>(self, mut map: M) -> Result<(), M::Error> {
        let Some(depth_left) = self.depth_left.checked_sub(1) else { return Err(self.refuse_depth()) };
        while let Some(field) = map.next_key_seed(Key(self.level))? {
            let raw = map.next_value::<&'a RawValue>()?.get();
            if raw.starts_with(['{', '[']) {
                if depth(raw) > depth_left {
                    return Err(self.refuse_depth());
                }
                if let Some(field) = field
                    && raw.starts_with('{')
                    && !field.children.is_empty()
                {
                    let inner =
                        Object { level: &field.children, found: self.found, depth_left, too_deep: self.too_deep };
                    inner.deserialize(&mut serde_json::Deserializer::from_str(raw)).map_err(M::Error::custom)?;
                }
            } else if let Some(field) = field
                && counts(raw)
            {
                self.found.offer(field, raw);
            }
        }
        Ok(())
    }
}

/// Looks a key up; keys with escapes are unescaped by serde_json before they are compared.
struct Key<'s>(&'s Level);

impl<'a, 's> DeserializeSeed<'a> for Key<'s> {
    type Value = Option<&'s Field>;

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'s> Visitor<'_> for Key<'s> {
    type Value = Option<&'s Field>;

    fn expecting(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
        formatter.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self.0.find(key))
    }
}

/// How many levels of objects and arrays a valid JSON text has.
fn depth(raw: &str) -> usize {
    let (mut open, mut deepest, mut in_string, mut escaped) = (0_usize, 0, false, false);
    for byte in raw.bytes() {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'{' | b'[' => {
                open += 1;
                deepest = deepest.max(open);
            }
            b'}' | b']' => open = open.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// The text of a valid JSON string without its quotes.
fn unescape(inner: &str) -> Cow<'_, str> {
    let Some(first) = inner.find('\\') else { return Cow::Borrowed(inner) };
    let mut text = String::with_capacity(inner.len());
    let mut rest = inner;
    let mut next = Some(first);
    while let Some(at) = next {
        text.push_str(&rest[..at]);
        let escape = rest.as_bytes().get(at + 1).copied();
        rest = rest.get(at + 2..).unwrap_or_default();
        match escape {
            Some(b'n') => text.push('\n'),
            Some(b't') => text.push('\t'),
            Some(b'r') => text.push('\r'),
            Some(b'b') => text.push('\u{8}'),
            Some(b'f') => text.push('\u{c}'),
            Some(b'u') => {
                let (character, used) = code_point(rest);
                text.push(character);
                rest = &rest[used..];
            }
            Some(plain) => text.push(char::from(plain)),
            None => {}
        }
        next = rest.find('\\');
    }
    text.push_str(rest);
    Cow::Owned(text)
}

/// Reads the digits after `\u`, and the second half of a surrogate pair when it follows; returns the bytes used.
fn code_point(digits: &str) -> (char, usize) {
    let unit = |digits: &str| digits.get(..4).and_then(|digits| u32::from_str_radix(digits, 16).ok());
    let Some(first) = unit(digits) else { return (char::REPLACEMENT_CHARACTER, 0) };
    if (0xd800..0xdc00).contains(&first)
        && let Some(second) = digits.get(4..).and_then(|rest| rest.strip_prefix("\\u")).and_then(unit)
        && (0xdc00..0xe000).contains(&second)
    {
        let scalar = 0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00);
        return (char::from_u32(scalar).unwrap_or(char::REPLACEMENT_CHARACTER), 10);
    }
    (char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER), 4)
}
