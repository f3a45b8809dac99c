//! Plain data: what a record is on its way through the daemon. No I/O, no decisions.
//!
//! `Record` arrives from `decode`, `Verdict` leaves `classify`, `QueueEvent` and `Escalation` are the JSON that
//! leaves the daemon. Texts are borrowed from the batch that holds the Kafka payloads wherever that is possible.

mod feedback;
mod incident;
mod json;

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};
use sha1::{Digest, Sha1};
use utoipa::ToSchema;
use uuid::Uuid;

pub use feedback::{Feedback, FeedbackFault, HARDEST, feedback_id_of, new_id};
pub use incident::{
    Incident, IncidentAction, IncidentChange, IncidentHistory, IncidentStatus, IncidentUpdate, LONGEST_NOTE,
    UpdateFault, incident_id_of, update_id_of,
};
pub use json::{write_escalation, write_event};

/// Namespace of all event ids: `uuid5(NAMESPACE_URL, "https://triaged.dev/queue-event")`, fixed for ever.
const EVENT_NAMESPACE: Uuid = Uuid::from_u128(0xedac_537b_ef57_5e4e_92f7_b072_12c6_8484);

/// What a topic carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Ticket,
    Log,
}

impl Kind {
    pub const ALL: [Kind; 2] = [Kind::Ticket, Kind::Log];

    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Ticket => "ticket",
            Kind::Log => "log",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "ticket" => Ok(Kind::Ticket),
            "log" => Ok(Kind::Log),
            _ => Err("expected `ticket` or `log`".to_owned()),
        }
    }
}

/// How urgent a record is; ordered, so that the highest of several wins by `max`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    Low,
    Medium,
    High,
    Critical,
}

impl Priority {
    pub const ALL: [Priority; 4] = [Priority::Low, Priority::Medium, Priority::High, Priority::Critical];

    pub fn as_str(self) -> &'static str {
        match self {
            Priority::Low => "low",
            Priority::Medium => "medium",
            Priority::High => "high",
            Priority::Critical => "critical",
        }
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Priority {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Priority::ALL
            .into_iter()
            .find(|priority| priority.as_str().eq_ignore_ascii_case(text.trim()))
            .ok_or_else(|| "expected `low`, `medium`, `high` or `critical`".to_owned())
    }
}

/// Which of two models that are compared decided, or would have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Arm {
    /// The model that is in use.
    Champion,
    /// The one that is tried.
    Challenger,
}

impl Arm {
    pub const ALL: [Arm; 2] = [Arm::Champion, Arm::Challenger];

    pub fn as_str(self) -> &'static str {
        match self {
            Arm::Champion => "champion",
            Arm::Challenger => "challenger",
        }
    }
}

/// What is to be done with an event, by its confidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Routing {
    AutoRoute,
    HumanVerify,
    ManualTriage,
}

impl Routing {
    pub const ALL: [Routing; 3] = [Routing::AutoRoute, Routing::HumanVerify, Routing::ManualTriage];

    pub fn as_str(self) -> &'static str {
        match self {
            Routing::AutoRoute => "auto_route",
            Routing::HumanVerify => "human_verify",
            Routing::ManualTriage => "manual_triage",
        }
    }
}

/// Which tier decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DecidedBy<'a> {
    Rule(&'a str),
    Cache,
    Fast,
    Encoder,
    Llm,
    /// No rule matched and there is no model.
    Nobody,
}

impl DecidedBy<'_> {
    /// The tier alone, without the rule's name: a bounded set, fit for a metric's label.
    pub fn tier(&self) -> &'static str {
        match self {
            DecidedBy::Rule(_) => "rule",
            DecidedBy::Cache => "cache",
            DecidedBy::Fast => "fast",
            DecidedBy::Encoder => "encoder",
            DecidedBy::Llm => "llm",
            DecidedBy::Nobody => "none",
        }
    }
}

impl fmt::Display for DecidedBy<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DecidedBy::Rule(id) => write!(f, "rule:{id}"),
            tier => f.write_str(tier.tier()),
        }
    }
}

