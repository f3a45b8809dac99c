//! Names that were recognised once, wherever else they stand: who signs is often named in the text too.

use std::collections::BTreeSet;

use aho_corasick::{AhoCorasick, MatchKind};

use super::{Find, Sort};

/// More names than this are a list, and a list's entries stand there once.
const MAX_NAMES: usize = 64;
/// Shorter parts are words of many languages.
const MIN_PART_CHARS: usize = 3;
const MIN_USER_CHARS: usize = 4;

pub(super) fn find(text: &str, finds: &[Find]) -> Vec<Find> {
    let mut names: BTreeSet<&str> = BTreeSet::new();
    let mut users: BTreeSet<&str> = BTreeSet::new();
    for Find { at, sort } in finds {
        let value = &text[at.clone()];
        match sort {
            // A single word behind a greeting may be a thing ("Hello Printer"), so it is not sought.
            Sort::Name if names.len() < MAX_NAMES => {
                let parts: Vec<&str> = value.split([' ', ',']).filter(|part| is_part(part)).collect();
                if parts.len() > 1 {
                    names.insert(value);
                    names.extend(parts);
                }
            }
            Sort::User if users.len() < MAX_NAMES && value.chars().count() >= MIN_USER_CHARS => _ = users.insert(value),
            _ => {}
        }
    }
    let sought: Vec<(&str, Sort)> = names
        .into_iter()
        .map(|name| (name, Sort::Name))
        .chain(users.into_iter().map(|user| (user, Sort::User)))
        .collect();
    let words = sought.iter().map(|(word, _)| word);
    let Ok(automaton) = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(words) else {
        return Vec::new();
    };
    let whole = |start: usize, end: usize| {
        let word = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
        !word(text[..start].chars().next_back()) && !word(text[end..].chars().next())
    };
    let found = automaton.find_iter(text).filter(|found| whole(found.start(), found.end()));
    found.map(|found| Find { at: found.range(), sort: sought[found.pattern().as_usize()].1 }).collect()
}

fn is_part(part: &str) -> bool {
    part.chars().count() >= MIN_PART_CHARS && part.starts_with(char::is_uppercase)
}
