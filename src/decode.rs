//! Bytes of one Kafka value in, a [`Record`] or the reason why there is none out. Pure: no clock, no I/O.
//!
//! | format | recognised by `auto` | text | source | level | event time |
//! |---|---|---|---|---|---|
//! | JSON | first character `{` | configured fields | field | field | field |
//! | CEF | `CEF:` at the start, or after a syslog header | name, `msg`, evidence | vendor/product | severity | `rt`, `end`, `start` |
//! | syslog | `<PRI>`, or `Mmm dd hh:mm:ss` at the start | message | application, else host | severity | header |
//! | plain text | everything else | the whole value | – | – | an ISO 8601 time at the start |
//!
//! Whatever the format: the value is UTF-8 of at most `max_record_bytes`, a byte order mark at its start and line
//! ends at its end are dropped, everything else in the text is kept, NUL and control characters included. A time that
//! is missing, unreadable or absurd is replaced by Kafka's timestamp and never costs a record (see `time`).
//!
//! A syslog header that is not well formed costs nothing under `auto` either: the value is then a plain text line, as
//! RFC 3164 section 4.3.3 asks of relays. Under `syslog` and `cef` it is a reason to reject.

mod cef;
mod fields;
mod json;
mod priority;
mod syslog;
mod time;

use std::borrow::Cow;
use std::sync::Arc;

use thiserror::Error;

use crate::config::{DecodeSettings, Format};
use crate::record::{Kind, LogLine, Priority, Record, Ticket};

use fields::FieldTree;
use time::Reference;

/// 9999-12-30T23:59:59.999Z: an event may lie a day ahead of it and is still a time that RFC 3339 can write.
const LATEST_MS: i64 = 253_402_214_399_999;

/// Nested objects that serde_json itself can follow are bounded by 128; a larger limit than this has no effect.
const MAX_JSON_DEPTH: usize = 120;

/// Why a value is not a record. `Display` names the place and the rule, never the record's text.
#[derive(Debug, Error)]
pub enum Reject {
    #[error("{bytes} bytes are more than the {limit} that a record may have")]
    TooLarge { bytes: usize, limit: usize },
    #[error("not UTF-8 at byte {at}")]
    InvalidUtf8 { at: usize },
    /// serde_json names line, column and rule of a syntax error, and quotes nothing.
    #[error("broken JSON: {0}")]
    BrokenJson(serde_json::Error),
    #[error("JSON is nested deeper than {limit} in line {line}, column {column}")]
    TooDeep { limit: usize, line: usize, column: usize },
    #[error("expected a JSON object: the first character is not `{{`")]
    NotAnObject,
    #[error("none of the fields {fields} holds text")]
    MissingText { fields: Arc<str> },
    #[error("no text")]
    Empty,
    #[error("broken syslog header at byte {at}: {rule}")]
    BadSyslog { at: usize, rule: &'static str },
    #[error("broken CEF header at byte {at}: {rule}")]
    BadCef { at: usize, rule: &'static str },
}

impl Reject {
    /// All that `reason` can answer.
    pub const REASONS: [&'static str; 9] = [
        "too_large",
        "invalid_utf8",
        "broken_json",
        "too_deep",
        "not_an_object",
        "missing_text",
        "empty",
        "bad_syslog",
        "bad_cef",
    ];

    /// A name out of a small fixed set: a metric's label and a dead letter's header.
    pub fn reason(&self) -> &'static str {
        match self {
            Reject::TooLarge { .. } => "too_large",
            Reject::InvalidUtf8 { .. } => "invalid_utf8",
            Reject::BrokenJson(_) => "broken_json",
            Reject::TooDeep { .. } => "too_deep",
            Reject::NotAnObject => "not_an_object",
            Reject::MissingText { .. } => "missing_text",
            Reject::Empty => "empty",
            Reject::BadSyslog { .. } => "bad_syslog",
            Reject::BadCef { .. } => "bad_cef",
        }
    }
}

/// What the formats find in a value, before it becomes a ticket or a log line.
#[derive(Debug, Default)]
struct Parts<'a> {
    ticket_id: Option<Cow<'a, str>>,
    title: Option<Cow<'a, str>>,
    text: Option<Cow<'a, str>>,
    email_address: Option<Cow<'a, str>>,
    priority: Option<Priority>,
    source: Option<Cow<'a, str>>,
    level: Option<Cow<'a, str>>,
    time: Option<i64>,
}

