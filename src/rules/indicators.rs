//! Indicators of compromise in a text: URLs, addresses, domains, e-mail addresses, CVE numbers and file hashes.
//!
//! One pass stops at the few bytes without which there is no indicator (`:`, `.`, `@`, `-`), so a text without any
//! costs little more than reading it; its time is linear in the text's length. Defanged forms are restored first.
//!
//! What cannot be told apart from the text alone: a version of four parts (`1.2.3.4`) is taken for an address, and
//! 32 hexadecimal digits for an MD5 whatever they are. An URL's host is listed among the domains or addresses too; the
//! domain of an e-mail address is not, because it is mostly one's own.

mod host;
mod refang;
mod url;

use std::net::Ipv6Addr;

use crate::record::Indicators;

/// Indicators of one sort that a record may carry. More are most likely a pasted block list, and would only make
/// the event too big for Kafka.
pub const MAX_OF_A_SORT: usize = 64;
/// Longer URLs are cut.
const MAX_URL_BYTES: usize = 2048;
const MAX_LOCAL_BYTES: usize = 64;
/// How far back the beginning of something is sought: beyond the longest host name. Without a bound a long run would be
/// walked again for each of its colons.
const MAX_RUN_BYTES: usize = 256;
/// Lengths of MD5, SHA-1, SHA-256 and SHA-512 in hexadecimal digits.
const HASH_DIGITS: [usize; 4] = [32, 40, 64, 128];

/// Finds the indicators of a text, each normalised, sorted and unique.
pub fn extract(text: &str) -> Indicators {
    Finder::new(text, None).find().unwrap_or_else(|Defanged| {
        let refanged = refang::refang(text);
        Finder::new(&refanged.text, Some(&refanged.places)).find().unwrap_or_default()
    })
}

/// The text must be restored first.
struct Defanged;

struct Finder<'t> {
    text: &'t str,
    bytes: &'t [u8],
    /// Offsets in `text` at which something was restored, once that is done; a host there is one for sure.
    restored: Option<&'t [usize]>,
    /// What lies before belongs to something that was read already.
    taken: usize,
    /// Something is defanged that was not restored.
    defanged: bool,
    found: Indicators,
}

/// Bits of `CLASSES`: bytes at which to stop, and bytes of host names.
const STOP: u8 = 1;
const HOST: u8 = 2;

static CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let is = byte as u8;
        if matches!(is, b':' | b'.' | b'@' | b'-' | b'[' | b'(' | b'{') {
            classes[byte] |= STOP;
        }
        if is.is_ascii_alphanumeric() || matches!(is, b'_' | b'-' | b'.') {
            classes[byte] |= HOST;
        }
        byte += 1;
    }
    classes
};

impl<'t> Finder<'t> {
    fn new(text: &'t str, restored: Option<&'t [usize]>) -> Self {
        Self { text, bytes: text.as_bytes(), restored, taken: 0, defanged: false, found: Indicators::default() }
    }

    fn find(mut self) -> Result<Indicators, Defanged> {
        let mut from = 0;
        while let Some(offset) = self.bytes[from..].iter().position(|byte| CLASSES[usize::from(*byte)] & STOP != 0) {
            let at = from + offset;
            // Each returns where to go on, always behind `at`.
            from = match self.bytes[at] {
                b':' => self.colon(at),
                b'.' => self.dot(at),
                b'@' => self.at_sign(at),
                b'-' => self.hyphen(at),
                _ => self.bracket(at),
            };
            if self.defanged {
                return Err(Defanged);
            }
        }
        self.hashes();
        let found = &mut self.found;
        let sorts = [&mut found.urls, &mut found.ips, &mut found.domains, &mut found.emails];
        sorts.into_iter().chain([&mut found.cves, &mut found.hashes]).for_each(|sort| sort.sort_unstable());
        Ok(self.found)
    }

    fn byte(&self, at: usize) -> u8 {
        self.bytes.get(at).copied().unwrap_or(b' ')
    }

    fn byte_before(&self, at: usize) -> u8 {
        at.checked_sub(1).map_or(b' ', |before| self.bytes[before])
    }

