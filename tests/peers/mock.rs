//! A cluster inside the test's own process (librdkafka's mock), for the faults that a real broker does not make on
//! demand. It listens on TCP, so the daemon reaches it from its own process. It acknowledges transactions without
//! isolating them, so only the real broker can prove `exactly_once`.

use std::time::Duration;

use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use super::client::{self, Isolation, Reader};

pub(crate) struct Mock {
    cluster: MockCluster<'static, DefaultProducerContext>,
    brokers: i32,
}

impl Mock {
    pub(crate) fn start(brokers: i32) -> Mock {
        Mock { cluster: MockCluster::new(brokers).expect("a mock cluster starts"), brokers }
    }

    pub(crate) fn bootstrap(&self) -> String {
        self.cluster.bootstrap_servers()
    }

    pub(crate) fn create_topic(&self, name: &str, partitions: i32) {
        self.cluster.create_topic(name, partitions, self.brokers).expect("the topic is new");
    }

    pub(crate) fn produce<K, V>(&self, topic: &str, records: impl IntoIterator<Item = (K, V)>)
    where
        K: AsRef<[u8]>,
        V: AsRef<[u8]>,
    {
        client::produce(&self.bootstrap(), topic, records);
    }

    pub(crate) fn reader(&self, topic: &str) -> Reader {
        Reader::open(&self.bootstrap(), topic, Isolation::ReadUncommitted)
    }

    /// The next requests of this kind, by any client, are answered with these errors, one each.
    pub(crate) fn fail_next(&self, request: RDKafkaApiKey, errors: &[RDKafkaRespErr]) {
        self.cluster.request_errors(request, errors);
    }

    /// Closes all connections of every broker and refuses new ones.
    pub(crate) fn down(&self) {
        for broker in 1..=self.brokers {
            self.cluster.broker_down(broker).expect("the broker is there");
        }
    }

    pub(crate) fn up(&self) {
        for broker in 1..=self.brokers {
            self.cluster.broker_up(broker).expect("the broker is there");
        }
    }

    /// Every answer of every broker takes this long from now on.
    pub(crate) fn round_trip(&self, delay: Duration) {
        for broker in 1..=self.brokers {
            self.cluster.broker_round_trip_time(broker, delay).expect("the broker is there");
        }
    }
}
