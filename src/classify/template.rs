//! What log lines of one kind have in common: a line with its numbers, addresses and ids replaced by placeholders.
//!
//! One pass by hand over the bytes, because this runs for every line. At the start of each word the longest form is
//! tried first: URL, e-mail address, UUID, IP address, hexadecimal, number. Look-ahead is bounded or remembered, so
//! the time is linear in the line's length whatever the line contains.
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
//!
//! Runs of blanks become one, whatever is masked.

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::config::Mask;

/// Words shorter than this are more often words than ids (`dead1`, `ab12`).
const MIN_HEX_DIGITS: usize = 6;

/// No textual IPv6 address is longer (RFC 4291 with an embedded IPv4 address).
const MAX_IPV6_LENGTH: usize = 45;

/// A template's identity: equal for equal masked lines of one source. `None` and the empty source differ from others
/// only by what they hash to.
pub fn template_id(masked: &str, source: Option<&str>) -> u64 {
    xxh3_64_with_seed(masked.as_bytes(), source.map_or(0, |source| xxh3_64(source.as_bytes())))
}

/// The id as events carry it: 16 hexadecimal digits.
pub fn template_hex(id: u64) -> String {
    format!("{id:016x}")
}

/// What the scanner does at a byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    /// Nothing that is masked starts here, and no word either.
    Other,
    /// Letters, and all bytes beyond ASCII.
    Letter,
    Digit,
    /// `:`, which may start an IPv6 address such as `::1`.
    Colon,
    /// `/` and `\`.
    Slash,
    Quote,
    Blank,
}

/// Replaces what varies in a line by placeholders.
#[derive(Debug, Clone)]
pub struct Masker {
    classes: [Class; 256],
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
        let mut classes = [Class::Other; 256];
        for byte in 0..=u8::MAX {
            classes[usize::from(byte)] = match byte {
                b'0'..=b'9' => Class::Digit,
                b'a'..=b'z' | b'A'..=b'Z' | 0x80.. => Class::Letter,
                b':' if on(Mask::Ip) => Class::Colon,
                b'/' | b'\\' if on(Mask::Path) => Class::Slash,
                b'"' | b'\'' if on(Mask::Quoted) => Class::Quote,
                b' ' => Class::Blank,
                _ => Class::Other,
            };
        }
        Masker {
            classes,
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
        let mut scan = Scan {
            masker: self,
            bytes,
            may_have_email: self.email && bytes.contains(&b'@'),
            may_have_url: self.url && line.contains("://"),
            no_email_before: 0,
            may_close: [true; 2],
        };
        // `line[..copied]` is dealt with, `line[copied..at]` is to be copied.
        let (mut copied, mut at) = (0, 0);
        while let Some(&byte) = bytes.get(at) {
            let hit = match self.classes[usize::from(byte)] {
                Class::Other => None,
                Class::Letter => {
                    let hit = if scan.is_word_start(at) { scan.word(at) } else { None };
                    if hit.is_none() {
                        at = scan.end_of(at + 1, |byte| self.classes[usize::from(byte)] == Class::Letter);
                        continue;
                    }
                    hit
                }
                Class::Digit => {
                    let hit = if scan.is_word_start(at) { scan.word(at) } else { None };
                    hit.or_else(|| scan.number(at))
                }
                Class::Colon => scan.colons(at),
                Class::Slash => scan.path(at),
                Class::Quote => scan.quoted(at),
                Class::Blank => scan.more_blanks(at),
            };
            let Some(Hit { mut start, end, placeholder }) = hit else {
                at += 1;
                continue;
            };
            start = start.max(copied);
            out.push_str(&line[copied..start]);
            out.push_str(placeholder);
            copied = end;
            at = end;
        }
        out.push_str(&line[copied..]);
    }
}

/// What is to be replaced.
struct Hit {
    start: usize,
    end: usize,
    placeholder: &'static str,
}

