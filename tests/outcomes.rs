//! What came out: events, escalations and dead letters, each checked against its schema and its headers, by the place
//! of the record that it came from.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use jsonschema::Validator;
use serde_json::Value;
use triaged::generate::Truth;
use triaged::record::{Escalation, QueueEvent, SourcePosition};

use crate::peers::client::{Read, Reader};
use crate::workload::{Located, Place, Sent};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Event,
    Escalation,
    DeadLetter,
}

const TOPICS: [(Kind, &str); 3] =
    [(Kind::Event, "queue-events"), (Kind::Escalation, "escalations"), (Kind::DeadLetter, "dead-letters")];

/// All outcomes of one place, in the order in which they were read.
pub(crate) type Found = Vec<(Kind, Read)>;

/// Reads the three output topics as it is told to.
pub(crate) struct Outcomes {
    readers: Vec<(Kind, Reader, usize)>,
    event_schema: Validator,
    escalation_schema: Validator,
    dead_letter_schema: Validator,
    pub(crate) by_place: BTreeMap<Place, Found>,
}

impl Outcomes {
    pub(crate) fn open(mut open: impl FnMut(&str) -> Reader) -> Outcomes {
        Outcomes {
            readers: TOPICS.into_iter().map(|(kind, topic)| (kind, open(topic), 0)).collect(),
            event_schema: schema("queue-event.json"),
            escalation_schema: schema("escalation.json"),
            dead_letter_schema: schema("dead-letter.json"),
            by_place: BTreeMap::new(),
        }
    }

    /// Reads on until as many records as `count` have an outcome; panics when they do not within `deadline`.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, count: usize, deadline: Duration) {
        let end = std::time::Instant::now() + deadline;
        while self.by_place.len() < count {
            let found = self.by_place.len();
            assert!(std::time::Instant::now() < end, "gave up after {deadline:?} with outcomes of {found} records");
            self.take();
        }
    }

    /// Reads on until there are as many outcomes as `count`, repeated ones included.
    #[track_caller]
    pub(crate) fn wait_total(&mut self, count: usize, deadline: Duration) {
        let end = std::time::Instant::now() + deadline;
        while self.total() < count {
            let found = self.total();
            assert!(std::time::Instant::now() < end, "gave up after {deadline:?} with {found} outcomes");
            self.take();
        }
    }

    fn take(&mut self) {
        for index in 0..self.readers.len() {
            self.readers[index].1.take();
            self.take_in(index);
        }
    }

    /// Reads to the present end of all output topics.
    pub(crate) fn drain(&mut self) {
        for index in 0..self.readers.len() {
            self.readers[index].1.drain();
            self.take_in(index);
        }
    }

    /// How many outcomes there are, repeated ones included.
    pub(crate) fn total(&self) -> usize {
        self.by_place.values().map(Vec::len).sum()
    }

    pub(crate) fn count(&self, kind: Kind) -> usize {
        self.by_place.values().flatten().filter(|(found, _)| *found == kind).count()
    }

    fn take_in(&mut self, index: usize) {
        let (kind, reader, taken) = &mut self.readers[index];
        let (kind, from) = (*kind, *taken);
        *taken = reader.records.len();
        let fresh: Vec<Read> = reader.records[from..].to_vec();
        for read in fresh {
            let place = self.place(kind, &read);
            self.by_place.entry(place).or_default().push((kind, read));
        }
    }

    /// The place that an outcome names as its source, after a check of all that the outcome promises by itself.
    fn place(&self, kind: Kind, read: &Read) -> Place {
        match kind {
            Kind::Event => {
                let value = read.json();
                valid(&self.event_schema, &value);
                let event: QueueEvent<'_> = serde_json::from_slice(&read.value).expect("an event");
                check_event(&event, read);
                owned(&event.source)
            }
            Kind::Escalation => {
                let value = read.json();
                valid(&self.escalation_schema, &value);
                valid(&self.event_schema, &value["event"]);
                let escalation: Escalation<'_> = serde_json::from_slice(&read.value).expect("an escalation");
                assert_eq!(escalation.event.event_id, escalation.event.source.event_id());
                assert!(escalation.event.text.is_some(), "an escalation without the text");
                owned(&escalation.event.source)
            }
            Kind::DeadLetter => {
                let header = |name: &str| read.header(name).unwrap_or_else(|| panic!("no header {name}: {read:?}"));
                let added = read.headers.iter().filter(|(name, _)| name.starts_with("triaged-"));
                let added = added.map(|(name, value)| (name.clone(), String::from_utf8_lossy(value).into()));
                valid(&self.dead_letter_schema, &Value::Object(added.collect()));
                (
                    header("triaged-topic").to_owned(),
                    header("triaged-partition").parse().expect("a number"),
                    header("triaged-offset").parse().expect("a number"),
                )
            }
        }
    }
}

