//! States in the metrics what people say about each arm while a challenger is tried.

use std::convert::Infallible;
use std::time::Duration;

use chrono::Utc;
use tokio::time::{MissedTickBehavior, interval};
use tracing::warn;

use crate::arms::{ArmPair, compare};
use crate::metrics::Metrics;
use crate::record::Arm;
use crate::reload::Live;
use crate::supervisor::Shutdown;
use crate::volumes::VolumeStore;

/// People judge some events an hour.
const EVERY: Duration = Duration::from_secs(60);
/// How far back feedback counts.
const SPAN: Duration = Duration::from_secs(30 * 86_400);

/// Runs until `close` is requested.
pub(super) async fn watch(
    store: VolumeStore,
    pairs: Live<Vec<ArmPair>>,
    metrics: Metrics,
    close: Shutdown,
) -> Result<(), Infallible> {
    let mut looks = interval(EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = close.requested() => return Ok(()),
            _ = looks.tick() => {}
        }
        let to = Utc::now().timestamp_millis() + 1;
        match compare(&store, to - SPAN.as_millis() as i64, to, &pairs.get()).await {
            Ok(reports) => {
                let figures = reports.iter().flat_map(|report| {
                    [(Arm::Champion, &report.champion), (Arm::Challenger, &report.challenger)]
                        .map(|(arm, figures)| (report.kind, arm, figures.accuracy.of, figures.accuracy.share))
                });
                metrics.set_arm_accuracies(figures);
            }
            // The tables may not be there yet.
            Err(error) => warn!(%error, "the arms' accuracies are not known"),
        }
    }
}