    /// Start of the run of bytes before `end`, not reaching into what was read already.
    fn run_start(&self, end: usize, belongs: impl Fn(u8) -> bool) -> usize {
        let earliest = self.taken.max(end.saturating_sub(MAX_RUN_BYTES)).min(end);
        let run = self.bytes[earliest..end].iter().rev().take_while(|byte| belongs(**byte)).count();
        end - run
    }

    fn run_end(&self, start: usize, belongs: impl Fn(u8) -> bool) -> usize {
        start + self.bytes[start..].iter().take_while(|byte| belongs(**byte)).count()
    }

    fn was_restored(&self, start: usize, end: usize) -> bool {
        let before = |places: &[usize], offset| places.partition_point(|place| *place < offset);
        self.restored.is_some_and(|places| before(places, start) != before(places, end))
    }

    fn bracket(&mut self, at: usize) -> usize {
        self.defanged |= self.restored.is_none() && refang::is_defanged(self.bytes, at);
        at + 1
    }

    fn colon(&mut self, at: usize) -> usize {
        let (before, next) = (self.byte_before(at), self.byte(at + 1));
        if next == b'/' {
            return if self.byte(at + 2) == b'/' { self.url(at) } else { at + 1 };
        }
        let hex_or_colon = |byte: u8| byte == b':' || byte.is_ascii_hexdigit();
        if hex_or_colon(next) && (hex_or_colon(before) || next == b':') { self.ipv6(at) } else { at + 1 }
    }

    fn url(&mut self, at: usize) -> usize {
        let authority_start = at + 3;
        let scheme_start = self.run_start(at, |byte| byte.is_ascii_alphabetic() || byte == b'*');
        let Some(scheme) = url::known_scheme(&self.text[scheme_start..at]) else { return at + 1 };
        let limit = self.bytes.len().min(authority_start + MAX_URL_BYTES);
        let rest = &self.text[authority_start..self.text.floor_char_boundary(limit)];
        let rest = url::extent(rest);
        rest.match_indices('(').for_each(|(bracket, _)| _ = self.bracket(authority_start + bracket));
        let authority_end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(authority_end);
        let host_start = authority.rfind('@').map_or(0, |sign| sign + 1);
        let (user, host_and_port) = authority.split_at(host_start);
        let host_end = match host_and_port.strip_prefix('[') {
            Some(ipv6) => ipv6.find(']').map_or(0, |end| end + 2),
            None => host_and_port.find(':').unwrap_or(host_and_port.len()),
        };
        let (host, port) = host_and_port.split_at(host_end);
        if host.is_empty() {
            return authority_start;
        }
        let host = host.to_lowercase();
        add(&mut self.found.urls, || format!("{scheme}://{user}{host}{port}{path}"));
        if host::is_ipv4(&host) {
            add(&mut self.found.ips, || host);
        } else if let Ok(address) = host.trim_matches(['[', ']']).parse::<Ipv6Addr>() {
            add(&mut self.found.ips, || address.to_string());
        } else if host::is_domain(host.trim_end_matches('.')) {
            add(&mut self.found.domains, || host.trim_end_matches('.').to_owned());
        }
        self.taken = authority_start + rest.len();
        self.taken
    }

    fn ipv6(&mut self, at: usize) -> usize {
        let groups_end = self.run_end(at, |byte| byte == b':' || byte.is_ascii_hexdigit());
        let groups = &self.bytes[at..groups_end];
        let colons = groups.iter().filter(|byte| **byte == b':').count();
        // Times end here, and so do nearly all other colons.
        if colons != 7 && !groups.windows(2).any(|pair| pair == b"::") {
            return groups_end;
        }
        let belongs = |byte: u8| byte == b':' || byte == b'.' || byte.is_ascii_hexdigit();
        let start = self.run_start(at, belongs);
        let near = &self.bytes[at..self.bytes.len().min(at + MAX_RUN_BYTES)];
        let end = at + near.iter().take_while(|byte| belongs(**byte)).count();
        let run = self.text[start..end].trim_matches('.');
        let run = if run.ends_with("::") { run } else { run.trim_end_matches(':') };
        let stands_free = !is_word(self.byte_before(start)) && !is_word(self.byte(end));
        match run.parse::<Ipv6Addr>() {
            Ok(address) if stands_free && run.bytes().any(|byte| byte.is_ascii_digit()) => {
                add(&mut self.found.ips, || address.to_string());
                self.taken = end;
                end
            }
            // Not behind a full stop, which may belong to an IPv4 address.
            _ => groups_end,
        }
    }

