//! Publishes outputs in the order in which their batches were taken, and says when a batch is acknowledged.
//!
//! One thread owns the producer and all state; delivery reports only count down an atomic and leave the errors. A
//! failure is reported once and everything later of the same generation is ignored, until the intake has gone back to
//! the last good offset and started the next generation.

mod delivery;
mod pending;
mod transaction;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, never, select};
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};
use tracing::{debug, error, warn};

use crate::config::Delivery;

use super::batch::{Batch, Partition};
use super::client::Shared;
use super::engine::{EngineError, EngineState, Processed, Report};
use super::intake::EngineConsumer;
use super::output::{Outputs, Topics};
use super::telemetry::Telemetry;
use delivery::{DeliveryContext, Slots};
use pending::Pending;
use transaction::Transaction;

/// Batches whose outputs may wait for acknowledgement at the same time; the in-flight bytes usually limit earlier.
pub(crate) const MAX_BATCHES: usize = 256;
/// How long a full producer queue is left alone before the next attempt.
const QUEUE_FULL_PAUSE: Duration = Duration::from_millis(2);
/// How often an idle publisher looks whether a newer generation has made its transaction obsolete.
const IDLE_CHECK: Duration = Duration::from_millis(100);
/// Consecutive fatal producer errors after which somebody else is assumed to use the same transactional id.
const MAX_FATAL_ERRORS: u32 = 5;

/// What must be published instead of a record's outputs, because the broker refused them for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refused {
    /// The stage's outputs were refused: a dead letter of the original.
    Outputs,
    /// The dead letter was refused too: one without the value.
    DeadLetter,
    /// Even that was refused.
    Everything,
}

pub(crate) struct Publisher {
    producer_config: ClientConfig,
    shared: Shared,
    producer: Option<ThreadedProducer<DeliveryContext>>,
    consumer: Arc<EngineConsumer>,
    inputs: Arc<[Arc<str>]>,
    topics: Topics,
    delivery: Delivery,
    commit_interval: Duration,
    state: Arc<EngineState>,
    telemetry: Telemetry,

    processed_rx: Receiver<Processed>,
    spare_tx: Sender<Outputs>,
    acked_rx: Receiver<usize>,
    report_tx: Sender<Report>,

    slots: Arc<Slots>,
    pending: Vec<Option<Pending>>,
    free_slots: Vec<usize>,
    generation: u64,
    /// Set after a failure: the rest of this generation is of no use.
    failed: bool,
    next_seq: u64,
    /// Batches that were processed before an earlier one was.
    early: BTreeMap<u64, Processed>,
    refused: HashMap<(Partition, i64), (Refused, String)>,
    transaction: Option<Transaction>,
    fatal_errors: u32,
}

/// The ends of the publisher's channels and what it shares.
pub(crate) struct PublisherParts {
    pub(crate) producer_config: ClientConfig,
    pub(crate) shared: Shared,
    pub(crate) consumer: Arc<EngineConsumer>,
    pub(crate) inputs: Arc<[Arc<str>]>,
    pub(crate) topics: Topics,
    pub(crate) delivery: Delivery,
    pub(crate) commit_interval: Duration,
    pub(crate) state: Arc<EngineState>,
    pub(crate) telemetry: Telemetry,
    pub(crate) processed_rx: Receiver<Processed>,
    pub(crate) spare_tx: Sender<Outputs>,
    pub(crate) report_tx: Sender<Report>,
}

impl Publisher {
    pub(crate) fn new(parts: PublisherParts) -> Self {
        // Each slot sends at most one message before it is used again, so sending never blocks.
        let (acked_tx, acked_rx) = crossbeam_channel::bounded(MAX_BATCHES);
        Publisher {
            producer_config: parts.producer_config,
            shared: parts.shared,
            producer: None,
            consumer: parts.consumer,
            inputs: parts.inputs,
            topics: parts.topics,
            delivery: parts.delivery,
            commit_interval: parts.commit_interval,
            state: parts.state,
            telemetry: parts.telemetry,
            processed_rx: parts.processed_rx,
            spare_tx: parts.spare_tx,
            acked_rx,
            report_tx: parts.report_tx,
            slots: Arc::new(Slots::new(MAX_BATCHES, acked_tx)),
            pending: (0..MAX_BATCHES).map(|_| None).collect(),
            free_slots: (0..MAX_BATCHES).rev().collect(),
            generation: 0,
            failed: false,
            next_seq: 0,
            early: BTreeMap::new(),
            refused: HashMap::new(),
            transaction: None,
            fatal_errors: 0,
        }
    }

