//! Recognises what is to be masked at the places where `Masker` stops.
//!
//! Every method is given such a place and answers with the range to be replaced, which never begins before what is
//! dealt with already.

use super::Masker;

/// Words shorter than this are more often words than ids (`dead1`, `ab12`).
const MIN_HEX_DIGITS: usize = 6;

/// No textual IPv6 address is longer (RFC 4291 with an embedded IPv4 address).
const MAX_IPV6_LENGTH: usize = 45;

/// What is to be replaced.
#[derive(Clone, Copy)]
pub(super) struct Hit {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) placeholder: &'static str,
}

/// The state of one pass.
pub(super) struct Scan<'s> {
    masker: &'s Masker,
    bytes: &'s [u8],
    /// What lies before this place is dealt with; nothing looks back beyond it.
    pub(super) copied: usize,
    /// Whether a `'` and a `"` may still follow.
    may_close: [bool; 2],
}

pub(super) fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || !byte.is_ascii()
}

impl<'s> Scan<'s> {
    pub(super) fn new(masker: &'s Masker, line: &'s str) -> Self {
        Scan { masker, bytes: line.as_bytes(), copied: 0, may_close: [true; 2] }
    }

    fn byte(&self, at: usize) -> u8 {
        self.bytes.get(at).copied().unwrap_or(b' ')
    }

    /// Whether a word could begin here: what is before belongs to none.
    fn is_boundary(&self, at: usize) -> bool {
        at == 0 || !is_word(self.bytes[at - 1])
    }

    pub(super) fn end_of(&self, from: usize, belongs: impl Fn(u8) -> bool) -> usize {
        let length = self.bytes.get(from..).and_then(|rest| rest.iter().position(|&byte| !belongs(byte)));
        length.map_or(self.bytes.len(), |length| from + length)
    }

    /// The first of the bytes before `at`, not yet dealt with, that all belong.
    fn start_of(&self, at: usize, belongs: impl Fn(u8) -> bool) -> usize {
        at - self.bytes[self.copied..at].iter().rev().take_while(|&&byte| belongs(byte)).count()
    }

