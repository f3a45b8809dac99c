//! An endless, seeded, realistic mix of tickets and log lines, for `generate`, the demo and the benchmarks.
//!
//! Tickets are JSON in the shapes of a CERT's mailbox; log lines are JSON, plain text, syslog (RFC 3164, RFC 5424)
//! and CEF from several applications. Some records nobody could place, and some cannot be read at all. Each comes with
//! the truth about itself. The same seed and settings give the same records, apart from the time under
//! [`Timeline::Now`].

mod logs;
mod tickets;
mod words;

use std::fmt::Write;

use chrono::{DateTime, Datelike, NaiveDateTime, Timelike, Utc};

use crate::record::Kind;

use logs::{Application, Line, Shape};
use words::Words;

const DAY_MS: f64 = 86_400_000.0;

/// Where the records' times come from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Timeline {
    /// Each record happens when it is made.
    Now,
    /// Time passes with the records, faster by night and at weekends, so that a past of any length can be made.
    Rhythm { from_ms: i64, records_per_day: f64 },
}

/// The mix. The shares are probabilities from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GeneratorSettings {
    /// Tickets among all records; the rest are log lines.
    pub ticket_share: f64,
    /// Records that cannot be decoded.
    pub broken_share: f64,
    /// Records that nobody could place.
    pub unknown_share: f64,
    pub timeline: Timeline,
}

impl Default for GeneratorSettings {
    fn default() -> Self {
        GeneratorSettings { ticket_share: 0.02, broken_share: 0.002, unknown_share: 0.01, timeline: Timeline::Now }
    }
}

/// What is right about a generated record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Truth {
    /// The ticket's queue or the log line's category.
    Label(&'static str),
    /// Nobody could tell.
    Unknown,
    /// It must become a dead letter.
    Unreadable,
}

/// One record as a producer would send it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generated {
    pub kind: Kind,
    /// The Kafka key: the ticket's id or the application's name.
    pub key: Option<String>,
    pub value: Vec<u8>,
    /// Milliseconds since 1970-01-01 UTC.
    pub occurred_at: i64,
    pub truth: Truth,
}

/// See the module's description. It never ends.
#[derive(Debug)]
pub struct Generator {
    settings: GeneratorSettings,
    words: Words,
    /// The time under [`Timeline::Rhythm`].
    clock_ms: f64,
    /// The message under construction, kept for its memory.
    message: String,
}

impl Generator {
    pub fn new(seed: u64, settings: GeneratorSettings) -> Self {
        let clock_ms = match settings.timeline {
            Timeline::Now => 0.0,
            Timeline::Rhythm { from_ms, .. } => from_ms as f64,
        };
        Generator { settings, words: Words::new(seed), clock_ms, message: String::new() }
    }

    fn tick(&mut self) -> i64 {
        match self.settings.timeline {
            Timeline::Now => Utc::now().timestamp_millis(),
            Timeline::Rhythm { records_per_day, .. } => {
                // The gaps of a Poisson process whose rate is the rhythm at this moment.
                let gap = -(1.0 - self.words.share()).ln() * DAY_MS / records_per_day.max(1e-9);
                self.clock_ms += gap / intensity(self.clock_ms as i64);
                self.clock_ms as i64
            }
        }
    }

    fn ticket(&mut self, occurred_at: i64) -> Generated {
        let draft = if self.words.chance(self.settings.unknown_share) {
            tickets::compose_unknown(&mut self.words)
        } else {
            tickets::compose(&mut self.words)
        };
        let mut ticket_id = String::from("TKT-");
        self.words.hex(8, &mut ticket_id);
        let at = civil(occurred_at);
        let mut created = String::with_capacity(24);
        match self.words.below(4) {
            0 => iso(at, ' ', &mut created),
            1 => iso(at, 'T', &mut created),
            2 => created = occurred_at.to_string(),
            _ => {
                iso(at, 'T', &mut created);
                created.push('Z');
            }
        }
        let text_field = self.words.pick(&["content", "content", "description"]);
        let mut value = serde_json::json!({
            "ticket_id": ticket_id,
            "title": draft.title,
            text_field: draft.content,
            "created_date": created,
            "email_address": draft.email_address,
        });
        if self.words.chance(0.3) {
            value["priority"] = self.words.pick(&["low", "Medium", "P2", "high", "urgent", "3"]).into();
        }
        let truth = draft.queue.map_or(Truth::Unknown, Truth::Label);
        Generated {
            kind: Kind::Ticket,
            key: Some(ticket_id),
            value: value.to_string().into_bytes(),
            occurred_at,
            truth,
        }
    }

