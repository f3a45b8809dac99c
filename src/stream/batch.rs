//! A bounded batch of consumed records: one arena of bytes and a table of places in it.
//!
//! Copying the payloads out of librdkafka's messages costs a few nanoseconds each and lets a whole batch travel
//! between threads as one value, whose bytes are counted against the in-flight limit until it is dropped.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::record::SourcePosition;

/// Index of an input topic in the engine's list.
pub type InputIndex = usize;

/// One input partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Partition {
    pub input: InputIndex,
    pub partition: i32,
}

#[derive(Debug)]
struct Entry {
    place: Partition,
    offset: i64,
    timestamp: i64,
    key: Option<Range<usize>>,
    value: Range<usize>,
    headers: Range<usize>,
}

#[derive(Debug)]
struct HeaderEntry {
    name: Range<usize>,
    value: Option<Range<usize>>,
}

/// Counts the bytes of batches that are alive, and keeps the memory of the last one that is not: the system takes longer
/// to clear fresh pages than it takes to copy the records into them.
#[derive(Debug, Default)]
pub(crate) struct InFlightBytes {
    bytes: AtomicUsize,
    spare: Mutex<Vec<u8>>,
}

impl InFlightBytes {
    pub(crate) fn get(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Empty memory, if there is some.
    pub(crate) fn take_spare(&self) -> Vec<u8> {
        std::mem::take(&mut *self.spare.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn keep_spare(&self, mut arena: Vec<u8>) {
        arena.clear();
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        if arena.capacity() > spare.capacity() {
            *spare = arena;
        }
    }
}

/// Records in the order in which they were consumed.
#[derive(Debug)]
pub struct Batch {
    topics: Arc<[Arc<str>]>,
    arena: Vec<u8>,
    entries: Vec<Entry>,
    headers: Vec<HeaderEntry>,
    /// When the first record was taken.
    pub(crate) opened_at: Instant,
    counter: Option<(Arc<InFlightBytes>, usize)>,
}

impl Batch {
    /// An empty batch over these input topics. Outside tests and benches only the engine makes batches.
    pub fn new(topics: Arc<[Arc<str>]>) -> Self {
        Batch {
            topics,
            arena: Vec::new(),
            entries: Vec::new(),
            headers: Vec::new(),
            opened_at: Instant::now(),
            counter: None,
        }
    }

    /// `arena` is empty memory, for as many `bytes` as are expected.
    pub(crate) fn over(arena: Vec<u8>, topics: Arc<[Arc<str>]>, records: usize, bytes: usize) -> Self {
        let mut batch = Batch::new(topics);
        batch.arena = arena;
        batch.arena.reserve(bytes);
        batch.entries.reserve(records);
        batch
    }

    /// Adds a record; `timestamp` is Kafka's, in milliseconds since 1970-01-01 UTC.
    pub fn push<'h>(
        &mut self,
        place: Partition,
        offset: i64,
        timestamp: i64,
        key: Option<&[u8]>,
        value: &[u8],
        headers: impl Iterator<Item = (&'h str, Option<&'h [u8]>)>,
    ) {
        if self.entries.is_empty() {
            self.opened_at = Instant::now();
        }
        let key = key.map(|key| append(&mut self.arena, key));
        let value = append(&mut self.arena, value);
        let first_header = self.headers.len();
        for (name, header_value) in headers {
            let name = append(&mut self.arena, name.as_bytes());
            let header_value = header_value.map(|bytes| append(&mut self.arena, bytes));
            self.headers.push(HeaderEntry { name, value: header_value });
        }
        self.entries.push(Entry { place, offset, timestamp, key, value, headers: first_header..self.headers.len() });
    }

    /// Counts the batch's bytes against the in-flight limit until it is dropped.
    pub(crate) fn count_into(&mut self, in_flight: &Arc<InFlightBytes>) {
        let bytes = self.bytes();
        in_flight.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.counter = Some((Arc::clone(in_flight), bytes));
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes of keys, values and headers.
    pub fn bytes(&self) -> usize {
        self.arena.len()
    }

    pub fn get(&self, index: usize) -> Input<'_> {
        Input { batch: self, entry: &self.entries[index] }
    }

    pub fn iter(&self) -> impl Iterator<Item = Input<'_>> {
        self.entries.iter().map(|entry| Input { batch: self, entry })
    }

    /// First and last offset by partition, in the order in which partitions first occur.
    pub(crate) fn spans(&self) -> Vec<(Partition, i64, i64)> {
        let mut spans: Vec<(Partition, i64, i64)> = Vec::new();
        for entry in &self.entries {
            match spans.iter_mut().find(|span| span.0 == entry.place) {
                Some(span) => span.2 = entry.offset,
                None => spans.push((entry.place, entry.offset, entry.offset)),
            }
        }
        spans
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        if let Some((in_flight, bytes)) = self.counter.take() {
            in_flight.bytes.fetch_sub(bytes, Ordering::Relaxed);
            in_flight.keep_spare(std::mem::take(&mut self.arena));
        }
    }
}

fn append(arena: &mut Vec<u8>, bytes: &[u8]) -> Range<usize> {
    let start = arena.len();
    arena.extend_from_slice(bytes);
    start..arena.len()
}

/// One consumed record, borrowed from its batch.
#[derive(Debug, Clone, Copy)]
pub struct Input<'b> {
    batch: &'b Batch,
    entry: &'b Entry,
}

