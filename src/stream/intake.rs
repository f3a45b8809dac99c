//! The consuming side of the engine: polls, makes batches, keeps the offsets, follows rebalances.
//!
//! Everything here happens on one thread. librdkafka's rebalance events are only noted when they arrive and acted on
//! between polls, so no state is shared with a callback.

mod context;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, RebalanceProtocol};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::{Offset, TopicPartitionList};
use tracing::{debug, warn};

use crate::config::{Delivery, StreamSettings};
use crate::readiness::RoleReadiness;
use crate::supervisor::Shutdown;

use super::batch::{Batch, InFlightBytes, Partition};
use super::client::{Connection, Shared};
use super::engine::{EngineError, EngineState, Job, Report};
use super::progress::Progress;
use super::publisher::MAX_BATCHES;
use super::telemetry::{Telemetry, with_causes};
use context::{IntakeContext, Rebalance};

pub(crate) type EngineConsumer = BaseConsumer<IntakeContext>;

/// How long one poll waits when there is nothing to read: bounds the delay of everything else this thread does.
const IDLE_POLL: Duration = Duration::from_millis(50);
/// With less room than this for longer, partitions are paused so that polling can go on without taking records.
const PAUSE_AFTER: Duration = Duration::from_secs(1);
/// How long a question to the broker may take on this thread.
const BROKER_TIMEOUT: Duration = Duration::from_secs(5);
/// The same consumer error is not logged again within this time.
const ERROR_LOG_INTERVAL: Duration = Duration::from_secs(30);

/// Creates the consumer; the intake subscribes when it starts.
pub(crate) fn connect(
    config: &ClientConfig,
    shared: Shared,
    topics: &Arc<[Arc<str>]>,
) -> Result<Arc<EngineConsumer>, EngineError> {
    let context = IntakeContext::new(shared, Arc::clone(topics));
    let consumer: EngineConsumer =
        config.create_with_context(context).map_err(|source| EngineError::Client { client: "consumer", source })?;
    Ok(Arc::new(consumer))
}

/// Partitions that are paused.
struct Hold {
    partitions: BTreeSet<Partition>,
    until: Until,
}

enum Until {
    /// There is room for more records.
    Room,
    /// Then the partitions are read again from the last acknowledged record.
    Rewind { at: Instant, targets: BTreeMap<Partition, i64> },
}

pub(crate) struct IntakeParts {
    pub(crate) consumer: Arc<EngineConsumer>,
    pub(crate) topics: Arc<[Arc<str>]>,
    pub(crate) connection: Arc<Connection>,
    pub(crate) delivery: Delivery,
    pub(crate) settings: StreamSettings,
    pub(crate) state: Arc<EngineState>,
    pub(crate) telemetry: Telemetry,
    pub(crate) readiness: RoleReadiness,
    pub(crate) shutdown: Shutdown,
    pub(crate) job_tx: Sender<Job>,
    pub(crate) report_rx: Receiver<Report>,
}

pub(crate) struct Intake {
    parts: IntakeParts,
    batch: Batch,
    in_flight: Arc<InFlightBytes>,
    progress: Progress,
    assigned: BTreeSet<Partition>,
    joined: bool,
    generation: u64,
    next_seq: u64,
    hold: Option<Hold>,
    full_since: Option<Instant>,
    last_commit: Instant,
    backoff: Duration,
    /// What has failed since the last batch that was acknowledged.
    failing: Option<String>,
    logged_error: Option<(RDKafkaErrorCode, Instant)>,
}

impl Intake {
    pub(crate) fn new(parts: IntakeParts) -> Self {
        Intake {
            batch: Batch::new(Arc::clone(&parts.topics)),
            in_flight: Arc::default(),
            progress: Progress::default(),
            assigned: BTreeSet::new(),
            joined: false,
            generation: 0,
            next_seq: 0,
            hold: None,
            full_since: None,
            last_commit: Instant::now(),
            backoff: parts.settings.retry_backoff,
            failing: None,
            logged_error: None,
            parts,
        }
    }

    /// Runs until shutdown is requested and everything in flight is done, or something fails for good.
    pub(crate) fn run(mut self) -> Result<(), EngineError> {
        let result = self.subscribe().and_then(|()| self.consume()).and_then(|()| self.drain());
        if result.is_err() {
            self.parts.state.abandon();
        }
        self.parts.readiness.set_not_ready("stopped");
        self.parts.consumer.context().close();
        // Dropping `self` closes the channel to the workers, which ends them and then the publisher.
        result
    }