    fn log(&mut self, occurred_at: i64) -> Generated {
        let (application, mut line) = logs::pick(&mut self.words);
        if application.shape != Shape::Cef && self.words.chance(self.settings.unknown_share) {
            line = &logs::UNKNOWN[self.words.index(logs::UNKNOWN.len())];
        }
        let mut message = std::mem::take(&mut self.message);
        message.clear();
        self.words.fill(line.phrase, &mut message);
        let value = self.render(application, line, &message, occurred_at);
        self.message = message;
        let truth = line.category.map_or(Truth::Unknown, Truth::Label);
        Generated { kind: Kind::Log, key: Some(application.name.to_owned()), value, occurred_at, truth }
    }

    fn render(&mut self, application: &Application, line: &Line, message: &str, occurred_at: i64) -> Vec<u8> {
        const LEVELS: [&str; 8] = ["fatal", "fatal", "fatal", "error", "warn", "info", "info", "debug"];
        const FACILITY_LOCAL0: u8 = 16;
        let at = civil(occurred_at);
        let name = application.name;
        let priority = FACILITY_LOCAL0 * 8 + line.severity;
        let mut out = String::with_capacity(message.len() + 120);
        match application.shape {
            Shape::Json => {
                out.push_str("{\"timestamp\":\"");
                iso(at, 'T', &mut out);
                put(
                    &mut out,
                    format_args!("Z\",\"source\":\"{name}\",\"level\":\"{}\"", LEVELS[usize::from(line.severity)]),
                );
                out.push_str(self.words.pick(&[",\"message\":", ",\"message\":", ",\"log_message\":"]));
                let quoted = serde_json::to_string(message).expect("a string is JSON");
                out.push_str(&quoted);
                out.push('}');
            }
            Shape::Plain => {
                iso(at, ' ', &mut out);
                out.push(' ');
                out.push_str(message);
            }
            Shape::Rfc3164 => {
                const MONTHS: [&str; 12] =
                    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
                put(&mut out, format_args!("<{priority}>{} {:>2} ", MONTHS[at.month0() as usize], at.day()));
                clock(at, &mut out);
                out.push(' ');
                self.words.fill("{host}", &mut out);
                put(&mut out, format_args!(" {name}"));
                self.words.fill("[{pid}]: ", &mut out);
                out.push_str(message);
            }
            Shape::Rfc5424 => {
                put(&mut out, format_args!("<{priority}>1 "));
                iso(at, 'T', &mut out);
                put(&mut out, format_args!(".{:03}Z ", occurred_at.rem_euclid(1000)));
                self.words.fill("{host}", &mut out);
                put(&mut out, format_args!(" {name} "));
                self.words.fill("{pid} - - ", &mut out);
                out.push_str(message);
            }
            Shape::Cef => {
                // CEF counts severity upwards from 0 to 10.
                let (header, extension) = message.rsplit_once('|').unwrap_or((message, ""));
                let severity = 10 - line.severity;
                put(
                    &mut out,
                    format_args!("CEF:0|Northwind|{name}|2.1|{header}|{severity}|rt={occurred_at} {extension}"),
                );
            }
        }
        out.into_bytes()
    }

    /// Makes a good record unreadable in one of the ways that occur.
    fn break_it(&mut self, record: &mut Generated) {
        record.truth = Truth::Unreadable;
        let is_json = record.value.starts_with(b"{");
        match self.words.below(if is_json { 4 } else { 1 }) {
            // A byte that UTF-8 never has.
            0 => {
                let place = self.words.index(record.value.len());
                record.value[place] = 0xff;
            }
            // Cut off by a sender's limit. The closing brace at least is lost.
            1 => {
                let length = 1 + self.words.index(record.value.len() - 1);
                record.value.truncate(length);
                while std::str::from_utf8(&record.value).is_err() {
                    record.value.pop();
                }
            }
            2 => record.value = b"{\"id\": 7, \"title\": \"\", \"payload\": {\"size\": 0}}".to_vec(),
            _ => record.value = b"{\"event\": [1, 2, 3], \"note\": \"no message here\"}".to_vec(),
        }
    }
}

impl Iterator for Generator {
    type Item = Generated;

    fn next(&mut self) -> Option<Generated> {
        let occurred_at = self.tick();
        let mut record = if self.words.chance(self.settings.ticket_share) {
            self.ticket(occurred_at)
        } else {
            self.log(occurred_at)
        };
        if self.words.chance(self.settings.broken_share) {
            self.break_it(&mut record);
        }
        Some(record)
    }
}

/// How busy the hour is, 1 on average over a working day: offices from 8 to 18, less at night, little at weekends.
fn intensity(ms: i64) -> f64 {
    const HOURS: [f64; 24] = [
        0.4, 0.3, 0.3, 0.3, 0.3, 0.4, 0.6, 1.0, 1.6, 1.9, 2.0, 1.8, 1.4, 1.6, 1.9, 1.8, 1.6, 1.3, 0.9, 0.7, 0.6, 0.5,
        0.4, 0.4,
    ];
    const DAYS: [f64; 7] = [1.1, 1.1, 1.0, 1.0, 0.8, 0.35, 0.3];
    let at = civil(ms);
    HOURS[at.hour() as usize] * DAYS[at.weekday().num_days_from_monday() as usize]
}

