//! librdkafka clients: their properties, and what they tell about the connection.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use chrono::Utc;
use data_encoding::BASE64URL_NOPAD;
use rdkafka::ClientContext;
use rdkafka::client::OAuthToken;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::statistics::Statistics;
use serde::Deserialize;
use tracing::{debug, error, info, warn};

use crate::config::{Delivery, KafkaSettings, StreamSettings};

/// How often librdkafka reports watermarks and broker states. Every second would cost much of the throughput.
const STATISTICS_INTERVAL_MS: &str = "10000";
/// An open transaction of a dead instance blocks read_committed consumers for at most this long.
const TRANSACTION_TIMEOUT_MS: &str = "60000";
/// A message larger than this is not handed to librdkafka. The broker's own limit is usually lower; what it refuses
/// becomes a dead letter.
pub(crate) const MAX_MESSAGE_BYTES: usize = 16 * 1024 * 1024;

/// Whether any broker can be reached, as seen by all clients of a role.
#[derive(Debug, Default)]
pub(crate) struct Connection {
    down: AtomicBool,
}

impl Connection {
    pub(crate) fn is_down(&self) -> bool {
        self.down.load(Ordering::Relaxed)
    }

    pub(crate) fn seen_up(&self) {
        if self.down.load(Ordering::Relaxed) && self.down.swap(false, Ordering::Relaxed) {
            info!("kafka is reachable again");
        }
    }

    pub(crate) fn seen_error(&self, code: Option<RDKafkaErrorCode>) {
        if code == Some(RDKafkaErrorCode::AllBrokersDown) && !self.down.swap(true, Ordering::Relaxed) {
            warn!("no kafka broker is reachable, retrying");
        }
    }

    fn seen_statistics(&self, statistics: &Statistics) {
        // Bootstrap entries have negative ids and stay down once the real brokers are known.
        if statistics.brokers.values().any(|broker| broker.state == "UP") {
            self.seen_up();
        }
    }
}

/// What every client of a role shares: connection state, log forwarding, tokens.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    pub(crate) connection: Arc<Connection>,
    oauth_token_file: Option<PathBuf>,
}

impl Shared {
    pub(crate) fn new(settings: &KafkaSettings) -> Self {
        Shared { connection: Arc::new(Connection::default()), oauth_token_file: settings.oauth_token_file.clone() }
    }
}

impl ClientContext for Shared {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                error!(target: "librdkafka", facility, "{message}");
            }
            // Lost connections come here at every attempt to reconnect; `Connection` reports the change once.
            RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning | RDKafkaLogLevel::Notice => {
                debug!(target: "librdkafka", facility, "{message}");
            }
            RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => {
                tracing::trace!(target: "librdkafka", facility, "{message}");
            }
        }
    }

    fn stats(&self, statistics: Statistics) {
        self.connection.seen_statistics(&statistics);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.connection.seen_error(error.rdkafka_error_code());
        debug!(target: "librdkafka", %error, "{reason}");
    }

    fn generate_oauth_token(&self, _config: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        let path = self.oauth_token_file.as_ref().ok_or("kafka.oauth.token_file is not set")?;
        let token = std::fs::read_to_string(path)
            .map_err(|error| format!("kafka.oauth.token_file {}: {error}", path.display()))?;
        oauth_token(token.trim()).map_err(|error| format!("{}: {error}", path.display()).into())
    }
}

/// The claims of a JWT that Kafka needs.
#[derive(Deserialize)]
struct Claims {
    #[serde(default)]
    sub: String,
    exp: Option<f64>,
}

/// Tokens without an expiry are read again after this many seconds.
const TOKEN_LIFETIME_S: f64 = 300.0;

fn oauth_token(token: &str) -> Result<OAuthToken, String> {
    let payload = token.split('.').nth(1).ok_or("the token is not a JWT")?;
    let payload = BASE64URL_NOPAD
        .decode(payload.trim_end_matches('=').as_bytes())
        .map_err(|_| "the token's payload is not base64url")?;
    let claims: Claims = serde_json::from_slice(&payload).map_err(|_| "the token's payload is not a set of claims")?;
    let expires = claims.exp.unwrap_or_else(|| Utc::now().timestamp() as f64 + TOKEN_LIFETIME_S);
    Ok(OAuthToken { token: token.to_owned(), principal_name: claims.sub, lifetime_ms: (expires * 1000.0) as i64 })
}

/// Properties in layers: ours that may be overridden, the user's, ours that may not.
fn build(
    kafka: &KafkaSettings,
    of_the_other_side: fn(&str) -> bool,
    defaults: &[(&str, &str)],
    fixed: &[(&str, &str)],
) -> ClientConfig {
    let mut config = ClientConfig::new();
    let mut layers: BTreeMap<&str, &str> = defaults.iter().copied().collect();
    let users = kafka.properties.iter().filter(|(name, _)| !of_the_other_side(name));
    layers.extend(users.map(|(name, value)| (name.as_str(), value.reveal())));
    layers.extend(fixed.iter().copied());
    for (name, value) in layers {
        config.set(name, value);
    }
    // librdkafka filters by level before it calls us; what is shown is decided by our own log filter.
    config.set_log_level(RDKafkaLogLevel::Info);
    config
}

