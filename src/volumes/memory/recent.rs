//! The newest events in memory, bounded in number and in bytes.

use std::collections::{BTreeMap, HashMap};

use uuid::Uuid;

use crate::volumes::question::{DecisionCount, EventQuery};
use crate::volumes::row::EventRow;
use crate::volumes::stored::StoredEvent;

const MOST_EVENTS: usize = 20_000;
/// Texts may be long: they are what is bounded.
const MOST_BYTES: usize = 32 << 20;

/// Events by time and id, which is the order in which they are asked for.
#[derive(Debug, Default)]
pub(super) struct Recent {
    events: BTreeMap<(i64, Uuid), StoredEvent>,
    times: HashMap<Uuid, i64>,
    bytes: usize,
}

impl Recent {
    /// Of two decisions on one record the newer one stays.
    pub(super) fn insert(&mut self, row: &EventRow<'_>) {
        if let Some(time) = self.times.get(&row.event_id).copied() {
            let key = (time, row.event_id);
            if self.events.get(&key).is_some_and(|known| known.decided_at > row.decided_at) {
                return;
            }
            self.remove(key);
        }
        let event = StoredEvent::from(row);
        self.bytes += event.weight();
        self.times.insert(row.event_id, row.occurred_at);
        self.events.insert((row.occurred_at, row.event_id), event);
        while self.events.len() > MOST_EVENTS || (self.bytes > MOST_BYTES && self.events.len() > 1) {
            let oldest = *self.events.first_key_value().expect("there is more than one").0;
            self.remove(oldest);
        }
    }

    fn remove(&mut self, key: (i64, Uuid)) {
        if let Some(event) = self.events.remove(&key) {
            self.bytes -= event.weight();
            self.times.remove(&key.1);
        }
    }

    pub(super) fn event(&self, id: Uuid) -> Option<StoredEvent> {
        self.events.get(&(*self.times.get(&id)?, id)).cloned()
    }

    pub(super) fn events(&self, query: &EventQuery) -> Vec<StoredEvent> {
        let start = (query.from, Uuid::nil());
        let end = (query.to, Uuid::nil());
        let end = query.after.map_or(end, |cursor| end.min((cursor.occurred_at, cursor.event_id)));
        if start >= end {
            return Vec::new();
        }
        let routing = query.routing.map(|routing| routing as i8 + 1);
        let wanted = |event: &&StoredEvent| {
            query.queue.as_ref().is_none_or(|queue| *queue == event.queue)
                && routing.is_none_or(|routing| routing == event.routing)
        };
        let newest_first = self.events.range(start..end).rev().map(|(_, event)| event);
        newest_first.filter(wanted).take(query.limit).cloned().collect()
    }

    pub(super) fn decision_counts(&self, from: i64, to: i64) -> Vec<DecisionCount> {
        let mut counts: BTreeMap<(i8, &str), u64> = BTreeMap::new();
        for (_, event) in self.events.range((from, Uuid::nil())..(to.max(from), Uuid::nil())) {
            *counts.entry((event.routing, event.tier())).or_default() += 1;
        }
        let count = |((routing, tier), events)| DecisionCount::new(routing, tier, events);
        counts.into_iter().map(count).collect()
    }
}
