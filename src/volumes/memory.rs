//! Volumes in memory: the same sets of source offsets as the table `volumes` holds, bounded in number, and the newest
//! events themselves.

mod incidents;
mod recent;
mod reviews;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use roaring::RoaringTreemap;
use uuid::Uuid;

use super::audit::AuditEntry;
use super::feedback::{Claimed, ConfidenceCount, FeedbackRow, Judgement, JudgementQuery, ReviewCursor, ReviewFilter};
use super::question::{ArmCount, DecisionCount, EventQuery, QueueCount};
use super::row::{AccuracyRow, AnomalyRow, EventRow, ForecastRow, ForecastTotalRow};
use super::store::{TOTAL, Volume, VolumeQuery};
use super::stored::StoredEvent;
use crate::record::Kind;
use incidents::IncidentBook;
use recent::Recent;
use reviews::ReviewBook;

/// Rows of each kind of what the forecast role writes that are kept.
const MOST_ROWS: usize = 100_000;

/// What a set of offsets belongs to, within a minute.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct SetKey {
    kind: i8,
    priority: i8,
    source_partition: i32,
    queue: Arc<str>,
    category: Arc<str>,
    source_topic: Arc<str>,
}

#[derive(Debug, Default)]
struct Sets {
    /// By minute since 1970-01-01 UTC.
    by_minute: BTreeMap<u32, HashMap<SetKey, RoaringTreemap>>,
    count: usize,
    names: HashSet<Arc<str>>,
    forecasts: VecDeque<ForecastRow>,
    totals: VecDeque<ForecastTotalRow>,
    accuracy: VecDeque<AccuracyRow>,
    anomalies: VecDeque<AnomalyRow>,
    recent: Recent,
    audit: VecDeque<AuditEntry>,
}

/// Volumes of this process; they end with it.
#[derive(Debug)]
pub struct MemoryStore {
    sets: Mutex<Sets>,
    book: Mutex<ReviewBook>,
    incidents: Mutex<IncidentBook>,
    most_sets: usize,
}

impl MemoryStore {
    /// At most `most_sets` sets are kept; the oldest minutes go first.
    pub fn new(most_sets: usize) -> Self {
        MemoryStore { sets: Mutex::default(), book: Mutex::default(), incidents: Mutex::default(), most_sets }
    }

