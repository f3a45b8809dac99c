//! The incidents `Stage`: a batch of queue events and updates in; urgent events and updates into the store, and nothing
//! out but dead letters. The offsets are committed after the inserts, so what a failed one held is read again.

use std::time::Instant;

use chrono::{DateTime, Utc};
use prometheus::Histogram;
use tokio::runtime::Handle;
use uuid::Uuid;

use crate::config::Config;
use crate::metrics::{self, Metrics, OutcomeCounts, StageName};
use crate::record::{IncidentUpdate, Priority, QueueEvent, UpdateFault, update_id_of};
use crate::stream::{Batch, Input, InputIndex, Outputs, Stage, StageError};
use crate::volumes::{IncidentEventRow, IncidentUpdateRow, VolumeStore};

use super::sighting::Sightings;

const INVALID: &str = "invalid_incident_update";

/// One worker of the incidents role.
#[derive(Debug)]
pub struct IncidentStage {
    store: VolumeStore,
    /// The input that carries updates; all others carry events.
    updates: InputIndex,
    sightings: Sightings,
    /// Where the store's connections live; the engine's workers are plain threads.
    runtime: Handle,
    metrics: Metrics,
    insert_duration: Histogram,
}

/// Why a message of the updates topic is none.
#[derive(Debug, thiserror::Error)]
enum InvalidUpdate {
    #[error("not the JSON of an update")]
    Json(#[from] serde_json::Error),
    #[error(transparent)]
    Fault(#[from] UpdateFault),
    #[error("at is no RFC 3339 time")]
    Time(#[from] chrono::ParseError),
}

impl IncidentStage {
    pub fn new(store: VolumeStore, config: &Config, updates: InputIndex, runtime: Handle, metrics: &Metrics) -> Self {
        IncidentStage {
            store,
            updates,
            sightings: Sightings::new(&config.incidents),
            runtime,
            insert_duration: metrics.stage(StageName::Insert),
            metrics: metrics.clone(),
        }
    }

    /// Whatever is wrong with the server, Kafka holds the work until it is put right.
    fn insert(&self, events: &[IncidentEventRow], updates: &[IncidentUpdateRow]) -> Result<(), StageError> {
        if events.is_empty() && updates.is_empty() {
            return Ok(());
        }
        let started = Instant::now();
        let work = async {
            self.store.insert_incident_events(events).await?;
            self.store.insert_incident_updates(updates).await
        };
        self.runtime.block_on(work).map_err(|error| {
            self.metrics.store_failures("incidents", error.failure().as_str()).inc();
            StageError::Retry(Box::new(error))
        })?;
        self.insert_duration.observe(started.elapsed().as_secs_f64());
        Ok(())
    }

    /// The row of an urgent event. What is no event goes to the dead letters from the tally role, which reads it too.
    fn sighting(&self, input: Input<'_>, now: i64) -> Option<IncidentEventRow> {
        let header = input.headers().find(|(name, _)| *name == "priority").and_then(|(_, value)| value);
        let stated: Option<Priority> = header.and_then(|text| std::str::from_utf8(text).ok()?.parse().ok());
        if stated.is_some_and(|priority| !self.sightings.concerns(priority)) {
            return None;
        }
        let event: QueueEvent<'_> = serde_json::from_slice(input.value()).ok()?;
        self.sightings.of(&event, now)
    }
}

impl Stage for IncidentStage {
    fn process(&mut self, batch: &Batch, outputs: &mut Outputs) -> Result<(), StageError> {
        let now = Utc::now().timestamp_millis();
        let (mut events, mut updates) = (Vec::new(), Vec::new());
        let mut invalid = Vec::new();
        for (index, input) in batch.iter().enumerate() {
            if input.input() == self.updates {
                match update_row(input) {
                    Ok(row) => {
                        updates.push(row);
                        outputs.stored(index);
                    }
                    Err(error) => invalid.push((index, error)),
                }
            } else if let Some(row) = self.sighting(input, now) {
                events.push(row);
                outputs.stored(index);
            } else {
                outputs.dropped(index);
            }
        }
        self.insert(&events, &updates)?;
        let mut outcomes = OutcomeCounts::default();
        let stored = events.len() + updates.len();
        outcomes.add(metrics::Outcome::Stored, "none", stored as u64);
        outcomes.add(metrics::Outcome::Dropped, "none", (batch.len() - stored - invalid.len()) as u64);
        for (index, error) in &invalid {
            outputs.dead_letter(batch.get(*index), *index, INVALID, error);
            outcomes.count(metrics::Outcome::DeadLetter, "none");
            outputs.counts.increments.push((self.metrics.dead_letters(INVALID), 1));
        }
        outputs.counts.outcomes.merge(&outcomes);
        Ok(())
    }
}

fn update_row(input: Input<'_>) -> Result<IncidentUpdateRow, InvalidUpdate> {
    let update: IncidentUpdate<'_> = serde_json::from_slice(input.value())?;
    update.check()?;
    let written_at = input.timestamp().max(0);
    let given_at = match &update.at {
        // A clock that runs ahead must not put it behind what comes later.
        Some(text) => DateTime::parse_from_rfc3339(text)?.timestamp_millis().clamp(0, written_at.max(1)),
        None => written_at,
    };
    Ok(IncidentUpdateRow {
        update_id: update.update_id.unwrap_or_else(|| update_id_of(&input.position())),
        incident_id: update.incident_id.unwrap_or(Uuid::nil()),
        event_id: update.event_id.unwrap_or(Uuid::nil()),
        action: update.action as i8 + 1,
        given_by: update.by.as_deref().unwrap_or_default().to_owned(),
        given_at,
        note: update.note.as_deref().unwrap_or_default().to_owned(),
        outcome: String::new(),
        version: 0,
    })
}
