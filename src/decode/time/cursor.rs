//! Walks over the bytes of a time and makes a date, a time of day and a zone of them.

use chrono::{DateTime, Datelike, NaiveDate, NaiveDateTime};

use super::{MAX_AHEAD_MS, Reference, SECOND_MS};

/// The first three digits of a decimal fraction.
pub(super) fn milliseconds(digits: &[u8]) -> u32 {
    (0..3).fold(0, |sum, place| sum * 10 + digits.get(place).map_or(0, |digit| u32::from(digit - b'0')))
}

/// A date and time that still needs a zone.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stamp {
    local: NaiveDateTime,
    pub(super) has_time: bool,
}

impl Stamp {
    /// `zone`: seconds east of UTC, `None` for the default.
    pub(super) fn in_zone(self, zone: Option<i32>, reference: Reference) -> i64 {
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
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    pub(super) at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Cursor { bytes: text.as_bytes(), at: 0 }
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.at == self.bytes.len()
    }

    pub(super) fn peek(&self) -> Option<u8> {
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

    pub(super) fn word(&mut self) -> &'a [u8] {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_alphabetic()) {
            self.at += 1;
        }
        &self.bytes[start..self.at]
    }

    pub(super) fn date_time(&mut self, reference: Reference) -> Option<Stamp> {
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
    pub(super) fn iso(&mut self) -> Option<Stamp> {
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
    pub(super) fn month_day(&mut self, month: u32, reference: Reference) -> Option<Stamp> {
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
    pub(super) fn attached_zone(&mut self) -> Option<i32> {
        matches!(self.peek(), Some(b'Z' | b'+' | b'-')).then(|| self.zone()).flatten().flatten()
    }

    /// `Z`, `+01:00`, `-0500`, `+02` or a known name, perhaps after a space; `Some(None)` without one.
    pub(super) fn zone(&mut self) -> Option<Option<i32>> {
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

pub(super) fn month(word: &[u8]) -> Option<u32> {
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