    fn lock(&self) -> MutexGuard<'_, Sets> {
        // A set that a panic left without its newest offset is still a set.
        self.sets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn book(&self) -> MutexGuard<'_, ReviewBook> {
        // Each entry is whole by itself.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn incidents(&self) -> MutexGuard<'_, IncidentBook> {
        // Each row is whole by itself.
        self.incidents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn insert_events(&self, rows: &[EventRow<'_>]) {
        let mut book = self.book();
        for row in rows {
            book.insert_event(row);
        }
        drop(book);
        let mut sets = self.lock();
        for row in rows {
            sets.insert(row);
            sets.recent.insert(row);
        }
        while sets.count > self.most_sets && sets.by_minute.len() > 1 {
            let (_, oldest) = sets.by_minute.pop_first().expect("there is more than one");
            sets.count -= oldest.len();
        }
    }

    /// Of all queues and the total, or of `only` one of them.
    pub fn volumes(&self, query: VolumeQuery, only: Option<&str>) -> Vec<Volume> {
        let sets = self.lock();
        // Offsets are unique within a topic's partition only, so sets are united within each and their sizes are added.
        let mut united: HashMap<(Option<&str>, i64, &str, i32), RoaringTreemap> = HashMap::new();
        for (at, by_key) in sets.by_minute.range(minutes(query.from, query.to)) {
            let bucket = (i64::from(*at) * 60).div_euclid(query.bucket) * query.bucket;
            for (key, offsets) in by_key {
                for queue in [Some(&*key.queue), None] {
                    if only.is_some_and(|only| only != queue.unwrap_or(TOTAL)) {
                        continue;
                    }
                    *united.entry((queue, bucket, &*key.source_topic, key.source_partition)).or_default() |= offsets;
                }
            }
        }
        let mut sizes: HashMap<(Option<&str>, i64), u64> = HashMap::new();
        for ((queue, at, _, _), offsets) in united {
            *sizes.entry((queue, at)).or_default() += offsets.len();
        }
        let volume = |((queue, at), events): ((Option<&str>, i64), u64)| Volume {
            queue: queue.unwrap_or(TOTAL).to_owned(),
            at,
            events,
        };
        sizes.into_iter().map(volume).collect()
    }

    pub fn queue_counts(&self, from: i64, to: i64) -> Vec<QueueCount> {
        let sets = self.lock();
        /// Queue, kind, priority, topic, partition.
        type Place<'s> = (&'s str, i8, i8, &'s str, i32);
        let mut united: HashMap<Place<'_>, (RoaringTreemap, u32)> = HashMap::new();
        for (at, by_key) in sets.by_minute.range(minutes(from, to)) {
            for (key, offsets) in by_key {
                let source = (&*key.queue, key.kind, key.priority, &*key.source_topic, key.source_partition);
                let (all, newest) = united.entry(source).or_default();
                *all |= offsets;
                *newest = *at;
            }
        }
        let mut counts: BTreeMap<(&str, i8, i8), (u64, u32)> = BTreeMap::new();
        for ((queue, kind, priority, ..), (offsets, minute)) in united {
            let (events, newest) = counts.entry((queue, kind, priority)).or_default();
            *events += offsets.len();
            *newest = minute.max(*newest);
        }
        let count = |((queue, kind, priority), (events, newest)): ((&str, i8, i8), (u64, u32))| {
            QueueCount::new(queue.to_owned(), kind, priority, events, i64::from(newest) * 60)
        };
        counts.into_iter().map(count).collect()
    }

    pub fn decision_counts(&self, from: i64, to: i64) -> Vec<DecisionCount> {
        self.lock().recent.decision_counts(from, to)
    }

    pub fn event(&self, id: Uuid) -> Option<StoredEvent> {
        self.lock().recent.event(id).or_else(|| self.book().event(id))
    }

    pub fn events(&self, query: &EventQuery) -> Vec<StoredEvent> {
        self.lock().recent.events(query)
    }

    pub fn audit(&self, entry: &AuditEntry) {
        let mut sets = self.lock();
        if sets.audit.iter().all(|known| known.entry_id != entry.entry_id) {
            append(&mut sets.audit, std::slice::from_ref(entry));
        }
    }

    pub fn audit_log(&self, from: i64, to: i64, limit: usize) -> Vec<AuditEntry> {
        let sets = self.lock();
        let mut entries: Vec<AuditEntry> =
            sets.audit.iter().filter(|entry| (from..to).contains(&entry.at)).cloned().collect();
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.at));
        entries.truncate(limit);
        entries
    }

    pub fn forecast_totals(&self, window: &str, starts_at: u32) -> Vec<ForecastTotalRow> {
        let sets = self.lock();
        let belongs = |row: &&ForecastTotalRow| row.window == window && row.starts_at == starts_at;
        let mut totals: Vec<ForecastTotalRow> = sets.totals.iter().filter(belongs).cloned().collect();
        totals.sort_by(|a, b| a.queue.cmp(&b.queue));
        totals
    }

    pub fn insert_forecasts(&self, totals: &[ForecastTotalRow], steps: &[ForecastRow]) {
        let mut sets = self.lock();
        for total in totals {
            let same = |row: &ForecastTotalRow| {
                (&row.window, &row.queue, row.starts_at) == (&total.window, &total.queue, total.starts_at)
            };
            sets.totals.retain(|row| !same(row));
            sets.forecasts.retain(|row| {
                (&row.window, &row.queue, row.starts_at) != (&total.window, &total.queue, total.starts_at)
            });
        }
        append(&mut sets.totals, totals);
        append(&mut sets.forecasts, steps);
    }

    pub fn newest_forecast(&self, window: &str) -> Option<u32> {
        self.lock().totals.iter().filter(|row| row.window == window).map(|row| row.starts_at).max()
    }

    pub fn forecasts_to_compare(&self, window: &str, ended_after: u32, ended_by: u32) -> Vec<ForecastTotalRow> {
        let sets = self.lock();
        let compared: BTreeSet<(&str, u32)> =
            sets.accuracy.iter().filter(|row| row.window == window).map(|row| (&*row.queue, row.starts_at)).collect();
        let is_due = |row: &&ForecastTotalRow| {
            let end = row.starts_at + row.steps * row.bucket_seconds;
            row.window == window
                && (ended_after + 1..=ended_by).contains(&end)
                && !compared.contains(&(&*row.queue, row.starts_at))
        };
        let mut due: Vec<ForecastTotalRow> = sets.totals.iter().filter(is_due).cloned().collect();
        due.sort_by(|a, b| (a.starts_at, &a.queue).cmp(&(b.starts_at, &b.queue)));
        due
    }

    pub fn forecast_steps(&self, window: &str, starts_at: u32) -> Vec<ForecastRow> {
        let sets = self.lock();
        let belongs = |row: &&ForecastRow| row.window == window && row.starts_at == starts_at;
        let mut steps: Vec<ForecastRow> = sets.forecasts.iter().filter(belongs).cloned().collect();
        steps.sort_by(|a, b| (&a.queue, a.at).cmp(&(&b.queue, b.at)));
        steps
    }

    pub fn insert_accuracy(&self, rows: &[AccuracyRow]) {
        append(&mut self.lock().accuracy, rows);
    }

    pub fn insert_anomalies(&self, rows: &[AnomalyRow]) {
        append(&mut self.lock().anomalies, rows);
    }

    pub fn last_anomalies(&self, window: &str) -> Vec<(String, u32)> {
        let mut last: BTreeMap<String, u32> = BTreeMap::new();
        for row in self.lock().anomalies.iter().filter(|row| row.window == window) {
            let at = last.entry(row.queue.clone()).or_default();
            *at = row.at.max(*at);
        }
        last.into_iter().collect()
    }

    pub fn insert_feedback(&self, rows: &[FeedbackRow]) {
        self.book().insert_feedback(rows);
    }

    pub fn reviews(&self, filter: &ReviewFilter, limit: usize, after: Option<ReviewCursor>) -> Vec<StoredEvent> {
        self.book().reviews(filter, limit, after)
    }

    pub fn claim(&self, event_id: Uuid, reviewer: &str, lease: Duration) -> Claimed {
        self.book().claim(event_id, reviewer, lease)
    }

    pub fn release(&self, event_id: Uuid, reviewer: &str) {
        self.book().release(event_id, reviewer);
    }

    pub fn judgements(&self, query: &JudgementQuery) -> Vec<Judgement> {
        self.book().judgements(query)
    }

    pub fn confidence(&self, from: i64, to: i64) -> Vec<ConfidenceCount> {
        self.book().confidence(from, to)
    }

    pub fn queues(&self) -> Vec<String> {
        let sets = self.lock();
        let queues: BTreeSet<&str> =
            sets.by_minute.values().flat_map(|by_key| by_key.keys().map(|key| &*key.queue)).collect();
        queues.into_iter().map(str::to_owned).collect()
    }

    pub fn last_report(&self) -> Option<u32> {
        self.book().last_report()
    }

    pub fn report_sent(&self, slot: u32) {
        self.book().report_sent(slot);
    }

    pub fn arm_counts(&self, from: i64, to: i64) -> Vec<ArmCount> {
        self.book().arm_counts(from, to)
    }

    pub fn last_training(&self, kind: Kind) -> Option<u32> {
        self.book().last_training(kind)
    }

    pub fn training_done(&self, kind: Kind, slot: u32) {
        self.book().training_done(kind, slot);
    }
}

