//! Host names and IPv4 addresses: which dotted words are one.

/// Longest host name, RFC 1035 section 2.3.4.
const MAX_NAME_BYTES: usize = 253;
const MAX_LABEL_BYTES: usize = 63;

/// Of `TOP_LEVEL`, in bytes.
const LONGEST_TOP_LEVEL: usize = 7;

/// Country codes, and the generic domains that are common or much abused; sorted. The full list of IANA holds more
/// than a thousand words such as `data`, `support` or `windows`, which in logs and tickets are nearly always something
/// else, and `id`, a field name far more often than Indonesia. A name under one of those counts when it is defanged, or
/// part of a URL or an e-mail address.
#[rustfmt::skip]
const TOP_LEVEL: [&str; 290] = [
    "ac", "ad", "ae", "aero", "af", "ag", "ai", "al", "am", "ao", "app", "aq", "ar", "as", "asia", "at", "au", "aw",
    "ax", "az", "ba", "bb", "bd", "be", "bf", "bg", "bh", "bi", "bid", "biz", "bj", "bm", "bn", "bo", "br", "bs",
    "bt", "buzz", "bw", "by", "bz", "ca", "cat", "cc", "cd", "cf", "cfd", "cg", "ch", "ci", "ck", "cl", "click",
    "club", "cm", "cn", "co", "com", "coop", "cr", "cu", "cv", "cw", "cx", "cy", "cyou", "cz", "de", "dev", "dj",
    "dk", "dm", "do", "dz", "ec", "edu", "ee", "eg", "er", "es", "et", "eu", "fi", "fj", "fk", "fm", "fo", "fr",
    "fun", "ga", "gb", "gd", "gdn", "ge", "gf", "gg", "gh", "gi", "gl", "gm", "gn", "gov", "gp", "gq", "gr", "gs",
    "gt", "gu", "gw", "gy", "hk", "hm", "hn", "hr", "ht", "hu", "icu", "ie", "il", "im", "in", "info", "int",
    "io", "iq", "ir", "is", "it", "je", "jm", "jo", "jobs", "jp", "ke", "kg", "kh", "ki", "km", "kn", "kp", "kr",
    "kw", "ky", "kz", "la", "lb", "lc", "li", "lk", "loan", "lol", "lr", "ls", "lt", "lu", "lv", "ly", "ma", "mc",
    "md", "me", "mg", "mh", "mil", "mk", "ml", "mm", "mn", "mo", "mobi", "monster", "mp", "mq", "mr", "ms", "mt",
    "mu", "museum", "mv", "mw", "mx", "my", "mz", "na", "nc", "ne", "net", "nf", "ng", "ni", "ninja", "nl", "no",
    "np", "nr", "nu", "nz", "om", "onion", "online", "org", "pa", "pe", "pf", "pg", "ph", "pk", "pl", "pm", "pn",
    "pr", "pro", "ps", "pt", "pw", "py", "qa", "re", "ro", "rs", "ru", "rw", "sa", "sb", "sbs", "sc", "sd", "se",
    "sg", "sh", "shop", "si", "site", "sk", "sl", "sm", "sn", "so", "space", "sr", "ss", "st", "su", "sv", "sx", "sy",
    "sz", "tc", "td", "tech", "tf", "tg", "th", "tj", "tk", "tl", "tm", "tn", "to", "top", "tr", "travel", "tt", "tv",
    "tw", "tz", "ua", "ug", "uk", "us", "uy", "uz", "va", "vc", "ve", "vg", "vi", "vip", "vn", "vu", "website", "wf",
    "win", "ws", "xyz", "ye", "yt", "za", "zm", "zw",
];

/// Top-level domains that are file extensions or field names at least as often; sorted. A name of two labels under
/// one of them counts only when it is defanged, or part of a URL or an e-mail address.
const AMBIGUOUS: [&str; 19] =
    ["ai", "app", "as", "cc", "cl", "do", "la", "md", "mk", "ml", "mm", "pm", "ps", "py", "rs", "sh", "so", "tf", "vi"];

