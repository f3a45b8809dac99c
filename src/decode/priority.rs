//! The words that ticket systems use for a priority.

use crate::record::Priority;

/// Reads a priority, whatever its case. An unknown word gives `None`, so that rules and models decide.
///
/// | priority | words |
/// |---|---|
/// | critical | critical, crit, urgent, emergency, immediate, blocker, highest, very high, p0, p1, 0, 1 |
/// | high | high, major, important, severe, p2, 2 |
/// | medium | medium, med, moderate, normal, average, standard, p3, 3 |
/// | low | low, lowest, minor, trivial, informational, info, none, p4, p5, 4, 5 |
///
/// Numbers count as in ITIL: 1 is the most urgent. A number in front of a word decides ("1 - Critical").
pub(super) fn parse(text: &str) -> Option<Priority> {
    let text = text.trim();
    word(text).or_else(|| {
        let end = text.find(|c: char| !c.is_ascii_alphanumeric())?;
        word(&text[..end])
    })
}

fn word(text: &str) -> Option<Priority> {
    const CRITICAL: &[&str] = &[
        "critical",
        "crit",
        "urgent",
        "emergency",
        "immediate",
        "blocker",
        "highest",
        "very high",
        "very-high",
        "p0",
        "p1",
        "0",
        "1",
    ];
    const HIGH: &[&str] = &["high", "major", "important", "severe", "p2", "2"];
    const MEDIUM: &[&str] = &["medium", "med", "moderate", "normal", "average", "standard", "p3", "3"];
    const LOW: &[&str] = &["low", "lowest", "minor", "trivial", "informational", "info", "none", "p4", "p5", "4", "5"];
    [(Priority::Critical, CRITICAL), (Priority::High, HIGH), (Priority::Medium, MEDIUM), (Priority::Low, LOW)]
        .into_iter()
        .find(|(_, words)| words.iter().any(|word| word.eq_ignore_ascii_case(text)))
        .map(|(priority, _)| priority)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_numbers_and_their_combinations() {
        for (text, priority) in [
            ("High", Some(Priority::High)),
            (" URGENT ", Some(Priority::Critical)),
            ("P3", Some(Priority::Medium)),
            ("4", Some(Priority::Low)),
            ("1 - Critical", Some(Priority::Critical)),
            ("2-High", Some(Priority::High)),
            ("Very high", Some(Priority::Critical)),
            ("", None),
            ("whenever", None),
            ("17", None),
        ] {
            assert_eq!(parse(text), priority, "{text:?}");
        }
    }
}