    /// In exactly_once only after the producer is connected: the transaction that a killed predecessor left open is
    /// ended by then, and with it the question which offsets are committed.
    fn subscribe(&mut self) -> Result<(), EngineError> {
        let mut connected = self.parts.delivery == Delivery::AtLeastOnce;
        while !connected {
            match self.parts.report_rx.recv_timeout(IDLE_POLL) {
                Ok(Report::Connected) => connected = true,
                Ok(Report::Failed { failure, .. }) => return Err(failure),
                Ok(Report::Acknowledged { .. }) => {}
                Err(RecvTimeoutError::Timeout) if self.parts.shutdown.is_requested() => return Ok(()),
                Err(RecvTimeoutError::Timeout) => self.show_state(),
                Err(RecvTimeoutError::Disconnected) => return Err(EngineError::PublisherGone),
            }
        }
        let topics: Vec<&str> = self.parts.topics.iter().map(|topic| &**topic).collect();
        self.parts
            .consumer
            .subscribe(&topics)
            .map_err(|source| EngineError::Subscribe { topics: topics.join(", "), source })
    }

    fn consume(&mut self) -> Result<(), EngineError> {
        while !self.parts.shutdown.is_requested() {
            self.follow_rebalances()?;
            self.take_reports()?;
            self.release_hold();
            self.commit_when_due(CommitMode::Async);
            self.submit_when_due();
            self.show_state();
            if self.has_room() {
                self.full_since = None;
                self.fill_batch()?;
            } else {
                self.wait_for_room()?;
            }
        }
        Ok(())
    }

    /// Polls until the batch is full or old, or there is nothing to read for a while.
    fn fill_batch(&mut self) -> Result<(), EngineError> {
        loop {
            let timeout = match self.batch.is_empty() {
                true => IDLE_POLL,
                false => self.parts.settings.batch_age.saturating_sub(self.batch.opened_at.elapsed()).min(IDLE_POLL),
            };
            if timeout.is_zero() {
                return Ok(());
            }
            let consumer = Arc::clone(&self.parts.consumer);
            match consumer.poll(timeout) {
                Some(Ok(message)) => {
                    self.push(&message);
                    // Asking the clock as well would be a good part of what a small record costs here.
                    if self.batch_is_full() {
                        return Ok(());
                    }
                }
                Some(Err(error)) => return self.consumer_error(error),
                // Nothing came, or an event was handled: let the caller look.
                None => return Ok(()),
            }
        }
    }

    fn push(&mut self, message: &BorrowedMessage<'_>) {
        let topic = message.topic();
        let input =
            self.parts.topics.iter().position(|known| &**known == topic).expect("only subscribed topics are delivered");
        let place = Partition { input, partition: message.partition() };
        let timestamp = message.timestamp().to_millis().unwrap_or_else(|| chrono::Utc::now().timestamp_millis());
        let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
        let headers = headers.map(|header| (header.key, header.value));
        let value = message.payload().unwrap_or_default();
        self.batch.push(place, message.offset(), timestamp, message.key(), value, headers);
    }

    fn batch_is_full(&self) -> bool {
        let settings = &self.parts.settings;
        self.batch.len() >= settings.batch_records || self.batch.bytes() >= settings.batch_bytes
    }

    fn batch_is_due(&self) -> bool {
        let is_old = || !self.batch.is_empty() && self.batch.opened_at.elapsed() >= self.parts.settings.batch_age;
        self.batch_is_full() || is_old()
    }

    fn has_room(&self) -> bool {
        self.in_flight.get() + self.batch.bytes() < self.parts.settings.max_in_flight_bytes
            && self.progress.batches_in_flight() < MAX_BATCHES
            && !self.batch_is_due()
    }

    fn submit_when_due(&mut self) {
        let has_room = self.in_flight.get() < self.parts.settings.max_in_flight_bytes
            && self.progress.batches_in_flight() < MAX_BATCHES;
        if self.batch_is_due() && has_room {
            self.submit();
        }
    }

    fn submit(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let settings = &self.parts.settings;
        // As large as the last one, so that a batch is rarely moved while it grows.
        let (records, bytes) = (self.batch.len(), self.batch.bytes());
        let next = Batch::over(
            self.in_flight.take_spare(),
            Arc::clone(&self.parts.topics),
            (records + records / 8).min(settings.batch_records),
            (bytes + bytes / 8).min(settings.batch_bytes.saturating_mul(2)),
        );
        let mut batch = std::mem::replace(&mut self.batch, next);
        batch.count_into(&self.in_flight);
        self.progress.taken(self.next_seq, &batch.spans());
        let job = Job { generation: self.generation, seq: self.next_seq, batch };
        self.next_seq += 1;
        // The channel holds MAX_BATCHES. After a failure old jobs may still be in it; workers discard those at once.
        if self.parts.job_tx.send(job).is_err() {
            debug!("the workers are gone");
        }
    }

