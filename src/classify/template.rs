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

mod scan;

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::config::Mask;

use scan::{Hit, Scan, is_word};

/// A template's identity: equal for equal masked lines of one source.
pub fn template_id(masked: &str, source: Option<&str>) -> u64 {
    xxh3_64_with_seed(masked.as_bytes(), source.map_or(0, |source| xxh3_64(source.as_bytes())))
}

/// The id as events carry it: 16 hexadecimal digits.
pub fn template_hex(id: u64) -> String {
    let digit = |place: u32| char::from(b"0123456789abcdef"[(id >> (4 * place) & 0xf) as usize]);
    (0..16).rev().map(digit).collect()
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
        let mut scan = Scan::new(self, line);
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
            for masks in [&ALL[..], &ALL[1..]] {
                assert!(mask(masks, &line).len() <= 5 * line.len());
            }
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