    /// Runs until the workers are gone and what they made is acknowledged, or the engine is abandoned.
    pub(crate) fn run(mut self) {
        if self.delivery == Delivery::ExactlyOnce {
            match self.ensure_producer() {
                Ok(()) => self.report(Report::Connected),
                Err(failure) => self.fail(failure),
            }
        }
        let mut workers_gone = false;
        while !self.state.is_abandoned() {
            let nothing_rx = never();
            let ready_rx = if workers_gone || self.free_slots.is_empty() { &nothing_rx } else { &self.processed_rx };
            let timeout = match &self.transaction {
                Some(transaction) => transaction.remaining(self.commit_interval),
                None => IDLE_CHECK,
            };
            select! {
                recv(self.acked_rx) -> slot => {
                    self.acknowledged(slot.expect("the publisher itself holds the sender"));
                }
                recv(ready_rx) -> processed => match processed {
                    Ok(processed) => self.take(processed),
                    Err(_) => workers_gone = true,
                },
                default(timeout) => {}
            }
            self.follow_generation();
            self.publish_in_order();
            if self.transaction.as_ref().is_some_and(|open| open.remaining(self.commit_interval).is_zero()) {
                self.commit_transaction();
            }
            if workers_gone && self.free_slots.len() == MAX_BATCHES && self.transaction.is_none() {
                return;
            }
        }
    }

    /// Forgets what belongs to a generation that the intake has given up.
    fn follow_generation(&mut self) {
        let generation = self.state.generation();
        if generation == self.generation {
            return;
        }
        self.generation = generation;
        self.failed = false;
        self.next_seq = 0;
        self.early.retain(|_, processed| processed.generation == generation);
        if self.transaction.is_some() {
            self.abort_transaction();
        }
    }

    fn take(&mut self, processed: Processed) {
        self.follow_generation();
        if processed.generation == self.generation && !self.failed {
            self.early.insert(processed.seq, processed);
        }
    }

    fn publish_in_order(&mut self) {
        while !self.failed && !self.free_slots.is_empty() {
            let Some(processed) = self.early.remove(&self.next_seq) else {
                return;
            };
            self.next_seq += 1;
            self.publish(processed);
        }
    }

    fn publish(&mut self, processed: Processed) {
        let Processed { seq, batch, mut outputs, result, .. } = processed;
        if let Err(failure) = result {
            self.fail(failure);
            return;
        }
        self.replace_refused(&batch, &mut outputs);
        if let Err(failure) = self.ensure_producer() {
            self.fail(failure);
            return;
        }
        if self.delivery == Delivery::ExactlyOnce
            && let Err(failure) = self.ensure_transaction()
        {
            self.fail(failure);
            return;
        }
        let slot = self.free_slots.pop().expect("checked by the caller");
        let started = Instant::now();
        self.send_all(slot, &mut outputs);
        self.telemetry.published(started.elapsed());
        let pending = Pending::new(self.generation, seq, batch, &mut outputs);
        // A full pool drops it.
        drop(self.spare_tx.try_send(outputs));
        self.pending[slot] = Some(pending);
        self.slots.seal(slot);
    }

