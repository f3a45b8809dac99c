//! The classify `Stage`: a batch of Kafka records in; events, escalations and dead letters out.
//!
//! A batch is worked through in chunks and each chunk phase by phase, which keeps code and tables in the CPU's caches
//! and lets the time of each phase be measured without asking the clock for every record.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use chrono::Utc;
use prometheus::{Histogram, IntCounter};

use crate::decode::Reject;
use crate::metrics::{self, CacheResult, Metrics, OutcomeCounts, StageName};
use crate::record::{Arm, Indicators, Kind, Priority, Record, Routing, rfc3339, write_escalation, write_event};
use crate::reload::Live;
use crate::route;
use crate::rules::indicators;
use crate::stream::{Batch, Input, Outcome, Outputs, Stage, StageError};

use super::classifier::{CacheCounts, Scratch};
use super::decide::{Action, Verdict};
use super::event::{self, Clock};
use super::generation::Generation;

/// Records worked through at a time.
const CHUNK: usize = 256;

/// Metric handles, looked up once.
#[derive(Debug)]
struct Meters {
    metrics: Metrics,
    routing: [IntCounter; 3],
    cache: [IntCounter; 4],
    decode: Histogram,
    rules: Histogram,
    decide: Histogram,
    dead_letters: HashMap<&'static str, IntCounter>,
    rule_matches: HashMap<String, IntCounter>,
    queues: HashMap<String, [IntCounter; 4]>,
}

impl Meters {
    fn new(metrics: &Metrics) -> Self {
        Meters {
            routing: Routing::ALL.map(|routing| metrics.routing(routing)),
            cache: CacheResult::ALL.map(|result| metrics.cache_lookups(result)),
            decode: metrics.stage(StageName::Decode),
            rules: metrics.stage(StageName::Rules),
            decide: metrics.stage(StageName::Decide),
            dead_letters: HashMap::new(),
            rule_matches: HashMap::new(),
            queues: HashMap::new(),
            metrics: metrics.clone(),
        }
    }
}

