//! Counts the delivery reports of each batch without a lock or an allocation for a message that succeeds.

use std::error::Error;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crossbeam_channel::Sender;
use rdkafka::ClientContext;
use rdkafka::client::OAuthToken;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::ProducerContext;
use rdkafka::statistics::Statistics;

use super::super::client::Shared;

/// Bits of the opaque that number the message in its batch; the slot is above them.
const MESSAGE_BITS: u32 = 32;

#[derive(Debug, Default)]
struct Slot {
    /// Messages without a report, plus one while the batch is still being handed over.
    remaining: AtomicUsize,
    errors: Mutex<Vec<(usize, RDKafkaErrorCode)>>,
}

/// One slot for each batch that waits for its acknowledgements.
#[derive(Debug)]
pub(super) struct Slots {
    slots: Box<[Slot]>,
    acked_tx: Sender<usize>,
}

impl Slots {
    pub(super) fn new(count: usize, acked_tx: Sender<usize>) -> Self {
        Slots { slots: (0..count).map(|_| Slot::default()).collect(), acked_tx }
    }

    /// What travels through librdkafka with a message.
    pub(super) fn opaque(slot: usize, message: usize) -> usize {
        slot << MESSAGE_BITS | message
    }

    /// Starts counting a batch of `messages`; it cannot complete before it is sealed.
    pub(super) fn open(&self, slot: usize, messages: usize) {
        self.slots[slot].remaining.store(messages + 1, Ordering::Release);
    }

    /// All messages of the batch have been handed over.
    pub(super) fn seal(&self, slot: usize) {
        self.count_down(slot);
    }

    pub(super) fn failed(&self, slot: usize, message: usize, code: RDKafkaErrorCode) {
        // A list of plain values is whole whatever panicked while it was locked.
        self.slots[slot].errors.lock().unwrap_or_else(PoisonError::into_inner).push((message, code));
        self.count_down(slot);
    }

    pub(super) fn take_errors(&self, slot: usize) -> Vec<(usize, RDKafkaErrorCode)> {
        std::mem::take(&mut *self.slots[slot].errors.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn count_down(&self, slot: usize) {
        if self.slots[slot].remaining.fetch_sub(1, Ordering::AcqRel) == 1 {
            // Fails only when the publisher is gone, and then nobody waits for it.
            let _gone = self.acked_tx.send(slot);
        }
    }
}

/// Receives the producer's delivery reports on its polling thread.
pub(super) struct DeliveryContext {
    shared: Shared,
    slots: Arc<Slots>,
}

impl DeliveryContext {
    pub(super) fn new(shared: Shared, slots: Arc<Slots>) -> Self {
        DeliveryContext { shared, slots }
    }
}

impl ProducerContext for DeliveryContext {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, opaque: usize) {
        let (slot, message) = (opaque >> MESSAGE_BITS, opaque & ((1 << MESSAGE_BITS) - 1));
        match result {
            Ok(_) => self.slots.count_down(slot),
            Err((error, _)) => {
                let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown);
                self.slots.failed(slot, message, code);
            }
        }
    }
}

impl ClientContext for DeliveryContext {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = Shared::ENABLE_REFRESH_OAUTH_TOKEN;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.shared.log(level, facility, message);
    }

    fn stats(&self, statistics: Statistics) {
        self.shared.stats(statistics);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.shared.error(error, reason);
    }

    fn generate_oauth_token(&self, config: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        self.shared.generate_oauth_token(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_completes_once_and_only_after_it_is_sealed() {
        let (acked_tx, acked_rx) = crossbeam_channel::bounded(2);
        let slots = Slots::new(2, acked_tx);
        slots.open(1, 2);
        slots.count_down(1);
        slots.failed(1, 1, RDKafkaErrorCode::MessageTimedOut);
        assert!(acked_rx.try_recv().is_err());
        slots.seal(1);
        assert_eq!(acked_rx.try_recv(), Ok(1));
        assert_eq!(slots.take_errors(1), [(1, RDKafkaErrorCode::MessageTimedOut)]);
        assert!(slots.take_errors(1).is_empty() && acked_rx.try_recv().is_err());
    }

    #[test]
    fn an_empty_batch_completes_when_it_is_sealed() {
        let (acked_tx, acked_rx) = crossbeam_channel::bounded(1);
        let slots = Slots::new(1, acked_tx);
        slots.open(0, 0);
        slots.seal(0);
        assert_eq!(acked_rx.try_recv(), Ok(0));
    }
}
