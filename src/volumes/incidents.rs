//! Incidents as they are stored, what is asked about them, and the store's part in it. ClickHouse and memory give the same
//! answers; a row that is written again replaces itself.

use clickhouse::Row;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::record::{Incident, IncidentAction, IncidentChange, IncidentHistory, IncidentStatus, Priority, rfc3339};

use super::clickhouse::StoreError;
use super::question::{EventCursor, numbered};
use super::store::VolumeStore;

/// What an incident keeps of the tokens of its events.
pub(super) const MOST_TOKENS: usize = 1_000;

/// An entry of a history: when, what, by whom, escalation step, note, the update that asked for it.
pub type HistoryRow = (i64, String, String, u8, String, String);

/// A row of `incident_events`. Times are milliseconds since 1970-01-01 UTC, here and below.
#[derive(Debug, Clone, PartialEq, Row, Serialize, Deserialize)]
pub struct IncidentEventRow {
    pub source_topic: String,
    pub source_partition: i32,
    pub source_offset: u64,
    #[serde(with = "clickhouse::serde::uuid")]
    pub event_id: Uuid,
    /// Nil until the event is placed.
    #[serde(with = "clickhouse::serde::uuid")]
    pub incident_id: Uuid,
    pub occurred_at: i64,
    pub seen_at: i64,
    pub queue: String,
    pub category: String,
    pub priority: i8,
    pub tokens: Vec<String>,
    /// 0 as it came, 1 placed.
    pub version: u8,
}

impl IncidentEventRow {
    /// The order in which events are placed.
    pub fn place(&self) -> (i64, &str, i32, u64) {
        (self.occurred_at, &self.source_topic, self.source_partition, self.source_offset)
    }

    pub fn priority(&self) -> Priority {
        numbered(Priority::ALL, self.priority)
    }
}

/// The events of one incident, summed up.
#[derive(Debug, Clone, PartialEq, Row, Deserialize)]
pub struct IncidentMembers {
    #[serde(with = "clickhouse::serde::uuid")]
    pub incident_id: Uuid,
    pub events: u64,
    pub first_seen: i64,
    pub last_seen: i64,
    /// The highest priority.
    pub severity: i8,
    /// Of the events together, sorted, at most a thousand.
    pub all_tokens: Vec<String>,
}

impl IncidentMembers {
    pub fn severity(&self) -> Priority {
        numbered(Priority::ALL, self.severity)
    }
}

/// A row of `incidents`.
#[derive(Debug, Clone, PartialEq, Row, Serialize, Deserialize)]
pub struct IncidentRow {
    #[serde(with = "clickhouse::serde::uuid")]
    pub incident_id: Uuid,
    pub version: u64,
    #[serde(with = "clickhouse::serde::uuid")]
    pub event_id: Uuid,
    pub status: i8,
    pub severity: i8,
    pub queue: String,
    pub category: String,
    pub opened_at: i64,
    pub first_seen: i64,
    pub last_seen: i64,
    pub events: u64,
    pub tokens: Vec<String>,
    pub step: u8,
    pub acknowledge_by: i64,
    pub resolve_by: i64,
    /// 0: not yet, here and below.
    pub acknowledged_at: i64,
    pub acknowledged_by: String,
    pub resolved_at: i64,
    pub resolved_by: String,
    pub acknowledge_breached_at: i64,
    pub resolve_breached_at: i64,
    pub updated_at: i64,
    pub history: Vec<HistoryRow>,
}

impl IncidentRow {
    pub fn status(&self) -> IncidentStatus {
        numbered(IncidentStatus::ALL, self.status)
    }

    pub fn severity(&self) -> Priority {
        numbered(Priority::ALL, self.severity)
    }

    /// Where it stands in the order of incidents.
    pub fn cursor(&self) -> EventCursor {
        EventCursor { occurred_at: self.opened_at, event_id: self.incident_id }
    }
}

