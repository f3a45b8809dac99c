//! What librdkafka tells the consumer from inside a poll: noted here, acted on by the intake.

use std::collections::{BTreeMap, VecDeque};
use std::error::Error;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rdkafka::client::OAuthToken;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::statistics::Statistics;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, TopicPartitionList};
use tracing::warn;

use super::super::batch::Partition;
use super::super::client::Shared;

/// A change of the assignment that waits to be carried out.
pub(super) enum Rebalance {
    Assign(TopicPartitionList),
    Revoke(TopicPartitionList),
}

#[derive(Default)]
struct Notes {
    rebalances: VecDeque<Rebalance>,
    commit_failure: Option<Option<RDKafkaErrorCode>>,
    /// End offset by partition, as of the last statistics.
    watermarks: BTreeMap<Partition, i64>,
}

pub(crate) struct IntakeContext {
    shared: Shared,
    topics: Arc<[Arc<str>]>,
    notes: Mutex<Notes>,
    /// The intake is gone; rebalances of the closing consumer are carried out at once.
    closing: AtomicBool,
}

impl IntakeContext {
    pub(super) fn new(shared: Shared, topics: Arc<[Arc<str>]>) -> Self {
        IntakeContext { shared, topics, notes: Mutex::default(), closing: AtomicBool::new(false) }
    }

    pub(super) fn next_rebalance(&self) -> Option<Rebalance> {
        self.notes().rebalances.pop_front()
    }

    pub(super) fn take_commit_failure(&self) -> Option<Option<RDKafkaErrorCode>> {
        self.notes().commit_failure.take()
    }

    pub(super) fn take_watermarks(&self) -> BTreeMap<Partition, i64> {
        std::mem::take(&mut self.notes().watermarks)
    }

    /// From now on nobody asks for rebalances.
    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::Release);
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        // Each field is whole at any time.
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ConsumerContext for IntakeContext {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, error: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let revoke = error == RDKafkaRespErr::RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS;
        if !self.closing.load(Ordering::Acquire) {
            let list = list.clone();
            self.notes().rebalances.push_back(if revoke { Rebalance::Revoke(list) } else { Rebalance::Assign(list) });
            return;
        }
        let result = match (revoke, consumer.rebalance_protocol()) {
            (true, RebalanceProtocol::Cooperative) => consumer.incremental_unassign(list),
            (true, _) => consumer.unassign(),
            (false, _) => Ok(()),
        };
        if let Err(error) = result {
            warn!(%error, "closing the consumer");
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, _offsets: &TopicPartitionList) {
        match result {
            Ok(()) => self.shared.connection.seen_up(),
            Err(error) => self.notes().commit_failure = Some(error.rdkafka_error_code()),
        }
    }
}

impl ClientContext for IntakeContext {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = Shared::ENABLE_REFRESH_OAUTH_TOKEN;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.shared.log(level, facility, message);
    }

    fn stats(&self, statistics: Statistics) {
        let mut notes = self.notes();
        for (input, name) in self.topics.iter().enumerate() {
            let Some(topic) = statistics.topics.get(&**name) else {
                continue;
            };
            for partition in topic.partitions.values() {
                // What a read_committed consumer can read ends at the last stable offset.
                let end = if partition.ls_offset >= 0 { partition.ls_offset } else { partition.hi_offset };
                if end >= 0 {
                    notes.watermarks.insert(Partition { input, partition: partition.partition }, end);
                }
            }
        }
        drop(notes);
        self.shared.stats(statistics);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.shared.error(error, reason);
    }

    fn generate_oauth_token(&self, config: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        self.shared.generate_oauth_token(config)
    }
}
