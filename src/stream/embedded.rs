//! A Kafka broker inside the process, for the demo: librdkafka's mock cluster, which speaks the real protocol over TCP.
//!
//! It keeps only the newest messages of each partition, in memory.

use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;

use super::feeder::StreamError;

/// Runs until it is dropped.
pub struct EmbeddedBroker {
    cluster: MockCluster<'static, DefaultProducerContext>,
}

impl std::fmt::Debug for EmbeddedBroker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EmbeddedBroker").field("bootstrap", &self.bootstrap()).finish()
    }
}

impl EmbeddedBroker {
    /// Starts a broker on a free port of the loopback interface with these topics.
    pub fn start(topics: &[&str], partitions: i32) -> Result<Self, StreamError> {
        let failed = |source| StreamError::Embedded { source };
        let cluster = MockCluster::new(1).map_err(failed)?;
        for topic in topics {
            cluster.create_topic(topic, partitions, 1).map_err(failed)?;
        }
        Ok(EmbeddedBroker { cluster })
    }

    /// The address for `kafka.brokers`.
    pub fn bootstrap(&self) -> String {
        self.cluster.bootstrap_servers()
    }
}
