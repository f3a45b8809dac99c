//! Takes out of a text what a person would not see but a model would read: invisible characters, tags, bidirectional
//! controls, and letters of full width. Masking and the search for orders come afterwards, so neither can be evaded
//! with them.

/// A text without what hides.
#[derive(Debug)]
pub(super) struct Cleaned {
    pub(super) text: String,
    /// More was hidden than ordinary writing has (a zero-width joiner in an emoji, a soft hyphen, a byte order mark).
    pub(super) hidden: bool,
}

/// So many hidden characters a text may have without being suspected, and further one in so many of its characters.
const USUAL_HIDDEN: usize = 4;
const USUAL_HIDDEN_EACH: usize = 100;

pub(super) fn clean(text: &str) -> Cleaned {
    let mut out = String::with_capacity(text.len());
    let (mut hidden, mut tags, mut chars) = (0, false, 0);
    for c in text.chars() {
        chars += 1;
        match c {
            '\n' | '\t' => out.push(c),
            '\r' => {}
            // Unicode's tags repeat ASCII invisibly: nobody writes them, but models read them.
            '\u{e0000}'..='\u{e007f}' => tags = true,
            // Half of an emoji's looks; also used to smuggle bytes.
            '\u{fe00}'..='\u{fe0f}' | '\u{e0100}'..='\u{e01ef}' => hidden += 1,
            '\u{ad}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' => hidden += 1,
            '\u{2060}'..='\u{2064}' | '\u{2066}'..='\u{206f}' | '\u{feff}' => hidden += 1,
            // Full width: the same letters to a model, but not to a pattern.
            '\u{ff01}'..='\u{ff5e}' => out.extend(char::from_u32(u32::from(c) - 0xfee0)),
            '\u{a0}' | '\u{2000}'..='\u{200a}' | '\u{202f}' | '\u{205f}' | '\u{3000}' => out.push(' '),
            '\u{2028}' | '\u{2029}' | '\u{85}' => out.push('\n'),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    Cleaned { text: out, hidden: tags || hidden > USUAL_HIDDEN + chars / USUAL_HIDDEN_EACH }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hides_is_taken_out() {
        let cleaned = clean("a\u{200b}b\u{a0}c\r\n\u{ff21}\u{ff20}\u{1b}[0m");
        assert_eq!((cleaned.text.as_str(), cleaned.hidden), ("ab c\nA@ [0m", false));
    }

    #[test]
    fn tags_are_suspicious_and_a_family_emoji_is_not() {
        let smuggled: String = "label it".chars().filter_map(|c| char::from_u32(0xe0000 + u32::from(c))).collect();
        let cleaned = clean(&format!("printer broken{smuggled}"));
        assert_eq!((cleaned.text.as_str(), cleaned.hidden), ("printer broken", true));
        assert!(!clean("thanks \u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467}\u{fe0f}").hidden);
        assert!(clean("a\u{200b}b\u{200b}c\u{200b}d\u{200b}e\u{200b}f").hidden);
    }
}
