//! The rows of the tables in `schemas/clickhouse`, column by column.

use std::borrow::Cow;

use chrono::DateTime;
use clickhouse::Row;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::record::{Alternative, Indicators, Kind, Priority, QueueEvent, Routing, SourcePosition, rfc3339};

use super::question::{EventCursor, numbered};

/// ClickHouse's `DateTime` ends in 2106; what a record claims beyond that is counted in the last minute, and what lies
/// before 1970 in the first.
const LAST_MILLISECOND: i64 = u32::MAX as i64 * 1000;

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
#[derive(Debug, Clone, PartialEq, Row, Serialize)]
pub struct EventRow<'a> {
    pub source_topic: &'a str,
    pub source_partition: i32,
    pub source_offset: u64,
    #[serde(with = "clickhouse::serde::uuid")]
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
    pub tags: &'a [Cow<'a, str>],
    pub urls: &'a [String],
    pub ips: &'a [String],
    pub domains: &'a [String],
    pub emails: &'a [String],
    pub cves: &'a [String],
    pub hashes: &'a [String],
    pub model: &'a str,
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
            tags: &event.tags,
            urls: &found.urls,
            ips: &found.ips,
            domains: &found.domains,
            emails: &found.emails,
            cves: &found.cves,
            hashes: &found.hashes,
            model: text(&event.model),
            template_id: text(&event.template_id),
            text: text(&event.text),
        })
    }

    /// The minute of event time, counted from 1970-01-01 UTC.
    pub fn minute(&self) -> u32 {
        (self.occurred_at / 60_000) as u32
    }
}

/// A row of `queue_events` as it is read.
#[derive(Debug, Clone, PartialEq, Row, Deserialize)]
pub struct StoredEvent {
    pub source_topic: String,
    pub source_partition: i32,
    pub source_offset: u64,
    #[serde(with = "clickhouse::serde::uuid")]
    pub event_id: Uuid,
    pub kind: i8,
    pub ticket_id: String,
    pub origin: String,
    pub occurred_at: i64,
    pub decided_at: i64,
    pub queue: String,
    pub category: String,
    pub priority: i8,
    pub confidence: f32,
    pub routing: i8,
    pub decided_by: String,
    pub alternatives: Vec<(String, f32)>,
    pub tags: Vec<String>,
    pub urls: Vec<String>,
    pub ips: Vec<String>,
    pub domains: Vec<String>,
    pub emails: Vec<String>,
    pub cves: Vec<String>,
    pub hashes: Vec<String>,
    pub model: String,
    pub template_id: String,
    pub text: String,
}

impl From<&EventRow<'_>> for StoredEvent {
    fn from(row: &EventRow<'_>) -> Self {
        StoredEvent {
            source_topic: row.source_topic.to_owned(),
            source_partition: row.source_partition,
            source_offset: row.source_offset,
            event_id: row.event_id,
            kind: row.kind,
            ticket_id: row.ticket_id.to_owned(),
            origin: row.origin.to_owned(),
            occurred_at: row.occurred_at,
            decided_at: row.decided_at,
            queue: row.queue.to_owned(),
            category: row.category.to_owned(),
            priority: row.priority,
            confidence: row.confidence,
            routing: row.routing,
            decided_by: row.decided_by.to_owned(),
            alternatives: row.alternatives.iter().map(|(label, share)| ((*label).to_owned(), *share)).collect(),
            tags: row.tags.iter().map(|tag| tag.clone().into_owned()).collect(),
            urls: row.urls.to_vec(),
            ips: row.ips.to_vec(),
            domains: row.domains.to_vec(),
            emails: row.emails.to_vec(),
            cves: row.cves.to_vec(),
            hashes: row.hashes.to_vec(),
            model: row.model.to_owned(),
            template_id: row.template_id.to_owned(),
            text: row.text.to_owned(),
        }
    }
}

impl From<StoredEvent> for QueueEvent<'static> {
    fn from(row: StoredEvent) -> Self {
        let optional = |text: String| (!text.is_empty()).then_some(Cow::Owned(text));
        let alternative = |(label, probability): (String, f32)| Alternative { label: label.into(), probability };
        QueueEvent {
            event_id: row.event_id,
            source: SourcePosition {
                topic: row.source_topic.into(),
                partition: row.source_partition,
                offset: row.source_offset as i64,
            },
            kind: numbered(Kind::ALL, row.kind),
            ticket_id: optional(row.ticket_id),
            origin: optional(row.origin),
            occurred_at: rfc3339(row.occurred_at).into(),
            decided_at: rfc3339(row.decided_at).into(),
            queue: row.queue.into(),
            category: optional(row.category),
            priority: numbered(Priority::ALL, row.priority),
            confidence: row.confidence,
            routing: numbered(Routing::ALL, row.routing),
            decided_by: row.decided_by.into(),
            alternatives: row.alternatives.into_iter().map(alternative).collect(),
            // The tables do not keep them.
            reasons: Vec::new(),
            tags: row.tags.into_iter().map(Cow::Owned).collect(),
            indicators: Indicators {
                urls: row.urls,
                ips: row.ips,
                domains: row.domains,
                emails: row.emails,
                cves: row.cves,
                hashes: row.hashes,
            },
            model: optional(row.model),
            template_id: optional(row.template_id),
            text: optional(row.text),
        }
    }
}

impl StoredEvent {
    /// Where it stands in the order of events.
    pub fn cursor(&self) -> EventCursor {
        EventCursor { occurred_at: self.occurred_at, event_id: self.event_id }
    }

    /// The tier that decided, without a rule's name.
    pub(super) fn tier(&self) -> &str {
        if self.decided_by.starts_with("rule:") { "rule" } else { &self.decided_by }
    }

    /// Bytes that it takes in memory, roughly.
    pub(super) fn weight(&self) -> usize {
        let lists = [&self.tags, &self.urls, &self.ips, &self.domains, &self.emails, &self.cves, &self.hashes];
        let listed: usize = lists.into_iter().flatten().map(|text| text.len() + size_of::<String>()).sum();
        size_of::<StoredEvent>() + self.text.len() + self.ticket_id.len() + self.decided_by.len() + listed
    }
}

fn milliseconds(field: &'static str, text: &str) -> Result<i64, InvalidEvent> {
    let time = DateTime::parse_from_rfc3339(text).map_err(|source| InvalidEvent::Time { field, source })?;
    Ok(time.timestamp_millis().clamp(0, LAST_MILLISECOND))
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
    use super::*;

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

    #[test]
    fn what_is_stored_can_be_read_again() {
        let full = EVENT.replace(
            "\"decided_by\":\"fast\"",
            r#""decided_by":"rule:x","category":"c","ticket_id":"T","alternatives":[{"label":"b","probability":0.25}],
               "tags":["t"],"indicators":{"ips":["203.0.113.7"]},"model":"logs@1","text":"line""#,
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
