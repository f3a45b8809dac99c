//! What log lines of one kind have in common: a line with its numbers, addresses and ids replaced by placeholders.
//!
//! One pass by hand over the bytes, because this runs for every line. Nearly all that varies has a digit in it, so the
//! scan stops at digits alone (and at what starts a URL, a path or a quote, where these are masked), looks back to
//! where the word began, and tries the longest form first: UUID, IP address, hexadecimal, number. Looking back and
//! ahead is bounded or done once for each word, so the time is linear in the line's length whatever it contains.
//!
//! | mask | replaced | by |
//! |---|---|---|
//! | number | digits anywhere, with sign, decimals, thousands and version dots: `-12`, `1,204.5`, the 7 in `node7` | `<num>` |
//! | hex | `0x7f3c`, MAC addresses, words of six or more hexadecimal digits of which one is a figure and one a letter | `<hex>` |
//! | ip | IPv4 and IPv6 addresses | `<ip>` |
//! | uuid | 8-4-4-4-12 hexadecimal digits | `<uuid>` |
//! | path | `/usr/bin/env`, `C:\Windows`, from a blank, quote or opening bracket on | `<path>` |
//! | email | `name@host.domain` | `<email>` |
//! | url | `scheme://...`, defanged ones too | `<url>` |
//! | quoted | what stands between `"` or `'` | `<str>` |

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::config::Mask;

/// Words shorter than this are more often words than ids (`dead1`, `ab12`).
const MIN_HEX_DIGITS: usize = 6;

/// No textual IPv6 address is longer (RFC 4291 with an embedded IPv4 address).
const MAX_IPV6_LENGTH: usize = 45;

/// A template's identity: equal for equal masked lines of one source.
pub fn template_id(masked: &str, source: Option<&str>) -> u64 {
    xxh3_64_with_seed(masked.as_bytes(), source.map_or(0, |source| xxh3_64(source.as_bytes())))
}

/// The id as events carry it: 16 hexadecimal digits.
pub fn template_hex(id: u64) -> String {
    format!("{id:016x}")
}

/// Replaces what varies in a line by placeholders.
#[derive(Debug, Clone)]
pub struct Masker {
    /// The bytes at which something to be masked is recognised, when there are more than figures and colons.
    other_stops: Option<Box<[bool; 256]>>,
    number: bool,
    hex: bool,
    ip: bool,
    uuid: bool,
    path: bool,
    email: bool,
    url: bool,
}

impl Masker {
    pub fn new(masks: &[Mask]) -> Self {
        let on = |mask| masks.contains(&mask);
        let mut stops = [false; 256];
        for byte in b'0'..=b':' {
            stops[usize::from(byte)] = true;
        }
        for byte in [b'/', b'\\'] {
            stops[usize::from(byte)] = on(Mask::Path);
        }
        for byte in [b'"', b'\''] {
            stops[usize::from(byte)] = on(Mask::Quoted);
        }
        Masker {
            other_stops: (on(Mask::Path) || on(Mask::Quoted)).then(|| Box::new(stops)),
            number: on(Mask::Number),
            hex: on(Mask::Hex),
            ip: on(Mask::Ip),
            uuid: on(Mask::Uuid),
            path: on(Mask::Path),
            email: on(Mask::Email),
            url: on(Mask::Url),
        }
    }

