//! E-mail addresses, from their at sign outwards: plain, defanged (`jane[at]x[.]org`) or percent-encoded.

use std::sync::LazyLock;

use aho_corasick::AhoCorasick;

use super::{Find, Sort};

const SIGNS: [&str; 9] = ["@", "%40", "[@]", "(@)", "(at)", "[at]", "{at}", " at sign ", "＠"];
const DOTS: [&str; 6] = ["[.]", "(.)", "[dot]", "(dot)", "{dot}", "{.}"];

/// RFC 5321 allows 64 bytes before the sign and 255 after it.
const MAX_LOCAL_CHARS: usize = 64;
const MAX_HOST_CHARS: usize = 255;

static AT_SIGNS: LazyLock<AhoCorasick> = LazyLock::new(|| {
    AhoCorasick::builder()
        .ascii_case_insensitive(true)
        .match_kind(aho_corasick::MatchKind::LeftmostLongest)
        .build(SIGNS)
        .expect("nine short words make an automaton")
});

pub(super) fn find(text: &str) -> Vec<Find> {
    AT_SIGNS.find_iter(text).filter_map(|sign| around(text, sign.start(), sign.end())).collect()
}

fn around(text: &str, sign_start: usize, sign_end: usize) -> Option<Find> {
    let plain = sign_end - sign_start == 1;
    // Defanged addresses are often spread: `jane (at) example.org`.
    let before = if plain { &text[..sign_start] } else { text[..sign_start].trim_end_matches(' ') };
    let after_blanks = if plain { 0 } else { text[sign_end..].len() - text[sign_end..].trim_start_matches(' ').len() };
    let local = local_len(before)?;
    let host = host_len(&text[sign_end + after_blanks..])?;
    Some(Find { at: before.len() - local..sign_end + after_blanks + host, sort: Sort::Email })
}

/// Bytes of the part before the sign, at the end of `before`.
fn local_len(before: &str) -> Option<usize> {
    if let Some(inside) = before.strip_suffix('"') {
        let start = inside.char_indices().rev().take(MAX_LOCAL_CHARS).find(|(_, c)| matches!(c, '"' | '\n'));
        return start.filter(|(_, c)| *c == '"').map(|(start, _)| before.len() - start);
    }
    let run = |belongs: fn(char) -> bool| {
        let chars = before.chars().rev().take(MAX_LOCAL_CHARS).take_while(|c| belongs(*c));
        chars.map(char::len_utf8).sum::<usize>()
    };
    // Writing without blanks stands right before an address; only where there is nothing else it is the address.
    [run(|c| is_local(c) && !is_dense(c)), run(is_local)].into_iter().find(|len| *len > 0)
}

/// Bytes of the part behind the sign, at the start of `after`.
fn host_len(after: &str) -> Option<usize> {
    if after.starts_with('[') {
        let end = after.bytes().take(MAX_LOCAL_CHARS).position(|byte| byte == b']')?;
        return after[1..end]
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b".:".contains(&byte))
            .then_some(end + 1);
    }
    [run_of_host(after, |c| is_host(c) && !is_dense(c)), run_of_host(after, is_host)].into_iter().find(|len| *len > 0)
}

fn run_of_host(after: &str, belongs: impl Fn(char) -> bool) -> usize {
    let (mut end, mut good, mut chars) = (0, 0, 0);
    while chars < MAX_HOST_CHARS {
        let rest = &after[end..];
        chars += 1;
        let Some(c) = rest.chars().next() else { break };
        if belongs(c) {
            end += c.len_utf8();
            // A full stop at the end belongs to the sentence.
            if c.is_alphanumeric() {
                good = end;
            }
            continue;
        }
        let dot = DOTS.iter().find(|dot| rest.get(..dot.len()).is_some_and(|start| start.eq_ignore_ascii_case(dot)));
        match dot {
            Some(dot) => end += dot.len(),
            None => break,
        }
    }
    good
}

fn is_local(c: char) -> bool {
    if c.is_ascii() { c.is_ascii_alphanumeric() || "!#$%&'*+-?^_{}~.".contains(c) } else { c.is_alphanumeric() }
}

fn is_host(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '-' | '.' | '_')
}

/// Scripts that put no blank between words.
fn is_dense(c: char) -> bool {
    matches!(c, '\u{e00}'..='\u{eff}' | '\u{2e80}'..='\u{d7ff}' | '\u{20000}'..='\u{3ffff}')
}
