//! Restores defanged texts: `[.]`, `(.)`, `{.}`, `[dot]`, `[:]`, `[://]`, `[/]`, `[@]`, `[at]` and the like. `hxxp` is
//! read where URLs are.

/// A text with what was defanged restored.
pub(super) struct Refanged {
    pub(super) text: String,
    /// Offsets in `text` of what was restored, ascending.
    pub(super) places: Vec<usize>,
}

/// What may stand in brackets, and what it stands for.
const WORDS: [(&str, &str); 9] = [
    (".", "."),
    ("dot", "."),
    (":", ":"),
    ("://", "://"),
    (":/", ":/"),
    ("/", "/"),
    ("//", "//"),
    ("@", "@"),
    ("at", "@"),
];
const LONGEST_WORD: usize = 3;

pub(super) fn refang(text: &str) -> Refanged {
    let bytes = text.as_bytes();
    let mut refanged = Refanged { text: String::with_capacity(text.len()), places: Vec::new() };
    let mut copied = 0;
    let mut from = 0;
    while let Some(offset) = bytes[from..].iter().position(|byte| matches!(byte, b'[' | b'(' | b'{')) {
        let at = from + offset;
        from = at + 1;
        if let Some((meaning, end)) = defanged_at(bytes, at) {
            refanged.text.push_str(&text[copied..at]);
            refanged.places.push(refanged.text.len());
            refanged.text.push_str(meaning);
            (copied, from) = (end, end);
        }
    }
    refanged.text.push_str(&text[copied..]);
    refanged
}

/// Whether the bracket at `at` stands for something else.
pub(super) fn is_defanged(bytes: &[u8], at: usize) -> bool {
    defanged_at(bytes, at).is_some()
}

/// What the bracket at `at` stands for, and where it ends.
fn defanged_at(bytes: &[u8], at: usize) -> Option<(&'static str, usize)> {
    // A bracket is only a defanged one when it stands inside a name, as in `evil[.]com`.
    let joins =
        |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'/' | b'[' | b'(' | b'{' | b']');
    let first = bytes.get(at + 1)?;
    if !matches!(first, b'.' | b'd' | b'D' | b':' | b'/' | b'@' | b'a' | b'A') {
        return None;
    }
    if !at.checked_sub(1).is_some_and(|before| joins(&bytes[before])) {
        return None;
    }
    let close = match bytes[at] {
        b'[' => b']',
        b'(' => b')',
        _ => b'}',
    };
    let length = bytes[at + 1..].iter().take(LONGEST_WORD + 1).position(|byte| *byte == close)?;
    let end = at + length + 2;
    if !bytes.get(end).is_some_and(joins) {
        return None;
    }
    let inside = &bytes[at + 1..end - 1];
    let word = WORDS.iter().find(|(word, _)| word.as_bytes().eq_ignore_ascii_case(inside));
    word.map(|(_, meaning)| (*meaning, end))
}