    /// Writes the masked line into `out`, whose former content is dropped. The result has at most five times the
    /// line's length.
    pub fn mask_into(&self, line: &str, out: &mut String) {
        out.clear();
        out.reserve(line.len() + line.len() / 4);
        let bytes = line.as_bytes();
        let mut scan = Scan { masker: self, bytes, copied: 0, may_close: [true; 2] };
        let mut email = scan.next_email();
        let mut at = 0;
        loop {
            let stop = match &self.other_stops {
                None => scan.next_figure(at),
                Some(stops) => scan.end_of(at, |byte| !stops[usize::from(byte)]),
            };
            let hit = match &email {
                Some(address) if address.start <= stop => Some(*address),
                _ => match bytes.get(stop) {
                    None => break,
                    Some(b'0'..=b'9') => scan.digit(stop),
                    Some(b':') => scan.url(stop).or_else(|| scan.drive(stop)),
                    Some(b'/' | b'\\') => scan.path(stop),
                    Some(_) => scan.quoted(stop),
                },
            };
            let Some(Hit { start, end, placeholder }) = hit else {
                at = if bytes[stop].is_ascii_digit() { scan.end_of(stop, is_word) } else { stop + 1 };
                continue;
            };
            out.push_str(&line[scan.copied..start]);
            out.push_str(placeholder);
            scan.copied = end;
            at = end;
            if email.is_some_and(|address| address.start < end) {
                email = scan.next_email();
            }
        }
        out.push_str(&line[scan.copied..]);
    }
}

/// What is to be replaced.
#[derive(Clone, Copy)]
struct Hit {
    start: usize,
    end: usize,
    placeholder: &'static str,
}

/// The state of one pass.
struct Scan<'s> {
    masker: &'s Masker,
    bytes: &'s [u8],
    /// What lies before this place is dealt with; nothing looks back beyond it.
    copied: usize,
    /// Whether a `'` and a `"` may still follow.
    may_close: [bool; 2],
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || !byte.is_ascii()
}

