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

use chrono::{DateTime, Datelike, NaiveDate, NaiveDateTime};

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

/// The first three digits of a decimal fraction.
fn milliseconds(digits: &[u8]) -> u32 {
    (0..3).fold(0, |sum, place| sum * 10 + digits.get(place).map_or(0, |digit| u32::from(digit - b'0')))
}

/// A date and time that still needs a zone.
#[derive(Debug, Clone, Copy)]
struct Stamp {
    local: NaiveDateTime,
    has_time: bool,
}

impl Stamp {
    /// `zone`: seconds east of UTC, `None` for the default.
    fn in_zone(self, zone: Option<i32>, reference: Reference) -> i64 {
        let offset = zone.unwrap_or(reference.utc_offset);
        self.local.and_utc().timestamp_millis() - i64::from(offset) * SECOND_MS
    }
}

fn stamp(date: Option<NaiveDate>, time: Option<Clock>) -> Option<Stamp> {
    let Clock { hour, minute, second, milli } = time.unwrap_or_default();
    let local = date?.and_hms_milli_opt(hour, minute, second.min(59), milli)?;
    Some(Stamp { local, has_time: time.is_some() })
}

#[derive(Debug, Clone, Copy, Default)]
struct Clock {
    hour: u32,
    minute: u32,
    /// 60 in a leap second.
    second: u32,
    milli: u32,
}

