//! The test broker keeps the promises that the other tests build on. Without these, a test of the daemon's delivery
//! could pass because the broker is too lax, or fail because it is not a broker.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};

use crate::peers::broker::Broker;
use crate::peers::client::{self, Isolation};

const WAIT: Duration = Duration::from_secs(20);

fn numbered(count: usize) -> impl Iterator<Item = (String, String)> {
    (0..count).map(|n| (n.to_string(), format!("record {n}")))
}

#[test]
fn what_is_produced_is_read_once_and_survives_a_restart() {
    let mut broker = Broker::start();
    broker.create_topic("in", 3);
    broker.produce("in", numbered(1000));

    let mut reader = broker.reader("in", Isolation::ReadUncommitted);
    assert_eq!(reader.drain().len(), 1000);

    broker.restart();
    broker.produce("in", numbered(10));
    assert_eq!(reader.wait_for(1010, WAIT).len(), 1010);
    assert_eq!(broker.reader("in", Isolation::ReadUncommitted).drain().len(), 1010);
    assert_eq!(broker.watch("in").high_watermark(), 1010);
}

fn transactional(broker: &Broker, id: &str) -> BaseProducer {
    let producer: BaseProducer = client::config(&broker.bootstrap()).set("transactional.id", id).create().unwrap();
    producer.init_transactions(WAIT).unwrap();
    producer
}

fn send_in_transaction(producer: &BaseProducer, count: usize) {
    producer.begin_transaction().unwrap();
    for n in 0..count {
        let value = n.to_string();
        producer.send(BaseRecord::<(), str>::to("out").payload(&value)).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(WAIT).unwrap();
}

#[test]
fn read_committed_sees_neither_open_nor_aborted_transactions() {
    let broker = Broker::start();
    broker.create_topic("out", 2);
    let producer = transactional(&broker, "writer");
    let committed = || broker.reader("out", Isolation::ReadCommitted).drain().len();
    let uncommitted = || broker.reader("out", Isolation::ReadUncommitted).drain().len();

    send_in_transaction(&producer, 100);
    assert_eq!((committed(), uncommitted()), (0, 100));
    producer.commit_transaction(WAIT).unwrap();
    assert_eq!((committed(), uncommitted()), (100, 100));

    send_in_transaction(&producer, 10);
    producer.abort_transaction(WAIT).unwrap();
    assert_eq!((committed(), uncommitted()), (100, 110));
}

#[test]
fn a_newer_producer_of_the_same_transactional_id_fences_the_older() {
    let broker = Broker::start();
    broker.create_topic("out", 1);
    let older = transactional(&broker, "writer");
    send_in_transaction(&older, 10);

    let newer = transactional(&broker, "writer");
    assert!(older.commit_transaction(WAIT).is_err());
    send_in_transaction(&newer, 7);
    newer.commit_transaction(WAIT).unwrap();
    assert_eq!(broker.reader("out", Isolation::ReadCommitted).drain().len(), 7);
}

#[test]
fn offsets_in_a_transaction_are_committed_with_it() {
    let broker = Broker::start();
    broker.create_topic("in", 1);
    broker.create_topic("out", 1);
    broker.produce("in", numbered(50));
    let consumer: BaseConsumer = client::config(&broker.bootstrap())
        .set("group.id", "group")
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest")
        .create()
        .unwrap();
    consumer.subscribe(&["in"]).unwrap();
    let mut taken = 0;
    crate::peers::wait_until("all records are consumed", WAIT, || {
        while let Some(Ok(_)) = consumer.poll(Duration::from_millis(100)) {
            taken += 1;
        }
        taken == 50
    });

    let producer = transactional(&broker, "writer");
    send_in_transaction(&producer, 50);
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset("in", 0, Offset::Offset(50)).unwrap();
    let group = consumer.group_metadata().unwrap();
    producer.send_offsets_to_transaction(&offsets, &group, WAIT).unwrap();
    let input = broker.watch_group("in", "group");
    assert_eq!(input.offsets(), [].into());
    producer.commit_transaction(WAIT).unwrap();
    assert_eq!(input.offsets(), [(0, 50)].into());
}
