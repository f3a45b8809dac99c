//! What of an event matters to incidents: where it lies, when it was, how urgent it is, and the tokens by which it is
//! correlated with others.

use std::collections::HashSet;

use chrono::DateTime;
use uuid::Uuid;

use crate::config::{Correlation, IncidentSettings};
use crate::record::{Priority, QueueEvent};
use crate::volumes::IncidentEventRow;

/// Tokens of one event: a text full of addresses must not make every other event its neighbour.
const MOST_TOKENS: usize = 100;
/// An event of a clock that runs ahead is taken as one of tomorrow at most.
const MOST_AHEAD: i64 = 86_400_000;
/// Longer names are cut; they come from texts.
const LONGEST_TOKEN: usize = 512;

/// Makes rows of events.
#[derive(Debug, Clone)]
pub(super) struct Sightings {
    from: Priority,
    max_age: i64,
    correlate_by: Vec<Correlation>,
    ignore: HashSet<String>,
}

impl Sightings {
    pub(super) fn new(settings: &IncidentSettings) -> Self {
        Sightings {
            from: settings.from,
            max_age: settings.max_event_age.as_millis() as i64,
            correlate_by: settings.correlate_by.clone(),
            ignore: settings.ignore.iter().cloned().collect(),
        }
    }

    /// Whether events of this priority matter.
    pub(super) fn concerns(&self, priority: Priority) -> bool {
        priority >= self.from
    }

    /// The row of an event; `None` when it is not urgent or too old, or lies nowhere. Milliseconds since 1970-01-01 UTC.
    pub(super) fn of(&self, event: &QueueEvent<'_>, now: i64) -> Option<IncidentEventRow> {
        let row = self.row(event, now)?;
        (self.concerns(event.priority) && row.occurred_at >= now - self.max_age).then_some(row)
    }

    /// The row of an event that a person says is an incident of its own, however urgent and old it is.
    pub(super) fn by_hand(&self, event: &QueueEvent<'_>, incident_id: Uuid, now: i64) -> Option<IncidentEventRow> {
        let row = self.row(event, now)?;
        let priority = row.priority.max(Priority::High as i8 + 1);
        Some(IncidentEventRow { incident_id, priority, version: 1, ..row })
    }

    fn row(&self, event: &QueueEvent<'_>, now: i64) -> Option<IncidentEventRow> {
        let occurred_at = DateTime::parse_from_rfc3339(&event.occurred_at).ok()?.timestamp_millis();
        Some(IncidentEventRow {
            source_topic: event.source.topic.clone().into_owned(),
            source_partition: event.source.partition,
            source_offset: u64::try_from(event.source.offset).ok()?,
            event_id: event.event_id,
            incident_id: Uuid::nil(),
            occurred_at: occurred_at.clamp(0, now + MOST_AHEAD),
            seen_at: now,
            queue: event.queue.clone().into_owned(),
            category: event.category.as_deref().unwrap_or_default().to_owned(),
            priority: event.priority as i8 + 1,
            tokens: self.tokens(event),
            version: 0,
        })
    }

    fn tokens(&self, event: &QueueEvent<'_>) -> Vec<String> {
        let found = &event.indicators;
        let template = event.template_id.as_deref().map(str::to_owned);
        let mut tokens = Vec::new();
        for kind in &self.correlate_by {
            let (name, values) = match kind {
                Correlation::Template => ("template", template.as_slice()),
                Correlation::Url => ("url", &*found.urls),
                Correlation::Ip => ("ip", &*found.ips),
                Correlation::Domain => ("domain", &*found.domains),
                Correlation::Email => ("email", &*found.emails),
                Correlation::Cve => ("cve", &*found.cves),
                Correlation::Hash => ("hash", &*found.hashes),
            };
            for value in values.iter().filter(|value| !self.ignore.contains(value.as_str())) {
                let end = value.floor_char_boundary(LONGEST_TOKEN);
                tokens.push(format!("{name}:{}", &value[..end]));
            }
        }
        if tokens.is_empty() {
            tokens.push(format!("queue:{}/{}", event.queue, event.category.as_deref().unwrap_or_default()));
        }
        tokens.truncate(MOST_TOKENS);
        tokens
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::config::Config;
    use crate::record::{Indicators, Kind, Routing, SourcePosition, rfc3339};

    pub(in crate::incidents) const NOW: i64 = 1_800_000_000_000;

    pub(in crate::incidents) fn event(offset: i64, at: i64, ips: &[&str]) -> QueueEvent<'static> {
        let source = SourcePosition { topic: "logs".into(), partition: (offset % 3) as i32, offset };
        QueueEvent {
            event_id: source.event_id(),
            source,
            kind: Kind::Log,
            ticket_id: None,
            origin: None,
            occurred_at: rfc3339(at).into(),
            decided_at: rfc3339(at).into(),
            queue: "soc".into(),
            category: Some("Security Alert".into()),
            priority: Priority::High,
            confidence: 1.0,
            routing: Routing::AutoRoute,
            decided_by: "fast".into(),
            alternatives: Vec::new(),
            reasons: Vec::new(),
            tags: Vec::new(),
            indicators: Indicators { ips: ips.iter().map(|ip| (*ip).to_owned()).collect(), ..Indicators::default() },
            config: None,
            arm: None,
            shadow: None,
            model: None,
            template_id: None,
            text: None,
        }
    }

    pub(in crate::incidents) fn sightings(text: &str) -> Sightings {
        Sightings::new(&Config::from_toml(text).expect("settings").incidents)
    }

    #[test]
    fn urgent_and_recent_events_count() {
        let sightings = sightings("");
        let urgent = event(1, NOW, &["203.0.113.7"]);
        assert_eq!(sightings.of(&urgent, NOW).expect("it counts").tokens, ["ip:203.0.113.7"]);
        let calm = QueueEvent { priority: Priority::Medium, ..urgent.clone() };
        assert!(sightings.of(&calm, NOW).is_none());
        assert!(sightings.of(&urgent, NOW + 86_400_001).is_none(), "a day later it is too old");
        let by_hand = sightings.by_hand(&calm, Uuid::from_u128(7), NOW + 86_400_001).expect("a person says so");
        assert_eq!((by_hand.priority(), by_hand.version), (Priority::High, 1));
        let ahead = event(1, NOW * 2, &[]);
        assert_eq!(sightings.of(&ahead, NOW).expect("it counts").occurred_at, NOW + MOST_AHEAD);
    }

    #[test]
    fn what_says_nothing_is_no_token() {
        let template = Some("0123456789abcdef".into());
        let event = QueueEvent { template_id: template, ..event(1, NOW, &["127.0.0.1", "203.0.113.7"]) };
        let tokens = |text: &str| sightings(text).of(&event, NOW).expect("it counts").tokens;
        assert_eq!(tokens(""), ["template:0123456789abcdef", "ip:203.0.113.7"]);
        assert_eq!(tokens("incidents.correlate_by = [\"cve\"]"), ["queue:soc/Security Alert"]);
    }
}
