//! The tally `Stage`: a batch of queue events and feedback in, one insert of each, and nothing out but dead letters. The
//! offsets are committed after the inserts, so what a failed one held is read again.

use std::fmt::Display;
use std::time::Instant;

use chrono::Utc;
use prometheus::Histogram;
use tokio::runtime::Handle;

use crate::config::Config;
use crate::metrics::{self, Metrics, StageName};
use crate::record::{Feedback, QueueEvent};
use crate::stream::{Batch, Input, InputIndex, Outputs, Stage, StageError};
use crate::volumes::{
    AnomalyRow, EventRow, Failure, FeedbackRow, InvalidEvent, InvalidFeedback, StoreError, VolumeStore,
};

use super::alarm::DriftAlarm;
use super::drift::{DriftWatch, Shift};
use super::insert::{Rejected, Retries, insert_all};

/// One worker of the tally role.
#[derive(Debug)]
pub struct TallyStage {
    store: VolumeStore,
    /// The input that carries feedback; all others carry events.
    feedback: InputIndex,
    /// Where the store's connections live; the engine's workers are plain threads.
    runtime: Handle,
    retries: Retries,
    metrics: Metrics,
    insert_duration: Histogram,
    drift: DriftWatch,
    alarm: DriftAlarm,
}

/// Rows to be inserted, each with its place in the batch.
struct Indexed<T> {
    indices: Vec<usize>,
    rows: Vec<T>,
}

/// What cannot be stored, with the reason for its dead letter.
type Unstorable = Vec<(usize, &'static str, Box<dyn Display>)>;

impl TallyStage {
    pub fn new(
        store: VolumeStore,
        config: &Config,
        feedback: InputIndex,
        (drift, alarm): (DriftWatch, DriftAlarm),
        runtime: Handle,
        metrics: &Metrics,
    ) -> Self {
        TallyStage {
            store,
            feedback,
            runtime,
            retries: Retries {
                deadline: config.clickhouse.retry_deadline,
                first_pause: config.stream.retry_backoff,
                longest_pause: config.stream.retry_backoff_max,
            },
            insert_duration: metrics.stage(StageName::Insert),
            metrics: metrics.clone(),
            drift,
            alarm,
        }
    }

    fn insert(
        &self,
        events: &Indexed<EventRow<'_>>,
        feedback: &Indexed<FeedbackRow>,
    ) -> Result<(Vec<Rejected>, Vec<Rejected>), StageError> {
        let started = Instant::now();
        let (store, retries) = (&self.store, self.retries);
        let work = async {
            let (rows, said) = (&events.rows, &feedback.rows);
            let events = insert_all(rows.len(), retries, |range| store.insert_events(&rows[range])).await?;
            let feedback = insert_all(said.len(), retries, |range| store.insert_feedback(&said[range])).await?;
            Ok::<_, StoreError>((events, feedback))
        };
        let rejected = self.runtime.block_on(work).map_err(|error| {
            self.metrics.store_failures("insert", error.failure().as_str()).inc();
            stage_error(error)
        })?;
        self.insert_duration.observe(started.elapsed().as_secs_f64());
        Ok(rejected)
    }

    /// A shift is an anomaly among others. That it could not be written down is no reason to keep events waiting.
    fn announce(&self, shifts: &[Shift]) {
        if shifts.is_empty() {
            return;
        }
        let now = Utc::now();
        let row = |Shift { kind, of, value, limit, .. }: &Shift| AnomalyRow {
            window: "drift".to_owned(),
            queue: format!("{kind}/{of}"),
            at: u32::try_from(now.timestamp()).unwrap_or(0),
            detected_at: now.timestamp_millis(),
            actual: *value,
            expected: 0.0,
            lower99: 0.0,
            upper99: *limit,
            direction: 2,
        };
        let rows: Vec<AnomalyRow> = shifts.iter().map(row).collect();
        for row in &rows {
            self.metrics.anomalies(&row.window, &row.queue).inc();
            tracing::warn!(
                of = row.queue,
                value = row.actual,
                limit = row.upper99,
                "records are unlike those learned from"
            );
        }
        self.runtime.block_on(async {
            if let Err(error) = self.store.insert_anomalies(&rows).await {
                tracing::warn!(%error, "the shift was not written down");
            }
            for shift in shifts {
                self.alarm.raise(shift, now.timestamp_millis()).await;
            }
        });
    }
}

impl Stage for TallyStage {
    fn process(&mut self, batch: &Batch, outputs: &mut Outputs) -> Result<(), StageError> {
        let mut events: Vec<(usize, QueueEvent<'_>)> = Vec::with_capacity(batch.len());
        let mut feedback = Indexed { indices: Vec::new(), rows: Vec::new() };
        let mut unstorable: Unstorable = Vec::new();
        for (index, input) in batch.iter().enumerate() {
            if input.input() == self.feedback {
                match feedback_row(input) {
                    Ok(row) => feedback.push(index, row),
                    Err(error) => unstorable.push((index, "invalid_feedback", Box::new(error))),
                }
                continue;
            }
            match serde_json::from_slice(input.value()) {
                Ok(event) => events.push((index, event)),
                Err(error) => unstorable.push((index, "invalid_event", Box::new(InvalidEvent::from(error)))),
            }
        }
        let mut rows = Indexed { indices: Vec::with_capacity(events.len()), rows: Vec::with_capacity(events.len()) };
        for (index, event) in &events {
            match EventRow::of(event) {
                Ok(row) => rows.push(*index, row),
                Err(error) => unstorable.push((*index, "invalid_event", Box::new(error))),
            }
        }
        let (rejected_events, rejected_feedback) = self.insert(&rows, &feedback)?;
        self.announce(&self.drift.observe(events.iter().map(|(_, event)| event)));

        let mut outcomes = metrics::OutcomeCounts::default();
        for index in rows.indices.iter().chain(&feedback.indices) {
            outputs.stored(*index);
        }
        let rejected_events = rejected_events.into_iter().map(|row| (rows.indices[row.index], row.error));
        let rejected_feedback = rejected_feedback.into_iter().map(|row| (feedback.indices[row.index], row.error));
        for (index, error) in rejected_events.chain(rejected_feedback) {
            self.metrics.store_failures("insert", Failure::Row.as_str()).inc();
            unstorable.push((index, "refused_by_clickhouse", Box::new(error)));
        }
        for (index, reason, error) in &unstorable {
            outputs.dead_letter(batch.get(*index), *index, reason, error);
            outcomes.count(metrics::Outcome::DeadLetter, "none");
            outputs.counts.increments.push((self.metrics.dead_letters(reason), 1));
        }
        outcomes.add(metrics::Outcome::Stored, "none", (batch.len() - unstorable.len()) as u64);
        outputs.counts.outcomes.merge(&outcomes);
        Ok(())
    }
}

impl<T> Indexed<T> {
    fn push(&mut self, index: usize, row: T) {
        self.indices.push(index);
        self.rows.push(row);
    }
}

fn feedback_row(input: Input<'_>) -> Result<FeedbackRow, InvalidFeedback> {
    let feedback: Feedback<'_> = serde_json::from_slice(input.value())?;
    FeedbackRow::of(&feedback, &input.position(), input.timestamp())
}

/// Whatever is wrong with the server, Kafka holds the work until it is put right; the role says meanwhile that it is
/// not ready, and why.
fn stage_error(error: StoreError) -> StageError {
    StageError::Retry(Box::new(error))
}
