//! Training on a schedule: one instance at a time trains what is due, and promotes what is not worse. The daemons take a
//! promoted version up when they see that the registry has changed.
//!
//! What was done is noted in the store afterwards, so after a crash in between it is done again. What was missed while
//! nothing ran is made up for once; at the very first start nothing is due.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use chrono::Utc;
use tokio::runtime::Handle;
use tracing::{error, info, warn};

use crate::config::{Config, Schedule};
use crate::finding::chain;
use crate::metrics::Metrics;
use crate::model::Registry;
use crate::model::dataset::{Columns, Dataset, DatasetError};
use crate::model::train::TrainSettings;
use crate::record::Kind;
use crate::reports::slot_before;
use crate::stream::{Leadership, LeadershipError};
use crate::supervisor::Shutdown;
use crate::volumes::{JudgementQuery, StoreError, VolumeStore};

use super::run::{MOST_JUDGEMENTS, RetrainError, Retrained, model_name, retrain};

/// How often the group's membership is served, also while a model is trained.
const LOOK: Duration = Duration::from_millis(500);
/// How often the clock is looked at.
const CHECK: Duration = Duration::from_secs(5);
/// Pauses after a failure.
const FIRST_PAUSE: Duration = Duration::from_secs(30);
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// Why there is no new version; it is tried again.
#[derive(Debug, thiserror::Error)]
pub enum TrainerError {
    #[error("the store did not answer")]
    Store(#[from] StoreError),
    #[error("the labelled rows cannot be read")]
    Rows(#[from] DatasetError),
    #[error(transparent)]
    Retrain(#[from] RetrainError),
    #[error(transparent)]
    Leadership(#[from] LeadershipError),
    #[error("the training panicked, or there was no thread for it")]
    Thread,
}

/// One instance's part in it.
#[derive(Debug, Clone)]
pub struct Trainer {
    config: Arc<Config>,
    schedule: Schedule,
    store: VolumeStore,
    /// Where connections live.
    runtime: Handle,
    metrics: Metrics,
}

impl Trainer {
    pub fn new(config: Config, schedule: Schedule, store: VolumeStore, runtime: Handle, metrics: &Metrics) -> Self {
        Trainer { config: Arc::new(config), schedule, store, runtime, metrics: metrics.clone() }
    }

    /// Runs on a thread of its own until shutdown is requested.
    pub fn run(self, shutdown: &Shutdown) -> Result<(), TrainerError> {
        let Config { kafka, stream, output, .. } = &*self.config;
        let mut leadership = Leadership::join(kafka, stream, "retrain", &output.forecasts)?;
        let mut not_before = Instant::now();
        let mut pause = FIRST_PAUSE;
        while !shutdown.is_requested() {
            if !leadership.poll(LOOK) || Instant::now() < not_before {
                continue;
            }
            not_before = Instant::now() + CHECK;
            for kind in Kind::ALL {
                if self.rows_of(kind).is_none() || shutdown.is_requested() {
                    continue;
                }
                match self.train_what_is_due(kind, &mut leadership, shutdown) {
                    Ok(()) => pause = FIRST_PAUSE,
                    Err(error) => {
                        self.metrics.trainings(kind, "failed").inc();
                        error!(%kind, error = chain(&error), ?pause, "the scheduled training is tried again");
                        not_before = Instant::now() + pause;
                        pause = (pause * 2).min(LONGEST_PAUSE);
                    }
                }
            }
        }
        Ok(())
    }

    fn rows_of(&self, kind: Kind) -> Option<&std::path::Path> {
        match kind {
            Kind::Ticket => self.config.retrain.ticket.as_deref(),
            Kind::Log => self.config.retrain.log.as_deref(),
        }
    }

    fn train_what_is_due(
        &self,
        kind: Kind,
        leadership: &mut Leadership,
        shutdown: &Shutdown,
    ) -> Result<(), TrainerError> {
        let slot = u32::try_from(slot_before(self.schedule, Utc::now().timestamp())).unwrap_or(0);
        match self.runtime.block_on(self.store.last_training(kind))? {
            Some(last) if last >= slot => return Ok(()),
            Some(_) => {}
            None => return Ok(self.runtime.block_on(self.store.training_done(kind, slot))?),
        }
        info!(%kind, "a scheduled training begins");
        let leads = Arc::new(AtomicBool::new(true));
        let (trainer, still_leads) = (self.clone(), Arc::clone(&leads));
        let training = thread::Builder::new()
            .name("training".to_owned())
            .spawn(move || trainer.train(kind, &still_leads))
            .map_err(|_| TrainerError::Thread)?;
        // The group must hear of this instance meanwhile.
        while !training.is_finished() {
            leads.store(leadership.poll(LOOK), Ordering::Relaxed);
            if shutdown.is_requested() {
                // It ends with the process, and nothing of it is in use.
                leads.store(false, Ordering::Relaxed);
                return Ok(());
            }
        }
        let trained = training.join().map_err(|_| TrainerError::Thread)??;
        let result = if trained.promoted { "promoted" } else { "kept" };
        self.metrics.trainings(kind, result).inc();
        let Retrained { name, version, corrections, seconds, .. } = &trained;
        match trained.promoted {
            true => info!(%kind, name, version, corrections, seconds, "a new version is in use"),
            false => {
                warn!(%kind, name, version, corrections, seconds, "the new version is not in use: it is worse, or cannot be told")
            }
        }
        Ok(self.runtime.block_on(self.store.training_done(kind, slot))?)
    }

    fn train(&self, kind: Kind, leads: &AtomicBool) -> Result<Retrained, TrainerError> {
        let (config, retraining) = (&self.config, &self.config.retrain);
        let rows = self.rows_of(kind).expect("checked by the caller");
        let registry = Registry::new(config.model.registry.as_deref().expect("the configuration needs one"));
        let base = Dataset::read(rows, kind, &Columns::default())?;
        let to = Utc::now().timestamp_millis() + 1;
        let from = (to - retraining.since.as_millis() as i64).max(0);
        let query = JudgementQuery { from, to, with_text: true, limit: MOST_JUDGEMENTS };
        let judgements = self.runtime.block_on(self.store.judgements(&query))?;
        let settings = TrainSettings {
            time_budget: retraining.time_budget.as_secs_f64(),
            device: config.model.device,
            command: format!("triaged train --kind {kind} --from-feedback (scheduled)"),
            ..TrainSettings::new(kind, &model_name(&config.model, kind))
        };
        let may_promote = |is_not_worse| is_not_worse && leads.load(Ordering::Relaxed);
        Ok(retrain(config, &registry, &settings, base, &judgements, &mut |_| {}, may_promote)?)
    }
}
