//! Exactly once: the outputs of some batches and the offsets behind them are one Kafka transaction.

use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{Consumer, ConsumerGroupMetadata};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaError, RDKafkaErrorCode};
use rdkafka::producer::{Producer, ThreadedProducer};
use tracing::{debug, warn};

use super::super::engine::EngineError;
use super::super::intake::topic_partition_list;
use super::delivery::DeliveryContext;
use super::pending::Pending;
use super::{MAX_BATCHES, Publisher};

/// How long one call may wait for the broker before we look whether to go on waiting.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// An open transaction.
pub(super) struct Transaction {
    opened_at: Instant,
    /// The consumer's membership when the transaction was opened. A broker refuses the offsets of an older one, so
    /// a consumer that has lost its partitions without knowing cannot commit for them.
    membership: ConsumerGroupMetadata,
    batches: Vec<Pending>,
}

impl Transaction {
    /// Time until it is to be committed.
    pub(super) fn remaining(&self, interval: Duration) -> Duration {
        interval.saturating_sub(self.opened_at.elapsed())
    }

    pub(super) fn add(&mut self, pending: Pending) {
        self.batches.push(pending);
    }
}

impl Publisher {
    /// Fences earlier producers of the same id. Waits for the broker as long as the engine runs.
    pub(super) fn init_transactions(&self, producer: &ThreadedProducer<DeliveryContext>) -> Result<(), EngineError> {
        self.patiently(|| producer.init_transactions(CALL_TIMEOUT))
            .map_err(|source| EngineError::Transaction { step: "init", source })
    }

    pub(super) fn ensure_transaction(&mut self) -> Result<(), EngineError> {
        if self.transaction.is_some() {
            return Ok(());
        }
        let lost = || EngineError::Transaction {
            step: "begin",
            source: KafkaError::ConsumerCommit(RDKafkaErrorCode::AssignmentLost),
        };
        let membership = self.consumer.group_metadata().ok_or_else(lost)?;
        // Asked after the membership was read: a lost assignment may have been read as "no member", which brokers
        // do not fence.
        if self.consumer.assignment_lost() {
            return Err(lost());
        }
        let producer = self.producer.as_ref().expect("ensured by the caller");
        producer.begin_transaction().map_err(|source| EngineError::Transaction { step: "begin", source })?;
        self.transaction = Some(Transaction { opened_at: Instant::now(), membership, batches: Vec::new() });
        Ok(())
    }

    /// Waits for all outputs, adds the offsets and commits. Every failure ends in an abort and a new generation.
    pub(super) fn commit_transaction(&mut self) {
        let started = Instant::now();
        let producer = self.producer.as_ref().expect("a transaction has a producer");
        if let Err(source) = self.patiently(|| producer.flush(CALL_TIMEOUT)) {
            self.fail(EngineError::Transaction { step: "flush", source });
            return;
        }
        // The reports are in; each adds its batch to the transaction or fails the generation.
        while self.free_slots.len() < MAX_BATCHES {
            match self.acked_rx.recv_timeout(CALL_TIMEOUT) {
                Ok(slot) => self.acknowledged(slot),
                Err(_) if self.state.is_abandoned() => return,
                Err(_) => debug!("waiting for delivery reports"),
            }
        }
        let Some(transaction) = self.transaction.take() else {
            return;
        };
        let result = self.send_offsets_and_commit(&transaction);
        self.telemetry.committed(started.elapsed());
        match result {
            Ok(()) => {
                for pending in transaction.batches {
                    self.complete(pending);
                }
            }
            Err(failure) => {
                self.abort();
                self.fail(failure);
            }
        }
    }

    fn send_offsets_and_commit(&self, transaction: &Transaction) -> Result<(), EngineError> {
        let producer = self.producer.as_ref().expect("a transaction has a producer");
        // Batches are in order, so the last one that names a partition has its highest offset.
        let ends = transaction.batches.iter().flat_map(|pending| pending.batch.spans());
        let mut offsets: Vec<(super::Partition, i64)> = Vec::new();
        for (place, _, last) in ends {
            match offsets.iter_mut().find(|(known, _)| *known == place) {
                Some(offset) => offset.1 = offset.1.max(last + 1),
                None => offsets.push((place, last + 1)),
            }
        }
        let offsets: TopicPartitionList = topic_partition_list(&self.inputs, &offsets);
        self.patiently(|| producer.send_offsets_to_transaction(&offsets, &transaction.membership, CALL_TIMEOUT))
            .map_err(|source| EngineError::Transaction { step: "send offsets", source })?;
        self.patiently(|| producer.commit_transaction(CALL_TIMEOUT))
            .map_err(|source| EngineError::Transaction { step: "commit", source })
    }

    /// Gives up the open transaction.
    pub(super) fn abort_transaction(&mut self) {
        self.transaction = None;
        self.abort();
    }

    fn abort(&mut self) {
        let Some(producer) = self.producer.as_ref() else {
            return;
        };
        if producer.client().fatal_error().is_some() {
            return;
        }
        if let Err(error) = self.patiently(|| producer.abort_transaction(CALL_TIMEOUT)) {
            // A producer whose state is unknown is replaced; the new one fences what it left behind.
            warn!(%error, "a transaction could not be aborted, starting a new producer");
            self.producer = None;
        }
    }

    /// Repeats a call that times out while the broker is away, as long as somebody waits for the result.
    fn patiently(&self, mut call: impl FnMut() -> KafkaResult<()>) -> KafkaResult<()> {
        loop {
            match call() {
                Err(error) if is_time_out(&error) => {
                    if self.state.is_abandoned() {
                        return Err(error);
                    }
                    debug!(%error, "waiting for the broker");
                }
                result => return result,
            }
        }
    }
}

fn is_time_out(error: &KafkaError) -> bool {
    match error {
        KafkaError::Transaction(error) => RDKafkaError::is_retriable(error),
        KafkaError::Flush(RDKafkaErrorCode::OperationTimedOut) => true,
        _ => false,
    }
}
