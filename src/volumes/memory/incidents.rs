//! Incidents in memory: the newest of each kind of row, bounded in number.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use uuid::Uuid;

use super::super::incidents::{
    IncidentEventRow, IncidentMembers, IncidentNotificationRow, IncidentQuery, IncidentRow, IncidentUpdateRow,
    MOST_TOKENS, Notified,
};
use crate::record::IncidentStatus;

/// Events of incidents that are kept.
const MOST_EVENTS: usize = 100_000;
const MOST_INCIDENTS: usize = 20_000;
const MOST_UPDATES: usize = 20_000;

/// Where a record lies in Kafka.
type Source = (String, i32, u64);

/// All that is known of incidents.
#[derive(Debug, Default)]
pub(in crate::volumes) struct IncidentBook {
    events: HashMap<Source, IncidentEventRow>,
    /// Event time and place of each event, the oldest first.
    order: BTreeSet<(i64, Source)>,
    incidents: HashMap<Uuid, IncidentRow>,
    updates: HashMap<Uuid, IncidentUpdateRow>,
    notifications: BTreeMap<(Uuid, String), Notified>,
}

impl IncidentBook {
    pub(in crate::volumes) fn insert_events(&mut self, rows: &[IncidentEventRow]) {
        for row in rows {
            let source = (row.source_topic.clone(), row.source_partition, row.source_offset);
            match self.events.get(&source) {
                Some(known) if known.version > row.version => continue,
                Some(known) => drop(self.order.remove(&(known.occurred_at, source.clone()))),
                None => {}
            }
            self.order.insert((row.occurred_at, source.clone()));
            self.events.insert(source, row.clone());
        }
        while self.events.len() > MOST_EVENTS {
            let Some((_, oldest)) = self.order.pop_first() else { break };
            self.events.remove(&oldest);
        }
    }

    pub(in crate::volumes) fn events_to_place(&self, occurred_from: i64, limit: usize) -> Vec<IncidentEventRow> {
        let from = (occurred_from, (String::new(), i32::MIN, 0));
        let rows = self.order.range(from..).filter_map(|(_, source)| self.events.get(source));
        rows.filter(|row| row.version == 0).take(limit).cloned().collect()
    }

    pub(in crate::volumes) fn members(&self, ids: &[Uuid]) -> Vec<IncidentMembers> {
        let ids: BTreeSet<&Uuid> = ids.iter().collect();
        let mut found: BTreeMap<Uuid, (IncidentMembers, BTreeSet<&str>)> = BTreeMap::new();
        for row in self.events.values().filter(|row| ids.contains(&row.incident_id)) {
            let (members, tokens) = found.entry(row.incident_id).or_insert_with(|| {
                let members = IncidentMembers {
                    incident_id: row.incident_id,
                    events: 0,
                    first_seen: row.occurred_at,
                    last_seen: row.occurred_at,
                    severity: row.priority,
                    all_tokens: Vec::new(),
                };
                (members, BTreeSet::new())
            });
            members.events += 1;
            members.first_seen = members.first_seen.min(row.occurred_at);
            members.last_seen = members.last_seen.max(row.occurred_at);
            members.severity = members.severity.max(row.priority);
            tokens.extend(row.tokens.iter().map(String::as_str));
        }
        let whole = |(mut members, tokens): (IncidentMembers, BTreeSet<&str>)| {
            members.all_tokens = tokens.into_iter().take(MOST_TOKENS).map(str::to_owned).collect();
            members
        };
        found.into_values().map(whole).collect()
    }

    pub(in crate::volumes) fn of_event(&self, event_id: Uuid) -> Option<Uuid> {
        self.events.values().find(|row| row.event_id == event_id && row.version > 0).map(|row| row.incident_id)
    }

