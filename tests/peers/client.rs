//! A small Kafka client for tests: publish, read from the start, ask for committed offsets. It works against the
//! broker process and against the mock cluster alike.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{ClientContext, Offset, TopicPartitionList};

const REQUEST: Duration = Duration::from_secs(10);
const FLUSH: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Isolation {
    ReadCommitted,
    ReadUncommitted,
}

/// One record as a consumer saw it.
#[derive(Debug, Clone)]
pub(crate) struct Read {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    /// Milliseconds since 1970-01-01 UTC, set by the producer.
    pub(crate) timestamp: i64,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Vec<u8>,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
}

impl Read {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(key, _)| key == name)?;
        std::str::from_utf8(value).ok()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.value).expect("the value is JSON")
    }

    fn of(message: &BorrowedMessage<'_>) -> Read {
        let headers = message.headers().map(|headers| {
            headers.iter().map(|header| (header.key.to_owned(), header.value.unwrap_or_default().to_vec())).collect()
        });
        Read {
            partition: message.partition(),
            offset: message.offset(),
            timestamp: message.timestamp().to_millis().unwrap_or(-1),
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().unwrap_or_default().to_vec(),
            headers: headers.unwrap_or_default(),
        }
    }
}

/// Settings that every client of the tests shares.
pub(crate) fn config(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap)
        // Brokers go away on purpose here; the client's own log would only hide what a test prints.
        .set_log_level(rdkafka::config::RDKafkaLogLevel::Emerg)
        .set("reconnect.backoff.ms", "20")
        .set("reconnect.backoff.max.ms", "200");
    config
}

/// Fails the test on the first record that is not acknowledged.
struct AllAcknowledged;

impl ClientContext for AllAcknowledged {
    fn error(&self, _: KafkaError, _: &str) {}
    fn log(&self, _: rdkafka::config::RDKafkaLogLevel, _: &str, _: &str) {}
}

impl ProducerContext for AllAcknowledged {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            panic!("a test record was not published: {error}");
        }
    }
}

/// Publishes records; the first one that is not acknowledged fails the test.
pub(crate) struct Publisher(ThreadedProducer<AllAcknowledged>);

impl Publisher {
    pub(crate) fn open(bootstrap: &str) -> Publisher {
        let producer = config(bootstrap)
            .set("enable.idempotence", "true")
            .set("compression.type", "lz4")
            .set("linger.ms", "5")
            .create_with_context(AllAcknowledged)
            .expect("the client's settings are right");
        Publisher(producer)
    }

    /// An empty key is none.
    pub(crate) fn send(&self, topic: &str, key: &[u8], value: &[u8]) {
        let mut record = BaseRecord::to(topic).payload(value);
        if !key.is_empty() {
            record = record.key(key);
        }
        while let Err((error, rejected)) = self.0.send(record) {
            assert_eq!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::QueueFull), "a test record was refused");
            std::thread::sleep(Duration::from_millis(1));
            record = rejected;
        }
    }

    /// Waits until all records are acknowledged.
    pub(crate) fn flush(&self) {
        self.0.flush(FLUSH).expect("the test's records are published in time");
    }
}

/// Publishes all records and waits until all are acknowledged.
pub(crate) fn produce<K, V>(bootstrap: &str, topic: &str, records: impl IntoIterator<Item = (K, V)>)
where
    K: AsRef<[u8]>,
    V: AsRef<[u8]>,
{
    let publisher = Publisher::open(bootstrap);
    for (key, value) in records {
        publisher.send(topic, key.as_ref(), value.as_ref());
    }
    publisher.flush();
}

/// Reads all partitions of one topic from the start, keeping what it has read.
pub(crate) struct Reader {
    consumer: BaseConsumer<Quiet>,
    topic: String,
    partitions: usize,
    /// In the order of arrival; in offset order within a partition.
    pub(crate) records: Vec<Read>,
}

/// The client's errors reach the test through `poll`; they need no log besides.
struct Quiet;

impl ClientContext for Quiet {
    fn error(&self, _: KafkaError, _: &str) {}
    fn log(&self, _: rdkafka::config::RDKafkaLogLevel, _: &str, _: &str) {}
}

impl rdkafka::consumer::ConsumerContext for Quiet {}

impl Reader {
    pub(crate) fn open(bootstrap: &str, topic: &str, isolation: Isolation) -> Reader {
        let level = match isolation {
            Isolation::ReadCommitted => "read_committed",
            Isolation::ReadUncommitted => "read_uncommitted",
        };
        let consumer: BaseConsumer<Quiet> = config(bootstrap)
            .set("group.id", "test-reader")
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .set("isolation.level", level)
            .set("fetch.wait.max.ms", "50")
            .create_with_context(Quiet)
            .expect("the client's settings are right");
        let partitions = partitions(&consumer, topic, REQUEST);
        let mut assignment = TopicPartitionList::new();
        for &partition in &partitions {
            assignment
                .add_partition_offset(topic, partition, Offset::Beginning)
                .expect("the partition is in the metadata");
        }
        consumer.assign(&assignment).expect("the assignment is well formed");
        Reader { consumer, topic: topic.to_owned(), partitions: partitions.len(), records: Vec::new() }
    }

