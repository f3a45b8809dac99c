//! The incidents that may still change, as the leader holds them: those that are not resolved, and those resolved of late.

use std::collections::{BTreeMap, HashMap, HashSet};

use uuid::Uuid;

use crate::config::IncidentSettings;
use crate::record::IncidentStatus;
use crate::volumes::{IncidentEventRow, IncidentMembers, IncidentRow};

use super::correlate::Correlator;
use super::state::Incident;

/// A count alone is written at most this often, in milliseconds.
const GROWTH_PAUSE: i64 = 3_000;

/// Events with their incidents.
#[derive(Debug, Default)]
pub(super) struct Placed {
    /// As they are to be stored.
    pub(super) rows: Vec<IncidentEventRow>,
    /// Incidents that have got some.
    pub(super) touched: HashSet<Uuid>,
}

/// An incident that is to be written.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) row: IncidentRow,
    /// Entries of its history that were not written before.
    pub(super) news: usize,
}

#[derive(Debug)]
pub(super) struct LiveSet {
    settings: IncidentSettings,
    incidents: HashMap<Uuid, Incident>,
    /// Entries of each history that are written.
    written: HashMap<Uuid, usize>,
    correlator: Correlator,
}

impl LiveSet {
    pub(super) fn new(settings: &IncidentSettings) -> Self {
        LiveSet {
            settings: settings.clone(),
            incidents: HashMap::new(),
            written: HashMap::new(),
            correlator: Correlator::new(settings),
        }
    }

    /// Takes in an incident as it was stored.
    pub(super) fn know(&mut self, row: IncidentRow) {
        let id = row.incident_id;
        self.correlator.widen(id, (row.first_seen, row.last_seen), &row.tokens);
        if row.status() == IncidentStatus::Resolved {
            self.correlator.close(id, row.resolved_at);
        }
        self.written.insert(id, row.history.len());
        self.incidents.insert(id, Incident::stored(row));
    }

    pub(super) fn contains(&self, id: Uuid) -> bool {
        self.incidents.contains_key(&id)
    }

