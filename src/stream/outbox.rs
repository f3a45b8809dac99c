//! Single messages, each acknowledged before its sender goes on: what people say through the API.
//!
//! The engine publishes batches and never gives a message up; here somebody waits for the answer, so there is a deadline.
//! After it the message is not sent any more, though an acknowledgement may have been lost on the way: who sends again
//! must send the same id.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::client::OAuthToken;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message as _};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use rdkafka::statistics::Statistics;
use tokio::sync::oneshot;

use crate::config::{Delivery, KafkaSettings, StreamSettings};

use super::client::{self, Shared};
use super::output::Headers;

/// librdkafka reports a message that is too late some time after its deadline; this much is waited for that.
const GRACE: Duration = Duration::from_secs(2);
/// Messages that may wait for acknowledgements; people do not click faster.
const MOST_WAITING: &str = "10000";

/// Where a message lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    pub partition: i32,
    pub offset: i64,
}

/// Why a message was not, or perhaps not, written.
#[derive(Debug, thiserror::Error)]
pub enum OutboxError {
    #[error("cannot create the kafka producer")]
    Client(#[source] KafkaError),
    #[error("too many messages wait for kafka")]
    Busy,
    #[error("kafka did not take the message for {topic}")]
    Refused { topic: String, source: KafkaError },
    #[error("kafka did not acknowledge the message for {topic} within {deadline:?}; it may have been written")]
    Unacknowledged { topic: String, deadline: Duration },
}

impl OutboxError {
    /// Whether sending the same message later can help.
    pub fn is_retriable(&self) -> bool {
        match self {
            OutboxError::Busy | OutboxError::Unacknowledged { .. } => true,
            OutboxError::Client(_) => false,
            OutboxError::Refused { source, .. } => !matches!(
                source.rdkafka_error_code(),
                Some(RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::TopicAuthorizationFailed)
            ),
        }
    }
}

type Report = Result<Receipt, KafkaError>;

/// The producer; to be shared.
pub struct Outbox {
    producer: ThreadedProducer<Receipts>,
    deadline: Duration,
}

impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox").field("deadline", &self.deadline).finish_non_exhaustive()
    }
}

impl Outbox {
    /// Nothing is connected before the first message.
    pub fn new(kafka: &KafkaSettings, stream: &StreamSettings, deadline: Duration) -> Result<Self, OutboxError> {
        // Never a transaction: what is written here is visible at once.
        let kafka = KafkaSettings { delivery: Delivery::AtLeastOnce, ..kafka.clone() };
        let mut config = client::producer_config(&kafka, stream, "outbox");
        config
            .set("message.timeout.ms", deadline.as_millis().to_string())
            .set("queue.buffering.max.messages", MOST_WAITING)
            // Nobody is kept waiting for a batch to fill.
            .set("linger.ms", "0");
        let producer = config.create_with_context(Receipts(Shared::new(&kafka))).map_err(OutboxError::Client)?;
        Ok(Outbox { producer, deadline })
    }

    /// Writes one message and waits until all in-sync replicas have it.
    ///
    /// # Errors
    /// After the deadline at the latest; see `OutboxError::is_retriable`.
    pub async fn send(&self, topic: &str, key: &[u8], headers: Headers, value: &[u8]) -> Result<Receipt, OutboxError> {
        let (report_tx, report_rx) = oneshot::channel();
        let record = BaseRecord::with_opaque_to(topic, Box::new(report_tx))
            .key(key)
            .payload(value)
            .headers(headers.into_inner());
        if let Err((source, _)) = self.producer.send(record) {
            return Err(match source.rdkafka_error_code() {
                Some(RDKafkaErrorCode::QueueFull) => OutboxError::Busy,
                _ => OutboxError::Refused { topic: topic.to_owned(), source },
            });
        }
        let unacknowledged = || OutboxError::Unacknowledged { topic: topic.to_owned(), deadline: self.deadline };
        match tokio::time::timeout(self.deadline + GRACE, report_rx).await {
            Ok(Ok(Ok(receipt))) => Ok(receipt),
            Ok(Ok(Err(source))) => match source.rdkafka_error_code() {
                Some(RDKafkaErrorCode::MessageTimedOut) => Err(unacknowledged()),
                _ => Err(OutboxError::Refused { topic: topic.to_owned(), source }),
            },
            Ok(Err(_)) | Err(_) => Err(unacknowledged()),
        }
    }

    /// Waits for the acknowledgements of what is still on its way; to be called where blocking is allowed.
    pub fn close(&self) {
        if let Err(error) = self.producer.flush(self.deadline) {
            tracing::warn!(%error, "messages were not acknowledged before the end");
        }
    }
}

/// Tells each sender what became of its message.
struct Receipts(Shared);

impl ProducerContext for Receipts {
    type DeliveryOpaque = Box<oneshot::Sender<Report>>;

    fn delivery(&self, result: &DeliveryResult<'_>, report_tx: Self::DeliveryOpaque) {
        let report = match result {
            Ok(message) => {
                self.0.connection.seen_up();
                Ok(Receipt { partition: message.partition(), offset: message.offset() })
            }
            Err((error, _)) => Err(error.clone()),
        };
        // A sender that has gone away does not want to know.
        drop(report_tx.send(report));
    }
}

impl ClientContext for Receipts {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = Shared::ENABLE_REFRESH_OAUTH_TOKEN;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.0.log(level, facility, message);
    }

    fn stats(&self, statistics: Statistics) {
        self.0.stats(statistics);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.0.error(error, reason);
    }

    fn generate_oauth_token(&self, config: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        self.0.generate_oauth_token(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::stream::{EmbeddedBroker, TopicReader};

    fn outbox(brokers: &str, deadline: Duration) -> (Config, Outbox) {
        let config = Config::from_toml(&format!("[kafka]\nbrokers = \"{brokers}\"")).expect("a configuration");
        let outbox = Outbox::new(&config.kafka, &config.stream, deadline).expect("a producer");
        (config, outbox)
    }

    fn headers() -> Headers {
        Headers::with_capacity(1).add("a", "b")
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_message_is_there_when_send_returns() {
        let broker = EmbeddedBroker::start(&["feedback"], 1).expect("a broker");
        let (config, outbox) = outbox(&broker.bootstrap(), Duration::from_secs(10));
        for expected in 0..3 {
            let receipt = outbox.send("feedback", b"key", headers(), b"value").await.expect("acknowledged");
            assert_eq!(receipt, Receipt { partition: 0, offset: expected });
        }
        let read = tokio::task::spawn_blocking(move || {
            let mut reader = TopicReader::open(&config.kafka, &config.stream, "t", "feedback", true).expect("a reader");
            reader.next_record().expect("readable").expect("a record")
        });
        let record = read.await.expect("read");
        assert_eq!((record.key.as_deref(), record.value.as_deref()), (Some(&b"key"[..]), Some(&b"value"[..])));
        assert_eq!(record.headers, [("a".to_owned(), Some(b"b".to_vec()))]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn without_a_broker_the_deadline_ends_the_waiting() {
        let (_, outbox) = outbox("127.0.0.1:1", Duration::from_secs(1));
        let error = outbox.send("feedback", b"", headers(), b"value").await.expect_err("nobody is there");
        assert!(matches!(error, OutboxError::Unacknowledged { .. }) && error.is_retriable(), "{error}");
    }
}
