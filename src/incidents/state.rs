//! The life of one incident: opened, raised, escalated, acknowledged, breached, resolved, each noted in its history once.
//! Pure: the clock is given.

use uuid::Uuid;

use crate::config::{IncidentSettings, SlaSettings};
use crate::record::{IncidentAction, IncidentChange, IncidentStatus, Priority};
use crate::volumes::{HistoryRow, IncidentEventRow, IncidentMembers, IncidentRow, IncidentUpdateRow};

/// Who resolves what nobody cares about any more.
const ITSELF: &str = "triaged";
/// Entries of a history; more are asked for by somebody who asks in a loop.
const MOST_HISTORY: usize = 200;

/// What became of an update.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Applied {
    Changed,
    /// It is so already, or was applied before.
    Already,
    /// It is resolved, and stays so.
    Resolved,
    /// Its history is full.
    Refused,
}

impl Applied {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Applied::Changed => "applied",
            Applied::Already => "already",
            Applied::Resolved => "resolved",
            Applied::Refused => "refused",
        }
    }
}

/// An incident, and whether it has changed since it was last written.
#[derive(Debug, Clone)]
pub(super) struct Incident {
    pub(super) row: IncidentRow,
    /// Its history has grown.
    pub(super) has_news: bool,
    /// Only its events have.
    pub(super) has_grown: bool,
}

fn number(priority: Priority) -> i8 {
    priority as i8 + 1
}

impl Incident {
    /// As it was stored.
    pub(super) fn stored(row: IncidentRow) -> Self {
        Incident { row, has_news: false, has_grown: false }
    }

    /// Opened by its first event.
    pub(super) fn open(first: &IncidentEventRow, id: Uuid, settings: &IncidentSettings, now: i64) -> Self {
        let sla = sla(settings, first.priority());
        let row = IncidentRow {
            incident_id: id,
            version: 0,
            event_id: first.event_id,
            status: IncidentStatus::Open as i8 + 1,
            severity: first.priority,
            queue: first.queue.clone(),
            category: first.category.clone(),
            opened_at: now,
            first_seen: first.occurred_at,
            last_seen: first.occurred_at,
            events: 1,
            tokens: first.tokens.clone(),
            step: 0,
            acknowledge_by: now + sla.acknowledge.as_millis() as i64,
            resolve_by: now + sla.resolve.as_millis() as i64,
            acknowledged_at: 0,
            acknowledged_by: String::new(),
            resolved_at: 0,
            resolved_by: String::new(),
            acknowledge_breached_at: 0,
            resolve_breached_at: 0,
            updated_at: now,
            history: Vec::new(),
        };
        let mut incident = Incident { row, has_news: false, has_grown: false };
        incident.note(IncidentChange::Opened, now, "", "", None);
        incident
    }

    pub(super) fn id(&self) -> Uuid {
        self.row.incident_id
    }

    /// Takes over what its events are together.
    pub(super) fn take(&mut self, members: &IncidentMembers, settings: &IncidentSettings, now: i64) {
        let row = &mut self.row;
        let before = (row.events, row.first_seen, row.last_seen, row.tokens.len());
        row.events = members.events;
        row.first_seen = members.first_seen;
        row.last_seen = members.last_seen;
        row.tokens.clone_from(&members.all_tokens);
        let has_grown = before != (row.events, row.first_seen, row.last_seen, row.tokens.len());
        self.raise(members.severity(), settings, now);
        self.has_grown |= has_grown;
    }

    fn raise(&mut self, severity: Priority, settings: &IncidentSettings, now: i64) {
        if severity <= self.row.severity() {
            return;
        }
        // Time runs from here on, but what was promised before stands.
        let sla = sla(settings, severity);
        self.row.severity = number(severity);
        self.row.acknowledge_by = self.row.acknowledge_by.min(now + sla.acknowledge.as_millis() as i64);
        self.row.resolve_by = self.row.resolve_by.min(now + sla.resolve.as_millis() as i64);
        if self.row.status() != IncidentStatus::Resolved {
            self.note(IncidentChange::Raised, now, "", "", None);
        }
    }

