//! The forecast role: round after round of every window, on one instance at a time.
//!
//! A round is published to Kafka in one transaction and then written to the store, which is where the next round looks
//! what is done. After a crash between the two the round is made and published again, with the same ids.

use std::time::{Duration, Instant};

use chrono::Utc;
use tokio::runtime::Handle;
use tracing::{info, warn};

use crate::config::{Config, WindowSettings};
use crate::metrics::{Metrics, StageName};
use crate::readiness::RoleReadiness;
use crate::stream::{Leadership, LeadershipError};
use crate::supervisor::Shutdown;
use crate::volumes::{StoreError, VolumeStore};

use super::event::{ForecastEvent, announce_anomaly};
use super::round::{Round, round};

/// How often the group's membership is served and the windows are looked at.
const LOOK: Duration = Duration::from_millis(200);

/// Why a round was not published; it is made again later.
#[derive(Debug, thiserror::Error)]
pub enum ForecastError {
    #[error("the volume store did not answer")]
    Store(#[from] StoreError),
    #[error("the forecasts could not be published")]
    Publish(#[from] LeadershipError),
}

/// One instance of the role.
#[derive(Debug)]
pub struct Forecaster {
    config: Config,
    store: VolumeStore,
    /// Where the store's connections live.
    runtime: Handle,
    metrics: Metrics,
}

impl Forecaster {
    pub fn new(config: Config, store: VolumeStore, runtime: Handle, metrics: &Metrics) -> Self {
        Forecaster { config, store, runtime, metrics: metrics.clone() }
    }

    /// Runs until shutdown is requested.
    pub fn run(self, readiness: &RoleReadiness, shutdown: &Shutdown) -> Result<(), ForecastError> {
        let Config { kafka, stream, output, .. } = &self.config;
        let mut leadership = Leadership::join(kafka, stream, "forecast", &output.forecasts)?;
        let mut pause = stream.retry_backoff;
        let mut not_before = Instant::now();
        while !shutdown.is_requested() {
            let leads = leadership.poll(LOOK);
            self.metrics.forecast_leader().set(i64::from(leads));
            if !leads {
                // Standing by is what an instance that does not lead is there for.
                readiness.set_ready();
                continue;
            }
            if Instant::now() < not_before {
                continue;
            }
            match self.look(&mut leadership, shutdown) {
                Ok(()) => {
                    readiness.set_ready();
                    pause = stream.retry_backoff;
                    not_before = Instant::now() + LOOK * 5;
                }
                Err(error) => {
                    let error = format!("{:#}", anyhow::Error::from(error));
                    warn!(error, ?pause, "forecasts are made again");
                    readiness.set_not_ready(error);
                    self.metrics.role("forecast").retries.inc();
                    not_before = Instant::now() + pause;
                    pause = (pause * 2).min(stream.retry_backoff_max);
                }
            }
        }
        self.metrics.forecast_leader().set(0);
        readiness.set_not_ready("stopped");
        Ok(())
    }

    /// Makes and publishes whatever is due.
    fn look(&self, leadership: &mut Leadership, shutdown: &Shutdown) -> Result<(), ForecastError> {
        for window in &self.config.forecast.windows {
            if shutdown.is_requested() {
                return Ok(());
            }
            let started = Instant::now();
            let now = Utc::now().timestamp_millis();
            let made = self
                .runtime
                .block_on(round(&self.store, &self.config.forecast, window, now))
                .inspect_err(|error| self.metrics.store_failures("forecast", error.failure().as_str()).inc())?;
            if let Some(round) = made {
                self.publish(window, &round, leadership)?;
                let took = started.elapsed();
                self.metrics.stage(StageName::Forecast).observe(took.as_secs_f64());
                info!(window = window.name, series = round.forecasts.len(), ?took, "forecasts published");
            }
        }
        Ok(())
    }

    fn publish(
        &self,
        window: &WindowSettings,
        round: &Round,
        leadership: &mut Leadership,
    ) -> Result<(), ForecastError> {
        let (output, metrics) = (&self.config.output, &self.metrics);
        let mut announcements = Vec::with_capacity(round.forecasts.len() + round.anomalies.len());
        for (queue, forecast) in &round.forecasts {
            let place = (round.from, window.bucket_seconds());
            let event = ForecastEvent::new((&window.name, queue), place, round.made_at, forecast);
            announcements.push(event.announce(&output.forecasts));
        }
        announcements.extend(round.anomalies.iter().map(|row| announce_anomaly(&output.anomalies, row)));
        leadership.publish(announcements)?;
        self.runtime.block_on(async {
            self.store.insert_anomalies(&round.anomalies).await?;
            self.store.insert_accuracy(&round.accuracy).await?;
            self.store.insert_forecasts(&round.totals, &round.steps).await
        })?;
        metrics.forecasts(&window.name).inc_by(round.forecasts.len() as u64);
        metrics.forecast_start(&window.name).set(round.from);
        for row in &round.accuracy {
            metrics.set_forecast_accuracy(&row.window, &row.queue, row.mase, row.coverage95);
        }
        for row in &round.anomalies {
            metrics.anomalies(&row.window, &row.queue).inc();
            warn!(window = row.window, queue = row.queue, actual = row.actual, expected = row.expected, "anomaly");
        }
        Ok(())
    }
}