    /// Hands all messages to librdkafka. Those that it refuses at once are counted as failed deliveries.
    fn send_all(&mut self, slot: usize, outputs: &mut Outputs) {
        let producer = self.producer.as_ref().expect("ensured by the caller");
        let mut messages = std::mem::take(&mut outputs.messages);
        let topics = self.topics.names();
        self.slots.open(slot, messages.len());
        for (index, message) in messages.iter_mut().enumerate() {
            let mut record = BaseRecord::with_opaque_to(&topics[message.topic.index()], Slots::opaque(slot, index));
            record.key = message.key.as_ref().map(|range| outputs.bytes(range));
            record.payload = message.value.as_ref().map(|range| outputs.bytes(range));
            record.headers = message.headers.take();
            loop {
                match producer.send(record) {
                    Ok(()) => break,
                    Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), refused)) => {
                        if self.state.is_obsolete(self.generation) {
                            self.slots.failed(slot, index, RDKafkaErrorCode::QueueFull);
                            break;
                        }
                        std::thread::sleep(QUEUE_FULL_PAUSE);
                        record = refused;
                    }
                    Err((error, _)) => {
                        let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown);
                        self.slots.failed(slot, index, code);
                        break;
                    }
                }
            }
        }
        outputs.messages = messages;
    }

    /// All messages of a batch have been delivered or have failed.
    fn acknowledged(&mut self, slot: usize) {
        let errors = self.slots.take_errors(slot);
        let pending = self.pending[slot].take().expect("a sealed slot has a batch");
        self.free_slots.push(slot);
        self.follow_generation();
        if pending.generation != self.generation || self.failed {
            return;
        }
        if errors.is_empty() {
            self.shared.connection.seen_up();
            match &mut self.transaction {
                Some(transaction) => transaction.add(pending),
                None => self.complete(pending),
            }
        } else {
            let failure = self.failed_delivery(&pending, &errors);
            self.fail(failure);
        }
    }

    fn complete(&mut self, pending: Pending) {
        for place in pending.places() {
            self.refused.remove(&place);
        }
        self.fatal_errors = 0;
        self.telemetry.completed(&pending.batch, &pending.counts);
        self.report(Report::Acknowledged { generation: pending.generation, seq: pending.seq });
    }

    /// Notes which records the broker will never accept, and says what kind of failure this is.
    fn failed_delivery(&mut self, pending: &Pending, errors: &[(usize, RDKafkaErrorCode)]) -> EngineError {
        for &(message, code) in errors {
            self.telemetry.publish_failed(code);
            if !is_refusal(code) {
                continue;
            }
            let input = pending.input_of(message);
            let place = (input.place(), input.offset());
            let refused = match self.refused.get(&place) {
                None => Refused::Outputs,
                Some((Refused::Outputs, _)) => Refused::DeadLetter,
                Some(_) => Refused::Everything,
            };
            warn!(record = %input.position(), error = %code, ?refused, "the broker refuses an output");
            if refused == Refused::Everything {
                return EngineError::Refused { record: input.position().to_string(), code };
            }
            self.refused.insert(place, (refused, code.to_string()));
        }
        let (_, code) = errors[0];
        EngineError::Publish { code, failed: errors.len() }
    }

    /// Puts dead letters in the place of outputs that the broker has refused before.
    fn replace_refused(&self, batch: &Batch, outputs: &mut Outputs) {
        if self.refused.is_empty() {
            return;
        }
        for (index, input) in batch.iter().enumerate() {
            let Some((refused, error)) = self.refused.get(&(input.place(), input.offset())) else {
                continue;
            };
            outputs.withdraw(index);
            match refused {
                Refused::Outputs => outputs.dead_letter(input, index, "refused_by_broker", error),
                _ => outputs.dead_letter_without_value(input, index, "refused_by_broker", error),
            }
        }
    }

    /// Ends this generation. The intake decides when the next one starts.
    fn fail(&mut self, failure: EngineError) {
        self.failed = true;
        self.early.clear();
        if self.transaction.is_some() {
            self.abort_transaction();
        }
        self.discard_dead_producer();
        let failure = if self.fatal_errors > MAX_FATAL_ERRORS {
            EngineError::Fenced { errors: self.fatal_errors, last: Box::new(failure) }
        } else {
            failure
        };
        debug!(generation = self.generation, error = %failure, "generation failed");
        self.report(Report::Failed { generation: self.generation, failure });
    }

    /// A producer with a fatal error is of no more use; the next batch gets a new one.
    fn discard_dead_producer(&mut self) {
        let Some((code, reason)) = self.producer.as_ref().and_then(|producer| producer.client().fatal_error()) else {
            return;
        };
        error!(error = %code, reason, "the kafka producer failed for good, starting a new one");
        self.fatal_errors += 1;
        self.producer = None;
    }

    fn ensure_producer(&mut self) -> Result<(), EngineError> {
        if self.producer.is_some() {
            return Ok(());
        }
        let context = DeliveryContext::new(self.shared.clone(), Arc::clone(&self.slots));
        let producer: ThreadedProducer<DeliveryContext> = self
            .producer_config
            .create_with_context(context)
            .map_err(|source| EngineError::Client { client: "producer", source })?;
        if self.delivery == Delivery::ExactlyOnce {
            self.init_transactions(&producer)?;
        }
        self.producer = Some(producer);
        Ok(())
    }

    fn report(&self, report: Report) {
        // The intake may be gone already when the engine is abandoned.
        drop(self.report_tx.send(report));
    }
}

/// Errors that concern one message, and will meet it again however often it is sent.
fn is_refusal(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::MessageSizeTooLarge
            | RDKafkaErrorCode::InvalidMessage
            | RDKafkaErrorCode::InvalidMessageSize
            | RDKafkaErrorCode::InvalidRecord
            | RDKafkaErrorCode::InvalidTimestamp
            | RDKafkaErrorCode::MessageBatchTooLarge
            | RDKafkaErrorCode::PolicyViolation
            | RDKafkaErrorCode::UnsupportedForMessageFormat
    )
}
