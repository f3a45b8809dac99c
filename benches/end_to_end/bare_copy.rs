//! The yardstick: the least that any program does which reads records, publishes as many with the same care, and
//! commits. A consumer polled on one thread, an idempotent lz4 producer whose acknowledgements are counted by batch,
//! offsets committed once a batch and all before it are acknowledged. The payloads are passed on as they are.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use rdkafka::{ClientContext, Offset, TopicPartitionList};

/// Records that are acknowledged and committed together.
const BATCH: usize = 10_000;
/// Batches that may wait for acknowledgements at a time.
const BATCHES_IN_FLIGHT: usize = 32;
/// Acknowledgements are served after this many records.
const SERVE_EVERY: usize = 256;
/// An unfinished batch is closed after this long, so that offsets of a trickle are committed too.
const BATCH_AGE: Duration = Duration::from_millis(50);

/// Counts acknowledgements by batch, in a ring that is as long as there may be batches in flight.
struct Acknowledgements([AtomicUsize; BATCHES_IN_FLIGHT]);

impl ClientContext for Acknowledgements {}

impl ProducerContext for Acknowledgements {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, batch: usize) {
        if let Err((error, _)) = result {
            panic!("the bare copy lost a record: {error}");
        }
        self.0[batch % BATCHES_IN_FLIGHT].fetch_add(1, Ordering::Relaxed);
    }
}

/// A batch of which not all records are acknowledged.
struct Batch {
    number: usize,
    records: usize,
    /// The offset to commit for each partition once the batch is through.
    next: BTreeMap<i32, i64>,
}

impl Batch {
    fn new(number: usize) -> Batch {
        Batch { number, records: 0, next: BTreeMap::new() }
    }
}

pub(crate) struct BareCopy<'a> {
    pub(crate) bootstrap: &'a str,
    pub(crate) group: &'a str,
    pub(crate) input: &'a str,
    pub(crate) output: &'a str,
}

impl BareCopy<'_> {
    /// Copies until `stop` is set, then publishes and commits what is in flight.
    pub(crate) fn run(&self, stop: &AtomicBool) {
        let consumer: BaseConsumer = self
            .client()
            .set("group.id", self.group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "earliest")
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("fetch.wait.max.ms", "50")
            .create()
            .expect("the settings are right");
        let producer: BaseProducer<Acknowledgements> = self
            .client()
            .set("enable.idempotence", "true")
            .set("compression.type", "lz4")
            .set("linger.ms", "5")
            .set("batch.size", "1000000")
            .set("queue.buffering.max.messages", "1000000")
            .create_with_context(Acknowledgements(Default::default()))
            .expect("the settings are right");
        consumer.subscribe(&[self.input]).expect("the topic's name is right");

        let mut in_flight: VecDeque<Batch> = VecDeque::new();
        let mut batch = Batch::new(0);
        let mut opened = Instant::now();
        while !stop.load(Ordering::Relaxed) {
            // A transient error at start is the client's to heal.
            if let Some(Ok(message)) = consumer.poll(Duration::from_millis(5)) {
                self.forward(&producer, &message, batch.number);
                batch.records += 1;
                batch.next.insert(message.partition(), message.offset() + 1);
                if !batch.records.is_multiple_of(SERVE_EVERY) {
                    continue;
                }
            }
            producer.poll(Duration::ZERO);
            if batch.records >= BATCH || (batch.records > 0 && opened.elapsed() >= BATCH_AGE) {
                let number = batch.number + 1;
                in_flight.push_back(std::mem::replace(&mut batch, Batch::new(number)));
                opened = Instant::now();
            }
            self.commit_finished(&consumer, &producer, &mut in_flight);
            while in_flight.len() + 1 >= BATCHES_IN_FLIGHT {
                producer.poll(Duration::from_millis(5));
                self.commit_finished(&consumer, &producer, &mut in_flight);
            }
        }
        in_flight.push_back(batch);
        producer.flush(crate::PATIENCE).expect("the broker is there");
        self.commit_finished(&consumer, &producer, &mut in_flight);
    }

    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.bootstrap).set_log_level(RDKafkaLogLevel::Error);
        config
    }

    fn forward<M: Message>(&self, producer: &BaseProducer<Acknowledgements>, message: &M, batch: usize) {
        let mut record = BaseRecord::<[u8], [u8], usize>::with_opaque_to(self.output, batch)
            .payload(message.payload().unwrap_or_default());
        record.key = message.key();
        while let Err((error, refused)) = producer.send(record) {
            assert_eq!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::QueueFull));
            producer.poll(Duration::from_millis(1));
            record = refused;
        }
    }

    /// Commits the batches at the front that are acknowledged in full.
    fn commit_finished(
        &self,
        consumer: &BaseConsumer,
        producer: &BaseProducer<Acknowledgements>,
        in_flight: &mut VecDeque<Batch>,
    ) {
        let mut next = BTreeMap::new();
        while let Some(front) = in_flight.front() {
            let acknowledged = &producer.context().0[front.number % BATCHES_IN_FLIGHT];
            if acknowledged.load(Ordering::Relaxed) < front.records {
                break;
            }
            acknowledged.store(0, Ordering::Relaxed);
            let finished = in_flight.pop_front().expect("there is a front");
            next.extend(finished.next);
        }
        if next.is_empty() {
            return;
        }
        let mut offsets = TopicPartitionList::new();
        for (partition, offset) in next {
            offsets.add_partition_offset(self.input, partition, Offset::Offset(offset)).expect("a plain offset");
        }
        consumer.commit(&offsets, CommitMode::Async).expect("the consumer is in its group");
    }
}