    fn dot(&mut self, at: usize) -> usize {
        if !self.byte_before(at).is_ascii_alphanumeric() || !self.byte(at + 1).is_ascii_alphanumeric() {
            return at + 1;
        }
        let (start, end) = (self.run_start(at, is_host_byte), self.run_end(at, is_host_byte));
        if self.byte(end) == b'@' {
            return end;
        }
        self.taken = end;
        let run = &self.text[start..end];
        let name = run.trim_matches(['.', '-', '_']);
        if name.ends_with(|c: char| c.is_ascii_digit()) {
            // `10.0.0.1-10.0.0.9` is a range.
            let parts = name.split_once('-').map_or([Some(name), None], |(first, last)| [Some(first), Some(last)]);
            if parts.into_iter().flatten().all(host::is_ipv4) {
                parts.into_iter().flatten().for_each(|part| add(&mut self.found.ips, || part.to_owned()));
            }
            return end;
        }
        let restored = self.was_restored(start, end);
        let likely = restored || host::looks_like_domain(name) && self.stands_free(start, end);
        if likely && host::is_domain(name) {
            add(&mut self.found.domains, || name.to_ascii_lowercase());
        }
        end
    }

    /// Whether a dotted name is neither part of a path, nor a call, nor part of a word beyond ASCII.
    fn stands_free(&self, start: usize, end: usize) -> bool {
        let beyond_ascii = |c: Option<char>| c.is_some_and(|c| !c.is_ascii() && c.is_alphanumeric());
        let before = self.byte_before(start);
        let in_path = before == b'\\' || before == b'/' && self.byte_before(start - 1) != b'/';
        !in_path
            && !matches!(self.byte(end), b'(' | b'\\')
            && !beyond_ascii(self.text[..start].chars().next_back())
            && !beyond_ascii(self.text[end..].chars().next())
    }

    fn at_sign(&mut self, at: usize) -> usize {
        let local_start = self.run_start(at, |byte| byte.is_ascii_alphanumeric() || b"._%+-".contains(&byte));
        let local = self.text[local_start..at].trim_start_matches(['.', '%', '+', '-']);
        let host_end = self.run_end(at + 1, is_host_byte);
        let host = self.text[at + 1..host_end].trim_end_matches(['.', '-', '_']);
        if local.is_empty() || local.len() > MAX_LOCAL_BYTES || !host::is_domain(host) {
            return at + 1;
        }
        add(&mut self.found.emails, || format!("{local}@{}", host.to_ascii_lowercase()));
        self.taken = host_end;
        host_end
    }

    /// `CVE-2024-12345`.
    fn hyphen(&mut self, at: usize) -> usize {
        let Some(start) = at.checked_sub(3).filter(|start| self.bytes[*start..at].eq_ignore_ascii_case(b"cve")) else {
            return at + 1;
        };
        let year_end = self.run_end(at + 1, |byte| byte.is_ascii_digit());
        if self.byte(year_end) != b'-' || self.byte_before(start).is_ascii_alphanumeric() {
            return at + 1;
        }
        let end = self.run_end(year_end + 1, |byte| byte.is_ascii_digit());
        let (year, number) = (&self.text[at + 1..year_end], &self.text[year_end + 1..end]);
        let plausible = ("1999".."2100").contains(&year) && year.len() == 4 && (4..=10).contains(&number.len());
        if plausible && !self.byte(end).is_ascii_alphanumeric() {
            add(&mut self.found.cves, || format!("CVE-{year}-{number}"));
        }
        end
    }