pub(crate) fn consumer_config(kafka: &KafkaSettings, stream: &StreamSettings, role: &str) -> ClientConfig {
    let group = group_id(kafka, role);
    let prefetch_kbytes = (stream.max_prefetch_bytes / 1024).max(1).to_string();
    let fetch_bytes = stream.max_prefetch_bytes.clamp(1024 * 1024, 50 * 1024 * 1024).to_string();
    let client = client_id(kafka, role);
    let defaults = [
        ("client.id", client.as_str()),
        ("partition.assignment.strategy", "cooperative-sticky"),
        ("auto.offset.reset", "earliest"),
        ("isolation.level", "read_committed"),
        ("fetch.max.bytes", fetch_bytes.as_str()),
        ("session.timeout.ms", "30000"),
        // A topic that is created later, or gets more partitions, is found after this long.
        ("topic.metadata.refresh.interval.ms", "60000"),
        ("log.connection.close", "false"),
        ("queued.min.messages", "100000"),
        ("statistics.interval.ms", STATISTICS_INTERVAL_MS),
    ];
    let fixed = [
        ("bootstrap.servers", kafka.brokers.as_str()),
        ("group.id", group.as_str()),
        ("enable.auto.commit", "false"),
        ("enable.auto.offset.store", "false"),
        ("enable.partition.eof", "false"),
        ("queued.max.messages.kbytes", prefetch_kbytes.as_str()),
    ];
    build(kafka, is_producer_only, &defaults, &fixed)
}

pub(crate) fn producer_config(kafka: &KafkaSettings, stream: &StreamSettings, role: &str) -> ClientConfig {
    let client = client_id(kafka, role);
    // Outputs are larger than inputs; four times the inputs in flight is where producing waits.
    let queue_kbytes = (stream.max_in_flight_bytes * 4 / 1024).clamp(16 * 1024, 2_097_151).to_string();
    let max_message = MAX_MESSAGE_BYTES.to_string();
    let transactional_id = transactional_id(kafka, role);
    let defaults = [
        ("client.id", client.as_str()),
        ("compression.type", "lz4"),
        ("linger.ms", "5"),
        ("message.max.bytes", max_message.as_str()),
        ("queue.buffering.max.messages", "1000000"),
        ("log.connection.close", "false"),
        // The partitioner of the Java client, so that keys land where other producers put them.
        ("partitioner", "murmur2_random"),
        ("statistics.interval.ms", STATISTICS_INTERVAL_MS),
    ];
    let mut fixed = vec![
        ("bootstrap.servers", kafka.brokers.as_str()),
        ("acks", "all"),
        ("enable.idempotence", "true"),
        ("queue.buffering.max.kbytes", queue_kbytes.as_str()),
    ];
    match kafka.delivery {
        // Never give up on a message: while the broker is away it waits, and so do the batches behind it.
        Delivery::AtLeastOnce => fixed.push(("message.timeout.ms", "0")),
        Delivery::ExactlyOnce => {
            fixed.push(("transactional.id", transactional_id.as_str()));
            fixed.push(("transaction.timeout.ms", TRANSACTION_TIMEOUT_MS));
        }
    }
    build(kafka, is_consumer_only, &defaults, &fixed)
}

pub(crate) fn group_id(kafka: &KafkaSettings, role: &str) -> String {
    format!("{}-{role}", kafka.group_prefix)
}

fn client_id(kafka: &KafkaSettings, role: &str) -> String {
    format!("{}-{role}-{}", kafka.group_prefix, kafka.instance)
}

pub(crate) fn transactional_id(kafka: &KafkaSettings, role: &str) -> String {
    client_id(kafka, role)
}

/// librdkafka warns about a property of the other side; the user has one table for both.
fn is_producer_only(name: &str) -> bool {
    name.starts_with("queue.buffering.")
        || name.starts_with("batch.")
        || name.starts_with("compression.")
        || name.starts_with("message.send.")
        || name.starts_with("sticky.")
        || matches!(name, "linger.ms" | "retries" | "partitioner" | "request.timeout.ms" | "transaction.timeout.ms")
}

fn is_consumer_only(name: &str) -> bool {
    name.starts_with("fetch.")
        || name.starts_with("queued.")
        || name.starts_with("group.")
        || name.starts_with("session.")
        || name.starts_with("heartbeat.")
        || matches!(
            name,
            "auto.offset.reset"
                | "check.crcs"
                | "isolation.level"
                | "max.poll.interval.ms"
                | "max.partition.fetch.bytes"
                | "partition.assignment.strategy"
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_file_gives_principal_and_expiry() {
        // {"alg":"none"} . {"sub":"triaged","exp":1900000000}
        let token = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJ0cmlhZ2VkIiwiZXhwIjoxOTAwMDAwMDAwfQ.";
        let token = oauth_token(token).expect("a good token");
        assert_eq!((token.principal_name.as_str(), token.lifetime_ms), ("triaged", 1_900_000_000_000));
        assert!(oauth_token("opaque").is_err());
        assert!(oauth_token("a.!!.c").is_err());
    }
}