/// Turns the values of one topic into records. Made once for a topic, shared by all threads.
#[derive(Debug)]
pub struct Decoder {
    kind: Kind,
    format: Format,
    fields: FieldTree,
    max_record_bytes: usize,
    max_json_depth: usize,
    default_utc_offset: i32,
}

impl Decoder {
    pub fn new(settings: &DecodeSettings) -> Self {
        Decoder {
            kind: settings.kind,
            format: settings.format,
            fields: FieldTree::new(&settings.fields),
            max_record_bytes: settings.max_record_bytes,
            max_json_depth: settings.max_json_depth.min(MAX_JSON_DEPTH),
            default_utc_offset: settings.default_utc_offset,
        }
    }

    /// Decodes one value. `kafka_timestamp_ms` stands in for an event time that the value does not tell, supplies
    /// the year where a format has none, and is what "in the future" is measured against; where Kafka has no
    /// timestamp the caller passes its own clock. A producer can set any timestamp; what lies outside of 1970 to 9999
    /// is taken for the nearest time inside.
    pub fn decode<'a>(&self, payload: &'a [u8], kafka_timestamp_ms: i64) -> Result<Record<'a>, Reject> {
        if payload.len() > self.max_record_bytes {
            return Err(Reject::TooLarge { bytes: payload.len(), limit: self.max_record_bytes });
        }
        let text = std::str::from_utf8(payload).map_err(|error| Reject::InvalidUtf8 { at: error.valid_up_to() })?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(text).trim_end_matches(['\r', '\n']);
        if text.is_empty() {
            return Err(Reject::Empty);
        }
        let now_ms = kafka_timestamp_ms.clamp(0, LATEST_MS);
        let reference = Reference { now_ms, utc_offset: self.default_utc_offset };
        let parts = match self.format {
            Format::Json => self.json(text, reference)?,
            Format::Text => plain(text, reference),
            Format::Syslog => match syslog::parse(text, reference) {
                Ok(message) => from_syslog(message, reference),
                Err(fault) => return Err(Reject::BadSyslog { at: fault.at, rule: fault.rule }),
            },
            Format::Cef => self.cef(text, reference)?,
            Format::Auto => self.detect(text, reference)?,
        };
        self.record(parts, reference)
    }

    fn detect<'a>(&self, text: &'a str, reference: Reference) -> Result<Parts<'a>, Reject> {
        let first = text.as_bytes()[0];
        if text.trim_start().starts_with('{') {
            return self.json(text, reference);
        }
        if first == b'C'
            && cef::starts_here(text)
            && let Ok(parts) = cef::parse(text, reference)
        {
            return Ok(parts);
        }
        if (first == b'<' || first.is_ascii_uppercase())
            && let Ok(message) = syslog::parse(text, reference)
        {
            return Ok(from_syslog(message, reference));
        }
        Ok(plain(text, reference))
    }

    fn json<'a>(&self, text: &'a str, reference: Reference) -> Result<Parts<'a>, Reject> {
        json::parse(text, &self.fields, self.max_json_depth, reference)
    }

    fn cef<'a>(&self, text: &'a str, reference: Reference) -> Result<Parts<'a>, Reject> {
        let bad_cef = |fault: Fault, start: usize| Reject::BadCef { at: start + fault.at, rule: fault.rule };
        if cef::starts_here(text) {
            return cef::parse(text, reference).map_err(|fault| bad_cef(fault, 0));
        }
        let not_cef = Reject::BadCef { at: 0, rule: "no `CEF:` at the start or after a syslog header" };
        let Ok(message) = syslog::parse(text, reference) else { return Err(not_cef) };
        if !cef::starts_here(message.text) {
            return Err(not_cef);
        }
        let start = text.len() - message.text.len();
        let parts = cef::parse(message.text, reference).map_err(|fault| bad_cef(fault, start))?;
        Ok(Parts { time: parts.time.or(message.time), ..parts })
    }

    fn record<'a>(&self, parts: Parts<'a>, reference: Reference) -> Result<Record<'a>, Reject> {
        let occurred_at = reference.plausible(parts.time);
        let (title_len, text) = match (parts.title, parts.text) {
            (Some(title), Some(text)) => (title.len(), Cow::Owned([&title, "\n", &text].concat())),
            (Some(title), None) => (title.len(), title),
            (None, Some(text)) => (0, text),
            (None, None) => return Err(Reject::MissingText { fields: self.fields.text_fields() }),
        };
        if text.trim().is_empty() {
            return Err(Reject::Empty);
        }
        Ok(match self.kind {
            Kind::Ticket => Record::Ticket(Ticket {
                ticket_id: parts.ticket_id,
                text,
                title_len,
                email_address: parts.email_address,
                priority: parts.priority,
                source: parts.source,
                occurred_at,
            }),
            Kind::Log => Record::Log(LogLine { text, source: parts.source, level: parts.level, occurred_at }),
        })
    }
}