impl Sets {
    fn insert(&mut self, row: &EventRow<'_>) {
        let key = SetKey {
            kind: row.kind,
            priority: row.priority,
            source_partition: row.source_partition,
            queue: self.name(row.queue),
            category: self.name(row.category),
            source_topic: self.name(row.source_topic),
        };
        let by_key = self.by_minute.entry(row.minute()).or_default();
        let before = by_key.len();
        by_key.entry(key).or_default().insert(row.source_offset);
        self.count += by_key.len() - before;
    }

    /// Names repeat in every set; each is kept once.
    fn name(&mut self, text: &str) -> Arc<str> {
        match self.names.get(text) {
            Some(name) => Arc::clone(name),
            None => {
                let name: Arc<str> = Arc::from(text);
                self.names.insert(Arc::clone(&name));
                name
            }
        }
    }
}

/// The minutes between two seconds since 1970-01-01 UTC.
fn minutes(from: i64, to: i64) -> Range<u32> {
    let minute = |second: i64| u32::try_from(second.div_euclid(60)).unwrap_or(if second < 0 { 0 } else { u32::MAX });
    minute(from)..minute(to).max(minute(from))
}

fn append<T: Clone>(kept: &mut VecDeque<T>, rows: &[T]) {
    kept.extend(rows.iter().cloned());
    let surplus = kept.len().saturating_sub(MOST_ROWS);
    kept.drain(..surplus);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(queue: &'static str, minute: i64, partition: i32, offset: u64) -> EventRow<'static> {
        EventRow {
            source_topic: "logs",
            source_partition: partition,
            source_offset: offset,
            event_id: uuid::Uuid::nil(),
            kind: 2,
            ticket_id: "",
            origin: "",
            occurred_at: minute * 60_000 + 59_999,
            decided_at: 0,
            queue,
            category: "",
            priority: 1,
            confidence: 1.0,
            routing: 1,
            decided_by: "fast",
            alternatives: Vec::new(),
            reasons: Vec::new(),
            tags: &[],
            urls: &[],
            ips: &[],
            domains: &[],
            emails: &[],
            cves: &[],
            hashes: &[],
            model: "",
            config: "",
            arm: "",
            shadow: Vec::new(),
            template_id: "",
            text: "",
        }
    }

    fn volumes(store: &MemoryStore, bucket: i64) -> Vec<(String, i64, u64)> {
        let mut volumes = store.volumes(VolumeQuery { from: 0, to: 1_000_000, bucket }, None);
        volumes.sort();
        volumes.into_iter().map(|volume| (volume.queue, volume.at, volume.events)).collect()
    }

    #[test]
    fn repeats_change_nothing_and_the_same_offset_elsewhere_counts() {
        let store = MemoryStore::new(1000);
        let rows = [row("a", 1, 0, 7), row("a", 1, 1, 7), row("b", 2, 0, 8), row("a", 61, 0, 9)];
        for _ in 0..3 {
            store.insert_events(&rows);
        }
        let hour = |queue: &str, at, events| (queue.to_owned(), at, events);
        assert_eq!(
            volumes(&store, 3600),
            [hour("*", 0, 3), hour("*", 3600, 1), hour("a", 0, 2), hour("a", 3600, 1), hour("b", 0, 1)]
        );
        assert_eq!(volumes(&store, 60).len(), 6);
    }

    #[test]
    fn an_event_that_was_decided_twice_counts_once_in_the_total() {
        let store = MemoryStore::new(1000);
        store.insert_events(&[row("a", 1, 0, 7), row("b", 1, 0, 7)]);
        assert_eq!(volumes(&store, 60), [("*".into(), 60, 1), ("a".into(), 60, 1), ("b".into(), 60, 1)]);
    }

    #[test]
    fn the_oldest_minutes_make_room() {
        let store = MemoryStore::new(3);
        for minute in 0..5 {
            store.insert_events(&[row("a", minute, 0, 1)]);
        }
        let kept: Vec<i64> =
            volumes(&store, 60).iter().filter(|(queue, ..)| queue == "a").map(|(_, at, _)| *at).collect();
        assert_eq!(kept, [120, 180, 240]);
    }
}