impl From<&IncidentRow> for Incident {
    fn from(row: &IncidentRow) -> Self {
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let time = |at: i64| (at > 0).then(|| rfc3339(at));
        Incident {
            incident_id: row.incident_id,
            version: row.version,
            status: row.status(),
            severity: row.severity(),
            queue: row.queue.clone(),
            category: text(&row.category),
            event_id: row.event_id,
            events: row.events,
            opened_at: rfc3339(row.opened_at),
            first_seen: rfc3339(row.first_seen),
            last_seen: rfc3339(row.last_seen),
            step: row.step,
            acknowledge_by: rfc3339(row.acknowledge_by),
            resolve_by: rfc3339(row.resolve_by),
            acknowledged_at: time(row.acknowledged_at),
            acknowledged_by: text(&row.acknowledged_by),
            resolved_at: time(row.resolved_at),
            resolved_by: text(&row.resolved_by),
            acknowledge_breached_at: time(row.acknowledge_breached_at),
            resolve_breached_at: time(row.resolve_breached_at),
            updated_at: rfc3339(row.updated_at),
            correlated_by: row.tokens.clone(),
            history: row.history.iter().filter_map(history).collect(),
        }
    }
}

/// `None` for a change that this version does not know.
fn history((at, change, by, step, note, _): &HistoryRow) -> Option<IncidentHistory> {
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let change: IncidentChange = change.parse().ok()?;
    Some(IncidentHistory { at: rfc3339(*at), change, by: text(by), step: *step, note: text(note) })
}

/// A row of `incident_updates`.
#[derive(Debug, Clone, PartialEq, Row, Serialize, Deserialize)]
pub struct IncidentUpdateRow {
    #[serde(with = "clickhouse::serde::uuid")]
    pub update_id: Uuid,
    /// Nil when the update names an event.
    #[serde(with = "clickhouse::serde::uuid")]
    pub incident_id: Uuid,
    /// Nil when the update names an incident.
    #[serde(with = "clickhouse::serde::uuid")]
    pub event_id: Uuid,
    pub action: i8,
    pub given_by: String,
    pub given_at: i64,
    pub note: String,
    /// Empty until it was applied or refused.
    pub outcome: String,
    pub version: u8,
}

impl IncidentUpdateRow {
    pub fn action(&self) -> IncidentAction {
        numbered(IncidentAction::ALL, self.action)
    }
}

/// A row of `incident_notifications`.
#[derive(Debug, Clone, PartialEq, Row, Serialize, Deserialize)]
pub struct IncidentNotificationRow {
    #[serde(with = "clickhouse::serde::uuid")]
    pub incident_id: Uuid,
    pub channel: String,
    /// Entries of the history that it told.
    pub sequence: u32,
    #[serde(with = "clickhouse::serde::uuid")]
    pub delivery_id: Uuid,
    pub sent_at: i64,
    pub attempts: u32,
    /// 1 sent, 2 failed.
    pub outcome: i8,
}

/// How far a channel has been told about an incident.
#[derive(Debug, Clone, PartialEq, Eq, Row, Deserialize)]
pub struct Notified {
    #[serde(with = "clickhouse::serde::uuid")]
    pub incident_id: Uuid,
    pub channel: String,
    pub through: u32,
    pub last_at: i64,
}

/// Which incidents are asked for; those opened last come first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IncidentQuery {
    pub status: Option<IncidentStatus>,
    pub severity: Option<Priority>,
    pub queue: Option<String>,
    /// Opened from here on, and before `to`.
    pub from: i64,
    pub to: i64,
    pub after: Option<EventCursor>,
    pub limit: usize,
}

impl VolumeStore {
    /// Adds events, or their places; adding them again does no harm.
    pub async fn insert_incident_events(&self, rows: &[IncidentEventRow]) -> Result<(), StoreError> {
        match self {
            VolumeStore::ClickHouse(store) => store.insert("incident_events", rows).await,
            VolumeStore::Memory(store) => {
                store.incidents().insert_events(rows);
                Ok(())
            }
        }
    }