    /// Reads on until `enough` holds for everything read so far; panics when it does not within `deadline`.
    #[track_caller]
    pub(crate) fn wait(&mut self, deadline: Duration, mut enough: impl FnMut(&[Read]) -> bool) -> &[Read] {
        let end = Instant::now() + deadline;
        while !enough(&self.records) {
            let (topic, count) = (&self.topic, self.records.len());
            assert!(Instant::now() < end, "gave up after {deadline:?} with {count} records of {topic}");
            self.poll();
        }
        &self.records
    }

    /// Reads on until there are at least `count` records.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, count: usize, deadline: Duration) -> &[Read] {
        self.wait(deadline, |records| records.len() >= count)
    }

    /// Reads to the present end of every partition.
    #[track_caller]
    pub(crate) fn drain(&mut self) -> &[Read] {
        // The end is reported once each time it is reached, so ask anew by seeking to where we are.
        let positions = self.consumer.position().expect("the reader is assigned");
        let deadline = Instant::now() + FLUSH;
        let mut resume = TopicPartitionList::new();
        for element in positions.elements() {
            let offset = match element.offset() {
                Offset::Offset(offset) => Offset::Offset(offset),
                _ => Offset::Beginning,
            };
            resume.add_partition_offset(element.topic(), element.partition(), offset).expect("it was assigned so");
        }
        self.consumer.assign(&resume).expect("the assignment is well formed");
        let mut ended = BTreeSet::new();
        while ended.len() < self.partitions {
            assert!(Instant::now() < deadline, "{} could not be read to its end", self.topic);
            if let Some(partition) = self.poll() {
                ended.insert(partition);
            }
        }
        &self.records
    }

    /// Takes what has been fetched, waiting a little when there is nothing.
    pub(crate) fn take(&mut self) {
        let mut before = self.records.len();
        self.poll_for(Duration::from_millis(20));
        while self.records.len() > before {
            before = self.records.len();
            self.poll_for(Duration::ZERO);
        }
    }

    /// Takes one message, or the news that a partition's end was reached.
    pub(crate) fn poll(&mut self) -> Option<i32> {
        self.poll_for(Duration::from_millis(50))
    }

    /// Transient errors are the client's to heal.
    fn poll_for(&mut self, wait: Duration) -> Option<i32> {
        match self.consumer.poll(wait) {
            Some(Ok(message)) => {
                let read = Read::of(&message);
                drop(message);
                self.records.push(read);
                None
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => Some(partition),
            Some(Err(_)) | None => None,
        }
    }
}

/// The partitions of a topic; waits until the topic is there.
pub(crate) fn partitions<C: rdkafka::consumer::ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    timeout: Duration,
) -> Vec<i32> {
    let mut found = Vec::new();
    super::wait_until(&format!("topic {topic} is there"), timeout, || {
        if let Ok(metadata) = consumer.fetch_metadata(Some(topic), timeout)
            && let Some(topic) = metadata.topics().first()
        {
            found = topic.partitions().iter().map(|partition| partition.id()).collect();
        }
        !found.is_empty()
    });
    found.sort_unstable();
    found
}

/// Asks how far a topic is written and how far a group has committed it, over one connection.
pub(crate) struct Watch {
    consumer: BaseConsumer<Quiet>,
    topic: String,
    partitions: Vec<i32>,
}

impl Watch {
    pub(crate) fn open(bootstrap: &str, topic: &str, group: &str) -> Watch {
        let consumer: BaseConsumer<Quiet> = config(bootstrap)
            .set("group.id", group)
            .create_with_context(Quiet)
            .expect("the client's settings are right");
        let partitions = partitions(&consumer, topic, REQUEST);
        Watch { consumer, topic: topic.to_owned(), partitions }
    }

    /// The number of records in the topic, counting those of transactions that are open or were aborted, and the
    /// marks that end transactions.
    pub(crate) fn high_watermark(&self) -> i64 {
        let high = |&partition: &i32| {
            self.consumer.fetch_watermarks(&self.topic, partition, REQUEST).expect("the broker answers").1
        };
        self.partitions.iter().map(high).sum()
    }

    /// The committed offset by partition; partitions without a commit are left out.
    pub(crate) fn offsets(&self) -> BTreeMap<i32, i64> {
        let mut asked = TopicPartitionList::new();
        for &partition in &self.partitions {
            asked.add_partition(&self.topic, partition);
        }
        let mut committed = None;
        super::wait_until("the group's coordinator answers", REQUEST, || {
            committed = self.consumer.committed_offsets(asked.clone(), REQUEST).ok();
            committed.is_some()
        });
        let committed = committed.expect("it was just waited for");
        let offsets = committed.elements().into_iter().filter_map(|element| match element.offset() {
            Offset::Offset(offset) => Some((element.partition(), offset)),
            _ => None,
        });
        offsets.collect()
    }

    /// The sum of the committed offsets: the number of records that the group is done with.
    pub(crate) fn committed(&self) -> i64 {
        self.offsets().values().sum()
    }
}

/// Runs a future of the admin client to its end.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be built").block_on(future)
}