/// What a batch counts before it is known to count.
#[derive(Debug, Default)]
struct Tally<'c> {
    outcomes: OutcomeCounts,
    routing: [u64; 3],
    dead_letters: Vec<(&'static str, u64)>,
    rules: Vec<(&'c str, u64)>,
    queues: Vec<(&'c str, [u64; 4])>,
    /// Confidences by kind and arm, while a challenger is tried.
    confidences: [[Vec<f32>; 2]; 2],
    /// By kind: the shadow's answers that were the champion's, and others.
    shadow: [[u64; 2]; 2],
}

fn entry<K: PartialEq + Copy, V: Default>(list: &mut Vec<(K, V)>, key: K) -> &mut V {
    let index = list.iter().position(|(known, _)| *known == key).unwrap_or_else(|| {
        list.push((key, V::default()));
        list.len() - 1
    });
    &mut list[index].1
}

impl<'c> Tally<'c> {
    fn verdict(&mut self, kind: Kind, outcome: metrics::Outcome, verdict: &Verdict<'c>) {
        if let (Some(arm), true) = (verdict.arm, verdict.model.is_some()) {
            self.confidences[kind as usize][arm as usize].push(verdict.confidence);
        }
        if let Some(shadow) = &verdict.shadow {
            self.confidences[kind as usize][Arm::Challenger as usize].push(shadow.confidence);
            if let Some(agrees) = shadow.agrees {
                self.shadow[kind as usize][usize::from(!agrees)] += 1;
            }
        }
        self.outcomes.count(outcome, verdict.decided_by.tier());
        if let crate::record::DecidedBy::Rule(id) = verdict.decided_by {
            *entry(&mut self.rules, id) += 1;
        }
        if outcome == metrics::Outcome::Event {
            self.routing[verdict.routing as usize] += 1;
            entry(&mut self.queues, verdict.queue)[verdict.priority as usize] += 1;
        }
    }

    fn dead_letter(&mut self, reason: &'static str) {
        self.outcomes.count(metrics::Outcome::DeadLetter, "none");
        *entry(&mut self.dead_letters, reason) += 1;
    }

    /// Hands the counts to the batch, which adds them to the metrics when it is acknowledged.
    fn hand_over(self, cache: CacheCounts, meters: &mut Meters, outputs: &mut Outputs) {
        let counts = &mut outputs.counts;
        counts.outcomes.merge(&self.outcomes);
        let mut add = |counter: &IntCounter, by: u64| {
            if by > 0 {
                counts.increments.push((counter.clone(), by));
            }
        };
        for (counter, by) in meters.routing.iter().zip(self.routing) {
            add(counter, by);
        }
        // Nothing is exported of arms that there are not.
        for kind in Kind::ALL {
            for (agrees, by) in [true, false].into_iter().zip(self.shadow[kind as usize]).filter(|(_, by)| *by > 0) {
                add(&meters.metrics.shadow_answers(kind, agrees), by);
            }
            for arm in Arm::ALL {
                let seen = &self.confidences[kind as usize][arm as usize];
                if !seen.is_empty() {
                    let histogram = meters.metrics.arm_confidence(kind, arm);
                    seen.iter().for_each(|confidence| histogram.observe(f64::from(*confidence)));
                }
            }
        }
        let lookups = [cache.hits, cache.misses, cache.recheck_agree, cache.recheck_disagree];
        for (counter, by) in meters.cache.iter().zip(lookups) {
            add(counter, by);
        }
        for (reason, by) in self.dead_letters {
            let metrics = &meters.metrics;
            add(meters.dead_letters.entry(reason).or_insert_with(|| metrics.dead_letters(reason)), by);
        }
        for (rule, by) in self.rules {
            if !meters.rule_matches.contains_key(rule) {
                meters.rule_matches.insert(rule.to_owned(), meters.metrics.rule_matches(rule));
            }
            add(&meters.rule_matches[rule], by);
        }
        for (queue, by_priority) in self.queues {
            if !meters.queues.contains_key(queue) {
                let counters = Priority::ALL.map(|priority| meters.metrics.queue_events(queue, priority));
                meters.queues.insert(queue.to_owned(), counters);
            }
            for (counter, by) in meters.queues[queue].iter().zip(by_priority) {
                add(counter, by);
            }
        }
    }
}

/// Time spent in each phase of a batch.
#[derive(Debug, Default)]
struct Phases {
    decode: Duration,
    rules: Duration,
    decide: Duration,
}

/// One worker of the classify role.
#[derive(Debug)]
pub struct ClassifyStage {
    live: Live<Generation>,
    worker: Worker,
    meters: Meters,
}

/// What a worker keeps from one batch to the next.
#[derive(Debug, Default)]
struct Worker {
    scratch: Scratch,
    clock: Clock,
}

impl ClassifyStage {
    pub fn new(live: Live<Generation>, metrics: &Metrics) -> Self {
        ClassifyStage { live, worker: Worker::default(), meters: Meters::new(metrics) }
    }
}

impl Stage for ClassifyStage {
    fn process(&mut self, batch: &Batch, outputs: &mut Outputs) -> Result<(), StageError> {
        // Once for the whole batch: what is exchanged meanwhile holds from the next one on.
        let generation = self.live.get();
        let decided_at = rfc3339(Utc::now().timestamp_millis());
        let (mut tally, mut phases) = (Tally::default(), Phases::default());
        let mut start = 0;
        while start < batch.len() {
            let chunk = start..(start + CHUNK).min(batch.len());
            start = chunk.end;
            let mut attempt = Tally::default();
            let work = AssertUnwindSafe(|| {
                self.worker.chunk(&generation, batch, chunk.clone(), outputs, &decided_at, &mut attempt, &mut phases);
            });
            match catch_unwind(work) {
                Ok(()) => tally.absorb(attempt),
                Err(_) => self.one_by_one(&generation, batch, chunk, outputs, &decided_at, &mut tally, &mut phases),
            }
        }
        let cache = std::mem::take(&mut self.worker.scratch.cache_counts);
        tally.hand_over(cache, &mut self.meters, outputs);
        self.meters.decode.observe(phases.decode.as_secs_f64());
        self.meters.rules.observe(phases.rules.as_secs_f64());
        self.meters.decide.observe(phases.decide.as_secs_f64());
        Ok(())
    }
}

impl ClassifyStage {
    /// A record of the chunk has met a bug of ours: the others go on, and that one goes to the dead letters.
    #[allow(clippy::too_many_arguments)]
    fn one_by_one<'c>(
        &mut self,
        generation: &'c Generation,
        batch: &Batch,
        chunk: Range<usize>,
        outputs: &mut Outputs,
        decided_at: &str,
        tally: &mut Tally<'c>,
        phases: &mut Phases,
    ) {
        for index in chunk {
            outputs.withdraw(index);
            self.worker.scratch = Scratch::default();
            let mut attempt = Tally::default();
            let work = AssertUnwindSafe(|| {
                let one = index..index + 1;
                self.worker.chunk(generation, batch, one, outputs, decided_at, &mut attempt, phases);
            });
            if catch_unwind(work).is_ok() {
                tally.absorb(attempt);
            } else {
                let input = batch.get(index);
                tracing::error!(record = %input.position(), "a record could not be processed, it is dead-lettered");
                outputs.withdraw(index);
                outputs.dead_letter(input, index, "internal_error", "the record could not be processed");
                tally.dead_letter("internal_error");
            }
        }
    }
}

impl<'c> Tally<'c> {
    fn absorb(&mut self, other: Tally<'c>) {
        self.outcomes.merge(&other.outcomes);
        for (sum, more) in self.routing.iter_mut().zip(other.routing) {
            *sum += more;
        }
        for (reason, by) in other.dead_letters {
            *entry(&mut self.dead_letters, reason) += by;
        }
        for (rule, by) in other.rules {
            *entry(&mut self.rules, rule) += by;
        }
        for (all, more) in self.confidences.iter_mut().flatten().zip(other.confidences.into_iter().flatten()) {
            all.extend(more);
        }
        for (sum, more) in self.shadow.iter_mut().flatten().zip(other.shadow.into_iter().flatten()) {
            *sum += more;
        }
        for (queue, by_priority) in other.queues {
            for (sum, more) in entry(&mut self.queues, queue).iter_mut().zip(by_priority) {
                *sum += more;
            }
        }
    }
}

/// A record's partition and offset.
fn place_key(input: Input<'_>) -> [u8; 12] {
    let mut key = [0; 12];
    key[..4].copy_from_slice(&input.place().partition.to_le_bytes());
    key[4..].copy_from_slice(&input.offset().to_le_bytes());
    key
}

impl Worker {
    #[allow(clippy::too_many_arguments)]
    fn chunk<'c>(
        &mut self,
        generation: &'c Generation,
        batch: &Batch,
        chunk: Range<usize>,
        outputs: &mut Outputs,
        decided_at: &str,
        tally: &mut Tally<'c>,
        phases: &mut Phases,
    ) {
        let started = Instant::now();
        let classifier = &*generation.classifier;
        let decoded: Vec<Result<Record<'_>, Reject>> = chunk
            .clone()
            .map(|index| {
                let input = batch.get(index);
                generation.decoders[input.input()].decode(input.value(), input.timestamp())
            })
            .collect();
        let decoded_at = Instant::now();
        let said_by_rules: Vec<_> = decoded
            .iter()
            .map(|record| match record {
                Ok(record) => classifier.apply_rules(record, &mut self.scratch),
                Err(_) => Default::default(),
            })
            .collect();
        let matched_at = Instant::now();
        for ((index, record), rule) in chunk.zip(&decoded).zip(said_by_rules) {
            match record {
                Ok(record) => {
                    let input = batch.get(index);
                    // Without a key of its own a record is as good as its place, which a replay does not change.
                    let place = place_key(input);
                    let key = record.ticket_id().map(str::as_bytes).or(input.key()).unwrap_or(&place);
                    let verdict = classifier.decide(record, rule, key, &mut self.scratch);
                    self.emit(generation, batch, index, record, &verdict, outputs, decided_at, tally);
                }
                Err(reject) => {
                    outputs.dead_letter(batch.get(index), index, reject.reason(), reject);
                    tally.dead_letter(reject.reason());
                }
            }
        }
        phases.decode += decoded_at - started;
        phases.rules += matched_at - decoded_at;
        phases.decide += matched_at.elapsed();
    }

    #[allow(clippy::too_many_arguments)]
    fn emit<'c>(
        &mut self,
        generation: &'c Generation,
        batch: &Batch,
        index: usize,
        record: &Record<'_>,
        verdict: &Verdict<'c>,
        outputs: &mut Outputs,
        decided_at: &str,
        tally: &mut Tally<'c>,
    ) {
        if verdict.action == Action::Drop {
            outputs.dropped(index);
            tally.verdict(record.kind(), metrics::Outcome::Dropped, verdict);
            return;
        }
        let input = batch.get(index);
        let destinations = &generation.destinations;
        let found = match destinations.indicators {
            true => indicators::extract(record.text()),
            false => Indicators::default(),
        };
        let occurred_at = self.clock.format(record.occurred_at());
        let include_text = destinations.include_text;
        let mut event =
            event::queue_event(input.position(), record, verdict, found, occurred_at, decided_at, include_text);
        event.reasons = generation.classifier.explain(record, verdict, destinations.explain);
        event.config = Some(Cow::Borrowed(&generation.version));
        let key = record.ticket_id().map(str::as_bytes).or(input.key());
        let (outcome, written) = match (verdict.action, destinations.escalations) {
            (Action::Escalate(reason), Some(topic)) => {
                let headers = route::headers(&event, true);
                let escalation = event::escalation(event, record, reason, verdict.rule_priority);
                let write = |value: &mut Vec<u8>| write_escalation(value, &escalation);
                (metrics::Outcome::Escalation, outputs.message(batch, index, topic, key, headers, write))
            }
            _ => {
                let topic = destinations.events.of(verdict.queue);
                let headers = route::headers(&event, false);
                let write = |value: &mut Vec<u8>| write_event(value, &event);
                (metrics::Outcome::Event, outputs.message(batch, index, topic, key, headers, write))
            }
        };
        match written {
            Outcome::DeadLetter => tally.dead_letter("output_too_large"),
            Outcome::Message | Outcome::Dropped | Outcome::Stored => tally.verdict(record.kind(), outcome, verdict),
        }
    }
}
