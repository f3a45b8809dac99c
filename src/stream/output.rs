//! What a stage makes of a batch: messages for Kafka, and for every record the way by which it left.
//!
//! Values are serialised into one arena a batch. The engine refuses a batch in which a record has no outcome, so
//! a stage cannot lose one by forgetting it.

use std::fmt;
use std::io::Write;
use std::ops::Range;
use std::sync::Arc;

use arc_swap::ArcSwap;
use prometheus::IntCounter;
use rdkafka::message::{Header, OwnedHeaders};

use crate::metrics::OutcomeCounts;

use super::batch::{Batch, Input};

/// Index of an output topic in the engine's `Topics`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TopicId(u16);

/// The topics that a role may write to; cloning shares them. The dead letter topic is always the first. Topics are added
/// and never taken away, so an id means the same topic for as long as the role runs, whatever the routes become.
#[derive(Debug, Clone)]
pub struct Topics(Arc<ArcSwap<Vec<Arc<str>>>>);

impl Topics {
    const DEAD_LETTERS: TopicId = TopicId(0);

    pub fn new(dead_letters: &str) -> Self {
        Topics(Arc::new(ArcSwap::from_pointee(vec![Arc::from(dead_letters)])))
    }

    /// The id of this topic, which is added when it is new.
    pub fn add(&self, name: &str) -> TopicId {
        let place = |topics: &[Arc<str>]| topics.iter().position(|known| &**known == name);
        self.0.rcu(|topics| match place(topics) {
            Some(_) => Arc::clone(topics),
            None => Arc::new(topics.iter().cloned().chain([Arc::from(name)]).collect()),
        });
        let index = place(&self.0.load()).expect("it was just added");
        TopicId(u16::try_from(index).expect("configuration limits the number of topics"))
    }

    /// All names, in the order of their ids: at least those of every id that was given out before.
    pub(crate) fn names(&self) -> Arc<Vec<Arc<str>>> {
        self.0.load_full()
    }
}

impl TopicId {
    pub(crate) fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// The way by which a record left a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// A message to one of the role's topics.
    Message,
    DeadLetter,
    /// Nothing is published, on purpose: a rule says so.
    Dropped,
    /// Nothing is published, because the record has reached its end: it is stored.
    Stored,
}

/// Kafka headers of one message.
#[derive(Debug)]
pub struct Headers(OwnedHeaders);

impl Headers {
    pub fn with_capacity(capacity: usize) -> Self {
        Headers(OwnedHeaders::new_with_capacity(capacity))
    }

    pub fn add(self, key: &str, value: impl AsRef<[u8]>) -> Self {
        Headers(self.0.insert(Header { key, value: Some(value.as_ref()) }))
    }

    pub(super) fn into_inner(self) -> OwnedHeaders {
        self.0
    }

    fn add_optional(self, key: &str, value: Option<&[u8]>) -> Self {
        Headers(self.0.insert(Header { key, value }))
    }
}

/// One message to be produced.
#[derive(Debug)]
pub(crate) struct Message {
    /// Index in the batch of the record that it comes from.
    pub(crate) record: u32,
    pub(crate) topic: TopicId,
    pub(crate) key: Option<Range<usize>>,
    pub(crate) value: Option<Range<usize>>,
    pub(crate) headers: Option<OwnedHeaders>,
}

/// What a stage counts about a batch. It enters the metrics when the batch is acknowledged, so that a batch that is
/// processed twice counts once.
#[derive(Debug, Default)]
pub struct Counts {
    pub outcomes: OutcomeCounts,
    pub increments: Vec<(IntCounter, u64)>,
}

/// The outputs of one batch.
#[derive(Debug)]
pub struct Outputs {
    pub counts: Counts,
    arena: Vec<u8>,
    pub(crate) messages: Vec<Message>,
    outcomes: Vec<Option<Outcome>>,
    /// A message whose value is longer cannot be produced; its record becomes a dead letter.
    max_message_bytes: usize,
}

/// Bytes that headers and framing may add to a message.
const MESSAGE_OVERHEAD: usize = 4096;

