//! Network addresses and numbers that stand for a person: cards, accounts, telephones.

use std::net::Ipv6Addr;
use std::ops::Range;

use super::patterns::one;
use super::{Find, Sort};

/// How far before a number a word may say that it is a telephone's.
const PHONE_WORD_BYTES: usize = 20;
const PHONE_WORDS: [&str; 20] = [
    "tel",
    "telefon",
    "telephone",
    "phone",
    "fon",
    "mob",
    "mobil",
    "mobile",
    "cell",
    "cellphone",
    "fax",
    "handy",
    "call",
    "ext",
    "extension",
    "durchwahl",
    "whatsapp",
    "tél",
    "téléphone",
    "móvil",
];

pub(super) fn ipv4(text: &str, at: Range<usize>) -> Vec<Find> {
    let octets = text[at.clone()].split(|c: char| !c.is_ascii_digit()).filter(|part| !part.is_empty());
    if octets.filter_map(|octet| octet.parse::<u16>().ok()).all(|octet| octet < 256) {
        one(at, Sort::Ip)
    } else {
        vec![]
    }
}

/// `ip-10-0-0-7`, as clouds name their machines.
pub(super) fn ipv4_host(_: &str, at: Range<usize>) -> Vec<Find> {
    one(at, Sort::Ip)
}

pub(super) fn mac(_: &str, at: Range<usize>) -> Vec<Find> {
    one(at, Sort::Mac)
}

pub(super) fn ipv6_or_mac(text: &str, at: Range<usize>) -> Vec<Find> {
    let is_word = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    let bytes = text.as_bytes();
    // `10.0.0.7` may follow the last colon, of which the pattern has taken the first figures only as a group.
    let mut start = at.start;
    let mut end = at.end;
    while start < end {
        let free = !is_word(start.checked_sub(1).map(|before| &bytes[before])) && !is_word(bytes.get(end));
        let run = &text[start..end];
        let address = run.bytes().any(|byte| byte != b':') && run.parse::<Ipv6Addr>().is_ok();
        if free && address {
            return one(start..end, Sort::Ip);
        }
        if free && is_mac(run) {
            return one(start..end, Sort::Mac);
        }
        if run.ends_with(':') {
            // `fe80::1:` ends before the colon.
            end -= 1;
        } else {
            // `port:fe80::1`: what is before the first colon may not belong to it.
            start += run.find(':').map_or(run.len(), |colon| colon + 1);
            end = at.end;
        }
    }
    vec![]
}

fn is_mac(run: &str) -> bool {
    let mut groups = 0;
    run.split(':').all(|group| {
        groups += 1;
        group.len() == 2
    }) && groups == 6
}

/// The longest beginning that passes the check, because words may follow that look like more of it.
pub(super) fn iban(text: &str, at: Range<usize>) -> Vec<Find> {
    let run = &text[at.clone()];
    let is_end = |len: &usize| {
        !run.as_bytes().get(*len).or(text.as_bytes().get(at.start + len)).is_some_and(u8::is_ascii_alphanumeric)
    };
    let ends = (15..=run.len()).rev().filter(is_end);
    let valid = |len: &usize| run.as_bytes()[len - 1] != b' ' && is_iban(&run[..*len]);
    ends.into_iter().find(valid).map_or(vec![], |len| one(at.start..at.start + len, Sort::Iban))
}

/// ISO 13616: with the first four moved to the end and letters read as 10 to 35, the number is 1 modulo 97.
fn is_iban(run: &str) -> bool {
    let solid: Vec<u8> = run.bytes().filter(|byte| *byte != b' ').collect();
    let rotated = solid.iter().cycle().skip(4).take(solid.len());
    let rest = rotated.fold(0u32, |rest, byte| match byte {
        b'0'..=b'9' => (rest * 10 + u32::from(byte - b'0')) % 97,
        _ => (rest * 100 + u32::from(byte - b'A') + 10) % 97,
    });
    (15..=34).contains(&solid.len()) && rest == 1
}

pub(super) fn card_or_phone(text: &str, at: Range<usize>) -> Vec<Find> {
    let run = &text[at.clone()];
    let before = text[..at.start].chars().next_back();
    // Within a word or behind a decimal point it is part of an identifier.
    if before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
        return vec![];
    }
    if let Some(len) = card_len(run) {
        return one(at.start..at.start + len, Sort::Card);
    }
    if is_social_security(run) {
        return one(at, Sort::Id);
    }
    match phone_len(text, at.clone(), run) {
        Some(len) => one(at.start..at.start + len, Sort::Phone),
        None => vec![],
    }
}

