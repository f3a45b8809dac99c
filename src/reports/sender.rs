//! Scheduled reports: one instance at a time makes what is due and sends it.
//!
//! What was sent is noted in the store afterwards, so a crash between the two sends a report twice, and none is lost. A
//! report that was missed while nothing ran is sent late, but only the newest; at the very first start nothing is due.

use std::time::{Duration, Instant};

use chrono::Utc;
use tokio::runtime::Handle;
use tracing::{info, warn};

use crate::config::Config;
use crate::mail::MailError;
use crate::metrics::Metrics;
use crate::stream::{Leadership, LeadershipError};
use crate::supervisor::Shutdown;
use crate::volumes::{StoreError, VolumeStore};

use super::mail::Mailer;
use super::schedule::{period_seconds, slot_before};
use super::{DetailFilter, report};

/// How often the group's membership is served.
const LOOK: Duration = Duration::from_millis(500);
/// How often the clock is looked at.
const CHECK: Duration = Duration::from_secs(5);
/// Pauses after a failure: a mail server that is away is asked a few times an hour.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(15 * 60);

/// Why a report was not sent; it is tried again.
#[derive(Debug, thiserror::Error)]
pub enum SenderError {
    #[error("the store did not answer")]
    Store(#[from] StoreError),
    #[error("the report could not be sent")]
    Mail(#[from] MailError),
    #[error(transparent)]
    Leadership(#[from] LeadershipError),
}

/// One instance's part in sending reports.
#[derive(Debug)]
pub struct ReportSender {
    config: Config,
    store: VolumeStore,
    mailer: Mailer,
    /// Where connections live.
    runtime: Handle,
    metrics: Metrics,
}

impl ReportSender {
    pub fn new(config: Config, store: VolumeStore, runtime: Handle, metrics: &Metrics) -> Result<Self, MailError> {
        let mailer = Mailer::new(&config.smtp, &config.reports.email_to)?;
        Ok(ReportSender { config, store, mailer, runtime, metrics: metrics.clone() })
    }

    /// Runs on a thread of its own until shutdown is requested.
    pub fn run(self, shutdown: &Shutdown) -> Result<(), SenderError> {
        let Config { kafka, stream, output, .. } = &self.config;
        let mut leadership = Leadership::join(kafka, stream, "reports", &output.forecasts)?;
        let mut not_before = Instant::now();
        let mut pause = FIRST_PAUSE;
        while !shutdown.is_requested() {
            if !leadership.poll(LOOK) || Instant::now() < not_before {
                continue;
            }
            match self.runtime.block_on(self.send_what_is_due(Utc::now().timestamp())) {
                Ok(sent) => {
                    if sent {
                        self.metrics.reports("sent").inc();
                        info!(recipients = self.config.reports.email_to.len(), "report sent");
                    }
                    pause = FIRST_PAUSE;
                    not_before = Instant::now() + CHECK;
                }
                Err(error) => {
                    self.metrics.reports("failed").inc();
                    let error = format!("{:#}", anyhow::Error::from(error));
                    warn!(error, ?pause, "the report is sent later");
                    not_before = Instant::now() + pause;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
        Ok(())
    }

    /// Sends the report that is due now, if it has not been; says whether it did.
    async fn send_what_is_due(&self, now: i64) -> Result<bool, SenderError> {
        let schedule = self.config.reports.schedule;
        let slot = slot_before(schedule, now);
        let second = u32::try_from(slot).unwrap_or(0);
        match self.store.last_report().await? {
            Some(last) if last >= second => return Ok(false),
            Some(_) => {}
            None => {
                self.store.report_sent(second).await?;
                return Ok(false);
            }
        }
        let (from, to) = ((slot - period_seconds(schedule)) * 1000, slot * 1000);
        let made = report(&self.store, from, to, &DetailFilter::default()).await?;
        self.mailer.send(&made).await?;
        self.store.report_sent(second).await?;
        Ok(true)
    }
}