    /// No room: wait for acknowledgements, and keep the group alive by polling while everything is paused.
    fn wait_for_room(&mut self) -> Result<(), EngineError> {
        let since = *self.full_since.get_or_insert_with(Instant::now);
        if since.elapsed() < PAUSE_AFTER {
            return self.wait_for_report(IDLE_POLL);
        }
        if self.hold.is_none() {
            let partitions = self.assigned.clone();
            self.pause(&partitions);
            self.hold = Some(Hold { partitions, until: Until::Room });
        }
        let consumer = Arc::clone(&self.parts.consumer);
        match consumer.poll(Duration::ZERO) {
            // A partition that was assigned meanwhile is not paused yet.
            Some(Ok(message)) => self.push(&message),
            Some(Err(error)) => self.consumer_error(error)?,
            None => {}
        }
        self.wait_for_report(IDLE_POLL)
    }

    fn wait_for_report(&mut self, timeout: Duration) -> Result<(), EngineError> {
        match self.parts.report_rx.recv_timeout(timeout) {
            Ok(report) => self.take_report(report),
            Err(RecvTimeoutError::Timeout) => Ok(()),
            Err(RecvTimeoutError::Disconnected) => Err(EngineError::PublisherGone),
        }
    }

    fn take_reports(&mut self) -> Result<(), EngineError> {
        loop {
            match self.parts.report_rx.try_recv() {
                Ok(report) => self.take_report(report)?,
                Err(TryRecvError::Empty) => return Ok(()),
                Err(TryRecvError::Disconnected) => return Err(EngineError::PublisherGone),
            }
        }
    }

    fn take_report(&mut self, report: Report) -> Result<(), EngineError> {
        match report {
            Report::Acknowledged { generation, seq } if generation == self.generation => {
                self.progress.acknowledged(seq);
                self.backoff = self.parts.settings.retry_backoff;
                self.failing = None;
                Ok(())
            }
            Report::Failed { generation, failure } if generation == self.generation => {
                if !failure.is_retriable() {
                    return Err(failure);
                }
                self.go_back(&failure);
                Ok(())
            }
            // Of a generation that has been given up.
            Report::Acknowledged { .. } | Report::Failed { .. } | Report::Connected => Ok(()),
        }
    }

    /// Starts a new generation at the last acknowledged records, after a pause.
    fn go_back(&mut self, failure: &EngineError) {
        self.telemetry().retrying(self.backoff, failure);
        self.start_generation();
        let targets: BTreeMap<Partition, i64> =
            self.progress.rewind().into_iter().filter(|(place, _)| self.assigned.contains(place)).collect();
        let mut partitions: BTreeSet<Partition> = targets.keys().copied().collect();
        self.pause(&partitions);
        // What was paused for another reason stays paused, and must be resumed with the rest.
        partitions.extend(self.hold.take().into_iter().flat_map(|hold| hold.partitions));
        let at = Instant::now() + self.backoff;
        self.failing = Some(format!("retrying: {}", with_causes(failure)));
        self.hold = Some(Hold { partitions, until: Until::Rewind { at, targets } });
        self.backoff = (self.backoff * 2).min(self.parts.settings.retry_backoff_max);
    }

    /// Everything in flight is given up; the records of the open batch are only noted, to be read again.
    fn start_generation(&mut self) {
        self.progress.taken(self.next_seq, &self.batch.spans());
        self.batch = Batch::new(Arc::clone(&self.parts.topics));
        self.generation = self.parts.state.next_generation();
        self.next_seq = 0;
    }

    fn release_hold(&mut self) {
        let Some(hold) = &self.hold else { return };
        let done = match &hold.until {
            Until::Room => {
                self.in_flight.get() < self.parts.settings.max_in_flight_bytes / 2
                    && self.progress.batches_in_flight() < MAX_BATCHES
            }
            Until::Rewind { at, targets, .. } => {
                if Instant::now() < *at {
                    return;
                }
                match self.seek(targets) {
                    Ok(()) => true,
                    Err(error) => {
                        warn!(%error, "cannot go back yet, trying again");
                        let retry_at = Instant::now() + self.parts.settings.retry_backoff_max.min(BROKER_TIMEOUT);
                        if let Some(Hold { until: Until::Rewind { at, .. }, .. }) = &mut self.hold {
                            *at = retry_at;
                        }
                        return;
                    }
                }
            }
        };
        if done && let Some(hold) = self.hold.take() {
            self.resume(&hold.partitions);
        }
    }