/// A ticket, as decoded. All texts may borrow from the payload.
#[derive(Debug, Clone, PartialEq)]
pub struct Ticket<'a> {
    pub ticket_id: Option<Cow<'a, str>>,
    /// Title, a line feed, and content; the title alone or the content alone when the other is missing.
    pub text: Cow<'a, str>,
    /// Length in bytes of the title at the start of `text`; 0 without a title.
    pub title_len: usize,
    pub email_address: Option<Cow<'a, str>>,
    pub priority: Option<Priority>,
    pub source: Option<Cow<'a, str>>,
    /// Milliseconds since 1970-01-01 UTC.
    pub occurred_at: i64,
}

/// A log line, as decoded. All texts may borrow from the payload.
#[derive(Debug, Clone, PartialEq)]
pub struct LogLine<'a> {
    pub text: Cow<'a, str>,
    /// The application or host that wrote the line.
    pub source: Option<Cow<'a, str>>,
    pub level: Option<Cow<'a, str>>,
    /// Milliseconds since 1970-01-01 UTC.
    pub occurred_at: i64,
}

/// One decoded record.
#[derive(Debug, Clone, PartialEq)]
pub enum Record<'a> {
    Ticket(Ticket<'a>),
    Log(LogLine<'a>),
}

impl Record<'_> {
    pub fn kind(&self) -> Kind {
        match self {
            Record::Ticket(_) => Kind::Ticket,
            Record::Log(_) => Kind::Log,
        }
    }

    /// The text that rules and models read.
    pub fn text(&self) -> &str {
        match self {
            Record::Ticket(ticket) => &ticket.text,
            Record::Log(line) => &line.text,
        }
    }

    /// The system that the record names as its source, not its place in Kafka.
    pub fn source(&self) -> Option<&str> {
        match self {
            Record::Ticket(ticket) => ticket.source.as_deref(),
            Record::Log(line) => line.source.as_deref(),
        }
    }

    /// The priority that the record itself states.
    pub fn stated_priority(&self) -> Option<Priority> {
        match self {
            Record::Ticket(ticket) => ticket.priority,
            Record::Log(_) => None,
        }
    }

    pub fn ticket_id(&self) -> Option<&str> {
        match self {
            Record::Ticket(ticket) => ticket.ticket_id.as_deref(),
            Record::Log(_) => None,
        }
    }

    /// Event time in milliseconds since 1970-01-01 UTC.
    pub fn occurred_at(&self) -> i64 {
        match self {
            Record::Ticket(ticket) => ticket.occurred_at,
            Record::Log(line) => line.occurred_at,
        }
    }
}

/// Where the original record lies in Kafka. It travels with the record through every tier.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct SourcePosition<'a> {
    #[serde(borrow)]
    pub topic: Cow<'a, str>,
    pub partition: i32,
    pub offset: i64,
}

impl SourcePosition<'_> {
    /// UUIDv5 of topic, partition and offset: a replay of the record gives the same id.
    pub fn event_id(&self) -> Uuid {
        uuid5(EVENT_NAMESPACE, self)
    }
}

/// UUIDv5 of a place in Kafka.
fn uuid5(namespace: Uuid, place: &SourcePosition<'_>) -> Uuid {
    use std::io::Write;
    let mut name = Vec::with_capacity(place.topic.len() + 24);
    write!(name, "{}/{}/{}", place.topic, place.partition, place.offset).expect("writing to memory");
    let hash = Sha1::new().chain_update(namespace).chain_update(name).finalize();
    let first: [u8; 16] = hash[..16].try_into().expect("SHA-1 gives 20 bytes");
    uuid::Builder::from_sha1_bytes(first).into_uuid()
}

impl fmt::Display for SourcePosition<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]@{}", self.topic, self.partition, self.offset)
    }
}

/// A label with the probability that a model gave it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Alternative<'a> {
    #[serde(borrow)]
    pub label: Cow<'a, str>,
    pub probability: f32,
    /// The tier that said so, when it is not the one that decided: `cache`, `fast`, `encoder`, `llm`.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub decided_by: Option<Cow<'a, str>>,
}

/// A feature of the text that spoke for the decided label, or against it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Reason<'a> {
    /// `word disk`, `pair disk full`, `letters isk`, `signal urls>=2`.
    #[serde(borrow)]
    pub feature: Cow<'a, str>,
    /// What it added to the label's score, before calibration.
    pub weight: f32,
}

/// What a challenger says that decides nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Shadow<'a> {
    /// Name and version of the challenger.
    #[serde(borrow)]
    pub model: Cow<'a, str>,
    /// The queue that it would have chosen.
    #[serde(borrow)]
    pub queue: Cow<'a, str>,
    pub confidence: f32,
}

