//! Incidents as they leave the daemon (the value of `incidents`, and what the API answers), and what people and other
//! systems ask to be done with one (the value of `incident-updates`). See `schemas/incident.json` and
//! `schemas/incident-update.json`.

use std::borrow::Cow;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha1::{Digest, Sha1};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{Priority, SourcePosition};

/// `uuid5(NAMESPACE_URL, "https://triaged.dev/incident")`.
const INCIDENT_NAMESPACE: Uuid = Uuid::from_u128(0x8ce3_23a6_e19a_5ee8_a5e4_3aa4_8a9b_5fbc);
/// `uuid5(NAMESPACE_URL, "https://triaged.dev/incident-update")`.
const UPDATE_NAMESPACE: Uuid = Uuid::from_u128(0x9bdc_2ed1_9971_53c3_a372_be08_ab5f_0472);
/// Bytes of a note; it is for people.
pub const LONGEST_NOTE: usize = 4_000;
/// Bytes of the name of who asks.
const LONGEST_NAME: usize = 256;

/// Where an incident stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum IncidentStatus {
    Open,
    Acknowledged,
    Resolved,
}

impl IncidentStatus {
    pub const ALL: [IncidentStatus; 3] = [IncidentStatus::Open, IncidentStatus::Acknowledged, IncidentStatus::Resolved];

    pub fn as_str(self) -> &'static str {
        match self {
            IncidentStatus::Open => "open",
            IncidentStatus::Acknowledged => "acknowledged",
            IncidentStatus::Resolved => "resolved",
        }
    }
}

/// What can be done with an incident from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IncidentAction {
    Acknowledge,
    Resolve,
    Escalate,
}

impl IncidentAction {
    pub const ALL: [IncidentAction; 3] =
        [IncidentAction::Acknowledge, IncidentAction::Resolve, IncidentAction::Escalate];

    pub fn as_str(self) -> &'static str {
        match self {
            IncidentAction::Acknowledge => "acknowledge",
            IncidentAction::Resolve => "resolve",
            IncidentAction::Escalate => "escalate",
        }
    }
}

/// What happened to an incident.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum IncidentChange {
    Opened,
    /// A more urgent event joined it.
    Raised,
    /// It reached the next step of escalation, by time or by hand.
    Escalated,
    Acknowledged,
    /// Nobody acknowledged it in time.
    AcknowledgeBreached,
    /// Nobody resolved it in time.
    ResolveBreached,
    Resolved,
}

impl IncidentChange {
    pub const ALL: [IncidentChange; 7] = [
        IncidentChange::Opened,
        IncidentChange::Raised,
        IncidentChange::Escalated,
        IncidentChange::Acknowledged,
        IncidentChange::AcknowledgeBreached,
        IncidentChange::ResolveBreached,
        IncidentChange::Resolved,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            IncidentChange::Opened => "opened",
            IncidentChange::Raised => "raised",
            IncidentChange::Escalated => "escalated",
            IncidentChange::Acknowledged => "acknowledged",
            IncidentChange::AcknowledgeBreached => "acknowledge_breached",
            IncidentChange::ResolveBreached => "resolve_breached",
            IncidentChange::Resolved => "resolved",
        }
    }
}

impl FromStr for IncidentChange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        IncidentChange::ALL
            .into_iter()
            .find(|change| change.as_str() == text)
            .ok_or_else(|| format!("{text:?} is no change of an incident"))
    }
}

/// One entry of an incident's history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct IncidentHistory {
    /// RFC 3339.
    #[schema(format = "date-time")]
    pub at: String,
    pub change: IncidentChange,
    /// Who did it; absent when time or an event did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// The step of escalation that it reached.
    pub step: u8,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// An incident with its whole present state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Incident {
    #[schema(value_type = String, format = "uuid")]
    pub incident_id: Uuid,
    /// Rises with every change; of two records of one incident the higher one holds.
    pub version: u64,
    pub status: IncidentStatus,
    /// The highest priority of its events; at least high when a person escalated it.
    pub severity: Priority,
    /// Of the first event.
    pub queue: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub category: Option<String>,
    /// The first event.
    #[schema(value_type = String, format = "uuid")]
    pub event_id: Uuid,
    /// Distinct records.
    pub events: u64,
    #[schema(format = "date-time")]
    pub opened_at: String,
    /// Event time of the earliest event.
    #[schema(format = "date-time")]
    pub first_seen: String,
    #[schema(format = "date-time")]
    pub last_seen: String,
    /// The step of escalation: 0 is whoever is told first.
    pub step: u8,
    #[schema(format = "date-time")]
    pub acknowledge_by: String,
    #[schema(format = "date-time")]
    pub resolve_by: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(format = "date-time")]
    pub acknowledged_at: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledged_by: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(format = "date-time")]
    pub resolved_at: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolved_by: Option<String>,
    /// When the time for an acknowledgement was over without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(format = "date-time")]
    pub acknowledge_breached_at: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(format = "date-time")]
    pub resolve_breached_at: Option<String>,
    #[schema(format = "date-time")]
    pub updated_at: String,
    /// What its events have in common, each with its kind: `ip:203.0.113.7`, `template:…`. Parts of texts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub correlated_by: Vec<String>,
    /// The oldest first.
    pub history: Vec<IncidentHistory>,
}

