//! The rows of the tables in `schemas/clickhouse`, column by column.

use std::borrow::Cow;

use chrono::{DateTime, NaiveDate};
use clickhouse::Row;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::record::{Arm, QueueEvent};

/// ClickHouse's `DateTime` ends in 2106; what a record claims beyond that is counted in the last minute, and what lies
/// before 1970 in the first.
pub(super) const LAST_MILLISECOND: i64 = u32::MAX as i64 * 1000;

/// Why a message of the events topic is no event.
#[derive(Debug, thiserror::Error)]
pub enum InvalidEvent {
    #[error("not the JSON of a queue event")]
    Json(#[from] serde_json::Error),
    #[error("{field} is no RFC 3339 time")]
    Time { field: &'static str, source: chrono::ParseError },
    #[error("the source offset {0} is negative")]
    Offset(i64),
}

/// A row of `queue_events`, borrowed from the event.
#[derive(Debug, Clone, PartialEq)]
pub struct EventRow<'a> {
    pub source_topic: &'a str,
    pub source_partition: i32,
    pub source_offset: u64,
    pub event_id: Uuid,
    pub kind: i8,
    pub ticket_id: &'a str,
    pub origin: &'a str,
    /// Milliseconds since 1970-01-01 UTC, here and below.
    pub occurred_at: i64,
    pub decided_at: i64,
    pub queue: &'a str,
    pub category: &'a str,
    pub priority: i8,
    pub confidence: f32,
    pub routing: i8,
    pub decided_by: &'a str,
    pub alternatives: Vec<(&'a str, f32)>,
    pub reasons: Vec<(&'a str, f32)>,
    pub tags: &'a [Cow<'a, str>],
    pub urls: &'a [String],
    pub ips: &'a [String],
    pub domains: &'a [String],
    pub emails: &'a [String],
    pub cves: &'a [String],
    pub hashes: &'a [String],
    pub model: &'a str,
    pub config: &'a str,
    /// `champion`, `challenger`, or nothing.
    pub arm: &'a str,
    /// Model, queue and confidence of what a challenger says in the shadow; one at most.
    pub shadow: Vec<(&'a str, &'a str, f32)>,
    pub template_id: &'a str,
    pub text: &'a str,
}

impl<'a> EventRow<'a> {
    pub fn of(event: &'a QueueEvent<'_>) -> Result<Self, InvalidEvent> {
        let text = |optional: &'a Option<Cow<'_, str>>| optional.as_deref().unwrap_or_default();
        let offset = event.source.offset;
        let found = &event.indicators;
        Ok(EventRow {
            source_topic: &event.source.topic,
            source_partition: event.source.partition,
            source_offset: u64::try_from(offset).map_err(|_| InvalidEvent::Offset(offset))?,
            event_id: event.event_id,
            kind: event.kind as i8 + 1,
            ticket_id: text(&event.ticket_id),
            origin: text(&event.origin),
            occurred_at: milliseconds("occurred_at", &event.occurred_at)?,
            decided_at: milliseconds("decided_at", &event.decided_at)?,
            queue: &event.queue,
            category: text(&event.category),
            priority: event.priority as i8 + 1,
            confidence: event.confidence,
            routing: event.routing as i8 + 1,
            decided_by: &event.decided_by,
            alternatives: event.alternatives.iter().map(|other| (&*other.label, other.probability)).collect(),
            reasons: event.reasons.iter().map(|reason| (&*reason.feature, reason.weight)).collect(),
            tags: &event.tags,
            urls: &found.urls,
            ips: &found.ips,
            domains: &found.domains,
            emails: &found.emails,
            cves: &found.cves,
            hashes: &found.hashes,
            model: text(&event.model),
            config: text(&event.config),
            arm: event.arm.map_or("", Arm::as_str),
            shadow: event.shadow.iter().map(|said| (&*said.model, &*said.queue, said.confidence)).collect(),
            template_id: text(&event.template_id),
            text: text(&event.text),
        })
    }

    /// The minute of event time, counted from 1970-01-01 UTC.
    pub fn minute(&self) -> u32 {
        (self.occurred_at / 60_000) as u32
    }
}

fn milliseconds(field: &'static str, text: &str) -> Result<i64, InvalidEvent> {
    let time = match written_by_us(text) {
        Some(time) => time,
        None => {
            let time = DateTime::parse_from_rfc3339(text).map_err(|source| InvalidEvent::Time { field, source })?;
            time.timestamp_millis()
        }
    };
    Ok(time.clamp(0, LAST_MILLISECOND))
}

/// A time in the one of RFC 3339's many forms that our own events have, `2026-01-24T09:07:54.123Z`, in a sixth of the time.
fn written_by_us(text: &str) -> Option<i64> {
    let bytes: &[u8; 24] = text.as_bytes().try_into().ok()?;
    let number = |from: usize, to: usize| {
        bytes[from..to].iter().try_fold(0, |sum, byte| {
            let digit = byte.wrapping_sub(b'0');
            (digit < 10).then(|| sum * 10 + u32::from(digit))
        })
    };
    let separators = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':'), (19, b'.'), (23, b'Z')];
    if separators.iter().any(|(at, separator)| bytes[*at] != *separator) {
        return None;
    }
    let date = NaiveDate::from_ymd_opt(number(0, 4)? as i32, number(5, 7)?, number(8, 10)?)?;
    let time = date.and_hms_milli_opt(number(11, 13)?, number(14, 16)?, number(17, 19)?, number(20, 23)?)?;
    Some(time.and_utc().timestamp_millis())
}