/// Walks over the bytes of a time.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn new(text: &'a str) -> Self {
        Cursor { bytes: text.as_bytes(), at: 0 }
    }

    fn is_at_end(&self) -> bool {
        self.at == self.bytes.len()
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn eat(&mut self, wanted: u8) -> bool {
        let found = self.peek() == Some(wanted);
        self.at += usize::from(found);
        found
    }

    fn eat_all(&mut self, wanted: &[u8]) {
        while self.peek().is_some_and(|byte| wanted.contains(&byte)) {
            self.at += 1;
        }
    }

    /// Up to `most` digits, with how many there were; `None` without any.
    fn number(&mut self, most: usize) -> Option<(u32, usize)> {
        let start = self.at;
        let mut value = 0;
        while let Some(digit) = self.peek().filter(u8::is_ascii_digit)
            && self.at - start < most
        {
            value = value * 10 + u32::from(digit - b'0');
            self.at += 1;
        }
        (self.at > start).then_some((value, self.at - start))
    }

    fn two_digits(&mut self) -> Option<u32> {
        self.number(2).filter(|&(_, digits)| digits == 2).map(|(value, _)| value)
    }

    fn word(&mut self) -> &'a [u8] {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_alphabetic()) {
            self.at += 1;
        }
        &self.bytes[start..self.at]
    }

    fn date_time(&mut self, reference: Reference) -> Option<Stamp> {
        let mut word = self.word();
        if is_weekday(word) {
            self.eat_all(b",. ");
            word = self.word();
        }
        if !word.is_empty() {
            return self.month_day(month(word)?, reference);
        }
        match self.number(4)? {
            (year, 4) => self.after_year(year),
            (first, 1 | 2) => self.after_short_number(first),
            _ => None,
        }
    }

    /// `yyyy-mm-dd hh:mm:ss` and its relatives, with a time.
    fn iso(&mut self) -> Option<Stamp> {
        let (year, _) = self.number(4).filter(|&(_, digits)| digits == 4)?;
        self.after_year(year).filter(|stamp| stamp.has_time)
    }

    /// After `yyyy`: `-mm-dd`, `/mm/dd`, `.mm.dd` or `mmdd`, then perhaps a time.
    fn after_year(&mut self, year: u32) -> Option<Stamp> {
        let separator = self.peek()?;
        let compact = separator.is_ascii_digit();
        let (month, day) = if compact {
            (self.two_digits()?, self.two_digits()?)
        } else {
            if !matches!(separator, b'-' | b'/' | b'.') {
                return None;
            }
            self.at += 1;
            let month = self.number(2)?.0;
            if !self.eat(separator) {
                return None;
            }
            (month, self.number(2)?.0)
        };
        let date = NaiveDate::from_ymd_opt(i32::try_from(year).ok()?, month, day);
        let time_follows = compact && self.peek().is_some_and(|byte| byte.is_ascii_digit());
        stamp(date, if time_follows { Some(self.clock()?) } else { self.time_after_date()? })
    }

    /// After one or two digits: `/Jan/yyyy`, ` Jan yyyy`, `-mm-yyyy` or `/dd/yyyy`.
    fn after_short_number(&mut self, first: u32) -> Option<Stamp> {
        let separator = self.peek().filter(|byte| b"-/. ".contains(byte))?;
        self.at += 1;
        let word = self.word();
        if !word.is_empty() {
            let month = month(word)?;
            self.eat_all(b"-/., ");
            let year = self.year()?;
            let date = NaiveDate::from_ymd_opt(year, month, first);
            return stamp(date, self.time_after_date()?);
        }
        let second = self.number(2)?.0;
        if separator == b' ' || !self.eat(separator) {
            return None;
        }
        let year = self.year()?;
        let (day, month) = if separator == b'/' { (second, first) } else { (first, second) };
        let date = NaiveDate::from_ymd_opt(year, month, day).or_else(|| NaiveDate::from_ymd_opt(year, day, month));
        stamp(date, self.time_after_date()?)
    }

    /// After `Mmm`: ` dd hh:mm:ss`, ` dd hh:mm:ss yyyy`, ` dd yyyy hh:mm:ss` or ` dd, yyyy`.
    fn month_day(&mut self, month: u32, reference: Reference) -> Option<Stamp> {
        self.eat_all(b". ");
        let day = self.number(2)?.0;
        self.eat_all(b", ");
        let before = self.at;
        if let Some((year, 4)) = self.number(4) {
            let date = NaiveDate::from_ymd_opt(i32::try_from(year).ok()?, month, day);
            return stamp(date, self.time_after_date()?);
        }
        self.at = before;
        let clock = self.clock()?;
        let before = self.at;
        if self.eat(b' ')
            && let Some((year, 4)) = self.number(5)
            && matches!(self.peek(), None | Some(b' '))
        {
            let date = NaiveDate::from_ymd_opt(i32::try_from(year).ok()?, month, day);
            return stamp(date, Some(clock));
        }
        self.at = before;
        nearest_year(month, day, clock, reference)
    }

    fn year(&mut self) -> Option<i32> {
        self.number(5).filter(|&(_, digits)| digits == 4).and_then(|(year, _)| i32::try_from(year).ok())
    }

    /// A time of day when something follows the date; `Some(None)` when nothing does.
    fn time_after_date(&mut self) -> Option<Option<Clock>> {
        if self.is_at_end() {
            return Some(None);
        }
        let before = self.at;
        if !(self.eat(b'T') || self.eat(b't') || self.eat(b'_') || self.eat(b':')) {
            self.eat_all(b", ");
        }
        if self.at == before || !self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at = before;
            return Some(None);
        }
        self.clock().map(Some)
    }

    /// `hh:mm`, `hh:mm:ss`, `hhmmss`, each with an optional fraction and AM or PM.
    fn clock(&mut self) -> Option<Clock> {
        let (mut hour, digits) = self.number(2)?;
        let colons = self.eat(b':');
        if !colons && digits != 2 {
            return None;
        }
        let minute = self.two_digits()?;
        let second = match self.peek() {
            Some(b':') if colons => {
                self.at += 1;
                self.two_digits()?
            }
            Some(digit) if !colons && digit.is_ascii_digit() => self.two_digits()?,
            _ => 0,
        };
        let mut milli = 0;
        if let Some(b'.' | b',') = self.peek()
            && self.bytes.get(self.at + 1).is_some_and(u8::is_ascii_digit)
        {
            self.at += 1;
            let start = self.at;
            while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
                self.at += 1;
            }
            milli = milliseconds(&self.bytes[start..self.at]);
        }
        let before = self.at;
        self.eat(b' ');
        match self.word() {
            noon if noon.eq_ignore_ascii_case(b"am") && hour <= 12 => hour %= 12,
            noon if noon.eq_ignore_ascii_case(b"pm") && hour <= 12 => hour = hour % 12 + 12,
            _ => self.at = before,
        }
        (second <= 60).then_some(Clock { hour, minute, second, milli })
    }

    /// A zone in figures right behind a time that more text follows.
    fn attached_zone(&mut self) -> Option<i32> {
        matches!(self.peek(), Some(b'Z' | b'+' | b'-')).then(|| self.zone()).flatten().flatten()
    }

    /// `Z`, `+01:00`, `-0500`, `+02` or a known name, perhaps after a space; `Some(None)` without one.
    fn zone(&mut self) -> Option<Option<i32>> {
        let before = self.at;
        self.eat(b' ');
        let sign = match self.peek() {
            Some(b'+') => 1,
            Some(b'-') => -1,
            Some(letter) if letter.is_ascii_alphabetic() => return zone_name(self.word()).map(Some),
            _ => {
                self.at = before;
                return Some(None);
            }
        };
        self.at += 1;
        let hours = i32::try_from(self.two_digits()?).ok()?;
        self.eat(b':');
        let minutes = match self.peek() {
            Some(digit) if digit.is_ascii_digit() => i32::try_from(self.two_digits()?).ok()?,
            _ => 0,
        };
        (hours <= 18 && minutes < 60).then_some(Some(sign * (hours * 3600 + minutes * 60)))
    }
}