/// The state of one pass.
struct Scan<'s> {
    masker: &'s Masker,
    bytes: &'s [u8],
    may_have_email: bool,
    may_have_url: bool,
    /// No e-mail address starts before this place: it was looked for in vain.
    no_email_before: usize,
    /// Whether a `'` and a `"` may still follow.
    may_close: [bool; 2],
}

impl Scan<'_> {
    fn byte(&self, at: usize) -> u8 {
        self.bytes.get(at).copied().unwrap_or(b' ')
    }

    fn is_word(&self, at: usize) -> bool {
        matches!(self.masker.classes[usize::from(self.byte(at))], Class::Letter | Class::Digit)
    }

    fn is_word_start(&self, at: usize) -> bool {
        at == 0 || !self.is_word(at - 1)
    }

    fn end_of(&self, from: usize, belongs: impl Fn(u8) -> bool) -> usize {
        let length = self.bytes.get(from..).and_then(|rest| rest.iter().position(|&byte| !belongs(byte)));
        length.map_or(self.bytes.len(), |length| from + length)
    }

    /// What starts at the first byte of a word, except a number.
    fn word(&mut self, at: usize) -> Option<Hit> {
        let hit = |end, placeholder| Some(Hit { start: at, end, placeholder });
        if self.may_have_url
            && let Some(end) = self.url(at)
        {
            return hit(end, "<url>");
        }
        if self.may_have_email
            && let Some(end) = self.email(at)
        {
            return hit(end, "<email>");
        }
        let first = self.bytes[at];
        if self.masker.path && first.is_ascii_alphabetic() && self.byte(at + 1) == b':' && self.byte(at + 2) == b'\\' {
            return hit(self.end_of_path(at + 3), "<path>");
        }
        if !first.is_ascii_hexdigit() {
            return None;
        }
        if self.masker.hex && first == b'0' && matches!(self.byte(at + 1), b'x' | b'X') {
            let end = self.end_of(at + 2, |byte| byte.is_ascii_hexdigit());
            if end > at + 2 {
                return hit(end, "<hex>");
            }
        }
        let end = self.end_of(at, |byte| byte.is_ascii_hexdigit());
        match self.byte(end) {
            b'-' if self.masker.uuid && end - at == 8 => {
                if let Some(end) = self.uuid(at) {
                    return hit(end, "<uuid>");
                }
            }
            b':' if end - at <= 4 => return self.colons(at),
            b'.' if self.masker.ip && end - at <= 3 => {
                if let Some(end) = self.ipv4(at) {
                    return hit(end, "<ip>");
                }
            }
            _ => {}
        }
        let word = &self.bytes[at..end];
        let is_hex = word.len() >= MIN_HEX_DIGITS
            && !self.is_word(end)
            && word.iter().any(u8::is_ascii_digit)
            && !word.iter().all(u8::is_ascii_digit);
        if self.masker.hex && is_hex { hit(end, "<hex>") } else { None }
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
        let has_sign = at > 0 && self.bytes[at - 1] == b'-' && self.is_word_start(at - 1);
        Some(Hit { start: at - usize::from(has_sign), end, placeholder: "<num>" })
    }

    fn uuid(&self, at: usize) -> Option<usize> {
        let text = self.bytes.get(at..at + 36)?;
        let fits = text.iter().enumerate().all(|(place, byte)| match place {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        });
        (fits && !self.is_word(at + 36)).then_some(at + 36)
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
        let goes_on = self.is_word(end) || (self.byte(end) == b'.' && self.byte(end + 1).is_ascii_digit());
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
        if text.len() > MAX_IPV6_LENGTH || !text.iter().any(u8::is_ascii_digit) || !self.is_word_start(at) {
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
        if is_mac && self.masker.hex && !self.is_word(end) {
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
        (!self.is_word(end)).then_some(Hit { start: at, end, placeholder: "<ip>" })
    }

    fn email(&mut self, at: usize) -> Option<usize> {
        if at < self.no_email_before {
            return None;
        }
        let is_local = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'%' | b'+' | b'-');
        let is_domain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
        let local_end = self.end_of(at, is_local);
        self.no_email_before = local_end;
        if local_end == at || self.byte(local_end) != b'@' {
            return None;
        }
        let domain_end = self.end_of(local_end + 1, is_domain);
        let domain = without_punctuation(&self.bytes[local_end + 1..domain_end]);
        let is_name = domain.first().is_some_and(u8::is_ascii_alphanumeric) && domain.contains(&b'.');
        is_name.then_some(local_end + 1 + domain.len())
    }

    fn url(&self, at: usize) -> Option<usize> {
        let colon = self.end_of(at, |byte| byte.is_ascii_alphanumeric());
        if !self.bytes[at].is_ascii_alphabetic() || !self.bytes[colon..].starts_with(b"://") {
            return None;
        }
        let start = colon + 3;
        let mut end = start;
        while let Some(&byte) = self.bytes.get(end) {
            let defanged = byte == b']' && matches!(self.bytes[end - 2..end], [b'[', b'.' | b':']);
            if byte.is_ascii_whitespace() || b"\"'`<>)|".contains(&byte) || (byte == b']' && !defanged) {
                break;
            }
            end += 1;
        }
        let body = without_punctuation(&self.bytes[start..end]);
        (!body.is_empty()).then_some(start + body.len())
    }

    /// A path that starts with `/` or `\\`; `word` finds drives.
    fn path(&self, at: usize) -> Option<Hit> {
        const BEFORE: &[u8] = b" \t\"'=([{:,;|";
        let first = match (self.bytes[at], self.byte(at + 1)) {
            (b'/', _) => at + 1,
            (_, b'\\') => at + 2,
            _ => return None,
        };
        let starts = at == 0 || BEFORE.contains(&self.bytes[at - 1]);
        let names_something = self.is_word(first) || matches!(self.byte(first), b'_' | b'.' | b'~');
        let end = if starts && names_something { self.end_of_path(first) } else { first };
        (end > first).then_some(Hit { start: at, end, placeholder: "<path>" })
    }

    fn end_of_path(&self, from: usize) -> usize {
        let end = self.end_of(from, |byte| !byte.is_ascii_whitespace() && !b"\"'`<>()[]{}|,;".contains(&byte));
        from + without_punctuation(&self.bytes[from..end]).len()
    }

    /// The blanks that pad a column: `Jan  4` and `Jan 24` are alike.
    fn more_blanks(&self, at: usize) -> Option<Hit> {
        if self.byte(at + 1) != b' ' || at + 1 == self.bytes.len() {
            return None;
        }
        Some(Hit { start: at + 1, end: self.end_of(at + 1, |byte| byte == b' '), placeholder: "" })
    }

    /// A quoted text. An apostrophe inside a word quotes nothing.
    fn quoted(&mut self, at: usize) -> Option<Hit> {
        let quote = self.bytes[at];
        let is_double = quote == b'"';
        let opens = is_double || self.is_word_start(at);
        if !opens || !self.may_close[usize::from(is_double)] {
            return None;
        }
        let Some(length) = self.bytes[at + 1..].iter().position(|&byte| byte == quote) else {
            self.may_close[usize::from(is_double)] = false;
            return None;
        };
        let end = at + 1 + length + 1;
        let placeholder = if is_double { "\"<str>\"" } else { "'<str>'" };
        let closes = is_double || !self.is_word(end);
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
            ("GET /api/v1/users?id=7 HTTP/1.1", "GET <path> HTTP/<num>"),
            (r"open C:\Windows\x.dll, \\nas\a failed; n/a", "open <path>, <path> failed; n/a"),
            (r#"tag="View Lock" 'x' don't 'tis"#, r#"tag="<str>" '<str>' don't 'tis"#),
            ("", ""),
            ("Jan  4   x ", "Jan <num> x "),
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