    /// Lets each partition be read again from its last good offset.
    fn seek(&self, targets: &BTreeMap<Partition, i64>) -> KafkaResult<()> {
        if targets.is_empty() {
            return Ok(());
        }
        let mut targets = targets.clone();
        if self.parts.delivery == Delivery::ExactlyOnce {
            // The outcome of a failed commit may be unknown here; the broker knows.
            let places: Vec<_> = targets.iter().map(|(&place, &offset)| (place, offset)).collect();
            let asked = topic_partition_list(&self.parts.topics, &places);
            let committed = self.parts.consumer.committed_offsets(asked, BROKER_TIMEOUT)?;
            for element in committed.elements() {
                if let (Some(place), Offset::Offset(offset)) =
                    (self.place(element.topic(), element.partition()), element.offset())
                {
                    targets.insert(place, offset);
                }
            }
        }
        let places: Vec<_> = targets.into_iter().collect();
        let list = topic_partition_list(&self.parts.topics, &places);
        let sought = self.parts.consumer.seek_partitions(list, BROKER_TIMEOUT)?;
        sought.elements().iter().try_for_each(|element| element.error())
    }

    fn follow_rebalances(&mut self) -> Result<(), EngineError> {
        while let Some(rebalance) = self.parts.consumer.context().next_rebalance() {
            match rebalance {
                Rebalance::Assign(list) => self.assign(&list),
                Rebalance::Revoke(list) => self.revoke(&list)?,
            }
        }
        if let Some(code) = self.parts.consumer.context().take_commit_failure() {
            self.telemetry().commit_failed(code);
            self.progress.commit_failed();
        }
        Ok(())
    }

