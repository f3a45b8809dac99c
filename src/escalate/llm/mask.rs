//! Replaces personal data and secrets by placeholders such as `<email_1>`, before a text leaves the machine. The same
//! value has the same number within a text, so who wrote to whom can still be followed; nothing remembers the values,
//! so nothing can restore them.
//!
//! When in doubt it masks: a version of four parts is taken for an address, a word behind "Dear" for a name. What has
//! no outward sign is not found: a name within a sentence, a street, an address spelt out in words.
//!
//! One pass of one compiled automaton stops where something may begin (`patterns`); what follows is read by hand, and
//! each repetition has a bound, so the time is linear in the text's length whatever it holds. E-mail addresses are found
//! from their at sign (`emails`), names also where they occur again. Where finds overlap, their union is masked.

mod again;
mod emails;
mod names;
mod numbers;
mod patterns;
mod secrets;

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;

/// What was found; the placeholder's word. Where finds overlap, the first in this order names the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Sort {
    Secret,
    Card,
    Iban,
    Email,
    Ip,
    Mac,
    Phone,
    Id,
    Hash,
    User,
    Name,
}

impl Sort {
    fn word(self) -> &'static str {
        match self {
            Sort::Secret => "secret",
            Sort::Card => "card",
            Sort::Iban => "iban",
            Sort::Email => "email",
            Sort::Ip => "ip",
            Sort::Mac => "mac",
            Sort::Phone => "phone",
            Sort::Id => "id",
            Sort::Hash => "hash",
            Sort::User => "user",
            Sort::Name => "name",
        }
    }
}

/// A part of the text that must not leave.
#[derive(Debug, Clone)]
struct Find {
    at: Range<usize>,
    sort: Sort,
}

/// A text that may leave.
#[derive(Clone, PartialEq, Eq)]
pub struct Masked {
    pub text: String,
    /// How many places were replaced.
    pub replaced: usize,
}

impl fmt::Debug for Masked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Masked { text, replaced } = self;
        f.debug_struct("Masked").field("bytes", &text.len()).field("replaced", replaced).finish()
    }
}

/// Masks a text.
pub fn mask(text: &str) -> Masked {
    let mut finds = patterns::find(text);
    finds.extend(emails::find(text));
    let repeated = again::find(text, &finds);
    finds.extend(repeated);
    let finds = united(finds);
    let mut numbers = Numbers::default();
    let mut out = String::with_capacity(text.len() + 16);
    let mut copied = 0;
    for Find { at, sort } in &finds {
        out.push_str(&text[copied..at.start]);
        numbers.write(&mut out, *sort, &text[at.clone()]);
        copied = at.end;
    }
    out.push_str(&text[copied..]);
    Masked { text: out, replaced: finds.len() }
}

/// In order, overlapping ones made one.
fn united(mut finds: Vec<Find>) -> Vec<Find> {
    finds.sort_by_key(|find| (find.at.start, find.sort));
    let mut out: Vec<Find> = Vec::with_capacity(finds.len());
    for find in finds {
        match out.last_mut() {
            Some(last) if find.at.start < last.at.end => {
                last.at.end = last.at.end.max(find.at.end);
                last.sort = last.sort.min(find.sort);
            }
            _ => out.push(find),
        }
    }
    out
}

/// The numbers given to values so far.
#[derive(Default)]
struct Numbers {
    given: HashMap<(Sort, String), usize>,
    counts: HashMap<Sort, usize>,
}

impl Numbers {
    fn write(&mut self, out: &mut String, sort: Sort, value: &str) {
        // Blanks and hyphens are no part of a card's or a telephone's number.
        let grouped = matches!(sort, Sort::Card | Sort::Iban | Sort::Phone);
        let value = if sort == Sort::Secret { value.to_owned() } else { value.to_lowercase() };
        let value = if grouped { value.chars().filter(|c| c.is_alphanumeric()).collect() } else { value };
        let count = self.counts.entry(sort).or_default();
        let number = *self.given.entry((sort, value)).or_insert_with(|| {
            *count += 1;
            *count
        });
        out.push('<');
        out.push_str(sort.word());
        out.push('_');
        out.push_str(&number.to_string());
        out.push('>');
    }
}

#[cfg(test)]
mod tests;
