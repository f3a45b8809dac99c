//! `VolumeStore`: where events, volumes and forecasts are kept. ClickHouse in production; memory for the demo, for tests
//! and for a look without a server. Both hold the same sets of offsets and give the same answers.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use crate::config::{Config, StoreKind};
use crate::record::{Kind, QueueEvent};

use super::audit::AuditEntry;
use super::clickhouse::{ClickHouseStore, StoreError};
use super::feedback::{Claimed, ConfidenceCount, FeedbackRow, Judgement, JudgementQuery, ReviewCursor, ReviewFilter};
use super::memory::MemoryStore;
use super::question::{ArmCount, DecisionCount, EventQuery, QueueCount};
use super::row::{AccuracyRow, AnomalyRow, EventRow, ForecastRow, ForecastTotalRow};
use super::stored::StoredEvent;

/// The name that stands for all queues together.
pub const TOTAL: &str = "*";

/// Which volumes are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VolumeQuery {
    /// First second that counts, since 1970-01-01 UTC; a multiple of `bucket`.
    pub from: i64,
    /// First second that no longer counts.
    pub to: i64,
    /// Seconds in a bucket, a multiple of 60.
    pub bucket: i64,
}

/// The volume of one queue, or of `TOTAL`, in one bucket. Buckets without events are left out.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Volume {
    pub queue: String,
    /// Start of the bucket in seconds since 1970-01-01 UTC.
    pub at: i64,
    pub events: u64,
}

/// Where volumes are kept; cloning shares it.
#[derive(Debug, Clone)]
pub enum VolumeStore {
    ClickHouse(Arc<ClickHouseStore>),
    Memory(Arc<MemoryStore>),
}

impl VolumeStore {
    /// The store that the configuration names. Nothing is connected yet.
    pub fn new(config: &Config) -> Self {
        match config.volumes.store {
            StoreKind::ClickHouse => VolumeStore::ClickHouse(Arc::new(ClickHouseStore::new(&config.clickhouse))),
            StoreKind::Memory => VolumeStore::Memory(Arc::new(MemoryStore::new(config.volumes.memory_sets))),
        }
    }

    /// Creates or updates the tables, or (without `migrate`) finds out whether somebody else has. Nothing may be inserted
    /// before: rows that come before the materialized view would be missing in the volumes for ever.
    pub async fn prepare(&self, migrate: bool) -> Result<(), StoreError> {
        match self {
            VolumeStore::ClickHouse(store) if migrate => store.migrate().await,
            VolumeStore::ClickHouse(store) => store.check_migrated().await,
            VolumeStore::Memory(_) => Ok(()),
        }
    }

