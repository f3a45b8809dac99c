//! Event times in the formats that occur, as milliseconds since 1970-01-01 UTC.
//!
//! | written as | read as |
//! |---|---|
//! | `2025-01-24T09:07:54.123+01:00`, `2025-01-24 09:07:54,123`, `2025/01/24`, `20250124T090754Z` | year, month, day |
//! | `24-01-2025 09:07`, `24.01.2025` | with `-` or `.` between: day first |
//! | `1/24/2025 9:07 PM` | with `/` between: month first |
//! | `24/Jan/2025:09:07:54 +0100`, `Fri, 24 Jan 2025 09:07:54 GMT`, `Jan 24, 2025 9:07 AM` | named month |
//! | `Sun Dec 04 04:47:44 2005`, `Jan 24 09:07:54` | named month; a year that is missing is the nearest one |
//! | `1737709674`, `1737709674.123`, `"1737709674123"` | Unix time in s, ms, µs or ns, by its magnitude |
//!
//! Where day and month could be either (`03-04-2025`), the separator alone decides, as above: dashes and dots are
//! European habit, slashes American. Only when that gives a month above 12 is the other order tried, so one source
//! never changes its reading from day to day of the month except where its reading is impossible.
//!
//! A time without a zone is in `default_utc_offset`. An unknown zone name makes the time unreadable rather than wrong
//! by hours. A plausible event time lies between 1990 and one day after Kafka's timestamp; otherwise Kafka's counts.

mod cursor;

use cursor::{Cursor, milliseconds, month};

const SECOND_MS: i64 = 1_000;
const DAY_MS: i64 = 24 * 60 * 60 * SECOND_MS;

/// 1990-01-01: anything older is a clock that was never set.
const EARLIEST_MS: i64 = 631_152_000_000;

/// How far an event may lie ahead of its Kafka timestamp: a day covers local times that were taken for UTC.
const MAX_AHEAD_MS: i64 = DAY_MS;

/// A Unix time in seconds lies below this (the year 5138), one in milliseconds at or above it, and so on.
const SECONDS_END: i64 = 100_000_000_000;

/// What a time is read against.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reference {
    /// Kafka's timestamp, from 1970 to 9999.
    pub(super) now_ms: i64,
    /// Seconds east of UTC for times that name no zone.
    pub(super) utc_offset: i32,
}

impl Reference {
    /// The event time when it is one that can be true, else Kafka's.
    pub(super) fn plausible(self, time: Option<i64>) -> i64 {
        time.filter(|&ms| ms >= EARLIEST_MS && ms <= self.now_ms.saturating_add(MAX_AHEAD_MS)).unwrap_or(self.now_ms)
    }
}

/// Reads a whole text as a time.
pub(super) fn parse(text: &str, reference: Reference) -> Option<i64> {
    let text = text.trim();
    if let Some(ms) = unix_time(text) {
        return Some(ms);
    }
    let mut cursor = Cursor::new(text);
    let stamp = cursor.date_time(reference)?;
    let zone = cursor.zone()?;
    cursor.is_at_end().then(|| stamp.in_zone(zone, reference))
}

/// Reads an ISO 8601 date with time at the start of a log line, if there is one, behind an optional `[`.
pub(super) fn leading(line: &str, reference: Reference) -> Option<i64> {
    let mut cursor = Cursor::new(line.strip_prefix('[').unwrap_or(line));
    let stamp = cursor.iso()?;
    Some(stamp.in_zone(cursor.attached_zone(), reference))
}

/// Reads the time of an RFC 3164 header (`Mmm dd [yyyy] hh:mm:ss`, or RFC 3339 as newer senders write it) and returns
/// the bytes that it takes.
pub(super) fn syslog_header(text: &str, reference: Reference) -> Option<(i64, usize)> {
    let mut cursor = Cursor::new(text);
    let stamp = if cursor.peek()?.is_ascii_digit() {
        cursor.iso()?
    } else {
        let month = month(cursor.word())?;
        cursor.month_day(month, reference).filter(|stamp| stamp.has_time)?
    };
    let zone = cursor.attached_zone();
    Some((stamp.in_zone(zone, reference), cursor.at))
}

