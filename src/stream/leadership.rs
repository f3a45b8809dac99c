//! What only one of several instances may do at a time, and how its results reach Kafka.
//!
//! The instances of a role join one consumer group on one topic; whoever is assigned the topic's first partition leads.
//! Kafka's own membership decides, so a leader that dies is replaced within the session time-out. A leader that was only
//! cut off may still believe that it leads; it publishes in transactions under one id for all instances, and the broker
//! refuses the transactions of all but the newest.

use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use tracing::{debug, info};

use crate::config::{Delivery, KafkaSettings, StreamSettings};

use super::client;
use super::output::Headers;

/// How long one call may wait for the broker.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Why leading or publishing does not work at the moment.
#[derive(Debug, thiserror::Error)]
pub enum LeadershipError {
    #[error("cannot create the kafka {client}")]
    Client { client: &'static str, source: KafkaError },
    #[error("cannot subscribe to {topic}")]
    Subscribe { topic: String, source: KafkaError },
    #[error("publishing to {topic} failed")]
    Produce { topic: String, source: KafkaError },
    #[error("the transaction failed at: {step}")]
    Transaction { step: &'static str, source: KafkaError },
}

/// One message to be published.
#[derive(Debug)]
pub struct Announcement {
    pub topic: String,
    pub key: String,
    pub value: Vec<u8>,
    pub headers: Headers,
}

/// An instance's membership, and the producer that it has while it leads.
pub struct Leadership {
    kafka: KafkaSettings,
    stream: StreamSettings,
    role: &'static str,
    topic: String,
    consumer: BaseConsumer,
    producer: Option<BaseProducer<Reports>>,
    leads: bool,
}

impl std::fmt::Debug for Leadership {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Leadership").field("role", &self.role).field("leads", &self.leads).finish_non_exhaustive()
    }
}

/// A failed delivery fails its transaction, so there is nothing to keep.
struct Reports;

impl ClientContext for Reports {}

impl ProducerContext for Reports {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            debug!(%error, "an announcement was not delivered");
        }
    }
}

impl Leadership {
    /// Joins the group `<group_prefix>-<role>` on `topic`, which must exist.
    pub fn join(
        kafka: &KafkaSettings,
        stream: &StreamSettings,
        role: &'static str,
        topic: &str,
    ) -> Result<Self, LeadershipError> {
        let consumer: BaseConsumer = client::consumer_config(kafka, stream, role)
            // Nothing is read: the group's assignments are all that is wanted.
            .set("partition.assignment.strategy", "range")
            .set("queued.min.messages", "1")
            .set("queued.max.messages.kbytes", "1024")
            .set("statistics.interval.ms", "0")
            .create()
            .map_err(|source| LeadershipError::Client { client: "consumer", source })?;
        consumer
            .subscribe(&[topic])
            .map_err(|source| LeadershipError::Subscribe { topic: topic.to_owned(), source })?;
        Ok(Leadership {
            kafka: kafka.clone(),
            stream: stream.clone(),
            role,
            topic: topic.to_owned(),
            consumer,
            producer: None,
            leads: false,
        })
    }

    /// Serves the membership for up to `timeout`; to be called at least every few minutes. Returns whether this instance
    /// leads.
    pub fn poll(&mut self, timeout: Duration) -> bool {
        match self.consumer.poll(timeout) {
            // The topic's own records are of no interest here; paused partitions send no more of them.
            Some(Ok(_)) => self.pause(),
            Some(Err(error)) => debug!(%error, role = self.role, "waiting for the group"),
            None => {}
        }
        let leads = self.consumer.assignment().is_ok_and(|assigned| {
            assigned.elements_for_topic(&self.topic).iter().any(|element| element.partition() == 0)
        }) && !self.consumer.assignment_lost();
        if leads != self.leads {
            info!(role = self.role, leads, "leadership changed");
            self.leads = leads;
            self.producer = None;
            self.pause();
        }
        leads
    }

    fn pause(&self) {
        let Ok(assigned) = self.consumer.assignment() else { return };
        if let Err(error) = self.consumer.pause(&assigned) {
            debug!(%error, "partitions could not be paused");
        }
    }

    /// Publishes all announcements or none of them. An error means none, or that another instance leads by now.
    pub fn publish(&mut self, announcements: Vec<Announcement>) -> Result<(), LeadershipError> {
        let result = self.transact(announcements);
        if result.is_err() {
            // A producer whose transaction failed is replaced; the next one fences what it left open.
            self.producer = None;
        }
        result
    }

    fn transact(&mut self, announcements: Vec<Announcement>) -> Result<(), LeadershipError> {
        let at = |step: &'static str| move |source| LeadershipError::Transaction { step, source };
        let producer = match self.producer.take() {
            Some(producer) => producer,
            None => self.connect()?,
        };
        producer.begin_transaction().map_err(at("begin"))?;
        for announcement in announcements {
            let Announcement { topic, key, value, headers } = announcement;
            let mut record = BaseRecord::to(&topic).key(&key).payload(&value).headers(headers.into_inner());
            while let Err((source, refused)) = producer.send(record) {
                if source.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
                    return Err(LeadershipError::Produce { topic, source });
                }
                producer.poll(Duration::from_millis(10));
                record = refused;
            }
        }
        producer.flush(CALL_TIMEOUT).map_err(at("flush"))?;
        producer.commit_transaction(CALL_TIMEOUT).map_err(at("commit"))?;
        self.producer = Some(producer);
        Ok(())
    }

    fn connect(&self) -> Result<BaseProducer<Reports>, LeadershipError> {
        let kafka = KafkaSettings { delivery: Delivery::ExactlyOnce, ..self.kafka.clone() };
        let producer: BaseProducer<Reports> = client::producer_config(&kafka, &self.stream, self.role)
            .set("transactional.id", client::group_id(&self.kafka, self.role))
            .set("statistics.interval.ms", "0")
            .create_with_context(Reports)
            .map_err(|source| LeadershipError::Client { client: "producer", source })?;
        producer
            .init_transactions(CALL_TIMEOUT)
            .map_err(|source| LeadershipError::Transaction { step: "init", source })?;
        Ok(producer)
    }
}