    /// A run of at least 32 hexadecimal digits covers a multiple of 32, so only those places are looked at.
    fn hashes(&mut self) {
        let shortest = HASH_DIGITS[0];
        let mut at = shortest - 1;
        while at < self.bytes.len() {
            if self.bytes[at].is_ascii_hexdigit() {
                let before = self.bytes[..at].iter().rev().take_while(|byte| byte.is_ascii_hexdigit()).count();
                let (start, end) = (at - before, self.run_end(at, |byte| byte.is_ascii_hexdigit()));
                let run = &self.text[start..end];
                let mixed = run.bytes().any(|b| b.is_ascii_digit()) && run.bytes().any(|b| b.is_ascii_alphabetic());
                let alone = !is_word(self.byte_before(start)) && !is_word(self.byte(end));
                if HASH_DIGITS.contains(&run.len()) && mixed && alone {
                    add(&mut self.found.hashes, || run.to_ascii_lowercase());
                }
                at += (end - at) / shortest * shortest;
            }
            at += shortest;
        }
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn is_host_byte(byte: u8) -> bool {
    CLASSES[usize::from(byte)] & HOST != 0
}

/// Adds what is new, as long as there is room.
fn add(sort: &mut Vec<String>, indicator: impl FnOnce() -> String) {
    if sort.len() < MAX_OF_A_SORT {
        let indicator = indicator();
        if !sort.contains(&indicator) {
            sort.push(indicator);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn list(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn urls_are_restored_and_cut_where_they_end() {
        let urls = |text: &str| extract(text).urls;
        assert_eq!(urls("see hxxps[:]//Evil[.]Example/Path?q=1)."), list(&["https://evil.example/Path?q=1"]));
        assert_eq!(urls("(https://a.org/x_(y))"), list(&["https://a.org/x_(y)"]));
        assert_eq!(
            urls("h**p://a[dot]b[.]ru:8080, ftp://files.local/x;"),
            list(&["ftp://files.local/x", "http://a.b.ru:8080"])
        );
        assert_eq!(urls("“hXXp://Bücher.example”"), list(&["http://bücher.example"]));
        assert_eq!(
            urls("http://good.com@evil.com/ http://[2001:DB8::1]:80/"),
            list(&["http://[2001:db8::1]:80/", "http://good.com@evil.com/",])
        );
        assert_eq!(urls("std://x http:// xhttp://a.com std::http"), list(&[]));
    }

    #[test]
    fn an_urls_host_is_listed_too() {
        let found = extract("hxxp://good.com@evil[.]zip/x http://10.0.0.7/ http://[::1]/ http://intranet/");
        assert_eq!((found.domains, found.ips), (list(&["evil.zip"]), list(&["10.0.0.7", "::1"])));
    }

    #[test]
    fn addresses_are_told_from_versions_and_times() {
        let ips = |text: &str| extract(text).ips;
        assert_eq!(
            ips("from 10.251.39.209:50010 to /10.0.0.1, 145.239.112[.]83."),
            list(&["10.0.0.1", "10.251.39.209", "145.239.112.83",])
        );
        assert_eq!(ips("10.0.0.1-10.0.0.9 185.203.119[.]0/24"), list(&["10.0.0.1", "10.0.0.9", "185.203.119.0"]));
        assert_eq!(ips("v1.2.3.4 1.2.3 1.2.3.4.5 256.1.1.1 01.2.3.4 1.2.3.4-rc1 2005-07-15-23.49.42.30"), list(&[]));
        assert_eq!(
            ips("fe80::1%eth0 2001:0db8:0:0:0:0:0:1 ::ffff:192.0.2.1"),
            list(&["2001:db8::1", "::ffff:192.0.2.1", "fe80::1"])
        );
        assert_eq!(ips("20:55:54 00:1a:2b:3c:4d:5e std::abs Ada::b face::bad :: 2005::07::x"), list(&[]));
        assert_eq!(ips("address:192.168.0.1"), list(&["192.168.0.1"]));
    }

    #[test]
    fn domains_are_told_from_files_and_code() {
        let domains = |text: &str| extract(text).domains;
        assert_eq!(
            domains("Contact Example.com, or evil[.]py, report[.]pdf and eu-leaks(dot)onion."),
            list(&["eu-leaks.onion", "evil.py", "example.com"])
        );
        assert_eq!(domains("update.pl.example.co.uk."), list(&["update.pl.example.co.uk"]));
        let code = "org.apache.hadoop.ipc.Client report.pdf logger.info(x) /etc/hosts.de C:\\a\\b.com java.io main.rs \
                    dfs.FSNamesystem e.g. marta.nowak done.In größe.de nova.metadata.wsgi.server user@host";
        assert_eq!(domains(code), list(&[]));
    }

    #[test]
    fn emails_are_restored() {
        let found = extract("From: <hr-support@EU-benefits[.]eu>, john.doe[at]example.com; root@localhost a@b");
        assert_eq!(found.emails, list(&["hr-support@eu-benefits.eu", "john.doe@example.com"]));
        assert_eq!(found.domains, list(&[]));
    }

    #[test]
    fn cves_and_hashes() {
        let (md5, sha1) = ("d41d8cd98f00b204e9800998ecf8427e", "DA39A3EE5E6B4B0D3255BFEF95601890AFD80709");
        let sha256 = format!("{md5}{md5}");
        let text = format!(
            "cve-2021-44228 CVE-2024-1 CVE-1998-1234 xCVE-2024-1234 MD5 {md5}, sha1={sha1} sha256:{sha256} {sha256}{sha256} \
             123e4567-e89b-12d3-a456-426614174000 x{md5} {md5}0 {}",
            "1".repeat(32)
        );
        let found = extract(&text);
        assert_eq!(found.cves, list(&["CVE-2021-44228"]));
        assert_eq!(found.hashes, list(&[md5, &sha256, &format!("{sha256}{sha256}"), &sha1.to_ascii_lowercase()]));
        assert_eq!(found.ips, list(&[]));
    }

    #[test]
    fn a_record_carries_a_bounded_number() {
        let text: String = (0..1000).map(|n| format!("10.0.{}.{} ", n / 250, n % 250)).collect();
        assert_eq!(extract(&text).ips.len(), MAX_OF_A_SORT);
    }

    fn indicator() -> impl Strategy<Value = String> {
        let host = "[a-z][a-z0-9]{0,8}(-[a-z0-9]{1,5})?\\.(com|ru|xyz)";
        prop_oneof![
            host,
            (host, "[a-z0-9/]{0,10}").prop_map(|(host, path)| format!("https://{host}/{path}")),
            ("[a-z][a-z0-9]{0,8}", host).prop_map(|(local, host)| format!("{local}@{host}")),
            any::<std::net::Ipv4Addr>().prop_map(|address| address.to_string()),
        ]
    }

    proptest! {
        #[test]
        fn defanging_changes_nothing(indicators in prop::collection::vec(indicator(), 1..5), style in 0usize..3) {
            let (dot, at, colon, scheme) = [
                ("[.]", "[@]", "[:]//", "hxxp"), ("(dot)", "(at)", "://", "hXXp"), ("{.}", "[AT]", "[://]", "h**p"),
            ][style];
            let plain = indicators.join(", ");
            let scheme_apart = plain.replace("https://", "\u{1}");
            let defanged = scheme_apart.replace('.', dot).replace('@', at).replace('\u{1}', &format!("{scheme}s{colon}"));
            let expected = extract(&plain);
            prop_assert!(!expected.is_empty(), "{}", plain);
            prop_assert_eq!(extract(&defanged), expected, "{}", defanged);
        }

        #[test]
        fn no_text_is_too_much(text in "([.:@\\-\\[\\]/]|[0-9a-f]{1,40}|http|cve|dot|at|é|[a-z ]|\\PC){0,60}") {
            let found = extract(&text);
            prop_assert!(found.urls.iter().all(|url| url.contains("://")));
            prop_assert!(found.ips.iter().all(|ip| ip.parse::<std::net::IpAddr>().is_ok()));
        }
    }
}