/// A row of `forecasts`. Times are seconds since 1970-01-01 UTC, `made_at` is milliseconds; here and below.
#[derive(Debug, Clone, PartialEq, Row, Serialize, Deserialize)]
pub struct ForecastRow {
    pub window: String,
    pub queue: String,
    pub starts_at: u32,
    pub made_at: i64,
    pub at: u32,
    pub mean: f64,
    pub lower80: f64,
    pub upper80: f64,
    pub lower95: f64,
    pub upper95: f64,
    pub lower99: f64,
    pub upper99: f64,
}

/// A row of `forecast_totals`.
#[derive(Debug, Clone, PartialEq, Row, Serialize, Deserialize)]
pub struct ForecastTotalRow {
    pub window: String,
    pub queue: String,
    pub starts_at: u32,
    pub made_at: i64,
    pub steps: u32,
    pub bucket_seconds: u32,
    pub mean: f64,
    pub lower80: f64,
    pub upper80: f64,
    pub lower95: f64,
    pub upper95: f64,
    pub probability_of_increase: f64,
    /// 1 falling, 2 steady, 3 rising.
    pub trend: i8,
    pub method: String,
    /// Mean absolute error of the seasonal naive method within the history: what MASE is measured in.
    pub scale: f64,
    pub backtest_mase: f64,
    pub backtest_coverage95: f64,
}

/// A row of `forecast_accuracy`.
#[derive(Debug, Clone, PartialEq, Row, Serialize, Deserialize)]
pub struct AccuracyRow {
    pub window: String,
    pub queue: String,
    pub starts_at: u32,
    pub compared_at: i64,
    pub steps: u32,
    pub method: String,
    pub mase: f64,
    pub coverage80: f64,
    pub coverage95: f64,
    pub forecast_total: f64,
    pub actual_total: f64,
}

/// A row of `anomalies`.
#[derive(Debug, Clone, PartialEq, Row, Serialize, Deserialize)]
pub struct AnomalyRow {
    pub window: String,
    pub queue: String,
    pub at: u32,
    pub detected_at: i64,
    pub actual: f64,
    pub expected: f64,
    pub lower99: f64,
    pub upper99: f64,
    /// 1 below, 2 above.
    pub direction: i8,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::record::rfc3339;
    use crate::volumes::StoredEvent;

    const EVENT: &str = r#"{"event_id":"00000000-0000-5000-8000-000000000000",
        "source":{"topic":"logs","partition":1,"offset":7},"kind":"log","occurred_at":"1969-01-01T00:00:00.000Z",
        "decided_at":"2026-01-01T00:00:00.500Z","queue":"soc","priority":"critical","confidence":0.5,
        "routing":"manual_triage","decided_by":"fast"}"#;

    #[test]
    fn times_are_kept_within_what_clickhouse_can_hold() {
        let event: QueueEvent<'_> = serde_json::from_str(EVENT).unwrap();
        let row = EventRow::of(&event).unwrap();
        assert_eq!((row.occurred_at, row.decided_at), (0, 1_767_225_600_500));
        assert_eq!((row.kind, row.priority, row.routing), (2, 4, 3));
        let late = EVENT.replace("1969", "9999");
        let event: QueueEvent<'_> = serde_json::from_str(&late).unwrap();
        assert_eq!(EventRow::of(&event).unwrap().minute(), u32::MAX / 60);
    }

    proptest! {
        #[test]
        fn our_own_times_are_read_as_others_are(time in -62_167_219_200_000i64..253_402_300_800_000, wrong in "[0-9TZ:. -]", at in 0usize..24) {
            let mut text = rfc3339(time);
            prop_assert_eq!(written_by_us(&text), Some(time));
            text.replace_range(at..=at, &wrong);
            let chrono = DateTime::parse_from_rfc3339(&text).ok().map(|time| time.timestamp_millis());
            prop_assert!(written_by_us(&text).is_none_or(|time| Some(time) == chrono));
        }
    }

    #[test]
    fn what_is_stored_can_be_read_again() {
        let full = EVENT.replace(
            "\"decided_by\":\"fast\"",
            r#""decided_by":"rule:x","category":"c","ticket_id":"T","alternatives":[{"label":"b","probability":0.25}],
               "tags":["t"],"indicators":{"ips":["203.0.113.7"]},"model":"logs@1","arm":"challenger",
               "shadow":{"model":"logs@2","queue":"q","confidence":0.5},"config":"0a1b","text":"line""#,
        );
        for text in [EVENT.replace("1969", "2026"), full.replace("1969", "2026")] {
            let event: QueueEvent<'_> = serde_json::from_str(&text).unwrap();
            let stored = StoredEvent::from(&EventRow::of(&event).unwrap());
            assert!(stored.weight() > stored.text.len());
            assert_eq!(QueueEvent::from(stored), event);
        }
    }

    #[test]
    fn what_is_no_event_says_why() {
        for (wrong, why) in [
            (EVENT.replace("\"offset\":7", "\"offset\":-7"), "the source offset -7 is negative"),
            (EVENT.replace("2026-01-01T", "2026-01-01 at "), "decided_at is no RFC 3339 time"),
        ] {
            let event: QueueEvent<'_> = serde_json::from_str(&wrong).unwrap();
            assert_eq!(EventRow::of(&event).unwrap_err().to_string(), why);
        }
    }
}
