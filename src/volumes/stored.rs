//! An event as it is read back: the same columns as `EventRow`, owned.

use std::borrow::Cow;

use clickhouse::Row;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::record::{
    Alternative, Arm, Indicators, Kind, Priority, QueueEvent, Reason, Routing, Shadow, SourcePosition, rfc3339,
};

use super::question::EventCursor;
use super::row::EventRow;

/// A row of `queue_events`; see `EventRow` for the columns.
#[derive(Debug, Clone, PartialEq, Row, Serialize, Deserialize)]
pub struct StoredEvent {
    pub source_topic: String,
    pub source_partition: i32,
    pub source_offset: u64,
    #[serde(with = "clickhouse::serde::uuid")]
    pub event_id: Uuid,
    pub kind: i8,
    pub ticket_id: String,
    pub origin: String,
    /// Milliseconds since 1970-01-01 UTC, here and below.
    pub occurred_at: i64,
    pub decided_at: i64,
    pub queue: String,
    pub category: String,
    pub priority: i8,
    pub confidence: f32,
    pub routing: i8,
    pub decided_by: String,
    pub alternatives: Vec<(String, f32)>,
    pub reasons: Vec<(String, f32)>,
    pub tags: Vec<String>,
    pub urls: Vec<String>,
    pub ips: Vec<String>,
    pub domains: Vec<String>,
    pub emails: Vec<String>,
    pub cves: Vec<String>,
    pub hashes: Vec<String>,
    pub model: String,
    pub config: String,
    pub arm: String,
    pub shadow: Vec<(String, String, f32)>,
    pub template_id: String,
    pub text: String,
}

impl From<&EventRow<'_>> for StoredEvent {
    fn from(row: &EventRow<'_>) -> Self {
        let pairs = |pairs: &[(&str, f32)]| pairs.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
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
            alternatives: pairs(&row.alternatives),
            reasons: pairs(&row.reasons),
            tags: row.tags.iter().map(|tag| tag.clone().into_owned()).collect(),
            urls: row.urls.to_vec(),
            ips: row.ips.to_vec(),
            domains: row.domains.to_vec(),
            emails: row.emails.to_vec(),
            cves: row.cves.to_vec(),
            hashes: row.hashes.to_vec(),
            model: row.model.to_owned(),
            config: row.config.to_owned(),
            arm: row.arm.to_owned(),
            shadow: row.shadow.iter().map(|said| (said.0.to_owned(), said.1.to_owned(), said.2)).collect(),
            template_id: row.template_id.to_owned(),
            text: row.text.to_owned(),
        }
    }
}

impl StoredEvent {
    pub fn kind(&self) -> Kind {
        kind_of(self.kind).unwrap_or(Kind::Log)
    }

    pub fn routing(&self) -> Routing {
        of_number(&Routing::ALL, self.routing).unwrap_or(Routing::ManualTriage)
    }

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

/// The event, as it was published.
impl From<StoredEvent> for QueueEvent<'static> {
    fn from(row: StoredEvent) -> Self {
        let (kind, routing) = (row.kind(), row.routing());
        let optional = |text: String| (!text.is_empty()).then_some(Cow::Owned(text));
        QueueEvent {
            event_id: row.event_id,
            source: SourcePosition {
                topic: row.source_topic.into(),
                partition: row.source_partition,
                offset: row.source_offset as i64,
            },
            kind,
            ticket_id: optional(row.ticket_id),
            origin: optional(row.origin),
            occurred_at: rfc3339(row.occurred_at).into(),
            decided_at: rfc3339(row.decided_at).into(),
            queue: row.queue.into(),
            category: optional(row.category),
            priority: of_number(&Priority::ALL, row.priority).unwrap_or(Priority::Low),
            confidence: row.confidence,
            routing,
            decided_by: row.decided_by.into(),
            alternatives: row
                .alternatives
                .into_iter()
                .map(|(label, probability)| Alternative { label: label.into(), probability, decided_by: None })
                .collect(),
            reasons: row
                .reasons
                .into_iter()
                .map(|(feature, weight)| Reason { feature: feature.into(), weight })
                .collect(),
            tags: row.tags.into_iter().map(Into::into).collect(),
            indicators: Indicators {
                urls: row.urls,
                ips: row.ips,
                domains: row.domains,
                emails: row.emails,
                cves: row.cves,
                hashes: row.hashes,
            },
            model: optional(row.model),
            arm: Arm::ALL.into_iter().find(|arm| arm.as_str() == row.arm),
            shadow: row.shadow.into_iter().next().map(|(model, queue, confidence)| Shadow {
                model: model.into(),
                queue: queue.into(),
                confidence,
            }),
            config: optional(row.config),
            template_id: optional(row.template_id),
            text: optional(row.text),
        }
    }
}

/// Enumerations of the tables count from 1; 0 is nothing.
fn of_number<T: Copy>(all: &[T], number: i8) -> Option<T> {
    usize::try_from(number).ok()?.checked_sub(1).and_then(|place| all.get(place)).copied()
}

pub(super) fn kind_of(number: i8) -> Option<Kind> {
    of_number(&Kind::ALL, number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_comes_back_as_it_went_in() {
        let text = r#"{"event_id":"00000000-0000-5000-8000-000000000007",
            "source":{"topic":"logs","partition":1,"offset":7},"kind":"log","ticket_id":"T-1","origin":"sshd",
            "occurred_at":"2026-01-01T00:00:00.000Z","decided_at":"2026-01-01T00:00:00.500Z","queue":"soc",
            "category":"Security Alert","priority":"critical","confidence":0.5,"routing":"manual_triage",
            "decided_by":"fast","alternatives":[{"label":"Error","probability":0.25}],
            "reasons":[{"feature":"word root","weight":-0.5}],"tags":["a"],"indicators":{"ips":["203.0.113.7"]},
            "model":"logs@1","arm":"champion",
            "shadow":{"model":"logs@2","queue":"soc","confidence":0.75},"config":"0a1b2c3d","template_id":"0123456789abcdef","text":"a\nb"}"#;
        let event: QueueEvent<'_> = serde_json::from_str(text).expect("an event");
        let stored = StoredEvent::from(&EventRow::of(&event).expect("a row"));
        assert_eq!(QueueEvent::from(stored), event);
    }
}
