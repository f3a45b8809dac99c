//! A rule's regex: compiled within bounds, with the literals of which one must occur in whatever it matches.

use regex::bytes::{Regex, RegexBuilder};
use regex_syntax::hir::{Hir, HirKind};

use super::fault::Problem;
use super::required::required_literals;

/// Compiled size of one regex, in bytes. A bigger one is most likely a bounded repetition of a big class.
const SIZE_LIMIT: usize = 1 << 20;
/// Memory of one regex's lazy DFA, per thread that runs it. Too small: it falls back to a slower engine.
const DFA_SIZE_LIMIT: usize = 1 << 18;

/// Greater bounds of a repetition are warned of.
const SLOW_REPETITION: u32 = 100;

#[derive(Debug, Clone)]
pub struct Pattern {
    regex: Regex,
    required: Option<Vec<Vec<u8>>>,
    longest_repetition: u32,
}

impl Pattern {
    /// Length of a regex as written.
    pub const MAX_BYTES: usize = 4096;

    pub(super) fn compile(source: &str, case_sensitive: bool) -> Result<Self, Problem> {
        let hir = regex_syntax::ParserBuilder::new()
            .unicode(false)
            .utf8(false)
            .case_insensitive(!case_sensitive)
            .build()
            .parse(source)
            .map_err(|error| Problem::InvalidRegex(one_line(&error)))?;
        let regex = RegexBuilder::new(source)
            .unicode(false)
            .case_insensitive(!case_sensitive)
            .size_limit(SIZE_LIMIT)
            .dfa_size_limit(DFA_SIZE_LIMIT)
            .build()
            .map_err(|error| match error {
                regex::Error::CompiledTooBig(limit) => Problem::RegexTooBig(limit),
                other => Problem::InvalidRegex(other.to_string()),
            })?;
        if hir.properties().minimum_len().is_none() {
            return Err(Problem::RegexNeverMatches);
        }
        if regex.is_match(b"") {
            return Err(Problem::RegexMatchesAll);
        }
        Ok(Self { regex, required: required_literals(&hir), longest_repetition: longest_repetition(&hir) })
    }

    pub fn as_str(&self) -> &str {
        self.regex.as_str()
    }

    /// Whether it repeats something within a bound so great that a text made for it takes seconds a megabyte: each count is
    /// a state of its own. Without the bound (`*` for `{0,400}`) it is a thousand times faster.
    pub(super) fn is_slow(&self) -> bool {
        self.longest_repetition > SLOW_REPETITION
    }

    pub fn is_match(&self, text: &str) -> bool {
        self.regex.is_match(text.as_bytes())
    }

    /// Literals in ASCII lower case, at least one of which occurs, ASCII case ignored, in every text that the regex
    /// matches; `None` when there are none worth looking for.
    pub fn required(&self) -> Option<&[Vec<u8>]> {
        self.required.as_deref()
    }
}

/// The greatest bound of a repetition, as 80 in `.{0,80}`.
fn longest_repetition(hir: &Hir) -> u32 {
    let own = match hir.kind() {
        HirKind::Repetition(repetition) => repetition.max.unwrap_or(0).max(repetition.min),
        _ => 0,
    };
    hir.kind().subs().iter().map(longest_repetition).fold(own, u32::max)
}

fn one_line(error: &regex_syntax::Error) -> String {
    match error {
        regex_syntax::Error::Parse(error) => {
            format!("{} (column {})", error.kind(), error.span().start.column)
        }
        regex_syntax::Error::Translate(error) => {
            format!("{} (column {})", error.kind(), error.span().start.column)
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(source: &str) -> String {
        Pattern::compile(source, false).expect_err("a faulty regex").to_string()
    }

    #[test]
    fn faulty_regexes_are_refused_with_their_reason() {
        assert_eq!(problem("ab(c"), "regex is invalid: unclosed group (column 3)");
        assert_eq!(
            problem(r"(\w{100}){100}(\w{100}){100}"),
            "regex is too big: it needs more than 1048576 bytes when compiled"
        );
        assert_eq!(problem("a*"), "regex matches the empty text, and so every record");
        assert_eq!(problem("[a&&b]"), "regex can never match");
    }

    #[test]
    fn case_follows_the_rule() {
        assert!(Pattern::compile("ab+c", false).expect("valid").is_match("xABBCx"));
        assert!(!Pattern::compile("ab+c", true).expect("valid").is_match("xABBCx"));
        assert!(Pattern::compile("(?u)^é$", true).expect("valid").is_match("é"));
    }
}