fn civil(ms: i64) -> NaiveDateTime {
    DateTime::from_timestamp_millis(ms).unwrap_or_default().naive_utc()
}

fn put(out: &mut String, arguments: std::fmt::Arguments<'_>) {
    out.write_fmt(arguments).expect("writing to memory");
}

/// `2025-01-24T09:07:54` with the separator given.
fn iso(at: NaiveDateTime, separator: char, out: &mut String) {
    put(out, format_args!("{:04}-", at.year()));
    two_digits(at.month(), out);
    out.push('-');
    two_digits(at.day(), out);
    out.push(separator);
    clock(at, out);
}

fn clock(at: NaiveDateTime, out: &mut String) {
    two_digits(at.hour(), out);
    out.push(':');
    two_digits(at.minute(), out);
    out.push(':');
    two_digits(at.second(), out);
}

fn two_digits(value: u32, out: &mut String) {
    out.extend([value / 10 % 10, value % 10].map(|digit| char::from(b'0' + digit as u8)));
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::config::{DecodeSettings, FieldNames, Format};
    use crate::decode::Decoder;

    /// 2025-01-06T00:00:00Z, a Monday.
    const MONDAY: i64 = 1_736_121_600_000;
    const HALF_AND_HALF: GeneratorSettings = GeneratorSettings {
        ticket_share: 0.5,
        broken_share: 0.1,
        unknown_share: 0.1,
        timeline: Timeline::Rhythm { from_ms: MONDAY, records_per_day: 50_000.0 },
    };

    fn decoder(kind: Kind) -> Decoder {
        let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let fields = FieldNames {
            ticket_id: names(&["ticket_id"]),
            title: names(if kind == Kind::Ticket { &["title"] } else { &[] }),
            text: names(if kind == Kind::Ticket { &["content", "description"] } else { &["message", "log_message"] }),
            timestamp: names(&["created_date", "timestamp"]),
            source: names(&["source"]),
            ..FieldNames::default()
        };
        let format = if kind == Kind::Ticket { Format::Json } else { Format::Auto };
        Decoder::new(&DecodeSettings {
            kind,
            format,
            fields,
            max_record_bytes: 1 << 18,
            max_json_depth: 32,
            default_utc_offset: 0,
        })
    }

    #[test]
    fn a_seed_gives_one_stream() {
        let take = |seed| Generator::new(seed, HALF_AND_HALF).take(200).collect::<Vec<_>>();
        assert_eq!(take(7), take(7));
        assert_ne!(take(7), take(8));
    }

    #[test]
    fn what_is_readable_decodes_with_its_time_and_what_is_not_does_not() {
        let decoders = Kind::ALL.map(decoder);
        for record in Generator::new(1, HALF_AND_HALF).take(5_000) {
            let decoder = &decoders[record.kind as usize];
            let shown = String::from_utf8_lossy(&record.value).into_owned();
            match decoder.decode(&record.value, record.occurred_at + 1_000) {
                Ok(decoded) => {
                    assert_ne!(record.truth, Truth::Unreadable, "{shown}");
                    assert_eq!(decoded.occurred_at() / 1_000, record.occurred_at / 1_000, "{shown}");
                    assert!(!decoded.text().contains(['{', '}']), "a placeholder is left: {shown}");
                }
                Err(reject) => assert_eq!(record.truth, Truth::Unreadable, "{reject}: {shown}"),
            }
        }
    }

    #[test]
    fn shares_are_kept_and_every_label_occurs() {
        let records: Vec<_> = Generator::new(2, HALF_AND_HALF).take(20_000).collect();
        let share =
            |test: fn(&Generated) -> bool| records.iter().filter(|record| test(record)).count() as f64 / 20_000.0;
        assert!((share(|record| record.kind == Kind::Ticket) - 0.5).abs() < 0.02);
        assert!((share(|record| record.truth == Truth::Unreadable) - 0.1).abs() < 0.01);
        assert!(share(|record| record.truth == Truth::Unknown) > 0.1);
        let labels: HashSet<_> = records.iter().map(|record| record.truth).collect();
        assert_eq!(labels.len(), 7 + 9 + 2, "seven queues, nine categories, unknown, unreadable: {labels:?}");
        let texts: HashSet<_> = records.iter().map(|record| &record.value).collect();
        assert!(texts.len() > 17_000, "{} different records", texts.len());
    }

    #[test]
    fn time_never_goes_back_and_follows_the_rhythm() {
        let times: Vec<i64> = Generator::new(3, HALF_AND_HALF).take(30_000).map(|record| record.occurred_at).collect();
        assert!(times.is_sorted());
        let in_hour = |hour| times.iter().filter(|&&ms| (ms - MONDAY) / 3_600_000 == hour).count();
        assert!(in_hour(10) > 3 * in_hour(3), "{} by day, {} by night", in_hour(10), in_hour(3));
    }
}