impl Outputs {
    pub fn new(max_message_bytes: usize) -> Self {
        Outputs {
            counts: Counts::default(),
            arena: Vec::new(),
            messages: Vec::new(),
            outcomes: Vec::new(),
            max_message_bytes,
        }
    }

    /// Makes ready for a batch of `records`, keeping the memory.
    pub fn reset(&mut self, records: usize) {
        self.arena.clear();
        self.messages.clear();
        self.outcomes.clear();
        self.counts = Counts::default();
        self.outcomes.resize(records, None);
    }

    /// Publishes what `write` writes as the value of a message that carries record `index` on.
    ///
    /// A value that is too large to be produced is replaced by a dead letter of the original; the result says which
    /// of the two happened.
    pub fn message(
        &mut self,
        batch: &Batch,
        index: usize,
        topic: TopicId,
        key: Option<&[u8]>,
        headers: Headers,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Outcome {
        let start = self.arena.len();
        let key = key.map(|key| {
            self.arena.extend_from_slice(key);
            start..self.arena.len()
        });
        let value_start = self.arena.len();
        write(&mut self.arena);
        let bytes = self.arena.len() - start;
        if bytes + MESSAGE_OVERHEAD > self.max_message_bytes {
            self.arena.truncate(start);
            let limit = self.max_message_bytes;
            let error = format_args!("the output has {bytes} bytes, the limit is {limit}");
            self.dead_letter(batch.get(index), index, "output_too_large", error);
            return Outcome::DeadLetter;
        }
        self.messages.push(Message {
            record: index as u32,
            topic,
            key,
            value: Some(value_start..self.arena.len()),
            headers: Some(headers.0),
        });
        self.outcomes[index] = Some(Outcome::Message);
        Outcome::Message
    }

    /// Publishes the original bytes and headers of record `index` to the dead letters, with the reason in headers.
    pub fn dead_letter(&mut self, input: Input<'_>, index: usize, reason: &str, error: impl fmt::Display) {
        let start = self.arena.len();
        let key = input.key().map(|key| {
            self.arena.extend_from_slice(key);
            start..self.arena.len()
        });
        let value_start = self.arena.len();
        self.arena.extend_from_slice(input.value());
        let value = Some(value_start..self.arena.len());
        self.push_dead_letter(input, index, key, value, reason, error);
    }

    /// A dead letter without the value, for a record whose dead letter the broker itself refuses as too large. The
    /// headers say where the original lies.
    pub(crate) fn dead_letter_without_value(
        &mut self,
        input: Input<'_>,
        index: usize,
        reason: &str,
        error: impl fmt::Display,
    ) {
        self.push_dead_letter(input, index, None, None, reason, error);
    }

    fn push_dead_letter(
        &mut self,
        input: Input<'_>,
        index: usize,
        key: Option<Range<usize>>,
        value: Option<Range<usize>>,
        reason: &str,
        error: impl fmt::Display,
    ) {
        let mut headers = Headers::with_capacity(8);
        for (name, header_value) in input.headers() {
            headers = headers.add_optional(name, header_value);
        }
        let mut text = Vec::with_capacity(64);
        let mut header = |headers: Headers, name: &str, value: &dyn fmt::Display| {
            text.clear();
            write!(text, "{value}").expect("writing to memory");
            headers.add(name, &text)
        };
        headers = header(headers, dead_letter_header::REASON, &reason);
        headers = header(headers, dead_letter_header::ERROR, &error);
        headers = header(headers, dead_letter_header::TOPIC, &input.topic());
        headers = header(headers, dead_letter_header::PARTITION, &input.place().partition);
        headers = header(headers, dead_letter_header::OFFSET, &input.offset());
        headers = header(headers, dead_letter_header::TIMESTAMP, &input.timestamp());
        if value.is_none() {
            headers = header(headers, dead_letter_header::OMITTED_BYTES, &input.value().len());
        }
        let topic = Topics::DEAD_LETTERS;
        self.messages.push(Message { record: index as u32, topic, key, value, headers: Some(headers.0) });
        self.outcomes[index] = Some(Outcome::DeadLetter);
    }

    /// Record `index` ends here without a message, on purpose.
    pub fn dropped(&mut self, index: usize) {
        self.outcomes[index] = Some(Outcome::Dropped);
    }

    /// Record `index` is stored where it belongs, for good.
    pub fn stored(&mut self, index: usize) {
        self.outcomes[index] = Some(Outcome::Stored);
    }

    /// Takes back what a stage made of record `index`.
    pub(crate) fn withdraw(&mut self, index: usize) {
        self.messages.retain(|message| message.record as usize != index);
        self.outcomes[index] = None;
    }

    pub fn outcome(&self, index: usize) -> Option<Outcome> {
        self.outcomes[index]
    }

    /// Records for which the stage has said nothing: always empty unless the stage has a bug.
    pub(crate) fn forgotten(&self) -> impl Iterator<Item = usize> {
        self.outcomes.iter().enumerate().filter(|(_, outcome)| outcome.is_none()).map(|(index, _)| index)
    }

    pub(crate) fn bytes(&self, range: &Range<usize>) -> &[u8] {
        &self.arena[range.clone()]
    }

    /// Values of all messages, for tests and benches that run a stage without Kafka.
    pub fn values(&self) -> impl Iterator<Item = (usize, TopicId, &[u8])> {
        self.messages.iter().map(|message| {
            let value = message.value.as_ref().map_or(&[][..], |range| self.bytes(range));
            (message.record as usize, message.topic, value)
        })
    }
}

/// Headers that a dead letter carries beside the original ones.
pub mod dead_letter_header {
    pub const REASON: &str = "triaged-reason";
    pub const ERROR: &str = "triaged-error";
    pub const TOPIC: &str = "triaged-topic";
    pub const PARTITION: &str = "triaged-partition";
    pub const OFFSET: &str = "triaged-offset";
    /// Kafka timestamp of the original, milliseconds since 1970-01-01 UTC.
    pub const TIMESTAMP: &str = "triaged-timestamp";
    /// Present when the value had to be left out because the broker refuses it; its size in bytes.
    pub const OMITTED_BYTES: &str = "triaged-omitted-bytes";
    /// What all of them begin with.
    pub const PREFIX: &str = "triaged-";
}

#[cfg(test)]
mod tests {
    use rdkafka::message::Headers as _;