    /// Does what somebody asked for. Doing it again changes nothing.
    pub(super) fn apply(&mut self, update: &IncidentUpdateRow, settings: &IncidentSettings, now: i64) -> Applied {
        let id = update.update_id.to_string();
        let status = self.row.status();
        if self.row.history.iter().any(|entry| entry.5 == id) {
            return Applied::Already;
        }
        let change = match (update.action(), status) {
            (IncidentAction::Resolve, IncidentStatus::Resolved)
            | (IncidentAction::Acknowledge, IncidentStatus::Acknowledged) => return Applied::Already,
            (_, IncidentStatus::Resolved) => return Applied::Resolved,
            (IncidentAction::Acknowledge, IncidentStatus::Open) => {
                self.row.status = IncidentStatus::Acknowledged as i8 + 1;
                self.row.acknowledged_at = now;
                self.row.acknowledged_by.clone_from(&update.given_by);
                IncidentChange::Acknowledged
            }
            (IncidentAction::Resolve, _) => {
                self.resolve(&update.given_by, now);
                IncidentChange::Resolved
            }
            (IncidentAction::Escalate, _) if self.row.history.len() >= MOST_HISTORY => return Applied::Refused,
            (IncidentAction::Escalate, _) => {
                self.raise(Priority::High, settings, now);
                self.row.step = self.row.step.saturating_add(1).min(settings.escalation.len() as u8);
                IncidentChange::Escalated
            }
        };
        self.note(change, now, &update.given_by, &update.note, Some(&id));
        Applied::Changed
    }

    fn resolve(&mut self, by: &str, now: i64) {
        self.row.status = IncidentStatus::Resolved as i8 + 1;
        self.row.resolved_at = now;
        by.clone_into(&mut self.row.resolved_by);
    }

    /// What time alone brings: breaches, steps of escalation, and the end of what has been quiet for long.
    pub(super) fn pass_time(&mut self, settings: &IncidentSettings, now: i64) {
        let status = self.row.status();
        if status == IncidentStatus::Resolved {
            return;
        }
        if status == IncidentStatus::Open {
            if now >= self.row.acknowledge_by && self.row.acknowledge_breached_at == 0 {
                self.row.acknowledge_breached_at = now;
                self.note(IncidentChange::AcknowledgeBreached, now, "", "", None);
            }
            for (index, escalation) in settings.escalation.iter().enumerate() {
                let step = index as u8 + 1;
                if self.row.step < step && now >= self.row.opened_at + escalation.after.as_millis() as i64 {
                    self.row.step = step;
                    self.note(IncidentChange::Escalated, now, "", "", None);
                }
            }
        }
        if now >= self.row.resolve_by && self.row.resolve_breached_at == 0 {
            self.row.resolve_breached_at = now;
            self.note(IncidentChange::ResolveBreached, now, "", "", None);
        }
        let quiet = settings.auto_resolve.as_millis() as i64;
        if quiet > 0 && now >= self.row.last_seen.max(self.row.opened_at) + quiet {
            self.resolve(ITSELF, now);
            self.note(IncidentChange::Resolved, now, ITSELF, "", None);
        }
    }

    fn note(&mut self, change: IncidentChange, at: i64, by: &str, note: &str, update: Option<&str>) {
        let entry: HistoryRow = (
            at,
            change.as_str().to_owned(),
            by.to_owned(),
            self.row.step,
            note.to_owned(),
            update.unwrap_or_default().to_owned(),
        );
        self.row.history.push(entry);
        self.has_news = true;
    }
}

fn sla(settings: &IncidentSettings, severity: Priority) -> SlaSettings {
    settings.sla[severity as usize]
}

#[cfg(test)]
mod tests {
    use super::super::sighting::tests::{NOW, event, sightings};
    use super::*;
    use crate::config::Config;

    const MINUTE: i64 = 60_000;
    const STEPS: &str = "[[incidents.escalation]]\nafter = \"30m\"\nnotify = []\n[[incidents.escalation]]\nafter = \
                         \"45m\"\nnotify = []\n";

    fn settings() -> IncidentSettings {
        Config::from_toml(STEPS).expect("settings").incidents
    }

    fn opened(settings: &IncidentSettings) -> Incident {
        let first = sightings("").of(&event(1, NOW, &["203.0.113.7"]), NOW).expect("it counts");
        Incident::open(&first, Uuid::from_u128(1), settings, NOW)
    }

    fn changes(incident: &Incident) -> Vec<&str> {
        incident.row.history.iter().map(|entry| &*entry.1).collect()
    }