/// What is wrong with a header, and where.
#[derive(Debug)]
struct Fault {
    at: usize,
    rule: &'static str,
}

fn plain(text: &str, reference: Reference) -> Parts<'_> {
    Parts { text: Some(Cow::Borrowed(text)), time: time::leading(text, reference), ..Parts::default() }
}

/// A syslog message whose text is CEF is a CEF record, with the header's time to fall back on.
fn from_syslog<'a>(message: syslog::Message<'a>, reference: Reference) -> Parts<'a> {
    if cef::starts_here(message.text)
        && let Ok(parts) = cef::parse(message.text, reference)
    {
        return Parts { time: parts.time.or(message.time), ..parts };
    }
    Parts {
        text: Some(Cow::Borrowed(message.text)),
        source: message.source.map(Cow::Borrowed),
        level: message.level.map(Cow::Borrowed),
        time: message.time,
        ..Parts::default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::FieldNames;

    /// 2025-01-24T12:00:00Z.
    const NOW: i64 = 1_737_720_000_000;
    const NINE: i64 = 1_737_709_674_000;

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|name| (*name).to_owned()).collect()
    }

    fn settings(kind: Kind, format: Format) -> DecodeSettings {
        let fields = match kind {
            Kind::Ticket => FieldNames {
                ticket_id: names(&["ticket_id", "id"]),
                title: names(&["title"]),
                text: names(&["content", "description"]),
                timestamp: names(&["created_date", "created_at"]),
                email_address: names(&["email_address"]),
                priority: names(&["priority"]),
                source: names(&["source"]),
                ..FieldNames::default()
            },
            Kind::Log => FieldNames {
                text: names(&["message", "log_message", "event.original"]),
                timestamp: names(&["timestamp", "@timestamp"]),
                source: names(&["source", "host.name"]),
                level: names(&["level", "log.level"]),
                ..FieldNames::default()
            },
        };
        DecodeSettings { kind, format, fields, max_record_bytes: 4096, max_json_depth: 8, default_utc_offset: 0 }
    }

    fn log(value: &str) -> Result<LogLine<'_>, Reject> {
        match Decoder::new(&settings(Kind::Log, Format::Auto)).decode(value.as_bytes(), NOW)? {
            Record::Log(line) => Ok(line),
            Record::Ticket(_) => unreachable!("the topic carries log lines"),
        }
    }

    fn ticket(value: &str) -> Result<Ticket<'_>, Reject> {
        match Decoder::new(&settings(Kind::Ticket, Format::Json)).decode(value.as_bytes(), NOW)? {
            Record::Ticket(ticket) => Ok(ticket),
            Record::Log(_) => unreachable!("the topic carries tickets"),
        }
    }

    fn reason(kind: Kind, format: Format, value: &[u8]) -> &'static str {
        Decoder::new(&settings(kind, format)).decode(value, NOW).unwrap_err().reason()
    }

    #[test]
    fn a_ticket_has_title_and_content() {
        let ticket = ticket(
            r#"{"ticket_id": 12345678901234567890, "title": "Odd \"mail\"", "content": "see\nbelow", "priority": "P2",
                "created_date": "2025-01-24T09:07:54", "email_address": "a@b.eu", "x": {"title": ["no"]}}"#,
        )
        .unwrap();
        assert_eq!(ticket.ticket_id.as_deref(), Some("12345678901234567890"));
        assert_eq!(ticket.text, "Odd \"mail\"\nsee\nbelow");
        assert_eq!(&ticket.text[..ticket.title_len], "Odd \"mail\"");
        assert_eq!(ticket.priority, Some(Priority::High));
        assert_eq!(ticket.email_address.as_deref(), Some("a@b.eu"));
        assert_eq!(ticket.occurred_at, NINE);
    }

    #[test]
    fn half_a_ticket_is_a_ticket() {
        let only_title = ticket(r#"{"title": "t", "content": "", "priority": "whenever"}"#).unwrap();
        assert_eq!((&*only_title.text, only_title.title_len, only_title.priority), ("t", 1, None));
        let only_content =
            ticket(r#"{"title": null, "description": "c", "created_date": "", "created_at": 0}"#).unwrap();
        assert_eq!((&*only_content.text, only_content.title_len, only_content.occurred_at), ("c", 0, NOW));
    }

    #[test]
    fn log_lines_of_every_format() {
        for (value, text, source, level, occurred_at) in [
            (
                r#"{"timestamp": "2025-01-24 09:07:54", "source": "ModernCRM", "log_message": "User logged in", "level": 30}"#,
                "User logged in",
                Some("ModernCRM"),
                Some("30"),
                NINE,
            ),
            (
                r#"{"@timestamp": 1737709674, "log": {"level": "warn"}, "host": {"name": "web1"}, "event": {"original": "m"}}"#,
                "m",
                Some("web1"),
                Some("warn"),
                NINE,
            ),
            (
                "<34>Jan 24 09:07:54 web1 sshd[12]: Failed password\n",
                "Failed password",
                Some("sshd"),
                Some("critical"),
                NINE,
            ),
            (
                "<34>1 2025-01-24T09:07:54Z web1 sshd 12 - - Failed password",
                "Failed password",
                Some("sshd"),
                Some("critical"),
                NINE,
            ),
            ("CEF:0|V|P|1|9|name|5|msg=more rt=1737709674000", "name: more", Some("V/P"), Some("medium"), NINE),
            ("<134>Jan 24 09:07:54 fw CEF:0|V|P|1|9|name|5|msg=more", "name: more", Some("V/P"), Some("medium"), NINE),
            ("<134>1 2025-01-24T09:07:54Z fw a - - - CEF:0|V|P|1|9|name|5|", "name", Some("V/P"), Some("medium"), NINE),
            ("2025-01-24 09:07:54,001 INFO started\r\n", "2025-01-24 09:07:54,001 INFO started", None, None, NINE + 1),
            ("\u{feff}Disk \0 is \u{1b}[31mfull", "Disk \0 is \u{1b}[31mfull", None, None, NOW),
            ("<34>1 - broken", "<34>1 - broken", None, None, NOW),
            ("CEF:0|too|short", "CEF:0|too|short", None, None, NOW),
        ] {
            let line = log(value).unwrap();
            let found = (&*line.text, line.source.as_deref(), line.level.as_deref(), line.occurred_at);
            assert_eq!(found, (text, source, level, occurred_at), "{value}");
        }
    }

    #[test]
    fn simple_values_are_borrowed() {
        for value in
            [r#"{"message": "plain", "source": "s"}"#, "plain line", "<34>Jan 24 09:07:54 web1 sshd[12]: Failed"]
        {
            let line = log(value).unwrap();
            assert!(matches!(line.text, Cow::Borrowed(_)), "{value}");
            assert!(!matches!(line.source, Some(Cow::Owned(_))), "{value}");
        }
    }

    #[test]
    fn names_are_tried_in_order_and_the_last_equal_key_wins() {
        assert_eq!(log(r#"{"log_message": "b", "message": "a"}"#).unwrap().text, "a");
        assert_eq!(log(r#"{"log_message": "b", "message": ["a"]}"#).unwrap().text, "b");
        assert_eq!(log(r#"{"message": "a", "message": "b", "message": " "}"#).unwrap().text, "b");
        assert_eq!(log(r#"{"me\u0073sage": "a"}"#).unwrap().text, "a");
        assert_eq!(log(r#"{"event.original": "flat"}"#).unwrap().text, "flat");
    }

    #[test]
    fn escapes_are_read_and_half_a_surrogate_pair_costs_no_record() {
        let line = log(r#"{"message": "\u0000\t\"\\\/\u00e9\ud83d\ude00\ud83d!\udc00\ud83d\u0041"}"#).unwrap();
        assert_eq!(line.text, "\0\t\"\\/é😀\u{fffd}!\u{fffd}\u{fffd}A");
    }

    #[test]
    fn every_reason_occurs() {
        use Format::{Auto, Cef, Json, Syslog, Text};
        let mut seen = std::collections::BTreeSet::new();
        for (format, value, expected) in [
            (Text, &[b'x'; 4097][..], "too_large"),
            (Text, b"caf\xe9", "invalid_utf8"),
            (Auto, br#"{"message": "a""#, "broken_json"),
            (Json, br#"{"message": "a"} {"message": "b"}"#, "broken_json"),
            (Json, b"{\"message\": \"raw\ncontrol\"}", "broken_json"),
            (Json, br#"{"message": "a", "x": [[[[[[[[1]]]]]]]]}"#, "too_deep"),
            (Json, br#"{"event":{"x":[[[[[[[1]]]]]]]}}"#, "too_deep"),
            (Json, br#"["message"]"#, "not_an_object"),
            (Json, b"plain words", "not_an_object"),
            (Json, br#"{"text": "a", "message": null}"#, "missing_text"),
            (Json, br#"{"message": "\n"}"#, "empty"),
            (Auto, b"", "empty"),
            (Auto, b"\xef\xbb\xbf\r\n", "empty"),
            (Auto, b"<14>1 - - - - - -", "empty"),
            (Syslog, b"plain words", "bad_syslog"),
            (Cef, b"plain words", "bad_cef"),
            (Cef, b"<34>Jan 24 09:07:54 fw CEF:0|a|b", "bad_cef"),
        ] {
            assert_eq!(reason(Kind::Log, format, value), expected, "{}", String::from_utf8_lossy(value));
            seen.insert(expected);
        }
        assert_eq!(seen, std::collections::BTreeSet::from(Reject::REASONS));
    }

    #[test]
    fn a_reject_names_the_place_and_quotes_nothing() {
        let message =
            |value: &[u8]| Decoder::new(&settings(Kind::Log, Format::Auto)).decode(value, NOW).unwrap_err().to_string();
        assert_eq!(
            message(b"{\"message\": \"secret\"\n secret}"),
            "broken JSON: expected `,` or `}` at line 2 column 2"
        );
        assert_eq!(message(b"secret \xff"), "not UTF-8 at byte 7");
        assert_eq!(
            message(br#"{"x": "secret"}"#),
            "none of the fields `message`, `log_message`, `event.original` holds text"
        );
    }

    #[test]
    fn nesting_up_to_the_limit_is_read() {
        let nested = |levels: usize| {
            let inner = levels - 1;
            format!(r#"{{"message": "a", "x": {}{}}}"#, "[".repeat(inner), "]".repeat(inner))
        };
        assert!(log(&nested(8)).is_ok());
        assert_eq!(log(&nested(9)).unwrap_err().reason(), "too_deep");
        assert_eq!(log(&nested(2000)).unwrap_err().reason(), "too_deep");
    }

    /// Values that look enough like each format to get past its first checks.
    fn near_values() -> impl Strategy<Value = Vec<u8>> {
        let fragment = prop_oneof![
            "\\PC{0,12}".prop_map(String::into_bytes),
            proptest::collection::vec(any::<u8>(), 0..8),
            proptest::sample::select(vec![
                "{",
                "}",
                "\"",
                "\\",
                "\\u12",
                "\\ud800",
                ":",
                ",",
                "[",
                "]",
                "\"message\":",
                "\"event\":",
                "null",
                "-1e9",
                "<34>",
                "<34>1 ",
                "Jan 24 09:07:54",
                "2025-01-24T09:07:54Z",
                "31/12/2025",
                " - ",
                "CEF:0|",
                "|",
                "msg=",
                "=",
                " ",
                "\n",
                "\0",
                "\u{feff}",
                "é",
                "9",
                "am",
                "[a b=\"c\"]",
            ])
            .prop_map(|fragment| fragment.as_bytes().to_vec()),
        ];
        proptest::collection::vec(fragment, 0..24).prop_map(|fragments| fragments.concat())
    }

    fn any_format() -> impl Strategy<Value = Format> {
        proptest::sample::select(vec![Format::Auto, Format::Json, Format::Text, Format::Syslog, Format::Cef])
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_limits_hold(
            value in near_values(),
            format in any_format(),
            kind in proptest::sample::select(Kind::ALL.to_vec()),
            now in any::<i64>(),
        ) {
            let decoder = Decoder::new(&DecodeSettings { max_record_bytes: 64, ..settings(kind, format) });
            match decoder.decode(&value, now) {
                Ok(record) => {
                    prop_assert!(value.len() <= 64);
                    prop_assert!(!record.text().trim().is_empty());
                    let now = now.clamp(0, LATEST_MS);
                    prop_assert!((0..=now + 86_400_000).contains(&record.occurred_at()));
                }
                Err(reject) => prop_assert!(value.len() <= 64 || reject.reason() == "too_large"),
            }
        }

        #[test]
        fn what_a_ticket_says_is_what_is_read(
            id in "\\PC{1,20}",
            title in "(?s)[^ ].{0,60}",
            content in "(?s).{0,200}",
            email in "[a-z]{1,9}@[a-z]{1,9}\\.eu",
            source in "[^ ]\\PC{0,20}",
            seconds in 631_152_000_i64..1_737_720_000,
        ) {
            prop_assume!(!id.trim().is_empty() && !title.trim().is_empty() && !content.trim().is_empty());
            prop_assume!(!source.trim().is_empty());
            let created = crate::record::rfc3339(seconds * 1000);
            let value = serde_json::json!({
                "ticket_id": id, "title": title, "content": content, "email_address": email, "source": source,
                "created_date": created, "priority": "critical", "unknown": {"title": [title, 1.5, null]},
            })
            .to_string();
            let ticket = ticket(&value).unwrap();
            prop_assert_eq!(ticket.ticket_id.as_deref(), Some(&*id));
            prop_assert_eq!(&ticket.text[..ticket.title_len], &*title);
            prop_assert_eq!(&ticket.text[ticket.title_len + 1..], &*content);
            prop_assert_eq!(ticket.email_address.as_deref(), Some(&*email));
            prop_assert_eq!(ticket.source.as_deref(), Some(&*source));
            prop_assert_eq!(ticket.priority, Some(Priority::Critical));
            prop_assert_eq!(ticket.occurred_at, seconds * 1000);
        }

        #[test]
        fn json_strings_are_read_as_serde_json_reads_them(text in "(?s).{1,80}") {
            prop_assume!(!text.trim().is_empty());
            let value = serde_json::json!({ "message": text }).to_string();
            let line = log(&value);
            prop_assert_eq!(line.unwrap().text, text);
        }
    }
}
