//! What is asked of a store beyond volumes, and what it answers: plain data that both stores share.

use std::fmt;
use std::str::FromStr;

use clickhouse::Row;
use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::record::{Kind, Priority, Routing};

/// Which events are asked for; the newest come first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventQuery {
    /// First millisecond of event time that counts, since 1970-01-01 UTC.
    pub from: i64,
    /// First millisecond that no longer counts.
    pub to: i64,
    pub queue: Option<String>,
    pub routing: Option<Routing>,
    /// Only what comes after this one.
    pub after: Option<EventCursor>,
    pub limit: usize,
}

/// A place in the order of events, newest first and by id within a millisecond. Its text means nothing to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventCursor {
    pub occurred_at: i64,
    pub event_id: Uuid,
}

impl fmt::Display for EventCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = [0; 24];
        bytes[..8].copy_from_slice(&self.occurred_at.to_be_bytes());
        bytes[8..].copy_from_slice(self.event_id.as_bytes());
        f.write_str(&BASE64URL_NOPAD.encode(&bytes))
    }
}

impl FromStr for EventCursor {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).unwrap_or_default();
        let bytes: [u8; 24] = bytes.try_into().map_err(|_| "is no cursor of an earlier answer")?;
        let (time, id) = bytes.split_at(8);
        Ok(EventCursor {
            occurred_at: i64::from_be_bytes(time.try_into().expect("eight bytes")),
            event_id: Uuid::from_slice(id).expect("sixteen bytes"),
        })
    }
}

/// What one arm of one kind said in a span of time: of a champion and of a challenger in a split the events that its model
/// decided; of a challenger in the shadow those that it was asked about.
#[derive(Debug, Clone, PartialEq, Row, Serialize, Deserialize)]
pub struct ArmCount {
    /// 1 ticket, 2 log.
    pub kind: i8,
    /// `champion` or `challenger`.
    pub arm: String,
    /// Name and version.
    pub model: String,
    /// 1: its answers decided nothing.
    pub in_shadow: u8,
    pub events: u64,
    /// Of their confidences, and of the squares of those.
    pub sum: f64,
    pub squares: f64,
    /// Of a challenger in the shadow: events that the champion's model decided too, and those for the same queue.
    pub compared: u64,
    pub agreed: u64,
}

/// Events of one queue, kind and priority in a span of time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct QueueCount {
    pub queue: String,
    pub kind: Kind,
    pub priority: Priority,
    pub events: u64,
    /// The minute of the newest one, in seconds since 1970-01-01 UTC.
    pub newest: i64,
}

impl QueueCount {
    /// From the numbers that the tables hold for kind and priority.
    pub(super) fn new(queue: String, kind: i8, priority: i8, events: u64, newest: i64) -> Self {
        QueueCount {
            queue,
            kind: numbered(Kind::ALL, kind),
            priority: numbered(Priority::ALL, priority),
            events,
            newest,
        }
    }
}

/// Events that were routed in one way by one tier in a span of time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DecisionCount {
    pub routing: Routing,
    /// As `DecidedBy::tier` names it.
    pub tier: String,
    pub events: u64,
}

impl DecisionCount {
    /// From the number that the tables hold for the routing.
    pub(super) fn new(routing: i8, tier: &str, events: u64) -> Self {
        DecisionCount { routing: numbered(Routing::ALL, routing), tier: tier.to_owned(), events }
    }
}

/// The value that an `Enum8` of the tables stands for; they count from 1.
pub(super) fn numbered<T: Copy, const N: usize>(all: [T; N], number: i8) -> T {
    all[usize::try_from(number - 1).unwrap_or(0).min(N - 1)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_survives_being_written() {
        let cursor = EventCursor { occurred_at: 1_767_225_600_123, event_id: Uuid::from_u128(7) };
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
        for wrong in ["", "x", "AAAA", &cursor.to_string()[1..]] {
            assert!(wrong.parse::<EventCursor>().is_err(), "{wrong}");
        }
    }
}
