//! How durations, sizes and offsets from UTC are written.

use std::time::Duration;

const DURATION_UNITS: [(&str, u64); 6] = [
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
    ("d", 86_400_000_000_000),
];
const SIZE_UNITS: [(&str, u64); 4] = [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

/// Reads `500ms`, `2s`, `5m`: a whole number and one of us, ms, s, m, h, d.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    parse_with_unit(text, &DURATION_UNITS)
        .map(Duration::from_nanos)
        .ok_or_else(|| "expected a duration such as \"500ms\", \"2s\" or \"5m\"".to_owned())
}

/// Reads `64MiB`: a whole number and one of B, KiB, MiB, GiB.
pub(super) fn parse_size(text: &str) -> Result<usize, String> {
    parse_with_unit(text, &SIZE_UNITS)
        .and_then(|bytes| usize::try_from(bytes).ok())
        .ok_or_else(|| "expected a size such as \"512KiB\" or \"64MiB\"".to_owned())
}

fn parse_with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim_start())?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

/// Reads `+02:00`, `-05:30` or `Z` as seconds east of UTC.
pub(super) fn parse_utc_offset(text: &str) -> Result<i32, String> {
    let rule = || "expected an offset from UTC such as \"+02:00\" or \"Z\"".to_owned();
    if text == "Z" {
        return Ok(0);
    }
    let sign = match text.as_bytes().first() {
        Some(b'+') => 1,
        Some(b'-') => -1,
        _ => return Err(rule()),
    };
    let (hours, minutes) = text[1..].split_once(':').ok_or_else(rule)?;
    let two_digits = |part: &str, limit: i32| {
        let valid = part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit());
        part.parse::<i32>().ok().filter(|number| valid && *number <= limit).ok_or_else(rule)
    };
    Ok(sign * (two_digits(hours, 14)? * 3600 + two_digits(minutes, 59)? * 60))
}

/// Writes a duration as `parse_duration` reads it.
pub(super) fn show_duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    let (name, factor) = DURATION_UNITS
        .into_iter()
        .rev()
        .find(|(_, factor)| nanos >= u128::from(*factor) && nanos.is_multiple_of(u128::from(*factor)))
        .unwrap_or(DURATION_UNITS[0]);
    format!("{}{name}", nanos / u128::from(factor))
}

/// Writes a size as `parse_size` reads it.
pub(super) fn show_size(bytes: usize) -> String {
    let bytes = bytes as u64;
    let (name, factor) = SIZE_UNITS
        .into_iter()
        .rev()
        .find(|(_, factor)| bytes >= *factor && bytes.is_multiple_of(*factor))
        .unwrap_or(SIZE_UNITS[0]);
    format!("{}{name}", bytes / factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration(" 2 s "), Ok(Duration::from_secs(2)));
        assert_eq!(parse_duration("5m"), Ok(Duration::from_secs(300)));
        for wrong in ["", "5", "ms", "-1s", "1.5s", "1w", "99999999999999h", "1s2"] {
            assert!(parse_duration(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn sizes_are_binary() {
        assert_eq!(parse_size("64MiB"), Ok(64 << 20));
        assert_eq!(parse_size("1B"), Ok(1));
        for wrong in ["64MB", "64", "MiB", "1.5KiB", "18446744073709551615GiB"] {
            assert!(parse_size(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn offsets_are_seconds_east_of_utc() {
        assert_eq!(parse_utc_offset("+02:00"), Ok(7200));
        assert_eq!(parse_utc_offset("-05:30"), Ok(-19_800));
        assert_eq!(parse_utc_offset("Z"), Ok(0));
        for wrong in ["", "02:00", "+2:00", "+15:00", "+02:60", "+0200", "+-1:00", "é"] {
            assert!(parse_utc_offset(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn what_is_shown_can_be_read_again() {
        for duration in ["1us", "500ms", "2s", "90m", "23h", "2d"] {
            assert_eq!(show_duration(parse_duration(duration).unwrap()), duration);
        }
        for size in ["1B", "1000B", "512KiB", "64MiB", "3GiB"] {
            assert_eq!(show_size(parse_size(size).unwrap()), size);
        }
    }
}