/// A request to change an incident.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IncidentUpdate<'a> {
    /// A request that is sent again has the same. Absent: it follows from the message's place in Kafka.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update_id: Option<Uuid>,
    pub action: IncidentAction,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incident_id: Option<Uuid>,
    /// To escalate an event by hand: its incident, or one that is opened for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_id: Option<Uuid>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Cow<'a, str>>,
    /// RFC 3339. Absent: the message's time.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub note: Option<Cow<'a, str>>,
}

/// Why a message asks for nothing that can be done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UpdateFault {
    #[error("{0} needs an incident_id and no event_id")]
    NeedsIncident(&'static str),
    #[error("escalate needs either an incident_id or an event_id")]
    NeedsOne,
    #[error("{field} has more than {limit} bytes")]
    TooLong { field: &'static str, limit: usize },
}

impl IncidentUpdate<'_> {
    pub fn check(&self) -> Result<(), UpdateFault> {
        match (self.action, self.incident_id.is_some(), self.event_id.is_some()) {
            (IncidentAction::Escalate, true, false) | (IncidentAction::Escalate, false, true) => {}
            (IncidentAction::Escalate, ..) => return Err(UpdateFault::NeedsOne),
            (_, true, false) => {}
            (action, ..) => return Err(UpdateFault::NeedsIncident(action.as_str())),
        }
        for (field, text, limit) in [("by", &self.by, LONGEST_NAME), ("note", &self.note, LONGEST_NOTE)] {
            if text.as_ref().is_some_and(|text| text.len() > limit) {
                return Err(UpdateFault::TooLong { field, limit });
            }
        }
        Ok(())
    }
}

/// The id of the incident that an event opens: whoever looks at the same first event finds the same.
pub fn incident_id_of(event_id: Uuid) -> Uuid {
    let hash = Sha1::new().chain_update(INCIDENT_NAMESPACE).chain_update(event_id.hyphenated().to_string()).finalize();
    let first: [u8; 16] = hash[..16].try_into().expect("SHA-1 gives 20 bytes");
    uuid::Builder::from_sha1_bytes(first).into_uuid()
}

/// The id of an update that came without one: a replay of the message gives the same.
pub fn update_id_of(place: &SourcePosition<'_>) -> Uuid {
    super::uuid5(UPDATE_NAMESPACE, place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_names_what_it_is_about() {
        let id = "00000000-0000-5000-8000-000000000001";
        let check = |members: &str| {
            let text = format!("{{{members}}}");
            serde_json::from_str::<IncidentUpdate<'_>>(&text).expect("an update").check()
        };
        for right in [
            format!(r#""action":"acknowledge","incident_id":"{id}""#),
            format!(r#""action":"resolve","incident_id":"{id}","note":"done","by":"ada","from":"a newer version""#),
            format!(r#""action":"escalate","incident_id":"{id}""#),
            format!(r#""action":"escalate","event_id":"{id}""#),
        ] {
            assert_eq!(check(&right), Ok(()), "{right}");
        }
        let by_event = format!(r#""action":"resolve","event_id":"{id}""#);
        assert_eq!(check(&by_event), Err(UpdateFault::NeedsIncident("resolve")));
        assert_eq!(check(r#""action":"escalate""#), Err(UpdateFault::NeedsOne));
        let both = format!(r#""action":"escalate","event_id":"{id}","incident_id":"{id}""#);
        assert_eq!(check(&both), Err(UpdateFault::NeedsOne));
        let long = format!(r#""action":"escalate","event_id":"{id}","note":"{}""#, "x".repeat(LONGEST_NOTE + 1));
        assert_eq!(check(&long), Err(UpdateFault::TooLong { field: "note", limit: LONGEST_NOTE }));
    }

    #[test]
    fn an_incident_id_follows_from_its_first_event() {
        let event = Uuid::from_u128(7);
        // uuid.uuid5(namespace, str(event)) of Python's standard library.
        assert_eq!(incident_id_of(event).to_string(), "efd40f53-4892-5b9f-a7d9-de73dda756c2");
        assert_ne!(incident_id_of(event), incident_id_of(Uuid::from_u128(8)));
    }
}