    pub(super) fn get_mut(&mut self, id: Uuid) -> Option<&mut Incident> {
        self.incidents.get_mut(&id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &IncidentRow> + Clone {
        self.incidents.values().map(|incident| &incident.row)
    }

    /// Finds an incident for each event, in the order given, and opens those that are missing.
    pub(super) fn place(&mut self, events: Vec<IncidentEventRow>, now: i64) -> Placed {
        let mut placed = Placed::default();
        let mut opened: BTreeMap<Uuid, Vec<usize>> = BTreeMap::new();
        for event in events {
            let (id, opens) = self.correlator.place(&event);
            // An event that was placed by a leader that could not say so any more is its incident's first event again.
            if opens && !self.incidents.contains_key(&id) {
                self.incidents.insert(id, Incident::open(&event, id, &self.settings, now));
                opened.insert(id, Vec::new());
            }
            if let Some(own) = opened.get_mut(&id) {
                own.push(placed.rows.len());
            }
            placed.touched.insert(id);
            placed.rows.push(IncidentEventRow { incident_id: id, version: 1, ..event });
        }
        // What opens an incident is counted at once, so that the first that is told of a burst is its size.
        for (id, own) in opened {
            let rows: Vec<&IncidentEventRow> = own.into_iter().map(|index| &placed.rows[index]).collect();
            self.take(&members(id, &rows), now);
        }
        placed
    }

    /// Opens an incident for an event that a person says is one.
    pub(super) fn open_by_hand(&mut self, event: IncidentEventRow, now: i64, placed: &mut Placed) {
        let id = event.incident_id;
        let incident = self.incidents.entry(id).or_insert_with(|| Incident::open(&event, id, &self.settings, now));
        self.correlator.widen(id, (incident.row.first_seen, incident.row.last_seen), &event.tokens);
        placed.touched.insert(id);
        placed.rows.push(event);
    }

    /// Takes over what the store says of an incident's events.
    pub(super) fn take(&mut self, members: &IncidentMembers, now: i64) {
        let id = members.incident_id;
        let Some(incident) = self.incidents.get_mut(&id) else { return };
        incident.take(members, &self.settings, now);
        self.correlator.widen(id, (members.first_seen, members.last_seen), &members.all_tokens);
    }

    pub(super) fn pass_time(&mut self, now: i64) {
        for incident in self.incidents.values_mut() {
            incident.pass_time(&self.settings, now);
        }
    }

    /// What is to be written now, each as its next version.
    pub(super) fn changes(&self, now: i64) -> Vec<Change> {
        let is_due = |incident: &&Incident| {
            incident.has_news || (incident.has_grown && now >= incident.row.updated_at + GROWTH_PAUSE)
        };
        let mut changes: Vec<Change> = self
            .incidents
            .values()
            .filter(is_due)
            .map(|incident| {
                let row = IncidentRow { version: incident.row.version + 1, updated_at: now, ..incident.row.clone() };
                let news = row.history.len() - self.written.get(&incident.id()).copied().unwrap_or(0);
                Change { row, news }
            })
            .collect();
        changes.sort_by_key(|change| (change.row.opened_at, change.row.incident_id));
        changes
    }

    /// These changes were written.
    pub(super) fn written(&mut self, changes: &[Change]) {
        for Change { row, .. } in changes {
            if let Some(incident) = self.incidents.get_mut(&row.incident_id) {
                (incident.row.version, incident.row.updated_at) = (row.version, row.updated_at);
                (incident.has_news, incident.has_grown) = (false, false);
            }
            self.written.insert(row.incident_id, row.history.len());
            if row.status() == IncidentStatus::Resolved {
                self.correlator.close(row.incident_id, row.resolved_at);
            }
        }
    }

    /// Drops what was resolved and has not changed since `updated_before`; returns their ids.
    pub(super) fn forget(&mut self, updated_before: i64) -> Vec<Uuid> {
        let is_over = |incident: &&Incident| {
            incident.row.status() == IncidentStatus::Resolved
                && incident.row.updated_at < updated_before
                && !incident.has_news
        };
        let over: Vec<Uuid> = self.incidents.values().filter(is_over).map(Incident::id).collect();
        for id in &over {
            self.incidents.remove(id);
            self.written.remove(id);
            self.correlator.forget(*id);
        }
        over
    }
}

/// What these rows are together, each a distinct record.
fn members(id: Uuid, rows: &[&IncidentEventRow]) -> IncidentMembers {
    let times = || rows.iter().map(|row| row.occurred_at);
    let tokens: std::collections::BTreeSet<&String> = rows.iter().flat_map(|row| &row.tokens).collect();
    IncidentMembers {
        incident_id: id,
        events: rows.len() as u64,
        first_seen: times().min().unwrap_or(0),
        last_seen: times().max().unwrap_or(0),
        severity: rows.iter().map(|row| row.priority).max().unwrap_or(1),
        all_tokens: tokens.into_iter().take(1_000).cloned().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::sighting::tests::{NOW, event, sightings};
    use super::*;
    use crate::config::Config;

    fn live() -> LiveSet {
        LiveSet::new(&Config::from_toml("").expect("settings").incidents)
    }

    fn burst(offsets: std::ops::Range<i64>, ip: &str) -> Vec<IncidentEventRow> {
        offsets.map(|offset| sightings("").of(&event(offset, NOW, &[ip]), NOW).expect("it counts")).collect()
    }

    #[test]
    fn a_burst_is_one_incident_with_a_count() {
        let mut live = live();
        let placed = live.place(burst(0..500, "203.0.113.7"), NOW);
        assert_eq!((placed.rows.len(), placed.touched.len()), (500, 1));
        let changes = live.changes(NOW);
        assert_eq!((changes.len(), changes[0].row.events, changes[0].row.version, changes[0].news), (1, 500, 1, 1));
        live.written(&changes);
        assert!(live.changes(NOW + 60_000).is_empty());
        live.place(burst(500..501, "198.51.100.1"), NOW);
        assert_eq!(live.changes(NOW).len(), 1, "another indicator");
    }

    #[test]
    fn a_new_leader_goes_on_where_the_old_one_stopped() {
        let mut old = live();
        old.place(burst(0..3, "203.0.113.7"), NOW);
        let changes = old.changes(NOW);
        // It wrote the incident, and died before it wrote where the events belong: they are placed again.
        let mut new = live();
        for change in changes {
            new.know(change.row);
        }
        let placed = new.place(burst(0..3, "203.0.113.7"), NOW);
        assert_eq!((placed.touched.len(), new.changes(NOW).len()), (1, 0));
        // It died before it wrote anything.
        let mut third = live();
        third.place(burst(0..3, "203.0.113.7"), NOW);
        assert_eq!(third.iter().map(|row| row.incident_id).collect::<HashSet<_>>(), placed.touched);
    }

    #[test]
    fn counts_are_written_now_and_then_and_news_at_once() {
        let mut live = live();
        let placed = live.place(burst(0..1, "203.0.113.7"), NOW);
        live.written(&live.changes(NOW));
        let id = *placed.touched.iter().next().expect("one");
        let rows = burst(0..2, "203.0.113.7");
        live.take(&members(id, &rows.iter().collect::<Vec<_>>()), NOW);
        assert!(live.changes(NOW + 1).is_empty());
        assert_eq!(live.changes(NOW + GROWTH_PAUSE)[0].news, 0);
        live.pass_time(NOW + 3_600_000);
        assert_eq!(live.changes(NOW + 1)[0].news, 1, "the breach is news");
    }
}
