//! Events, feedback and claims in memory: the newest of each, bounded in number.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use chrono::Utc;
use uuid::Uuid;

use super::super::feedback::{
    Claimed, ConfidenceCount, FeedbackRow, Judgement, JudgementQuery, ReviewCursor, ReviewFilter, confidence_bin,
};
use super::super::question::ArmCount;
use super::super::row::EventRow;
use super::super::stored::StoredEvent;
use crate::record::{Arm, Kind};

/// Events that are kept to be reviewed. One with its text takes a few kilobytes.
const MOST_EVENTS: usize = 20_000;
/// Feedback that is kept.
const MOST_FEEDBACK: usize = 20_000;

#[derive(Debug)]
struct Claim {
    reviewer: String,
    until: i64,
}

/// What reviews need beside the sets of offsets.
#[derive(Debug, Default)]
pub(super) struct ReviewBook {
    events: HashMap<Uuid, StoredEvent>,
    /// In the order in which they first came.
    order: VecDeque<Uuid>,
    /// By event, then by feedback.
    feedback: BTreeMap<(Uuid, Uuid), FeedbackRow>,
    claims: HashMap<Uuid, Claim>,
    last_report: Option<u32>,
    /// By kind.
    trainings: [Option<u32>; Kind::ALL.len()],
}

impl ReviewBook {
    pub(super) fn insert_event(&mut self, row: &EventRow<'_>) {
        match self.events.get(&row.event_id) {
            Some(known) if known.decided_at > row.decided_at => return,
            Some(_) => {}
            None => self.order.push_back(row.event_id),
        }
        self.events.insert(row.event_id, StoredEvent::from(row));
        while self.order.len() > MOST_EVENTS {
            if let Some(oldest) = self.order.pop_front() {
                self.events.remove(&oldest);
            }
        }
    }

    pub(super) fn insert_feedback(&mut self, rows: &[FeedbackRow]) {
        for row in rows {
            self.feedback.insert((row.event_id, row.feedback_id), row.clone());
        }
        while self.feedback.len() > MOST_FEEDBACK {
            let oldest = self.feedback.iter().min_by_key(|(_, row)| row.given_at).map(|(key, _)| *key);
            oldest.and_then(|key| self.feedback.remove(&key));
        }
    }

    pub(super) fn reviews(&self, filter: &ReviewFilter, limit: usize, after: Option<ReviewCursor>) -> Vec<StoredEvent> {
        let now = Utc::now().timestamp_millis();
        let has_feedback = |id: Uuid| self.feedback.range((id, Uuid::nil())..=(id, Uuid::max())).next().is_some();
        let taken =
            |id: &Uuid| self.claims.get(id).is_some_and(|claim| claim.until > now && claim.reviewer != filter.reviewer);
        let wanted = |event: &&StoredEvent| {
            (filter.from..filter.to).contains(&event.occurred_at)
                && filter.routings.contains(&event.routing())
                && filter.queue.as_ref().is_none_or(|queue| *queue == event.queue)
                && filter.kind.is_none_or(|kind| kind == event.kind())
                && filter.has_text.is_none_or(|has_text| has_text != event.text.is_empty())
                && after.is_none_or(|after| ReviewCursor::of(event) > after)
                && !has_feedback(event.event_id)
                && !taken(&event.event_id)
        };
        let mut found: Vec<&StoredEvent> = self.events.values().filter(wanted).collect();
        found.sort_by_key(|event| ReviewCursor::of(event));
        found.into_iter().take(limit).cloned().collect()
    }

    pub(super) fn event(&self, event_id: Uuid) -> Option<StoredEvent> {
        self.events.get(&event_id).cloned()
    }

    pub(super) fn claim(&mut self, event_id: Uuid, reviewer: &str, lease: Duration) -> Claimed {
        let now = Utc::now().timestamp_millis();
        self.claims.retain(|_, claim| claim.until > now);
        match self.claims.get(&event_id) {
            Some(claim) if claim.reviewer != reviewer => {
                Claimed::Taken { by: claim.reviewer.clone(), until: claim.until }
            }
            Some(claim) => Claimed::Won { until: claim.until },
            None => {
                let until = now + lease.as_millis() as i64;
                self.claims.insert(event_id, Claim { reviewer: reviewer.to_owned(), until });
                Claimed::Won { until }
            }
        }
    }