    use super::super::batch::Partition;
    use super::*;

    fn batch() -> Batch {
        let mut batch = Batch::new(Arc::from([Arc::from("logs")]));
        let place = Partition { input: 0, partition: 2 };
        batch.push(place, 41, 7, Some(b"k"), b"\xff raw", [("own", Some(&b"x"[..]))].into_iter());
        batch
    }

    #[test]
    fn a_dead_letter_keeps_bytes_and_headers_and_names_its_place() {
        let batch = batch();
        let mut outputs = Outputs::new(1 << 20);
        outputs.reset(1);
        assert_eq!(outputs.forgotten().collect::<Vec<_>>(), [0]);
        outputs.dead_letter(batch.get(0), 0, "invalid_utf8", "byte 0");
        assert_eq!(outputs.forgotten().count(), 0);
        assert_eq!(outputs.values().map(|(_, _, value)| value).collect::<Vec<_>>(), [b"\xff raw"]);
        let headers = outputs.messages[0].headers.as_ref().expect("set above").as_borrowed();
        let pairs: Vec<_> = headers.iter().map(|header| (header.key, header.value.unwrap_or(b""))).collect();
        assert_eq!(pairs[0], ("own", &b"x"[..]));
        assert!(pairs.contains(&("triaged-offset", &b"41"[..])) && pairs.contains(&("triaged-partition", &b"2"[..])));
    }

    #[test]
    fn an_output_too_large_becomes_a_dead_letter_of_the_original() {
        let batch = batch();
        let mut outputs = Outputs::new(MESSAGE_OVERHEAD + 10);
        outputs.reset(1);
        let topic = Topics::new("dead").add("events");
        let outcome = outputs
            .message(&batch, 0, topic, None, Headers::with_capacity(0), |value| value.extend_from_slice(&[b'x'; 11]));
        assert_eq!(outcome, Outcome::DeadLetter);
        assert_eq!(outputs.values().next(), Some((0, Topics::DEAD_LETTERS, &b"\xff raw"[..])));
    }
}