/// The year that brings the date closest to the reference without passing the limit for future times.
fn nearest_year(month: u32, day: u32, clock: Clock, reference: Reference) -> Option<Stamp> {
    let local_now = reference.now_ms.saturating_add(i64::from(reference.utc_offset) * SECOND_MS);
    let this_year = DateTime::from_timestamp_millis(local_now)?.year();
    [this_year + 1, this_year, this_year - 1].into_iter().find_map(|year| {
        let stamp = stamp(NaiveDate::from_ymd_opt(year, month, day), Some(clock))?;
        (stamp.local.and_utc().timestamp_millis() <= local_now.saturating_add(MAX_AHEAD_MS)).then_some(stamp)
    })
}

fn month(word: &[u8]) -> Option<u32> {
    const MONTHS: [&str; 12] = [
        "january",
        "february",
        "march",
        "april",
        "may",
        "june",
        "july",
        "august",
        "september",
        "october",
        "november",
        "december",
    ];
    let index = MONTHS.iter().position(|month| is_abbreviation(word, month))?;
    u32::try_from(index + 1).ok()
}

fn is_weekday(word: &[u8]) -> bool {
    ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
        .into_iter()
        .any(|day| is_abbreviation(word, day))
}

/// At least the first three letters.
fn is_abbreviation(word: &[u8], whole: &str) -> bool {
    word.len() >= 3 && whole.as_bytes().get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word))
}

/// UTC, the zones of RFC 2822 section 4.3, and those of western and central Europe.
fn zone_name(name: &[u8]) -> Option<i32> {
    let hours = match name.to_ascii_uppercase().as_slice() {
        b"Z" | b"UTC" | b"GMT" | b"UT" | b"WET" => 0,
        b"CET" | b"WEST" | b"BST" => 1,
        b"CEST" | b"EET" => 2,
        b"EEST" => 3,
        b"EDT" => -4,
        b"EST" | b"CDT" => -5,
        b"CST" | b"MDT" => -6,
        b"MST" | b"PDT" => -7,
        b"PST" => -8,
        _ => return None,
    };
    Some(hours * 3600)
}

#[cfg(test)]
mod tests {
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