    pub(super) fn release(&mut self, event_id: Uuid, reviewer: &str) {
        if self.claims.get(&event_id).is_some_and(|claim| claim.reviewer == reviewer) {
            self.claims.remove(&event_id);
        }
    }

    pub(super) fn judgements(&self, query: &JudgementQuery) -> Vec<Judgement> {
        let mut newest: BTreeMap<Uuid, &FeedbackRow> = BTreeMap::new();
        for row in self.feedback.values() {
            let known = newest.entry(row.event_id).or_insert(row);
            if (row.given_at, row.feedback_id) > (known.given_at, known.feedback_id) {
                *known = row;
            }
        }
        let mut found: Vec<&FeedbackRow> =
            newest.into_values().filter(|row| (query.from..query.to).contains(&row.given_at)).collect();
        found.sort_by(|a, b| b.given_at.cmp(&a.given_at).then(a.event_id.cmp(&b.event_id)));
        let judgement = |row: &FeedbackRow| {
            let mut judgement = Judgement { feedback: row.clone(), event: self.event(row.event_id) };
            if !query.with_text {
                judgement.feedback.text.clear();
                judgement.event.iter_mut().for_each(|event| event.text.clear());
            }
            judgement
        };
        found.into_iter().take(query.limit).map(judgement).collect()
    }

    pub(super) fn confidence(&self, from: i64, to: i64) -> Vec<ConfidenceCount> {
        let mut counts: BTreeMap<(&str, &str, i8, u8), (u64, f64)> = BTreeMap::new();
        for event in self.events.values().filter(|event| (from..to).contains(&event.occurred_at)) {
            let tier = event.decided_by.split(':').next().unwrap_or_default();
            let key = (event.queue.as_str(), tier, event.routing, confidence_bin(event.confidence));
            let count = counts.entry(key).or_default();
            count.0 += 1;
            count.1 += f64::from(event.confidence);
        }
        let count = |((queue, tier, routing, bin), (events, sum)): ((&str, &str, i8, u8), (u64, f64))| {
            ConfidenceCount { queue: queue.to_owned(), tier: tier.to_owned(), routing, bin, events, sum }
        };
        counts.into_iter().map(count).collect()
    }

    pub(super) fn arm_counts(&self, from: i64, to: i64) -> Vec<ArmCount> {
        let mut counts: BTreeMap<(i8, &str, &str, u8), ArmCount> = BTreeMap::new();
        let of_time = |event: &&StoredEvent| !event.arm.is_empty() && (from..to).contains(&event.occurred_at);
        for event in self.events.values().filter(of_time) {
            let by_model = matches!(&*event.decided_by, "fast" | "cache");
            let decided = by_model.then_some((&*event.arm, &*event.model, 0, event.confidence, true));
            let beside = event.shadow.iter().map(|(model, queue, confidence)| {
                (Arm::Challenger.as_str(), &**model, 1, *confidence, *queue == event.queue)
            });
            for (arm, model, in_shadow, confidence, same) in decided.into_iter().chain(beside) {
                let count = counts.entry((event.kind, arm, model, in_shadow)).or_insert_with(|| ArmCount {
                    kind: event.kind,
                    arm: arm.to_owned(),
                    model: model.to_owned(),
                    in_shadow,
                    events: 0,
                    sum: 0.0,
                    squares: 0.0,
                    compared: 0,
                    agreed: 0,
                });
                let confidence = f64::from(confidence);
                count.events += 1;
                count.sum += confidence;
                count.squares += confidence * confidence;
                count.compared += u64::from(in_shadow == 1 && by_model);
                count.agreed += u64::from(in_shadow == 1 && by_model && same);
            }
        }
        counts.into_values().collect()
    }

    pub(super) fn last_training(&self, kind: Kind) -> Option<u32> {
        self.trainings[kind as usize]
    }

    pub(super) fn training_done(&mut self, kind: Kind, slot: u32) {
        self.trainings[kind as usize] = self.trainings[kind as usize].max(Some(slot));
    }

    pub(super) fn last_report(&self) -> Option<u32> {
        self.last_report
    }

    pub(super) fn report_sent(&mut self, slot: u32) {
        self.last_report = self.last_report.max(Some(slot));
    }
}