impl Scan<'_> {
    fn byte(&self, at: usize) -> u8 {
        self.bytes.get(at).copied().unwrap_or(b' ')
    }

    /// Whether a word could begin here: what is before belongs to none.
    fn is_boundary(&self, at: usize) -> bool {
        at == 0 || !is_word(self.bytes[at - 1])
    }

    fn end_of(&self, from: usize, belongs: impl Fn(u8) -> bool) -> usize {
        let length = self.bytes.get(from..).and_then(|rest| rest.iter().position(|&byte| !belongs(byte)));
        length.map_or(self.bytes.len(), |length| from + length)
    }

    /// The first of the bytes before `at`, not yet dealt with, that all belong.
    fn start_of(&self, at: usize, belongs: impl Fn(u8) -> bool) -> usize {
        at - self.bytes[self.copied..at].iter().rev().take_while(|&&byte| belongs(byte)).count()
    }

    /// The next digit or colon: the bytes 0x30 to 0x3a, sought for in eight bytes at a time.
    fn next_figure(&self, from: usize) -> usize {
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
    fn digit(&self, at: usize) -> Option<Hit> {
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
                let first = self.start_of(start, |byte| byte.is_ascii_hexdigit() || byte == b':');
                if (2..=MAX_IPV6_LENGTH).contains(&(start - first))
                    && let Some(hit) = self.colons(first)
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
    fn next_email(&self) -> Option<Hit> {
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
    fn url(&self, colon: usize) -> Option<Hit> {
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
    fn drive(&self, colon: usize) -> Option<Hit> {
        let start = self.start_of(colon, is_word);
        let is_drive = colon - start == 1 && self.is_boundary(start) && self.bytes[start].is_ascii_alphabetic();
        if !self.masker.path || !is_drive || self.byte(colon + 1) != b'\\' {
            return None;
        }
        Some(Hit { start, end: self.end_of_path(colon + 2), placeholder: "<path>" })
    }

    /// A path that starts with `/` or `\\`; see `drive` for others.
    fn path(&self, at: usize) -> Option<Hit> {
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
    fn quoted(&mut self, at: usize) -> Option<Hit> {
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

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::path::PathBuf;

    use proptest::prelude::*;

    use super::*;

    const ALL: [Mask; 8] =
        [Mask::Number, Mask::Hex, Mask::Ip, Mask::Uuid, Mask::Path, Mask::Email, Mask::Url, Mask::Quoted];

    /// The masks of config/default.toml.
    const DEFAULT: [Mask; 6] = [Mask::Number, Mask::Hex, Mask::Ip, Mask::Uuid, Mask::Email, Mask::Url];

    fn mask(masks: &[Mask], line: &str) -> String {
        let mut out = "left over".to_owned();
        Masker::new(masks).mask_into(line, &mut out);
        out
    }

    #[test]
    fn each_form_by_its_placeholder() {
        for (line, expected) in [
            ("Server 24 restarted after 1,204.5 s", "Server <num> restarted after <num> s"),
            ("User4821 x=-3 2025-01-24 09:07:54", "User<num> x=<num> <num>-<num>-<num> <num>:<num>:<num>"),
            ("blk_-6952295868487656571 blk_38865", "blk_<num> blk_<num>"),
            ("at 0x7fed806eb5d, token a64f992 is 12345678", "at <hex>, token <hex> is <num>"),
            ("facade decade cafe12 beef", "facade decade <hex> beef"),
            ("from 10.11.21.128,10.11.10.1:50010 ok", "from <ip>,<ip>:<num> ok"),
            ("10.11.21.128.7 300.1.1.1 v1.2.3.4", "<num> <num> v<num>"),
            ("fe80::1%eth0 [2001:db8::7]:443 ::1 a::b", "<ip>%eth<num> [<ip>]:<num> <ip> a::b"),
            ("2001:db8:0:1:2:3:4:5 ::ffff:192.0.2.1: x", "<ip> <ip>: x"),
            ("00:1a:2b:3c:4d:5e up", "<hex> up"),
            ("[req-52c0125b-347b-4b3a-88f4-4d87d4f024b3 x]", "[req-<uuid> x]"),
            ("mail a.b-c+7@mail.host.eu, not@host", "mail <email>, not@host"),
            ("see https://a.eu/b?c=1#d. and hxxps://x[.]eu/7]", "see <url>. and <url>]"),
            ("get s3://bucket/key 7://x //y a:// b", "get <url> <url> //y a:// b"),
            ("GET /api/v1/users?id=7 HTTP/1.1", "GET <path> HTTP/<num>"),
            (r"open C:\Windows\x.dll, \\nas\a failed; n/a", "open <path>, <path> failed; n/a"),
            (r#"tag="View Lock" 'x' don't 'tis"#, r#"tag="<str>" '<str>' don't 'tis"#),
            ("", ""),
            ("größe 5µs 😀7", "größe <num>µs 😀<num>"),
        ] {
            assert_eq!(mask(&ALL, line), expected, "{line}");
        }
    }

    #[test]
    fn a_mask_that_is_off_leaves_its_form_alone() {
        let line = r#"7 0xff 10.0.0.1 52c0125b-347b-4b3a-88f4-4d87d4f024b3 /a/b a@b.eu http://x.eu "q""#;
        assert_eq!(mask(&[], line), line);
        assert_eq!(mask(&[Mask::Number], "a/5 10.0.0.1 0xff"), "a/<num> <num> <num>xff");
        assert_eq!(mask(&[Mask::Ip], "5 10.0.0.1"), "5 <ip>");
    }

    #[test]
    fn ids_tell_templates_and_sources_apart() {
        let id = template_id("User <num> logged in", Some("ModernCRM"));
        assert_eq!(id, template_id("User <num> logged in", Some("ModernCRM")));
        assert_ne!(id, template_id("User <num> logged out", Some("ModernCRM")));
        assert_ne!(id, template_id("User <num> logged in", Some("LegacyCRM")));
        assert_ne!(id, template_id("User <num> logged in", None));
        assert_eq!(template_hex(0xabc), "0000000000000abc");
    }

    /// Long runs of what makes a scanner look ahead would take minutes if it looked twice.
    #[test]
    fn repetitions_are_scanned_once() {
        for part in ["a.", "1:", "a@", "a@a-", "'a", "\"", "::", "/a", "1.", "-", "a://", "0x", "\\\\", "abcdef1-"] {
            let line = part.repeat(200_000);
            let masked = mask(&ALL, &line);
            assert!(masked.len() <= 5 * line.len());
        }
    }

    fn lines() -> impl Strategy<Value = String> {
        let fragment = prop_oneof![
            "\\PC{0,8}",
            "[0-9a-f:.@/-]{1,12}",
            proptest::sample::select(vec![
                "10.0.0.1",
                "::1",
                "2001:db8::",
                "52c0125b-347b-4b3a-88f4-4d87d4f024b3",
                "a@b.eu",
                "http://",
                "[.]",
                "]",
                "\"",
                "'",
                "C:\\",
                "/usr/",
                "0x",
                "-",
                "user",
                " ",
                "=",
                "é",
                "<num>",
                "deadbeef1",
            ])
            .prop_map(str::to_owned),
        ];
        proptest::collection::vec(fragment, 0..16).prop_map(|fragments| fragments.concat())
    }

    proptest! {
        #[test]
        fn any_line_is_masked_within_bounds(
            line in lines(),
            masks in proptest::sample::subsequence(ALL.to_vec(), 0..=ALL.len()),
        ) {
            let masked = mask(&masks, &line);
            prop_assert!(masked.len() <= 5 * line.len().max(1));
            prop_assert_eq!(&mask(&masks, &line), &masked);
            if masks.contains(&Mask::Number) {
                prop_assert!(!masked.bytes().any(|byte| byte.is_ascii_digit()), "{masked:?}");
            }
        }

        #[test]
        fn lines_that_differ_in_a_number_have_one_template(
            before in "[a-zA-Z ]{0,20}",
            after in "( [a-zA-Z ]{0,20})?",
            one in any::<u32>(),
            other in any::<u32>(),
        ) {
            let line = |number| mask(&DEFAULT, &format!("{before} {number}{after}"));
            prop_assert_eq!(line(one), line(other));
        }
    }

    /// How well the default masks alone group the lines of loghub, measured against its true templates: a line counts
    /// as grouped right when its group has exactly the lines of its event (Zhu et al., ICSE-SEIP 2019).
    #[test]
    #[expect(clippy::print_stderr, reason = "its figures are what it is run for")]
    fn grouping_on_loghub() {
        let Some(folder) = std::env::var_os("TRIAGED_DATA").map(PathBuf::from) else {
            eprintln!("skipped: TRIAGED_DATA names no folder with the corpora");
            return;
        };
        let mut sum = 0.0;
        let systems =
            ["Android", "Apache", "BGL", "HDFS", "Hadoop", "HealthApp", "Linux", "OpenSSH", "Spark", "Windows"];
        for system in systems {
            let path = folder.join(format!("loghub/{system}/{system}_2k.log_structured.csv"));
            let mut rows = csv::Reader::from_path(&path).expect("the corpus can be read");
            let headers = rows.headers().expect("the corpus has a header").clone();
            let column = |name| headers.iter().position(|header| header == name).expect("the corpus has the column");
            let (content, event) = (column("Content"), column("EventId"));
            let (mut by_template, mut by_event): (HashMap<_, Vec<_>>, HashMap<_, Vec<_>>) = Default::default();
            let mut lines = 0;
            for row in rows.records() {
                let row = row.expect("the corpus is CSV");
                by_template.entry(mask(&DEFAULT, &row[content])).or_default().push((lines, row[event].to_owned()));
                by_event.entry(row[event].to_owned()).or_default().push(lines);
                lines += 1;
            }
            let right: usize = by_template
                .values()
                .filter(|group| by_event[&group[0].1].iter().eq(group.iter().map(|(line, _)| line)))
                .map(Vec::len)
                .sum();
            let mixed: usize = by_template
                .values()
                .filter(|group| group.iter().any(|(_, event)| *event != group[0].1))
                .map(Vec::len)
                .sum();
            let accuracy = right as f64 / f64::from(lines);
            eprintln!(
                "{system:10} accuracy {accuracy:.3}, {} templates for {} events, repeated lines {:.3}, lines in mixed groups {:.3}",
                by_template.len(),
                by_event.len(),
                1.0 - by_template.len() as f64 / f64::from(lines),
                mixed as f64 / f64::from(lines),
            );
            sum += accuracy;
        }
        let mean = sum / systems.len() as f64;
        eprintln!("mean accuracy {mean:.3}");
        assert!(mean > 0.3, "the masks group worse than they did");
    }
}