    fn assign(&mut self, list: &TopicPartitionList) {
        let consumer = &self.parts.consumer;
        let result = match consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => consumer.incremental_assign(list),
            _ => consumer.assign(list),
        };
        if let Err(error) = result {
            warn!(%error, "the assignment was not accepted");
        }
        let places = self.places(list);
        self.telemetry().rebalanced("assigned", &places);
        self.assigned.extend(places);
        self.joined = true;
    }

    /// Drains, commits, fences, and only then lets the partitions go.
    fn revoke(&mut self, list: &TopicPartitionList) -> Result<(), EngineError> {
        let lost = self.parts.consumer.assignment_lost();
        let places = self.places(list);
        self.telemetry().rebalanced(if lost { "lost" } else { "revoked" }, &places);
        if lost {
            // Somebody else may own them already: nothing of ours may be committed.
            self.batch = Batch::new(Arc::clone(&self.parts.topics));
            if self.parts.delivery == Delivery::ExactlyOnce {
                self.start_generation();
                drop(self.progress.rewind());
            }
        } else if !places.is_empty() {
            self.submit();
            self.finish_in_flight(self.parts.settings.drain_deadline)?;
            self.commit(CommitMode::Sync);
        }
        self.progress.revoke(&places);
        for place in &places {
            self.assigned.remove(place);
            self.telemetry().forget_lag(*place);
        }
        if let Some(hold) = &mut self.hold {
            hold.partitions.retain(|place| !places.contains(place));
            if let Until::Rewind { targets, .. } = &mut hold.until {
                targets.retain(|place, _| !places.contains(place));
            }
        }
        let consumer = &self.parts.consumer;
        let result = match consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => consumer.incremental_unassign(list),
            _ => consumer.unassign(),
        };
        if let Err(error) = result {
            warn!(%error, "the revocation was not accepted");
        }
        Ok(())
    }

    /// Waits until nothing is in flight. A failure ends the waiting: what is not acknowledged is read again, by us
    /// or by the next owner.
    fn finish_in_flight(&mut self, deadline: Duration) -> Result<bool, EngineError> {
        let started = Instant::now();
        while self.progress.batches_in_flight() > 0 {
            // A transaction's outcome must be known before its partitions go, however long that takes.
            let patient = self.parts.delivery == Delivery::ExactlyOnce && !self.parts.shutdown.is_requested();
            if started.elapsed() >= deadline && (!patient || self.parts.consumer.assignment_lost()) {
                return Ok(false);
            }
            self.wait_for_report(IDLE_POLL)?;
        }
        Ok(true)
    }

    fn drain(&mut self) -> Result<(), EngineError> {
        if self.next_seq == 0 && self.generation == 0 && self.batch.is_empty() {
            // Nothing was ever taken; a producer that still waits for the broker need not be waited for.
            self.parts.state.abandon();
            return Ok(());
        }
        let deadline = self.parts.settings.drain_deadline;
        self.submit();
        self.parts.readiness.set_not_ready("draining");
        if !self.finish_in_flight(deadline)? {
            let batches = self.progress.batches_in_flight();
            return Err(EngineError::Drain { batches, deadline });
        }
        if !self.parts.connection.is_down() {
            self.commit(CommitMode::Sync);
        }
        Ok(())
    }

    fn commit_when_due(&mut self, mode: CommitMode) {
        if self.last_commit.elapsed() >= self.parts.settings.commit_interval {
            self.last_commit = Instant::now();
            self.commit(mode);
            self.show_lag();
        }
    }

    fn commit(&mut self, mode: CommitMode) {
        let offsets = self.progress.take_committable();
        // In exactly_once the transaction has committed them.
        if offsets.is_empty() || self.parts.delivery == Delivery::ExactlyOnce {
            return;
        }
        let started = Instant::now();
        let list = topic_partition_list(&self.parts.topics, &offsets);
        if let Err(error) = self.parts.consumer.commit(&list, mode) {
            self.telemetry().commit_failed(error.rdkafka_error_code());
            self.progress.commit_failed();
        }
        self.telemetry().committed(started.elapsed());
    }

    fn consumer_error(&mut self, error: KafkaError) -> Result<(), EngineError> {
        if matches!(error, KafkaError::MessageConsumptionFatal(_)) {
            return Err(EngineError::Consume(error));
        }
        let code = error.rdkafka_error_code();
        self.parts.connection.seen_error(code);
        let news =
            self.logged_error.is_none_or(|(logged, at)| Some(logged) != code || at.elapsed() > ERROR_LOG_INTERVAL);
        if let (Some(code), true) = (code, news) {
            self.logged_error = Some((code, Instant::now()));
            if code != RDKafkaErrorCode::AllBrokersDown {
                warn!(%error, "kafka consumer");
            }
        }
        Ok(())
    }

    fn show_state(&self) {
        let readiness = &self.parts.readiness;
        if self.parts.connection.is_down() {
            readiness.set_not_ready("no kafka broker is reachable");
        } else if let Some(failing) = &self.failing {
            readiness.set_not_ready(failing.clone());
        } else if !self.joined {
            readiness.set_not_ready("waiting for the consumer group");
        } else {
            readiness.set_ready();
        }
        self.telemetry().in_flight(self.in_flight.get(), self.progress.batches_in_flight());
    }

    fn show_lag(&self) {
        let ends = self.parts.consumer.context().take_watermarks();
        if ends.is_empty() {
            return;
        }
        for (place, position) in self.progress.positions() {
            if let Some(end) = ends.get(&place) {
                self.telemetry().lag(place, (end - position).max(0));
            }
        }
    }

    fn telemetry(&self) -> &Telemetry {
        &self.parts.telemetry
    }

    fn pause(&self, partitions: &BTreeSet<Partition>) {
        let places: Vec<_> = partitions.iter().map(|&place| (place, 0)).collect();
        if let Err(error) = self.parts.consumer.pause(&topic_partition_list(&self.parts.topics, &places)) {
            debug!(%error, "pause");
        }
    }

    /// Only partitions that were paused here and are still ours may be resumed.
    fn resume(&self, partitions: &BTreeSet<Partition>) {
        let places: Vec<_> = partitions.intersection(&self.assigned).map(|&place| (place, 0)).collect();
        if let Err(error) = self.parts.consumer.resume(&topic_partition_list(&self.parts.topics, &places)) {
            debug!(%error, "resume");
        }
    }

    fn place(&self, topic: &str, partition: i32) -> Option<Partition> {
        let input = self.parts.topics.iter().position(|known| &**known == topic)?;
        Some(Partition { input, partition })
    }

    fn places(&self, list: &TopicPartitionList) -> Vec<Partition> {
        list.elements().iter().filter_map(|element| self.place(element.topic(), element.partition())).collect()
    }
}

/// Partitions with offsets, as librdkafka wants them.
pub(crate) fn topic_partition_list(topics: &[Arc<str>], offsets: &[(Partition, i64)]) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(offsets.len());
    for (place, offset) in offsets {
        list.add_partition_offset(&topics[place.input], place.partition, Offset::Offset(*offset))
            .expect("offsets are not negative");
    }
    list
}