    /// Events without a place, that occurred from `occurred_from` on, in the order in which they are to be placed.
    pub async fn events_to_place(&self, occurred_from: i64, limit: usize) -> Result<Vec<IncidentEventRow>, StoreError> {
        match self {
            VolumeStore::ClickHouse(store) => store.events_to_place(occurred_from, limit).await,
            VolumeStore::Memory(store) => Ok(store.incidents().events_to_place(occurred_from, limit)),
        }
    }

    /// The events of incidents, summed up; an incident without one is left out.
    pub async fn incident_members(&self, ids: &[Uuid]) -> Result<Vec<IncidentMembers>, StoreError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        match self {
            VolumeStore::ClickHouse(store) => store.incident_members(ids).await,
            VolumeStore::Memory(store) => Ok(store.incidents().members(ids)),
        }
    }

    /// The incident of an event.
    pub async fn incident_of_event(&self, event_id: Uuid) -> Result<Option<Uuid>, StoreError> {
        match self {
            VolumeStore::ClickHouse(store) => store.incident_of_event(event_id).await,
            VolumeStore::Memory(store) => Ok(store.incidents().of_event(event_id)),
        }
    }

    pub async fn insert_incidents(&self, rows: &[IncidentRow]) -> Result<(), StoreError> {
        match self {
            VolumeStore::ClickHouse(store) => store.insert("incidents", rows).await,
            VolumeStore::Memory(store) => {
                store.incidents().insert(rows);
                Ok(())
            }
        }
    }

    pub async fn incident(&self, id: Uuid) -> Result<Option<IncidentRow>, StoreError> {
        match self {
            VolumeStore::ClickHouse(store) => store.incident(id).await,
            VolumeStore::Memory(store) => Ok(store.incidents().get(id)),
        }
    }

    /// Those opened last first.
    pub async fn incidents(&self, query: &IncidentQuery) -> Result<Vec<IncidentRow>, StoreError> {
        match self {
            VolumeStore::ClickHouse(store) => store.incidents(query).await,
            VolumeStore::Memory(store) => Ok(store.incidents().list(query)),
        }
    }

    /// Incidents that are not resolved, or that were changed since; those opened last first.
    pub async fn live_incidents(&self, updated_from: i64, limit: usize) -> Result<Vec<IncidentRow>, StoreError> {
        match self {
            VolumeStore::ClickHouse(store) => store.live_incidents(updated_from, limit).await,
            VolumeStore::Memory(store) => Ok(store.incidents().live(updated_from, limit)),
        }
    }

    /// Adds updates, or what became of them; adding them again does no harm.
    pub async fn insert_incident_updates(&self, rows: &[IncidentUpdateRow]) -> Result<(), StoreError> {
        match self {
            VolumeStore::ClickHouse(store) => store.insert("incident_updates", rows).await,
            VolumeStore::Memory(store) => {
                store.incidents().insert_updates(rows);
                Ok(())
            }
        }
    }

    /// Updates that are neither applied nor refused, the oldest first.
    pub async fn pending_incident_updates(&self, limit: usize) -> Result<Vec<IncidentUpdateRow>, StoreError> {
        match self {
            VolumeStore::ClickHouse(store) => store.pending_incident_updates(limit).await,
            VolumeStore::Memory(store) => Ok(store.incidents().pending_updates(limit)),
        }
    }

    pub async fn insert_incident_notifications(&self, rows: &[IncidentNotificationRow]) -> Result<(), StoreError> {
        match self {
            VolumeStore::ClickHouse(store) => store.insert("incident_notifications", rows).await,
            VolumeStore::Memory(store) => {
                store.incidents().insert_notifications(rows);
                Ok(())
            }
        }
    }

    /// How far each channel has been told about these incidents, by incident and channel.
    pub async fn incident_notifications(&self, ids: &[Uuid]) -> Result<Vec<Notified>, StoreError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        match self {
            VolumeStore::ClickHouse(store) => store.incident_notifications(ids).await,
            VolumeStore::Memory(store) => Ok(store.incidents().notified(ids)),
        }
    }
}