    /// Adds events to their volumes, all or (after an error) an unknown part of them; adding them again does no harm.
    pub async fn insert_events(&self, rows: &[EventRow<'_>]) -> Result<(), StoreError> {
        match self {
            VolumeStore::ClickHouse(store) => store.insert_events(rows).await,
            VolumeStore::Memory(store) => {
                store.insert_events(rows);
                Ok(())
            }
        }
    }

    /// Volumes by queue, and of all queues together, in order of queue and time. An event counts in each queue that it
    /// was decided for, and once in the total.
    pub async fn volumes(&self, query: VolumeQuery) -> Result<Vec<Volume>, StoreError> {
        self.volumes_of(query, None).await
    }

    /// The same of one queue, or of `TOTAL`.
    pub async fn volumes_of(&self, query: VolumeQuery, queue: Option<&str>) -> Result<Vec<Volume>, StoreError> {
        let mut volumes = match self {
            VolumeStore::ClickHouse(store) => store.volumes(query, queue).await?,
            VolumeStore::Memory(store) => store.volumes(query, queue),
        };
        volumes.sort_unstable();
        Ok(volumes)
    }

    /// Events of whole minutes by queue, kind and priority. Seconds since 1970-01-01 UTC, `to` no longer counts.
    pub async fn queue_counts(&self, from: i64, to: i64) -> Result<Vec<QueueCount>, StoreError> {
        let mut counts = match self {
            VolumeStore::ClickHouse(store) => store.queue_counts(from, to).await?,
            VolumeStore::Memory(store) => store.queue_counts(from, to),
        };
        counts.sort_unstable();
        Ok(counts)
    }

    /// Events by routing and tier, of those that the store still has. Milliseconds since 1970-01-01 UTC.
    pub async fn decision_counts(&self, from: i64, to: i64) -> Result<Vec<DecisionCount>, StoreError> {
        let mut counts = match self {
            VolumeStore::ClickHouse(store) => store.decision_counts(from, to).await?,
            VolumeStore::Memory(store) => store.decision_counts(from, to),
        };
        counts.sort_unstable();
        Ok(counts)
    }

    /// One event, as it was decided last; the memory store has the newest events only, here and below.
    pub async fn event(&self, id: Uuid) -> Result<Option<StoredEvent>, StoreError> {
        match self {
            VolumeStore::ClickHouse(store) => store.event(id).await,
            VolumeStore::Memory(store) => Ok(store.event(id)),
        }
    }

    /// Events by time, the newest first.
    pub async fn events(&self, query: &EventQuery) -> Result<Vec<StoredEvent>, StoreError> {
        match self {
            VolumeStore::ClickHouse(store) => store.events(query).await,
            VolumeStore::Memory(store) => Ok(store.events(query)),
        }
    }

    /// Notes a change; noting it again does no harm.
    pub async fn audit(&self, entry: &AuditEntry) -> Result<(), StoreError> {
        match self {
            VolumeStore::ClickHouse(store) => store.insert("audit_log", std::slice::from_ref(entry)).await,
            VolumeStore::Memory(store) => {
                store.audit(entry);
                Ok(())
            }
        }
    }

    /// Changes between two milliseconds since 1970-01-01 UTC, the newest first.
    pub async fn audit_log(&self, from: i64, to: i64, limit: usize) -> Result<Vec<AuditEntry>, StoreError> {
        match self {
            VolumeStore::ClickHouse(store) => store.audit_log(from, to, limit).await,
            VolumeStore::Memory(store) => Ok(store.audit_log(from, to, limit)),
        }
    }

    pub async fn insert_forecasts(&self, totals: &[ForecastTotalRow], steps: &[ForecastRow]) -> Result<(), StoreError> {
        match self {
            // The totals come last: a forecast whose total is there is complete.
            VolumeStore::ClickHouse(store) => {
                store.insert("forecasts", steps).await?;
                store.insert("forecast_totals", totals).await
            }
            VolumeStore::Memory(store) => {
                store.insert_forecasts(totals, steps);
                Ok(())
            }
        }
    }

    /// When the newest forecast of a window starts, in seconds since 1970-01-01 UTC.
    pub async fn newest_forecast(&self, window: &str) -> Result<Option<u32>, StoreError> {
        match self {
            VolumeStore::ClickHouse(store) => store.newest_forecast(window).await,
            VolumeStore::Memory(store) => Ok(store.newest_forecast(window)),
        }
    }

    /// Forecasts of a window whose horizon ended at or before `ended_by` and after `ended_after`, and that have not been
    /// compared with what came true.
    pub async fn forecasts_to_compare(
        &self,
        window: &str,
        ended_after: u32,
        ended_by: u32,
    ) -> Result<Vec<ForecastTotalRow>, StoreError> {
        match self {
            VolumeStore::ClickHouse(store) => store.forecasts_to_compare(window, ended_after, ended_by).await,
            VolumeStore::Memory(store) => Ok(store.forecasts_to_compare(window, ended_after, ended_by)),
        }
    }

    /// The steps of the forecasts of a window that start at `starts_at`, by queue and time.
    pub async fn forecast_steps(&self, window: &str, starts_at: u32) -> Result<Vec<ForecastRow>, StoreError> {
        match self {
            VolumeStore::ClickHouse(store) => store.forecast_steps(window, starts_at).await,
            VolumeStore::Memory(store) => Ok(store.forecast_steps(window, starts_at)),
        }
    }

    /// What the forecasts of a window that start at `starts_at` say as a whole, by queue.
    pub async fn forecast_totals(&self, window: &str, starts_at: u32) -> Result<Vec<ForecastTotalRow>, StoreError> {
        match self {
            VolumeStore::ClickHouse(store) => store.forecast_totals(window, starts_at).await,
            VolumeStore::Memory(store) => Ok(store.forecast_totals(window, starts_at)),
        }
    }

    pub async fn insert_accuracy(&self, rows: &[AccuracyRow]) -> Result<(), StoreError> {
        match self {
            VolumeStore::ClickHouse(store) => store.insert("forecast_accuracy", rows).await,
            VolumeStore::Memory(store) => {
                store.insert_accuracy(rows);
                Ok(())
            }
        }
    }

    pub async fn insert_anomalies(&self, rows: &[AnomalyRow]) -> Result<(), StoreError> {
        match self {
            VolumeStore::ClickHouse(store) => store.insert("anomalies", rows).await,
            VolumeStore::Memory(store) => {
                store.insert_anomalies(rows);
                Ok(())
            }
        }
    }

    /// When the last anomaly of each queue of a window was, in seconds since 1970-01-01 UTC.
    pub async fn last_anomalies(&self, window: &str) -> Result<Vec<(String, u32)>, StoreError> {
        match self {
            VolumeStore::ClickHouse(store) => store.last_anomalies(window).await,
            VolumeStore::Memory(store) => Ok(store.last_anomalies(window)),
        }
    }

    /// Adds feedback; adding the same again does no harm.
    pub async fn insert_feedback(&self, rows: &[FeedbackRow]) -> Result<(), StoreError> {
        match self {
            VolumeStore::ClickHouse(store) => store.insert_feedback(rows).await,
            VolumeStore::Memory(store) => {
                store.insert_feedback(rows);
                Ok(())
            }
        }
    }

    /// Events that nobody has judged yet, the least confident first, and where to go on when there are more.
    pub async fn reviews(
        &self,
        filter: &ReviewFilter,
        limit: usize,
        after: Option<ReviewCursor>,
    ) -> Result<(Vec<QueueEvent<'static>>, Option<ReviewCursor>), StoreError> {
        let mut events = match self {
            VolumeStore::ClickHouse(store) => store.reviews(filter, limit + 1, after).await?,
            VolumeStore::Memory(store) => store.reviews(filter, limit + 1, after),
        };
        let has_more = events.len() > limit;
        events.truncate(limit);
        let next = events.last().filter(|_| has_more).map(ReviewCursor::of);
        Ok((events.into_iter().map(QueueEvent::from).collect(), next))
    }

    /// Takes an event for review until the lease is over: of several who ask at once, one gets it. Who has it already
    /// keeps it.
    pub async fn claim(&self, event_id: Uuid, reviewer: &str, lease: Duration) -> Result<Claimed, StoreError> {
        match self {
            VolumeStore::ClickHouse(store) => store.claim(event_id, crate::record::new_id(), reviewer, lease).await,
            VolumeStore::Memory(store) => Ok(store.claim(event_id, reviewer, lease)),
        }
    }

    /// Gives a claimed event back; whose it is not changes nothing.
    pub async fn release(&self, event_id: Uuid, reviewer: &str) -> Result<(), StoreError> {
        match self {
            VolumeStore::ClickHouse(store) => store.release(event_id, reviewer).await,
            VolumeStore::Memory(store) => {
                store.release(event_id, reviewer);
                Ok(())
            }
        }
    }

    /// The newest feedback of each event with the event itself, newest first.
    pub async fn judgements(&self, query: &JudgementQuery) -> Result<Vec<Judgement>, StoreError> {
        match self {
            VolumeStore::ClickHouse(store) => store.judgements(query).await,
            VolumeStore::Memory(store) => Ok(store.judgements(query)),
        }
    }

    /// How confident the decisions on events of this time were; milliseconds since 1970-01-01 UTC.
    pub async fn confidence(&self, from: i64, to: i64) -> Result<Vec<ConfidenceCount>, StoreError> {
        match self {
            VolumeStore::ClickHouse(store) => store.confidence(from, to).await,
            VolumeStore::Memory(store) => Ok(store.confidence(from, to)),
        }
    }

    /// What each arm said about events of this time, while a challenger is tried; milliseconds since 1970-01-01 UTC.
    pub async fn arm_counts(&self, from: i64, to: i64) -> Result<Vec<ArmCount>, StoreError> {
        match self {
            VolumeStore::ClickHouse(store) => store.arm_counts(from, to).await,
            VolumeStore::Memory(store) => Ok(store.arm_counts(from, to)),
        }
    }

    /// The slot of the last scheduled training of a kind that was done, in seconds since 1970-01-01 UTC.
    pub async fn last_training(&self, kind: Kind) -> Result<Option<u32>, StoreError> {
        match self {
            VolumeStore::ClickHouse(store) => store.last_training(kind).await,
            VolumeStore::Memory(store) => Ok(store.last_training(kind)),
        }
    }

    pub async fn training_done(&self, kind: Kind, slot: u32) -> Result<(), StoreError> {
        match self {
            VolumeStore::ClickHouse(store) => store.training_done(kind, slot).await,
            VolumeStore::Memory(store) => {
                store.training_done(kind, slot);
                Ok(())
            }
        }
    }

    /// Queues that any event was ever routed to, sorted.
    pub async fn queues(&self) -> Result<Vec<String>, StoreError> {
        match self {
            VolumeStore::ClickHouse(store) => store.queues().await,
            VolumeStore::Memory(store) => Ok(store.queues()),
        }
    }

    /// The slot of the last scheduled report that was sent, in seconds since 1970-01-01 UTC.
    pub async fn last_report(&self) -> Result<Option<u32>, StoreError> {
        match self {
            VolumeStore::ClickHouse(store) => store.last_report().await,
            VolumeStore::Memory(store) => Ok(store.last_report()),
        }
    }

    pub async fn report_sent(&self, slot: u32) -> Result<(), StoreError> {
        match self {
            VolumeStore::ClickHouse(store) => store.report_sent(slot).await,
            VolumeStore::Memory(store) => {
                store.report_sent(slot);
                Ok(())
            }
        }
    }
}
