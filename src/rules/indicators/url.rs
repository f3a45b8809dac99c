//! Where a URL begins and ends in a text.

const SCHEMES: [&str; 10] = ["http", "https", "ftp", "ftps", "sftp", "smb", "ws", "wss", "ldap", "ldaps"];

/// The scheme in its true spelling: `hxxps` and `h**ps` are `https`.
pub(super) fn known_scheme(written: &str) -> Option<&'static str> {
    let lower = written.to_ascii_lowercase();
    let restored = match lower.as_bytes() {
        [b'h', b'x' | b't' | b'*', b'x' | b't' | b'*', b'p', rest @ ..] if rest.is_empty() || rest == b"s" => {
            format!("http{}", &lower[4..])
        }
        _ => lower,
    };
    SCHEMES.into_iter().find(|scheme| *scheme == restored)
}

/// The part of a text that belongs to the URL at its start.
pub(super) fn extent(text: &str) -> &str {
    let bracketed = text.starts_with('[');
    let ends = |c: char| {
        c.is_whitespace()
            || c.is_control()
            || matches!(
                c,
                '<' | '>' | '"' | '\'' | '`' | '|' | '\\' | '^' | '{' | '}' | '“' | '”' | '‘' | '’' | '»' | '…'
            )
            || !bracketed && matches!(c, '[' | ']')
    };
    let url = &text[..text.find(ends).unwrap_or(text.len())];
    // Punctuation at the end is the sentence's, and so is a bracket that the URL does not open.
    let mut unopened = url.matches(')').count().saturating_sub(url.matches('(').count());
    url.trim_end_matches(|c| match c {
        '.' | ',' | ';' | ':' | '!' | '?' | '*' | '_' => true,
        ')' if unopened > 0 => {
            unopened -= 1;
            true
        }
        _ => false,
    })
}