/// Indicators of compromise found in the text, each normalised (defanged forms are re-fanged), sorted, unique.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Indicators {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ips: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub domains: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub emails: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cves: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hashes: Vec<String>,
}

impl Indicators {
    pub fn is_empty(&self) -> bool {
        [&self.urls, &self.ips, &self.domains, &self.emails, &self.cves, &self.hashes].into_iter().all(Vec::is_empty)
    }
}

/// The final decision on one record: the value of `queue-events`. See `schemas/queue-event.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct QueueEvent<'a> {
    #[schema(value_type = String, format = "uuid")]
    pub event_id: Uuid,
    #[serde(borrow)]
    pub source: SourcePosition<'a>,
    pub kind: Kind,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub ticket_id: Option<Cow<'a, str>>,
    /// The system that the record names as its source.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Cow<'a, str>>,
    /// RFC 3339, UTC, milliseconds.
    #[serde(borrow)]
    pub occurred_at: Cow<'a, str>,
    #[serde(borrow)]
    pub decided_at: Cow<'a, str>,
    #[serde(borrow)]
    pub queue: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub category: Option<Cow<'a, str>>,
    pub priority: Priority,
    /// Calibrated probability that `queue` is right; 1.0 for a rule.
    pub confidence: f32,
    pub routing: Routing,
    /// `rule:<id>`, `cache`, `fast`, `encoder`, `llm`, or `none` when nobody could say anything.
    #[serde(borrow)]
    pub decided_by: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
    pub alternatives: Vec<Alternative<'a>>,
    /// Why the fast model decided as it did, strongest first; only when the configuration asks for it.
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<Reason<'a>>,
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Indicators::is_empty")]
    pub indicators: Indicators,
    /// Name and version of the model that was asked; absent when a rule alone decided.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub model: Option<Cow<'a, str>>,
    /// Whose record it is, while a challenger is tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arm: Option<Arm>,
    /// What the challenger says, while it is tried in the shadow.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub shadow: Option<Shadow<'a>>,
    /// Version of the configuration that decided, with its rules and models.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub config: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub template_id: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub text: Option<Cow<'a, str>>,
}

/// A record that this tier is not sure of: the value of `escalations`. See `schemas/escalation.json`.
///
/// It holds all that a slower tier needs, so nobody has to read the source topic again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Escalation<'a> {
    /// Why it climbs: `low_confidence` or `rule:<id>`.
    #[serde(borrow)]
    pub reason: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub email_address: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub level: Option<Cow<'a, str>>,
    /// Bytes of the title at the start of the event's text; 0 without a title.
    #[serde(default)]
    pub title_len: usize,
    /// The priority that a rule gave: it holds, whatever the category turns out to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule_priority: Option<Priority>,
    /// The priority that the record itself states.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stated_priority: Option<Priority>,
    /// The event as it would stand if no further tier were asked; it always carries the text.
    #[serde(borrow)]
    pub event: QueueEvent<'a>,
}

/// Formats milliseconds since 1970-01-01 UTC as RFC 3339 with milliseconds.
pub fn rfc3339(millis: i64) -> String {
    DateTime::<Utc>::from_timestamp_millis(millis)
        .unwrap_or(DateTime::<Utc>::MAX_UTC)
        .to_rfc3339_opts(SecondsFormat::Millis, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_id_depends_on_the_place_alone() {
        let place = |offset| SourcePosition { topic: "logs".into(), partition: 3, offset };
        assert_eq!(place(7).event_id(), place(7).event_id());
        assert_ne!(place(7).event_id(), place(8).event_id());
        assert_eq!(place(7).event_id().get_version_num(), 5);
        // uuid.uuid5(namespace, "logs/3/7") of Python's standard library.
        assert_eq!(place(7).event_id().to_string(), "871e9856-797b-54cf-a0cb-eb4d2b3034d8");
    }

    #[test]
    fn times_are_rfc3339_in_utc() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(1_700_000_000_123), "2023-11-14T22:13:20.123Z");
    }

    #[test]
    fn priorities_are_ordered() {
        assert!(Priority::Critical > Priority::High && Priority::Medium > Priority::Low);
        assert_eq!("HIGH".parse(), Ok(Priority::High));
    }
}