    /// The next digit or colon: the bytes 0x30 to 0x3a, sought for in eight bytes at a time.
    pub(super) fn next_figure(&self, from: usize) -> usize {
        const ONES: u64 = u64::from_le_bytes([1; 8]);
        let mut at = from;
        while let Some(eight) = self.bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
            // A byte below 11 borrows when 11 is taken from it, so its top bit is set and was not before. Bytes behind
            // it may be marked because of the borrow, but the first mark is right.
            let shifted = u64::from_le_bytes(*eight) ^ (ONES * 0x30);
            let marks = shifted.wrapping_sub(ONES * 11) & !shifted & (ONES * 0x80);
            if marks != 0 {
                return at + marks.trailing_zeros() as usize / 8;
            }
            at += 8;
        }
        self.end_of(at, |byte| !matches!(byte, b'0'..=b':'))
    }

    /// The id whose first digit this is, else the number.
    pub(super) fn digit(&self, at: usize) -> Option<Hit> {
        let start = self.start_of(at, is_word);
        let id = if self.is_boundary(start) { self.id(start) } else { None };
        id.or_else(|| self.number(at))
    }

    /// The id to which the word at `start` belongs.
    fn id(&self, start: usize) -> Option<Hit> {
        // Groups without a digit may come before.
        match self.bytes[self.copied..start].last() {
            Some(b'-') if self.masker.uuid => {
                let earlier = [9, 14, 19, 24].into_iter().filter_map(|back| start.checked_sub(back));
                if let Some(hit) = earlier.filter(|&first| first >= self.copied).find_map(|first| self.uuid(first)) {
                    return Some(hit);
                }
            }
            Some(b':') => {
                let nearest = self.copied.max(start.saturating_sub(MAX_IPV6_LENGTH));
                let before = self.bytes[nearest..start].iter().rev();
                let groups = before.take_while(|byte| byte.is_ascii_hexdigit() || **byte == b':').count();
                if groups > 1
                    && let Some(hit) = self.colons(start - groups)
                {
                    return Some(hit);
                }
            }
            _ => {}
        }
        if !self.bytes[start].is_ascii_hexdigit() {
            return None;
        }
        let end = self.end_of(start, |byte| byte.is_ascii_hexdigit());
        let hit = match self.byte(end) {
            b'-' if self.masker.uuid && end - start == 8 => self.uuid(start),
            b':' if end - start <= 4 => self.colons(start),
            b'.' if self.masker.ip && end - start <= 3 => {
                self.ipv4(start).map(|end| Hit { start, end, placeholder: "<ip>" })
            }
            _ => None,
        };
        if hit.is_some() || !self.masker.hex {
            return hit;
        }
        if self.bytes[start] == b'0' && matches!(self.byte(start + 1), b'x' | b'X') {
            let end = self.end_of(start + 2, |byte| byte.is_ascii_hexdigit());
            return (end > start + 2).then_some(Hit { start, end, placeholder: "<hex>" });
        }
        let word = &self.bytes[start..end];
        let is_hex = word.len() >= MIN_HEX_DIGITS && !is_word(self.byte(end)) && !word.iter().all(u8::is_ascii_digit);
        is_hex.then_some(Hit { start, end, placeholder: "<hex>" })
    }

    /// Digits with what joins them to one number. A minus belongs to it when it does not join two words.
    fn number(&self, at: usize) -> Option<Hit> {
        if !self.masker.number {
            return None;
        }
        let mut end = self.end_of(at, |byte| byte.is_ascii_digit());
        while matches!(self.byte(end), b'.' | b',') && self.byte(end + 1).is_ascii_digit() {
            end = self.end_of(end + 1, |byte| byte.is_ascii_digit());
        }
        // `s3://...`: the URL is found at its colon.
        if self.byte(end) == b':' && self.url(end).is_some() {
            return None;
        }
        let has_sign = at > self.copied && self.bytes[at - 1] == b'-' && self.is_boundary(at - 1);
        Some(Hit { start: at - usize::from(has_sign), end, placeholder: "<num>" })
    }

    fn uuid(&self, start: usize) -> Option<Hit> {
        let text = self.bytes.get(start..start + 36)?;
        let dashes = [8, 13, 18, 23].into_iter().all(|place| text[place] == b'-');
        let fits = dashes && text.iter().filter(|byte| byte.is_ascii_hexdigit()).count() == 32;
        let is_whole = self.is_boundary(start) && !is_word(self.byte(start + 36));
        (fits && is_whole).then_some(Hit { start, end: start + 36, placeholder: "<uuid>" })
    }

    fn ipv4(&self, at: usize) -> Option<usize> {
        let mut end = at;
        for octet in 0..4 {
            if octet > 0 {
                if self.byte(end) != b'.' {
                    return None;
                }
                end += 1;
            }
            let start = end;
            let mut value = 0_u32;
            while self.byte(end).is_ascii_digit() && end - start < 3 {
                value = value * 10 + u32::from(self.byte(end) - b'0');
                end += 1;
            }
            if end == start || value > 255 {
                return None;
            }
        }
        let goes_on = is_word(self.byte(end)) || (self.byte(end) == b'.' && self.byte(end + 1).is_ascii_digit());
        (!goes_on).then_some(end)
    }

    /// IPv6 and MAC addresses: groups of hexadecimal digits with colons between.
    fn colons(&self, at: usize) -> Option<Hit> {
        let longest = &self.bytes[at..self.bytes.len().min(at + MAX_IPV6_LENGTH + 2)];
        let length =
            longest.iter().position(|byte| !byte.is_ascii_hexdigit() && *byte != b':').unwrap_or(longest.len());
        let mut text = &longest[..length];
        if text.ends_with(b":") && !text.ends_with(b"::") {
            text = &text[..text.len() - 1];
        }
        if text.len() > MAX_IPV6_LENGTH || !text.iter().any(u8::is_ascii_digit) || !self.is_boundary(at) {
            return None;
        }
        let (mut groups, mut longest_group, mut shortest_group, mut gaps) = (0, 0, usize::MAX, 0);
        for group in text.split(|&byte| byte == b':') {
            groups += 1;
            longest_group = longest_group.max(group.len());
            shortest_group = shortest_group.min(group.len());
        }
        for pair in text.windows(2) {
            gaps += usize::from(pair == b"::");
        }
        let mut end = at + text.len();
        let is_mac = groups == 6 && longest_group == 2 && shortest_group == 2;
        let is_full = groups == 8 && gaps == 0 && shortest_group > 0;
        let is_short = gaps == 1 && (3..=9).contains(&groups);
        if is_mac && self.masker.hex && !is_word(self.byte(end)) {
            return Some(Hit { start: at, end, placeholder: "<hex>" });
        }
        if !self.masker.ip || longest_group > 4 || !(is_full || is_short) {
            return None;
        }
        // `::ffff:192.0.2.1`: the last group is the first octet.
        if self.byte(end) == b'.' {
            let last = text.iter().rposition(|&byte| byte == b':').map_or(at, |colon| at + colon + 1);
            end = self.ipv4(last)?;
        }
        (!is_word(self.byte(end))).then_some(Hit { start: at, end, placeholder: "<ip>" })
    }

    /// The next e-mail address that is not dealt with.
    pub(super) fn next_email(&self) -> Option<Hit> {
        if !self.masker.email {
            return None;
        }
        let is_local = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'%' | b'+' | b'-');
        let is_domain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
        let mut from = self.copied;
        loop {
            let sign = from + self.bytes[from..].iter().position(|&byte| byte == b'@')?;
            let start = self.start_of(sign, is_local);
            let domain_end = self.end_of(sign + 1, is_domain);
            let domain = without_punctuation(&self.bytes[sign + 1..domain_end]);
            let is_name = domain.first().is_some_and(u8::is_ascii_alphanumeric) && domain.contains(&b'.');
            if start < sign && is_name {
                return Some(Hit { start, end: sign + 1 + domain.len(), placeholder: "<email>" });
            }
            from = sign + 1;
        }
    }

    /// A URL, found at the colon behind its scheme.
    pub(super) fn url(&self, colon: usize) -> Option<Hit> {
        if !self.masker.url || !self.bytes[colon..].starts_with(b"://") {
            return None;
        }
        let scheme = self.start_of(colon, |byte| byte.is_ascii_alphanumeric());
        let body_start = colon + 3;
        let mut end = body_start;
        while let Some(&byte) = self.bytes.get(end) {
            let defanged = byte == b']' && matches!(self.bytes[end - 2..end], [b'[', b'.' | b':']);
            if byte.is_ascii_whitespace() || b"\"'`<>)|".contains(&byte) || (byte == b']' && !defanged) {
                break;
            }
            end += 1;
        }
        let body = without_punctuation(&self.bytes[body_start..end]);
        let is_url = scheme < colon && !body.is_empty();
        is_url.then_some(Hit { start: scheme, end: body_start + body.len(), placeholder: "<url>" })
    }

    /// A path with a drive, found at the colon behind its letter.
    pub(super) fn drive(&self, colon: usize) -> Option<Hit> {
        let start = self.start_of(colon, is_word);
        let is_drive = colon - start == 1 && self.is_boundary(start) && self.bytes[start].is_ascii_alphabetic();
        if !self.masker.path || !is_drive || self.byte(colon + 1) != b'\\' {
            return None;
        }
        Some(Hit { start, end: self.end_of_path(colon + 2), placeholder: "<path>" })
    }

    /// A path that starts with `/` or `\\`; see `drive` for others.
    pub(super) fn path(&self, at: usize) -> Option<Hit> {
        const BEFORE: &[u8] = b" \t\"'=([{:,;|";
        let first = match (self.bytes[at], self.byte(at + 1)) {
            (b'/', _) => at + 1,
            (_, b'\\') => at + 2,
            _ => return None,
        };
        let starts = at == 0 || BEFORE.contains(&self.bytes[at - 1]);
        let names_something = is_word(self.byte(first)) || matches!(self.byte(first), b'_' | b'.' | b'~');
        let end = if starts && names_something { self.end_of_path(first) } else { first };
        (end > first).then_some(Hit { start: at, end, placeholder: "<path>" })
    }

    fn end_of_path(&self, from: usize) -> usize {
        let end = self.end_of(from, |byte| !byte.is_ascii_whitespace() && !b"\"'`<>()[]{}|,;".contains(&byte));
        from + without_punctuation(&self.bytes[from..end]).len()
    }

    /// A quoted text. An apostrophe inside a word quotes nothing.
    pub(super) fn quoted(&mut self, at: usize) -> Option<Hit> {
        let quote = self.bytes[at];
        let is_double = quote == b'"';
        let opens = is_double || self.is_boundary(at);
        if !opens || !self.may_close[usize::from(is_double)] {
            return None;
        }
        let Some(length) = self.bytes[at + 1..].iter().position(|&byte| byte == quote) else {
            self.may_close[usize::from(is_double)] = false;
            return None;
        };
        let end = at + 1 + length + 1;
        let placeholder = if is_double { "\"<str>\"" } else { "'<str>'" };
        let closes = is_double || !is_word(self.byte(end));
        (length > 0 && closes).then_some(Hit { start: at, end, placeholder })
    }
}

/// Without the punctuation that ends a sentence rather than an address.
fn without_punctuation(text: &[u8]) -> &[u8] {
    let end = text.iter().rposition(|byte| !b".,:;!?".contains(byte)).map_or(0, |last| last + 1);
    &text[..end]
}