/// File extensions that are no top-level domains: `invoice[.]pdf` is a file whose name was defanged.
const FILE_EXTENSIONS: [&str; 32] = [
    "apk", "bat", "bin", "cmd", "csv", "dat", "dll", "doc", "docm", "docx", "exe", "gz", "hta", "html", "iso", "jar",
    "js", "json", "lnk", "log", "msi", "pdf", "php", "ppt", "pptx", "ps1", "rar", "txt", "vbs", "xls", "xlsm", "xlsx",
];

/// First labels of names that are written in reverse, as packages are.
const REVERSED: [&str; 8] = ["android", "com", "io", "java", "javax", "net", "org", "sun"];

/// Whether a text is four decimal numbers up to 255, without leading zeros.
pub(super) fn is_ipv4(text: &str) -> bool {
    let (mut numbers, mut digits, mut value) = (0, 0, 0u32);
    for byte in text.bytes().chain([b'.']) {
        match byte {
            b'0'..=b'9' if digits < 3 && (digits == 0 || value > 0) => {
                value = value * 10 + u32::from(byte - b'0');
                digits += 1;
            }
            b'.' if digits > 0 && value <= 255 => {
                numbers += 1;
                (digits, value) = (0, 0);
            }
            _ => return false,
        }
    }
    numbers == 4
}

/// Whether a name has the form of a full domain name, RFC 1123 section 2.1, and a top level that is no number.
pub(super) fn is_domain(name: &str) -> bool {
    let label_is_valid = |label: &str| {
        (1..=MAX_LABEL_BYTES).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().enumerate().all(|(at, c)| c.is_alphanumeric() || c == '-' || c == '_' && at == 0)
    };
    let Some((rest, top)) = name.rsplit_once('.') else { return false };
    let top_is_valid = top.len() >= 2 && top.chars().all(char::is_alphabetic) || top.starts_with("xn--");
    let is_file = FILE_EXTENSIONS.iter().any(|extension| top.eq_ignore_ascii_case(extension));
    top_is_valid
        && !is_file
        && name.len() <= MAX_NAME_BYTES
        && rest.split('.').all(label_is_valid)
        && label_is_valid(top)
}

/// Whether a dotted name is likely a domain name, and not a file, a class or a sentence's end.
pub(super) fn looks_like_domain(name: &str) -> bool {
    let Some((rest, top)) = name.rsplit_once('.') else { return false };
    if top.len() > LONGEST_TOP_LEVEL && !top.starts_with("xn--") {
        return false;
    }
    // `System.Net` and `end.In the` are no domains.
    let one_case = !top.bytes().any(|b| b.is_ascii_uppercase()) || !name.bytes().any(|b| b.is_ascii_lowercase());
    if !one_case {
        return false;
    }
    let top = top.to_ascii_lowercase();
    let two_labels = !rest.contains('.');
    // `3.in` is a length, `163.com` is a company.
    let too_short = two_labels && rest.len() < 3 && rest.bytes().all(|b| b.is_ascii_digit());
    let first = rest.split('.').next().unwrap_or(rest);
    (TOP_LEVEL.binary_search(&top.as_str()).is_ok() || top.starts_with("xn--"))
        && !(two_labels && AMBIGUOUS.binary_search(&top.as_str()).is_ok())
        && !too_short
        && !REVERSED.contains(&first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_sorted() {
        assert!(TOP_LEVEL.is_sorted() && AMBIGUOUS.is_sorted());
        assert_eq!(TOP_LEVEL.iter().map(|top| top.len()).max(), Some(LONGEST_TOP_LEVEL));
    }

    #[test]
    fn names_of_files_classes_and_fields_are_no_domains() {
        for name in
            ["report.pdf", "invoice.docx", "System.Net", "main.rs", "session.id", "com.example.app", "end.In", "3.in"]
        {
            assert!(!(is_domain(name) && looks_like_domain(name)), "{name}");
        }
        for name in ["example.com", "a.b.co.uk", "EXAMPLE.ORG", "cdn.files.cc", "163.com", "x--1.xn--p1ai"] {
            assert!(is_domain(name) && looks_like_domain(name), "{name}");
        }
    }

    #[test]
    fn forms_that_no_domain_has() {
        for name in
            ["com", "a..com", "-a.com", "a-.com", "a.c", "1.2.3.4", "a.pdf", "a b.com", "a_b.com", &"a.".repeat(200)]
        {
            assert!(!is_domain(name), "{name}");
        }
    }
}