/// Headers say the same as the body, in the attributes of the CloudEvents Kafka binding (binary mode).
fn check_event(event: &QueueEvent<'_>, read: &Read) {
    assert_eq!(event.event_id, event.source.event_id(), "the id does not depend on the source alone");
    assert_eq!(read.header("queue"), Some(&*event.queue));
    assert_eq!(read.header("priority"), Some(event.priority.as_str()));
    assert_eq!(read.header("routing"), Some(event.routing.as_str()));
    assert_eq!(read.header("ce_specversion"), Some("1.0"));
    assert_eq!(read.header("ce_id"), Some(event.event_id.to_string().as_str()));
    assert_eq!(read.header("ce_time"), Some(&*event.occurred_at));
    for name in ["ce_type", "ce_source"] {
        assert!(read.header(name).is_some_and(|value| !value.is_empty()), "no header {name}");
    }
    assert_eq!(read.header("content-type"), Some("application/json"));
}

fn owned(source: &SourcePosition<'_>) -> Place {
    (source.topic.to_string(), source.partition, source.offset)
}

pub(crate) fn schema(name: &str) -> Validator {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas").join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    jsonschema::validator_for(&serde_json::from_str(&text).expect("the schema is JSON")).expect("the schema is one")
}

pub(crate) fn valid(schema: &Validator, value: &Value) {
    let faults: Vec<String> =
        schema.iter_errors(value).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(faults.is_empty(), "{}\n{value:#}", faults.join("\n"));
}

/// How often a record may have its outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Times {
    Once,
    /// Repeated outcomes are the same outcome.
    AtLeastOnce,
}

/// Every record has its outcome, of the right kind, as often as it may.
#[track_caller]
pub(crate) fn assert_conserved(inputs: &Located, outcomes: &Outcomes, times: Times) {
    for (place, (sent, read)) in &inputs.0 {
        let Some(found) = outcomes.by_place.get(place) else { panic!("{} at {place:?} is lost", sent.key) };
        let kinds: Vec<Kind> = found.iter().map(|(kind, _)| *kind).collect();
        if times == Times::Once {
            assert_eq!(found.len(), 1, "{} at {place:?} has several outcomes: {kinds:?}", sent.key);
        }
        // Read again, a record may meet a warmer cache and be surer: an escalation beside an event is still the same
        // event, by its id.
        for (kind, outcome) in found {
            check_outcome(sent, read, *kind, outcome);
        }
    }
    let stranger = outcomes.by_place.keys().find(|place| !inputs.0.contains_key(*place));
    assert_eq!(stranger, None, "an outcome of a record that was never sent");
}

/// Only what cannot be read is a dead letter, with the original bytes; every other outcome carries the key on.
fn check_outcome(sent: &Sent, input: &Read, kind: Kind, outcome: &Read) {
    let unreadable = sent.truth == Truth::Unreadable;
    let shown = || String::from_utf8_lossy(&input.value).into_owned();
    assert_eq!(kind == Kind::DeadLetter, unreadable, "{kind:?} {:?}: {}", outcome.headers, shown());
    assert_eq!(outcome.key, input.key, "{}", shown());
    if unreadable {
        assert_eq!(outcome.value, input.value, "a dead letter is not the original");
    }
}
