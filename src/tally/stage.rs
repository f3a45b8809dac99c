//! The tally `Stage`: a batch of queue events in, one insert, and nothing out but dead letters. The offsets are committed
//! after the insert, so the events of a failed one are read again.

use std::time::Instant;

use prometheus::Histogram;
use tokio::runtime::Handle;

use crate::config::Config;
use crate::metrics::{self, Metrics, StageName};
use crate::record::QueueEvent;
use crate::stream::{Batch, Outputs, Stage, StageError};
use crate::volumes::{EventRow, Failure, InvalidEvent, StoreError, VolumeStore};

use super::insert::{Retries, insert_all};

/// One worker of the tally role.
#[derive(Debug)]
pub struct TallyStage {
    store: VolumeStore,
    /// Where the store's connections live; the engine's workers are plain threads.
    runtime: Handle,
    retries: Retries,
    metrics: Metrics,
    insert_duration: Histogram,
}

impl TallyStage {
    pub fn new(store: VolumeStore, config: &Config, runtime: Handle, metrics: &Metrics) -> Self {
        TallyStage {
            store,
            runtime,
            retries: Retries {
                deadline: config.clickhouse.retry_deadline,
                first_pause: config.stream.retry_backoff,
                longest_pause: config.stream.retry_backoff_max,
            },
            insert_duration: metrics.stage(StageName::Insert),
            metrics: metrics.clone(),
        }
    }
}

impl Stage for TallyStage {
    fn process(&mut self, batch: &Batch, outputs: &mut Outputs) -> Result<(), StageError> {
        let mut events: Vec<(usize, QueueEvent<'_>)> = Vec::with_capacity(batch.len());
        let mut invalid: Vec<(usize, InvalidEvent)> = Vec::new();
        for (index, input) in batch.iter().enumerate() {
            match serde_json::from_slice(input.value()) {
                Ok(event) => events.push((index, event)),
                Err(error) => invalid.push((index, error.into())),
            }
        }
        let mut rows: Vec<(usize, EventRow<'_>)> = Vec::with_capacity(events.len());
        for (index, event) in &events {
            match EventRow::of(event) {
                Ok(row) => rows.push((*index, row)),
                Err(error) => invalid.push((*index, error)),
            }
        }
        let (indices, rows): (Vec<usize>, Vec<EventRow<'_>>) = rows.into_iter().unzip();
        let started = Instant::now();
        let store = &self.store;
        let work = insert_all(rows.len(), self.retries, |range| store.insert_events(&rows[range]));
        let rejected = self.runtime.block_on(work).map_err(|error| {
            self.metrics.store_failures("insert", error.failure().as_str()).inc();
            stage_error(error)
        })?;
        self.insert_duration.observe(started.elapsed().as_secs_f64());

        let mut outcomes = metrics::OutcomeCounts::default();
        for index in &indices {
            outputs.stored(*index);
        }
        let mut dead = |outputs: &mut Outputs, index: usize, reason: &'static str, error: &dyn std::fmt::Display| {
            outputs.dead_letter(batch.get(index), index, reason, error);
            outcomes.count(metrics::Outcome::DeadLetter, "none");
            outputs.counts.increments.push((self.metrics.dead_letters(reason), 1));
        };
        for (index, error) in &invalid {
            dead(outputs, *index, "invalid_event", error);
        }
        for row in &rejected {
            self.metrics.store_failures("insert", Failure::Row.as_str()).inc();
            dead(outputs, indices[row.index], "refused_by_clickhouse", &row.error);
        }
        outcomes.add(metrics::Outcome::Stored, "none", (indices.len() - rejected.len()) as u64);
        outputs.counts.outcomes.merge(&outcomes);
        Ok(())
    }
}

/// Whatever is wrong with the server, Kafka holds the work until it is put right; the role says meanwhile that it is
/// not ready, and why.
fn stage_error(error: StoreError) -> StageError {
    StageError::Retry(Box::new(error))
}
