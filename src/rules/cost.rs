//! An estimate of how often a literal occurs, so that a rule is looked for by its rarest part.

/// Estimated share of text positions at which the literal begins, ASCII case ignored. Only the order of two estimates
/// means something.
pub(super) fn frequency(literal: &[u8]) -> f64 {
    let lower = literal.to_ascii_lowercase();
    let by_bytes: f64 = lower.iter().map(|byte| byte_frequency(*byte)).product();
    let in_common_word = COMMON_WORDS.as_bytes().windows(lower.len().max(1)).any(|part| part == lower);
    if in_common_word { by_bytes * COMMON_WORD_FACTOR } else { by_bytes }
}

/// How much likelier a part of a common word is than its bytes say.
const COMMON_WORD_FACTOR: f64 = 100.0;

/// Words that most log lines and tickets are made of.
const COMMON_WORDS: &str = " access account action added address admin alert application attempt authentication block \
    cache client closed code command complete completed config configuration connect connected connection content could \
    data database debug default delete deleted denied destination detected device disk domain email enabled error event \
    exception executor failed failure fatal file find finished found from from: get group handler have hello host http \
    https image info information initialized instance interface internal invalid java job kernel key level line list local \
    login manager master memory message method mode module name network node notice null number open opened operation \
    org.apache output package packet password path permission please policy port post process processing protocol query \
    queue read ready received record regards register remote remove removed report request resource response result root \
    route running security server service session set shutdown size socket source ssh stage start started starting state \
    status step stop stopped storage succeeded success successfully support switch system table target task team thanks \
    that the this thread time timeout total transaction type unable unknown update user using value version view warn \
    warning window windows with word work write your ";

/// Shares of bytes in English text and in log lines, coarsely.
fn byte_frequency(byte: u8) -> f64 {
    match byte {
        b' ' | b'e' | b'0'..=b'9' => 0.1,
        b'a' | b'o' | b't' | b'i' | b'n' | b's' | b'r' => 0.06,
        b'd' | b'c' | b'l' | b'h' | b'u' | b'm' => 0.03,
        b'.' | b'p' | b'f' | b'g' => 0.025,
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