    pub(in crate::volumes) fn insert(&mut self, rows: &[IncidentRow]) {
        for row in rows {
            if self.incidents.get(&row.incident_id).is_none_or(|known| known.version <= row.version) {
                self.incidents.insert(row.incident_id, row.clone());
            }
        }
        while self.incidents.len() > MOST_INCIDENTS {
            // Those that are resolved go first.
            let oldest = self
                .incidents
                .values()
                .min_by_key(|row| (row.status() != IncidentStatus::Resolved, row.opened_at))
                .map(|row| row.incident_id);
            oldest.and_then(|id| self.incidents.remove(&id));
        }
    }

    pub(in crate::volumes) fn get(&self, id: Uuid) -> Option<IncidentRow> {
        self.incidents.get(&id).cloned()
    }

    pub(in crate::volumes) fn list(&self, query: &IncidentQuery) -> Vec<IncidentRow> {
        let key = |row: &IncidentRow| (row.opened_at, row.incident_id.to_string());
        let after = query.after.map(|cursor| (cursor.occurred_at, cursor.event_id.to_string()));
        let wanted = |row: &&IncidentRow| {
            (query.from..query.to).contains(&row.opened_at)
                && query.status.is_none_or(|status| status == row.status())
                && query.severity.is_none_or(|severity| severity == row.severity())
                && query.queue.as_ref().is_none_or(|queue| *queue == row.queue)
                && after.as_ref().is_none_or(|after| key(row) < *after)
        };
        self.newest(wanted, query.limit)
    }

    pub(in crate::volumes) fn live(&self, updated_from: i64, limit: usize) -> Vec<IncidentRow> {
        self.newest(|row| row.status() != IncidentStatus::Resolved || row.updated_at >= updated_from, limit)
    }

    fn newest(&self, wanted: impl Fn(&&IncidentRow) -> bool, limit: usize) -> Vec<IncidentRow> {
        let mut found: Vec<&IncidentRow> = self.incidents.values().filter(wanted).collect();
        found.sort_by_cached_key(|row| std::cmp::Reverse((row.opened_at, row.incident_id.to_string())));
        found.into_iter().take(limit).cloned().collect()
    }

    pub(in crate::volumes) fn insert_updates(&mut self, rows: &[IncidentUpdateRow]) {
        for row in rows {
            if self.updates.get(&row.update_id).is_none_or(|known| known.version <= row.version) {
                self.updates.insert(row.update_id, row.clone());
            }
        }
        while self.updates.len() > MOST_UPDATES {
            let oldest =
                self.updates.values().min_by_key(|row| (row.version == 0, row.given_at)).map(|row| row.update_id);
            oldest.and_then(|id| self.updates.remove(&id));
        }
    }

    pub(in crate::volumes) fn pending_updates(&self, limit: usize) -> Vec<IncidentUpdateRow> {
        let mut found: Vec<&IncidentUpdateRow> = self.updates.values().filter(|row| row.version == 0).collect();
        found.sort_by_cached_key(|row| (row.given_at, row.update_id.to_string()));
        found.into_iter().take(limit).cloned().collect()
    }

    pub(in crate::volumes) fn insert_notifications(&mut self, rows: &[IncidentNotificationRow]) {
        for row in rows {
            let key = (row.incident_id, row.channel.clone());
            let known = self.notifications.entry(key).or_insert_with(|| Notified {
                incident_id: row.incident_id,
                channel: row.channel.clone(),
                through: 0,
                last_at: 0,
            });
            known.through = known.through.max(row.sequence);
            known.last_at = known.last_at.max(row.sent_at);
        }
        // What an incident that is gone was told about is of no use.
        if self.notifications.len() > 10 * MOST_INCIDENTS {
            let incidents = &self.incidents;
            self.notifications.retain(|(id, _), _| incidents.contains_key(id));
        }
    }

    pub(in crate::volumes) fn notified(&self, ids: &[Uuid]) -> Vec<Notified> {
        let ids: BTreeSet<&Uuid> = ids.iter().collect();
        self.notifications.values().filter(|known| ids.contains(&known.incident_id)).cloned().collect()
    }
}
