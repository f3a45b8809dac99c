//! Plain producing and reading, outside the engine: for `generate`, `replay` and the demo.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, Headers as _, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{ClientContext, Offset, TopicPartitionList};

use crate::config::{Delivery, KafkaSettings, StreamSettings};

use super::client;

/// How long the broker may take to answer a question.
const BROKER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long one wait lasts before conditions are looked at again.
const WAIT: Duration = Duration::from_millis(100);
const QUEUE_FULL_PAUSE: Duration = Duration::from_millis(2);

/// Why records could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    #[error("cannot start the broker inside the process")]
    Embedded { source: KafkaError },
    #[error("cannot create the kafka {client}")]
    Client { client: &'static str, source: KafkaError },
    #[error("cannot write to {topic}")]
    Write { topic: String, source: KafkaError },
    #[error("{failed} records were not accepted; the last error was {code}")]
    Refused { failed: u64, code: RDKafkaErrorCode },
    #[error("{waiting} records were not acknowledged within {within:?}")]
    Unacknowledged { waiting: i32, within: Duration },
    #[error("cannot read {topic}")]
    Read { topic: String, source: KafkaError },
    #[error("nothing came from {topic} for {within:?}, although {missing} records are to be read")]
    Stalled { topic: String, missing: i64, within: Duration },
}

#[derive(Default)]
struct Deliveries {
    delivered: AtomicU64,
    failed: AtomicU64,
    last_error: AtomicU64,
}

#[derive(Clone, Default)]
struct FeederContext(Arc<Deliveries>);

impl ClientContext for FeederContext {
    fn log(&self, _level: rdkafka::config::RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(target: "librdkafka", facility, "{message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "librdkafka", %error, "{reason}");
    }

    fn stats(&self, _statistics: rdkafka::Statistics) {}
}

impl rdkafka::consumer::ConsumerContext for FeederContext {}

impl ProducerContext for FeederContext {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        match result {
            Ok(_) => self.0.delivered.fetch_add(1, Ordering::Relaxed),
            Err((error, _)) => {
                let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown);
                self.0.last_error.store(code as i32 as u32 as u64, Ordering::Relaxed);
                self.0.failed.fetch_add(1, Ordering::Relaxed)
            }
        };
    }
}

/// A record to be written, or one that was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PlainRecord {
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// Milliseconds since 1970-01-01 UTC; `None`: now.
    pub timestamp: Option<i64>,
}

/// Writes records and counts the acknowledgements.
pub struct Feeder {
    producer: ThreadedProducer<FeederContext>,
    deliveries: Arc<Deliveries>,
}

impl std::fmt::Debug for Feeder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Feeder").field("delivered", &self.delivered()).finish_non_exhaustive()
    }
}

impl Feeder {
    pub fn connect(kafka: &KafkaSettings, stream: &StreamSettings) -> Result<Self, StreamError> {
        let context = FeederContext::default();
        let deliveries = Arc::clone(&context.0);
        // Never a transaction: what is written here is visible at once.
        let kafka = KafkaSettings { delivery: Delivery::AtLeastOnce, ..kafka.clone() };
        let mut config = client::producer_config(&kafka, stream, "feeder");
        config.set("message.timeout.ms", "60000");
        let producer =
            config.create_with_context(context).map_err(|source| StreamError::Client { client: "producer", source })?;
        Ok(Feeder { producer, deliveries })
    }

    /// Hands a record over; waits while too many are unacknowledged.
    pub fn send(&self, topic: &str, record: &PlainRecord) -> Result<(), StreamError> {
        let headers = (!record.headers.is_empty()).then(|| {
            record
                .headers
                .iter()
                .fold(OwnedHeaders::new_with_capacity(record.headers.len()), |headers, (key, value)| {
                    headers.insert(Header { key, value: value.as_deref() })
                })
        });
        let mut message: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(topic);
        message.key = record.key.as_deref();
        message.payload = record.value.as_deref();
        message.timestamp = record.timestamp;
        message.headers = headers;
        loop {
            match self.producer.send(message) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), refused)) => {
                    std::thread::sleep(QUEUE_FULL_PAUSE);
                    message = refused;
                }
                Err((source, _)) => return Err(StreamError::Write { topic: topic.to_owned(), source }),
            }
        }
    }

    /// Records that the broker has acknowledged so far.
    pub fn delivered(&self) -> u64 {
        self.deliveries.delivered.load(Ordering::Relaxed)
    }

    /// Waits until everything is acknowledged.
    pub fn flush(&self, within: Duration) -> Result<(), StreamError> {
        let unacknowledged = |_| StreamError::Unacknowledged { waiting: self.producer.in_flight_count(), within };
        self.producer.flush(within).map_err(unacknowledged)?;
        match self.deliveries.failed.load(Ordering::Relaxed) {
            0 => Ok(()),
            failed => {
                let code = self.deliveries.last_error.load(Ordering::Relaxed) as u32 as i32;
                Err(StreamError::Refused { failed, code: code_from(code) })
            }
        }
    }
}

fn code_from(code: i32) -> RDKafkaErrorCode {
    // Only codes that came from librdkafka are stored; those that this version does not know are "unknown".
    [
        RDKafkaErrorCode::MessageTimedOut,
        RDKafkaErrorCode::MessageSizeTooLarge,
        RDKafkaErrorCode::UnknownTopic,
        RDKafkaErrorCode::UnknownPartition,
        RDKafkaErrorCode::UnknownTopicOrPartition,
        RDKafkaErrorCode::TopicAuthorizationFailed,
    ]
    .into_iter()
    .find(|known| *known as i32 == code)
    .unwrap_or(RDKafkaErrorCode::Unknown)
}