    fn update(id: u128, action: IncidentAction) -> IncidentUpdateRow {
        IncidentUpdateRow {
            update_id: Uuid::from_u128(id),
            incident_id: Uuid::from_u128(1),
            event_id: Uuid::nil(),
            action: action as i8 + 1,
            given_by: "ada".to_owned(),
            given_at: NOW,
            note: "mine".to_owned(),
            outcome: String::new(),
            version: 0,
        }
    }

    fn members(events: u64, severity: Priority) -> IncidentMembers {
        IncidentMembers {
            incident_id: Uuid::from_u128(1),
            events,
            first_seen: NOW,
            last_seen: NOW + 1,
            severity: number(severity),
            all_tokens: vec!["ip:203.0.113.7".to_owned()],
        }
    }

    #[test]
    fn nobody_cares_and_it_climbs_and_breaches() {
        let settings = settings();
        let mut incident = opened(&settings);
        for minute in 0..=24 * 60 {
            incident.pass_time(&settings, NOW + minute * MINUTE);
        }
        assert_eq!(
            changes(&incident),
            ["opened", "escalated", "escalated", "acknowledge_breached", "resolve_breached"]
        );
        assert_eq!(incident.row.acknowledge_breached_at, NOW + 60 * MINUTE);
        assert_eq!((incident.row.step, incident.row.resolve_breached_at), (2, NOW + 24 * 60 * MINUTE));
        incident.pass_time(&settings, NOW + 31 * 24 * 60 * MINUTE);
        assert_eq!((incident.row.status(), &*incident.row.resolved_by), (IncidentStatus::Resolved, "triaged"));
        let entries = incident.row.history.len();
        incident.pass_time(&settings, NOW + 99 * 24 * 60 * MINUTE);
        assert_eq!(incident.row.history.len(), entries);
    }

    #[test]
    fn who_acknowledges_in_time_is_left_alone() {
        let settings = settings();
        let mut incident = opened(&settings);
        assert_eq!(incident.apply(&update(1, IncidentAction::Acknowledge), &settings, NOW), Applied::Changed);
        assert_eq!(incident.apply(&update(1, IncidentAction::Acknowledge), &settings, NOW), Applied::Already);
        assert_eq!(incident.apply(&update(2, IncidentAction::Acknowledge), &settings, NOW), Applied::Already);
        incident.pass_time(&settings, NOW + 120 * MINUTE);
        assert_eq!(changes(&incident), ["opened", "acknowledged"]);
        assert_eq!(incident.apply(&update(3, IncidentAction::Resolve), &settings, NOW), Applied::Changed);
        assert_eq!(incident.apply(&update(4, IncidentAction::Acknowledge), &settings, NOW), Applied::Resolved);
        assert_eq!(incident.apply(&update(5, IncidentAction::Escalate), &settings, NOW), Applied::Resolved);
        assert_eq!((&*incident.row.acknowledged_by, &*incident.row.resolved_by), ("ada", "ada"));
    }

    #[test]
    fn a_hand_escalates_one_step_for_each_request() {
        let settings = settings();
        let mut incident = opened(&settings);
        incident.apply(&update(1, IncidentAction::Escalate), &settings, NOW);
        incident.apply(&update(1, IncidentAction::Escalate), &settings, NOW);
        assert_eq!((incident.row.step, changes(&incident)), (1, vec!["opened", "escalated"]));
        for id in 2..1_000 {
            incident.apply(&update(id, IncidentAction::Escalate), &settings, NOW);
        }
        assert_eq!((incident.row.step, incident.row.history.len()), (2, MOST_HISTORY));
    }

    #[test]
    fn a_more_urgent_event_raises_it_and_shortens_the_time() {
        let settings = settings();
        let mut incident = opened(&settings);
        incident.has_news = false;
        incident.take(&members(3, Priority::High), &settings, NOW + MINUTE);
        assert!(incident.has_grown && !incident.has_news);
        incident.take(&members(4, Priority::Critical), &settings, NOW + 10 * MINUTE);
        assert_eq!(changes(&incident), ["opened", "raised"]);
        assert_eq!(incident.row.acknowledge_by, NOW + 25 * MINUTE);
        let mut late = opened(&settings);
        late.take(&members(4, Priority::Critical), &settings, NOW + 55 * MINUTE);
        assert_eq!(late.row.acknowledge_by, NOW + 60 * MINUTE, "what was promised stands");
    }
}
