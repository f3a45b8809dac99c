//! What the tests send: a seeded mix of tickets, log lines and records that cannot be read, each with a key of its own.

use std::collections::{BTreeMap, HashMap};

use triaged::generate::{Generator, GeneratorSettings, Truth};
use triaged::record::Kind;

use crate::peers::client::{Publisher, Read, Reader};

pub(crate) const TOPICS: [&str; 2] = ["tickets", "logs"];

/// Where a record lies: topic, partition, offset.
pub(crate) type Place = (String, i32, i64);

pub(crate) struct Workload {
    records: Vec<Sent>,
}

#[derive(Debug, Clone)]
pub(crate) struct Sent {
    topic: &'static str,
    pub(crate) key: String,
    value: Vec<u8>,
    pub(crate) truth: Truth,
}

impl Workload {
    pub(crate) fn new(seed: u64, count: usize) -> Workload {
        let settings = GeneratorSettings {
            ticket_share: 0.2,
            broken_share: 0.02,
            unknown_share: 0.05,
            ..GeneratorSettings::default()
        };
        let records = Generator::new(seed, settings).take(count).enumerate().map(|(number, record)| {
            let (topic, key) = match record.kind {
                Kind::Ticket => (TOPICS[0], record.key),
                Kind::Log => (TOPICS[1], None),
            };
            let key = key.unwrap_or_else(|| format!("{topic}-{number}"));
            Sent { topic, key, value: record.value, truth: record.truth }
        });
        Workload { records: records.collect() }
    }

    /// The first `count` records, and the others.
    pub(crate) fn split(&self, count: usize) -> (Workload, Workload) {
        let (first, second) = self.records.split_at(count);
        (Workload { records: first.to_vec() }, Workload { records: second.to_vec() })
    }

    /// How many become events, where nothing is escalated.
    pub(crate) fn readable(&self) -> usize {
        self.records.iter().filter(|record| record.truth != Truth::Unreadable).count()
    }

    pub(crate) fn len(&self) -> usize {
        self.records.len()
    }

    /// Publishes all records, in chunks with `between` after each.
    pub(crate) fn publish(&self, bootstrap: &str, mut between: impl FnMut()) {
        let publisher = Publisher::open(bootstrap);
        for chunk in self.records.chunks(250) {
            for record in chunk {
                publisher.send(record.topic, record.key.as_bytes(), &record.value);
            }
            between();
        }
        publisher.flush();
    }

    /// Looks up where each record came to lie.
    pub(crate) fn locate(&self, mut open: impl FnMut(&str) -> Reader) -> Located {
        let by_key: HashMap<&str, &Sent> = self.records.iter().map(|sent| (sent.key.as_str(), sent)).collect();
        assert_eq!(by_key.len(), self.len(), "the keys are not unique");
        let mut places = BTreeMap::new();
        for topic in TOPICS {
            for read in open(topic).drain() {
                let key = std::str::from_utf8(read.key.as_deref().unwrap_or_default()).expect("keys are text");
                let sent = by_key.get(key).copied().expect("only the workload is published").clone();
                places.insert((topic.to_owned(), read.partition, read.offset), (sent, read.clone()));
            }
        }
        assert_eq!(places.len(), self.len(), "not all records reached the broker exactly once");
        Located(places)
    }
}

/// The workload by place.
pub(crate) struct Located(pub(crate) BTreeMap<Place, (Sent, Read)>);

impl Located {
    /// The offsets that a group has committed when it is done with everything.
    pub(crate) fn ends(&self, topic: &str) -> BTreeMap<i32, i64> {
        let mut ends = BTreeMap::new();
        for (known, partition, offset) in self.0.keys() {
            if known == topic {
                ends.insert(*partition, offset + 1);
            }
        }
        ends
    }
}