/// Reads a topic from where a group has committed up to its present end.
pub struct TopicReader {
    consumer: BaseConsumer<FeederContext>,
    topic: String,
    /// Next offset and end of each partition that is not read to its end yet.
    left: BTreeMap<i32, (i64, i64)>,
    read: BTreeMap<i32, i64>,
}

impl std::fmt::Debug for TopicReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TopicReader").field("topic", &self.topic).field("left", &self.left).finish_non_exhaustive()
    }
}

impl TopicReader {
    /// `name` makes the group `<group_prefix>-<name>`; `from_start` ignores what it has committed.
    pub fn open(
        kafka: &KafkaSettings,
        stream: &StreamSettings,
        name: &str,
        topic: &str,
        from_start: bool,
    ) -> Result<Self, StreamError> {
        let failed = |source| StreamError::Read { topic: topic.to_owned(), source };
        let consumer: BaseConsumer<FeederContext> = client::consumer_config(kafka, stream, name)
            .create_with_context(FeederContext::default())
            .map_err(|source| StreamError::Client { client: "consumer", source })?;
        let metadata = consumer.fetch_metadata(Some(topic), BROKER_TIMEOUT).map_err(failed)?;
        let partitions: Vec<i32> = metadata
            .topics()
            .iter()
            .filter(|found| found.name() == topic && found.error().is_none())
            .flat_map(|found| found.partitions().iter().map(|partition| partition.id()))
            .collect();
        let mut asked = TopicPartitionList::new();
        for &partition in &partitions {
            asked.add_partition(topic, partition);
        }
        let committed = match from_start {
            true => TopicPartitionList::new(),
            false => consumer.committed_offsets(asked, BROKER_TIMEOUT).map_err(failed)?,
        };
        let mut left = BTreeMap::new();
        let mut assignment = TopicPartitionList::new();
        for partition in partitions {
            let (low, end) = consumer.fetch_watermarks(topic, partition, BROKER_TIMEOUT).map_err(failed)?;
            let next = match committed.find_partition(topic, partition).map(|element| element.offset()) {
                Some(Offset::Offset(offset)) => offset.max(low),
                _ => low,
            };
            if next < end {
                left.insert(partition, (next, end));
                assignment.add_partition_offset(topic, partition, Offset::Offset(next)).map_err(failed)?;
            }
        }
        consumer.assign(&assignment).map_err(failed)?;
        Ok(TopicReader { consumer, topic: topic.to_owned(), left, read: BTreeMap::new() })
    }

    /// Records between the position and the end that the topic had when it was opened.
    pub fn remaining(&self) -> i64 {
        self.left.values().map(|(next, end)| end - next).sum()
    }

    /// The next record, or `None` at the end.
    pub fn next_record(&mut self) -> Result<Option<PlainRecord>, StreamError> {
        let mut last_news = Instant::now();
        while !self.left.is_empty() {
            match self.consumer.poll(WAIT) {
                Some(Ok(message)) => {
                    let (partition, offset) = (message.partition(), message.offset());
                    let Some((next, end)) = self.left.get_mut(&partition) else { continue };
                    if offset >= *end {
                        self.left.remove(&partition);
                        continue;
                    }
                    *next = offset + 1;
                    if *next >= *end {
                        self.left.remove(&partition);
                    }
                    self.read.insert(partition, offset + 1);
                    let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
                    return Ok(Some(PlainRecord {
                        key: message.key().map(<[u8]>::to_vec),
                        value: message.payload().map(<[u8]>::to_vec),
                        headers: headers
                            .map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec)))
                            .collect(),
                        timestamp: message.timestamp().to_millis(),
                    }));
                }
                Some(Err(error)) => tracing::debug!(%error, "reading"),
                None => {}
            }
            // Transaction markers take offsets without being records: the position shows that they were passed.
            if let Ok(position) = self.consumer.position() {
                for element in position.elements() {
                    if let Offset::Offset(offset) = element.offset()
                        && self.left.get(&element.partition()).is_some_and(|(_, end)| offset >= *end)
                    {
                        self.left.remove(&element.partition());
                        last_news = Instant::now();
                    }
                }
            }
            if last_news.elapsed() > BROKER_TIMEOUT {
                return Err(StreamError::Stalled {
                    topic: self.topic.clone(),
                    missing: self.remaining(),
                    within: BROKER_TIMEOUT,
                });
            }
        }
        Ok(None)
    }

    /// Remembers for the group what has been read.
    pub fn commit(&self) -> Result<(), StreamError> {
        if self.read.is_empty() {
            return Ok(());
        }
        let failed = |source| StreamError::Read { topic: self.topic.clone(), source };
        let mut offsets = TopicPartitionList::new();
        for (&partition, &offset) in &self.read {
            offsets.add_partition_offset(&self.topic, partition, Offset::Offset(offset)).map_err(failed)?;
        }
        self.consumer.commit(&offsets, CommitMode::Sync).map_err(failed)
    }
}

/// Records that a topic has ever been given, by its end offsets.
pub fn count_records(kafka: &KafkaSettings, stream: &StreamSettings, topic: &str) -> Result<i64, StreamError> {
    let failed = |source| StreamError::Read { topic: topic.to_owned(), source };
    let consumer: BaseConsumer<FeederContext> = client::consumer_config(kafka, stream, "count")
        .create_with_context(FeederContext::default())
        .map_err(|source| StreamError::Client { client: "consumer", source })?;
    let metadata = consumer.fetch_metadata(Some(topic), BROKER_TIMEOUT).map_err(failed)?;
    let found = metadata.topics().iter().filter(|found| found.name() == topic);
    let mut sum = 0;
    for partition in found.flat_map(|found| found.partitions()) {
        sum += consumer.fetch_watermarks(topic, partition.id(), BROKER_TIMEOUT).map_err(failed)?.1;
    }
    Ok(sum)
}