/// Behind the digits at `start`, and behind further groups of digits in which neither a card's nor a telephone's number
/// begins. Without this, a text of nothing but short numbers is searched again from each of them.
pub(super) fn behind_digits(text: &str, start: usize) -> usize {
    let bytes = text.as_bytes();
    let digits = |from: usize| bytes[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    // Behind other signs an address may begin.
    let separates = |at: usize| bytes.get(at).is_some_and(|byte| b" -/".contains(byte));
    let mut at = start + digits(start);
    while separates(at) {
        let group = digits(at + 1);
        let next = at + 1 + group;
        if group == 0 || !separates(next) || !card_or_phone(text, at + 1..run_end(bytes, at + 1)).is_empty() {
            break;
        }
        at = next;
    }
    at
}

/// Where the run ends that the pattern of `card_or_phone` would take.
fn run_end(bytes: &[u8], start: usize) -> usize {
    const MAX_DIGITS: usize = 24;
    const MAX_SEPARATORS: usize = 3;
    let (mut end, mut digits, mut separators) = (start, 0, 0);
    for (offset, byte) in bytes[start..].iter().enumerate() {
        if byte.is_ascii_digit() {
            digits += 1;
            separators = 0;
            end = start + offset + 1;
        } else if b" ./()-".contains(byte) {
            separators += 1;
        } else {
            break;
        }
        if digits == MAX_DIGITS || separators > MAX_SEPARATORS {
            break;
        }
    }
    end
}

/// Bytes of a card's number at the start: 13 to 19 digits, grouped by single blanks or hyphens, that pass Luhn's check.
fn card_len(run: &str) -> Option<usize> {
    let mut digits = Vec::with_capacity(19);
    let mut best = None;
    let mut separators = 0;
    for (offset, byte) in run.bytes().enumerate() {
        match byte {
            b'0'..=b'9' => {
                digits.push(byte - b'0');
                separators = 0;
            }
            b' ' | b'-' if separators == 0 => separators += 1,
            _ => break,
        }
        let ends = !run.as_bytes().get(offset + 1).is_some_and(u8::is_ascii_digit);
        if ends && separators == 0 && (13..=19).contains(&digits.len()) && luhn(&digits) {
            best = Some(offset + 1);
        }
    }
    best.filter(|_| matches!(digits.first(), Some(2..=6)))
}

/// ISO/IEC 7812-1, annex B.
fn luhn(digits: &[u8]) -> bool {
    let doubled = |digit: u8| if digit > 4 { digit * 2 - 9 } else { digit * 2 };
    let sum =
        digits.iter().rev().enumerate().map(|(place, digit)| if place % 2 == 1 { doubled(*digit) } else { *digit });
    sum.map(u32::from).sum::<u32>().is_multiple_of(10)
}

fn group_lengths(run: &str) -> Vec<usize> {
    run.split(|c: char| !c.is_ascii_digit()).map(str::len).filter(|len| *len > 0).collect()
}

/// `078-05-1120`.
fn is_social_security(run: &str) -> bool {
    group_lengths(run) == [3, 2, 4] && run.bytes().filter(|byte| *byte == b'-').count() == 2 && run.len() == 11
}

/// Bytes of a telephone's number at the start.
fn phone_len(text: &str, at: Range<usize>, run: &str) -> Option<usize> {
    // What goes on from an earlier number is the rest of a date or of an identifier.
    let before = &text[..at.start];
    let joined = before.trim_end_matches(['.', '-', '/', ':']);
    if joined.len() < before.len() && joined.ends_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let digits = run.bytes().filter(u8::is_ascii_digit).count();
    let first_digits = run.trim_start_matches(['+', '(']);
    let groups = group_lengths(run);
    let named = names_a_phone(before);
    let international = run.starts_with('+') || run.starts_with("(+") || run.starts_with("00") && groups.len() > 1;
    let american = matches!(groups[..], [3, 3, 4] | [1, 3, 3, 4]);
    let national = first_digits.starts_with('0') && groups.len() > 1 && digits >= 8 && !is_date(&groups);
    let whole = (6..=15).contains(&digits) && (named || international || american || national);
    if whole {
        return Some(run.len());
    }
    // A second number follows: `+49 30 1234567 / 0171 ...`. The first up to the widest gap.
    let gap = run.find(" / ").or_else(|| run.find("  "))?;
    (named || international || national).then_some(gap)
}

fn names_a_phone(before: &str) -> bool {
    let window = before.floor_char_boundary(before.len().saturating_sub(PHONE_WORD_BYTES));
    let clause = before[window..].rfind([',', ';', '\n']).map_or(window, |end| window + end + 1);
    let mut words = before[clause..].split(|c: char| !c.is_alphanumeric());
    // Of a word that begins before the window only the end is seen.
    if before[..clause].ends_with(char::is_alphanumeric) {
        words.next();
    }
    words.any(|word| PHONE_WORDS.contains(&word.to_lowercase().as_str()))
}

/// `01.02.2024 10`, `2024-01-02 10`.
fn is_date(groups: &[usize]) -> bool {
    matches!(groups, [2, 2, 4, ..] | [4, 2, 2, ..] | [2, 2, 2])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_of_the_standards() {
        assert!(luhn(&[4, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]));
        assert!(!luhn(&[4, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2]));
        assert!(is_iban("DE89 3704 0044 0532 0130 00") && is_iban("GB82WEST12345698765432"));
        assert!(!is_iban("DE89 3704 0044 0532 0130 01") && !is_iban("DE89"));
    }
}