/// Seconds, milliseconds, microseconds or nanoseconds since 1970, told apart by magnitude.
fn unix_time(text: &str) -> Option<i64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    // Eight and fourteen digits are compact dates.
    let digits_only = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !digits_only(whole) || !digits_only(fraction) || matches!(whole.len(), 8 | 14) || whole.len() > 19 {
        return None;
    }
    let value: i64 = whole.parse().ok()?;
    Some(if value < SECONDS_END {
        value * SECOND_MS + i64::from(milliseconds(fraction.as_bytes()))
    } else if value < SECONDS_END * 1_000 {
        value
    } else if value < SECONDS_END * 1_000_000 {
        value / 1_000
    } else {
        value / 1_000_000
    })
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use proptest::prelude::*;

    use super::*;

    /// 2025-01-24T12:00:00Z.
    const NOW: Reference = Reference { now_ms: 1_737_720_000_000, utc_offset: 0 };

    fn utc(text: &str) -> i64 {
        chrono::DateTime::parse_from_rfc3339(text).unwrap().timestamp_millis()
    }

    #[test]
    fn formats_of_the_table() {
        for (text, expected) in [
            ("2025-01-24T09:07:54.123+01:00", "2025-01-24T08:07:54.123Z"),
            ("2025-01-24T09:07:54Z", "2025-01-24T09:07:54Z"),
            ("2025-01-24 09:07:54", "2025-01-24T09:07:54Z"),
            ("2025-01-24 09:07:54,5", "2025-01-24T09:07:54.500Z"),
            ("2025-01-24 09:07:54 UTC", "2025-01-24T09:07:54Z"),
            ("2025-01-24 09:07:54 -0500", "2025-01-24T14:07:54Z"),
            ("2025/01/24", "2025-01-24T00:00:00Z"),
            ("20250124T090754Z", "2025-01-24T09:07:54Z"),
            ("20250124090754", "2025-01-24T09:07:54Z"),
            ("20250124", "2025-01-24T00:00:00Z"),
            ("24-01-2025 09:07", "2025-01-24T09:07:00Z"),
            ("10-07-2025 10:31", "2025-07-10T10:31:00Z"),
            ("24.01.2025", "2025-01-24T00:00:00Z"),
            ("4/21/2025 14:00", "2025-04-21T14:00:00Z"),
            ("11/16/2025 9:32", "2025-11-16T09:32:00Z"),
            ("1/2/2025 9:07:54 PM", "2025-01-02T21:07:54Z"),
            ("1/2/2025 12:07 AM", "2025-01-02T00:07:00Z"),
            ("24/Jan/2025:09:07:54 +0100", "2025-01-24T08:07:54Z"),
            ("Fri, 24 Jan 2025 09:07:54 GMT", "2025-01-24T09:07:54Z"),
            ("Jan 24, 2025 9:07 AM", "2025-01-24T09:07:00Z"),
            ("January 24 2025 09:07:54.250", "2025-01-24T09:07:54.250Z"),
            ("Sun Dec 04 04:47:44 2005", "2005-12-04T04:47:44Z"),
            ("Jan  4 09:07:54", "2025-01-04T09:07:54Z"),
            ("1737709674", "2025-01-24T09:07:54Z"),
            ("1737709674.1239", "2025-01-24T09:07:54.123Z"),
            ("1737709674123", "2025-01-24T09:07:54.123Z"),
            ("1737709674123456", "2025-01-24T09:07:54.123Z"),
            ("1737709674123456789", "2025-01-24T09:07:54.123Z"),
        ] {
            assert_eq!(parse(text, NOW), Some(utc(expected)), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_none() {
        for text in [
            "",
            "yesterday",
            "09:07:54",
            "2025-13-01",
            "2025-02-30",
            "2025-01-24 25:00",
            "2025-01-24T09:07:54 XYZ",
            "24-24-2025",
            "2025-01-24 09:07:54 and more",
            "-5",
            "1e9",
            "٣-٤-2025",
            "12345678901234567890",
            "2025-01-24T",
        ] {
            assert_eq!(parse(text, NOW), None, "{text}");
        }
    }

    #[test]
    fn the_other_order_is_tried_only_where_the_first_is_impossible() {
        assert_eq!(parse("03-04-2025", NOW), Some(utc("2025-04-03T00:00:00Z")));
        assert_eq!(parse("03/04/2025", NOW), Some(utc("2025-03-04T00:00:00Z")));
        assert_eq!(parse("03-14-2025", NOW), Some(utc("2025-03-14T00:00:00Z")));
        assert_eq!(parse("14/03/2025", NOW), Some(utc("2025-03-14T00:00:00Z")));
    }

    #[test]
    fn a_time_without_a_zone_is_in_the_default_offset() {
        let brussels = Reference { utc_offset: 3600, ..NOW };
        assert_eq!(parse("2025-01-24 09:07:54", brussels), Some(utc("2025-01-24T08:07:54Z")));
        assert_eq!(parse("2025-01-24T09:07:54Z", brussels), Some(utc("2025-01-24T09:07:54Z")));
    }

    #[test]
    fn a_missing_year_is_the_nearest_past_one() {
        let at = |now: &str| Reference { now_ms: utc(now), utc_offset: 0 };
        let header = |text, now| syslog_header(text, at(now)).map(|(ms, _)| ms);
        assert_eq!(header("Dec 31 23:59:59 host", "2025-01-01T00:00:10Z"), Some(utc("2024-12-31T23:59:59Z")));
        assert_eq!(header("Jan  1 00:00:05 host", "2024-12-31T23:59:59Z"), Some(utc("2025-01-01T00:00:05Z")));
        assert_eq!(header("Jun 14 15:16:01 host", "2025-01-01T00:00:10Z"), Some(utc("2024-06-14T15:16:01Z")));
        assert_eq!(header("Feb 29 15:16:01 host", "2025-03-01T00:00:10Z"), Some(utc("2024-02-29T15:16:01Z")));
        assert_eq!(header("Feb 29 15:16:01 host", "2027-03-01T00:00:10Z"), None);
    }

    #[test]
    fn absurd_times_give_way_to_kafkas() {
        for absurd in [0, utc("1989-12-31T23:59:59Z"), NOW.now_ms + DAY_MS + 1, i64::MAX, i64::MIN] {
            assert_eq!(NOW.plausible(Some(absurd)), NOW.now_ms);
        }
        assert_eq!(NOW.plausible(None), NOW.now_ms);
        assert_eq!(NOW.plausible(Some(NOW.now_ms + DAY_MS)), NOW.now_ms + DAY_MS);
        assert_eq!(Reference { now_ms: i64::MAX, utc_offset: 0 }.plausible(None), i64::MAX);
    }

    #[test]
    fn a_line_may_start_with_a_time() {
        let line = "2015-10-18 18:01:47,978 INFO [main] Created";
        assert_eq!(leading(line, NOW), Some(utc("2015-10-18T18:01:47.978Z")));
        assert_eq!(leading("[2025-01-24T09:07:54Z] x", NOW), Some(utc("2025-01-24T09:07:54Z")));
        assert_eq!(leading("2025-01-24 - x", NOW), None);
        assert_eq!(leading("17/06/09 20:10:40 INFO x", NOW), None);
    }

    proptest! {
        #[test]
        fn no_text_panics(
            text in "[0-9A-Za-z:/., +-]{0,32}|\\PC{0,16}|(Jan|Feb|Fri),? {0,2}[0-9]{0,9}[: ,0-9AMPZ]{0,20}",
            now_ms in 0..253_402_214_399_999_i64,
            utc_offset in -64_800..64_800,
        ) {
            let reference = Reference { now_ms, utc_offset };
            for time in [parse(&text, reference), leading(&text, reference)] {
                let plausible = reference.plausible(time);
                prop_assert!(plausible == now_ms || (EARLIEST_MS..=now_ms + MAX_AHEAD_MS).contains(&plausible));
            }
            if let Some((_, length)) = syslog_header(&text, reference) {
                prop_assert!(text.is_char_boundary(length));
            }
        }

        #[test]
        fn every_form_of_one_moment_is_that_moment(seconds in 631_152_000..4_102_444_800_i64, hours in -12..=14) {
            let zone = chrono::FixedOffset::east_opt(hours * 3600).unwrap();
            let moment = DateTime::from_timestamp(seconds, 0).unwrap().with_timezone(&zone);
            let there = Reference { now_ms: seconds * 1000, utc_offset: hours * 3600 };
            for form in [
                "%Y-%m-%dT%H:%M:%S%:z", "%Y-%m-%d %H:%M:%S", "%Y%m%dT%H%M%S%z", "%d/%b/%Y:%H:%M:%S %z", "%s", "%s000",
                "%a, %d %b %Y %H:%M:%S %z", "%a %b %e %H:%M:%S %Y", "%d-%m-%Y %H:%M:%S", "%m/%d/%Y %I:%M:%S %p",
                "%d.%m.%Y %H:%M:%S", "%b %e %H:%M:%S", "%B %d, %Y %I:%M:%S %p",
            ] {
                let written = moment.format(form).to_string();
                prop_assert_eq!(parse(&written, there), Some(seconds * 1000), "{}", written);
            }
        }
    }
}
