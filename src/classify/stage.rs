//! The classify `Stage`: a batch of Kafka records in; events, escalations and dead letters out.
//!
//! A batch is worked through in chunks and each chunk phase by phase, which keeps code and tables in the CPU's caches
//! and lets the time of each phase be measured without asking the clock for every record.

use std::collections::HashMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::Utc;
use prometheus::{Histogram, IntCounter};

use crate::config::{Config, IncludeText};
use crate::decode::{Decoder, Reject};
use crate::metrics::{self, CacheResult, Metrics, OutcomeCounts, StageName};
use crate::record::{Indicators, Priority, Record, Routing, rfc3339, write_escalation, write_event};
use crate::route::{self, EventTopics};
use crate::rules::indicators;
use crate::stream::{Batch, Outcome, Outputs, Stage, StageError, TopicId, Topics};

use super::classifier::{CacheCounts, Classifier, Scratch};
use super::decide::{Action, Verdict};
use super::event::{self, Clock};

/// Records worked through at a time.
const CHUNK: usize = 256;

/// Where the role's outputs go.
#[derive(Debug, Clone)]
pub struct Destinations {
    topics: Topics,
    events: EventTopics,
    /// `None`: nobody is there to escalate to.
    escalations: Option<TopicId>,
    include_text: IncludeText,
    indicators: bool,
    /// Reasons that an event lists.
    explain: usize,
}

impl Destinations {
    pub fn new(config: &Config) -> Self {
        let output = &config.output;
        let mut topics = Topics::new(&output.dead_letters);
        let events = EventTopics::new(output, &mut topics);
        let escalations = output.escalate.then(|| topics.add(&output.escalations));
        Destinations {
            events,
            escalations,
            include_text: output.include_text,
            indicators: output.indicators,
            explain: output.explain,
            topics,
        }
    }

    pub fn topics(&self) -> &Topics {
        &self.topics
    }
}

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
}

fn entry<K: PartialEq + Copy, V: Default>(list: &mut Vec<(K, V)>, key: K) -> &mut V {
    let index = list.iter().position(|(known, _)| *known == key).unwrap_or_else(|| {
        list.push((key, V::default()));
        list.len() - 1
    });
    &mut list[index].1
}

impl<'c> Tally<'c> {
    fn verdict(&mut self, outcome: metrics::Outcome, verdict: &Verdict<'c>) {
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
    worker: Worker,
    meters: Meters,
}

/// What a chunk needs.
#[derive(Debug)]
struct Worker {
    classifier: Arc<Classifier>,
    /// By input topic.
    decoders: Arc<[Decoder]>,
    destinations: Arc<Destinations>,
    scratch: Scratch,
    clock: Clock,
}

impl ClassifyStage {
    /// `decoders` are in the order of the engine's inputs.
    pub fn new(
        classifier: Arc<Classifier>,
        decoders: Arc<[Decoder]>,
        destinations: Arc<Destinations>,
        metrics: &Metrics,
    ) -> Self {
        ClassifyStage {
            worker: Worker { classifier, decoders, destinations, scratch: Scratch::default(), clock: Clock::default() },
            meters: Meters::new(metrics),
        }
    }
}

impl Stage for ClassifyStage {
    fn process(&mut self, batch: &Batch, outputs: &mut Outputs) -> Result<(), StageError> {
        let classifier = Arc::clone(&self.worker.classifier);
        let decided_at = rfc3339(Utc::now().timestamp_millis());
        let (mut tally, mut phases) = (Tally::default(), Phases::default());
        let mut start = 0;
        while start < batch.len() {
            let chunk = start..(start + CHUNK).min(batch.len());
            start = chunk.end;
            let mut attempt = Tally::default();
            let work = AssertUnwindSafe(|| {
                self.worker.chunk(&classifier, batch, chunk.clone(), outputs, &decided_at, &mut attempt, &mut phases);
            });
            match catch_unwind(work) {
                Ok(()) => tally.absorb(attempt),
                Err(_) => self.one_by_one(&classifier, batch, chunk, outputs, &decided_at, &mut tally, &mut phases),
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
        classifier: &'c Classifier,
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
                self.worker.chunk(classifier, batch, one, outputs, decided_at, &mut attempt, phases);
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
        for (queue, by_priority) in other.queues {
            for (sum, more) in entry(&mut self.queues, queue).iter_mut().zip(by_priority) {
                *sum += more;
            }
        }
    }
}

impl Worker {
    #[allow(clippy::too_many_arguments)]
    fn chunk<'c>(
        &mut self,
        classifier: &'c Classifier,
        batch: &Batch,
        chunk: Range<usize>,
        outputs: &mut Outputs,
        decided_at: &str,
        tally: &mut Tally<'c>,
        phases: &mut Phases,
    ) {
        let started = Instant::now();
        let decoded: Vec<Result<Record<'_>, Reject>> = chunk
            .clone()
            .map(|index| {
                let input = batch.get(index);
                self.decoders[input.input()].decode(input.value(), input.timestamp())
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
                    let verdict = classifier.decide(record, rule, &mut self.scratch);
                    self.emit(batch, index, record, &verdict, outputs, decided_at, tally);
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
            tally.verdict(metrics::Outcome::Dropped, verdict);
            return;
        }
        let input = batch.get(index);
        let found = match self.destinations.indicators {
            true => indicators::extract(record.text()),
            false => Indicators::default(),
        };
        let occurred_at = self.clock.format(record.occurred_at());
        let include_text = self.destinations.include_text;
        let mut event =
            event::queue_event(input.position(), record, verdict, found, occurred_at, decided_at, include_text);
        event.reasons = self.classifier.explain(record, verdict, self.destinations.explain);
        let key = record.ticket_id().map(str::as_bytes).or(input.key());
        let (outcome, written) = match (verdict.action, self.destinations.escalations) {
            (Action::Escalate(reason), Some(topic)) => {
                let headers = route::headers(&event, true);
                let escalation = event::escalation(event, record, reason, verdict.rule_priority);
                let write = |value: &mut Vec<u8>| write_escalation(value, &escalation);
                (metrics::Outcome::Escalation, outputs.message(batch, index, topic, key, headers, write))
            }
            _ => {
                let topic = self.destinations.events.of(verdict.queue);
                let headers = route::headers(&event, false);
                let write = |value: &mut Vec<u8>| write_event(value, &event);
                (metrics::Outcome::Event, outputs.message(batch, index, topic, key, headers, write))
            }
        };
        match written {
            Outcome::DeadLetter => tally.dead_letter("output_too_large"),
            Outcome::Message | Outcome::Dropped | Outcome::Stored => tally.verdict(outcome, verdict),
        }
    }
}