impl<'b> Input<'b> {
    pub fn place(&self) -> Partition {
        self.entry.place
    }

    /// Index of the topic in the engine's list of inputs.
    pub fn input(&self) -> InputIndex {
        self.entry.place.input
    }

    pub fn topic(&self) -> &'b str {
        &self.batch.topics[self.entry.place.input]
    }

    pub fn offset(&self) -> i64 {
        self.entry.offset
    }

    /// Kafka's timestamp in milliseconds since 1970-01-01 UTC.
    pub fn timestamp(&self) -> i64 {
        self.entry.timestamp
    }

    pub fn key(&self) -> Option<&'b [u8]> {
        self.entry.key.clone().map(|range| &self.batch.arena[range])
    }

    pub fn value(&self) -> &'b [u8] {
        &self.batch.arena[self.entry.value.clone()]
    }

    pub fn headers(&self) -> impl Iterator<Item = (&'b str, Option<&'b [u8]>)> + use<'b> {
        let batch = self.batch;
        batch.headers[self.entry.headers.clone()].iter().map(|header| {
            let name = std::str::from_utf8(&batch.arena[header.name.clone()]).expect("was a str when it was copied");
            (name, header.value.clone().map(|range| &batch.arena[range]))
        })
    }

    pub fn position(&self) -> SourcePosition<'b> {
        SourcePosition { topic: self.topic().into(), partition: self.entry.place.partition, offset: self.entry.offset }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topics() -> Arc<[Arc<str>]> {
        Arc::from([Arc::from("tickets"), Arc::from("logs")])
    }

    #[test]
    fn a_record_comes_out_as_it_went_in() {
        let mut batch = Batch::new(topics());
        let place = Partition { input: 1, partition: 4 };
        let headers = [("a", Some(&b"1"[..])), ("b", None)];
        batch.push(place, 17, 1_000, Some(b"key"), b"value", headers.into_iter());
        batch.push(place, 18, 1_001, None, b"", std::iter::empty());

        let first = batch.get(0);
        assert_eq!((first.topic(), first.key(), first.value()), ("logs", Some(&b"key"[..]), &b"value"[..]));
        assert_eq!(first.headers().collect::<Vec<_>>(), headers);
        assert_eq!(first.position().to_string(), "logs[4]@17");
        assert_eq!((batch.get(1).key(), batch.get(1).value()), (None, &b""[..]));
        assert_eq!(batch.spans(), [(place, 17, 18)]);
    }

    #[test]
    fn bytes_are_counted_until_the_batch_is_dropped() {
        let in_flight = Arc::new(InFlightBytes::default());
        let mut batch = Batch::new(topics());
        batch.push(Partition { input: 0, partition: 0 }, 0, 0, Some(b"12"), b"345", std::iter::empty());
        batch.count_into(&in_flight);
        assert_eq!(in_flight.get(), 5);
        drop(batch);
        assert_eq!(in_flight.get(), 0);
        let spare = in_flight.take_spare();
        assert!(spare.is_empty() && spare.capacity() >= 5);
    }
}
