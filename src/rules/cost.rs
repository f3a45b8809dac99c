//! An estimate of how often a literal occurs, so that a rule is looked for by its rarest part.

/// Estimated share of text positions at which the literal begins, ASCII case ignored. Only the order of two estimates
/// means something.
pub(super) fn frequency(literal: &[u8]) -> f64 {
    literal.iter().map(|byte| byte_frequency(byte.to_ascii_lowercase())).product()
}

/// Shares of bytes in English text and in log lines, coarsely.
fn byte_frequency(byte: u8) -> f64 {
    match byte {
        b' ' | b'e' => 0.1,
        b'a' | b'o' | b't' | b'i' | b'n' | b's' | b'r' => 0.06,
        b'd' | b'c' | b'l' | b'h' | b'u' | b'm' => 0.03,
        b'0'..=b'9' | b'.' | b'p' | b'f' | b'g' => 0.025,
        b':' | b'-' | b'/' | b'_' | b'w' | b'y' | b'b' | b'v' => 0.015,
        b'k' | b'x' | b',' | b'=' | b'[' | b']' | b'(' | b')' | b'"' => 0.008,
        b'j' | b'q' | b'z' => 0.002,
        _ => 0.001,
    }
}

#[cfg(test)]
mod tests {
    use super::frequency;

    #[test]
    fn rare_letters_and_longer_literals_are_rarer() {
        assert!(frequency(b"jazz") < frequency(b"test"));
        assert!(frequency(b"tested") < frequency(b"test"));
        assert_eq!(frequency(b"TEST"), frequency(b"test"));
    }
}
