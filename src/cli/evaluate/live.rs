//! `triaged evaluate --live`: champion and challenger by what they said on the stream and what people said about it.

use std::io::{self, Write, stdout};
use std::time::Duration;

use anyhow::Context;
use chrono::Utc;

use crate::arms::{ArmFigures, ArmReport, compare, pairs};
use crate::cli::{Globals, UsageError, write_json};
use crate::config::StoreKind;
use crate::reports::Proportion;
use crate::volumes::VolumeStore;

pub(super) fn run(since: Duration, globals: &Globals) -> anyhow::Result<()> {
    globals.log_warnings();
    let config = globals.load_config()?;
    if config.volumes.store == StoreKind::Memory {
        return Err(UsageError("volumes.store is memory, which another process cannot read".to_owned()).into());
    }
    let pairs = pairs(&config).context("the models that are compared")?;
    if pairs.is_empty() {
        return Err(UsageError("model.challenger names no model that could be compared".to_owned()).into());
    }
    let store = VolumeStore::new(&config);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let to = Utc::now().timestamp_millis() + 1;
    let from = (to - since.as_millis() as i64).max(0);
    let reports = runtime.block_on(compare(&store, from, to, &pairs)).context("reading events and feedback")?;
    if globals.json {
        return write_json(&reports);
    }
    let mut out = stdout().lock();
    for (place, report) in reports.iter().enumerate() {
        if place > 0 {
            writeln!(out)?;
        }
        write_arms(&mut out, report)?;
    }
    Ok(())
}

fn write_arms(out: &mut impl Write, report: &ArmReport) -> io::Result<()> {
    writeln!(out, "{} records, {}; intervals are of 95 %", report.kind, report.mode)?;
    let header = ["arm", "model", "events", "confidence", "judged", "accuracy"];
    writeln!(
        out,
        "{:<11} {:<24} {:>10}  {:<22} {:>7}  {}",
        header[0], header[1], header[2], header[3], header[4], header[5]
    )?;
    for (arm, figures) in [("champion", &report.champion), ("challenger", &report.challenger)] {
        let ArmFigures { model, events, confidence, accuracy } = figures;
        let confidence = confidence
            .map_or_else(|| "-".to_owned(), |mean| format!("{:.4} ({:.4}-{:.4})", mean.mean, mean.lower, mean.upper));
        let judged = accuracy.of;
        writeln!(out, "{arm:<11} {model:<24} {events:>10}  {confidence:<22} {judged:>7}  {}", share(accuracy))?;
    }
    if let Some(agreement) = &report.agreement {
        writeln!(out, "they agree on the queue of {} of {} events", share(agreement), agreement.of)?;
    }
    let Some(difference) = report.difference.accuracy else {
        return writeln!(out, "too few events were judged to compare accuracies");
    };
    match (report.difference.lower, report.difference.upper, report.difference.p_value) {
        (Some(lower), Some(upper), _) => {
            writeln!(
                out,
                "the challenger's accuracy less the champion's: {difference:+.4} ({lower:+.4} to {upper:+.4})"
            )
        }
        (_, _, Some(p_value)) => writeln!(
            out,
            "the challenger's accuracy less the champion's: {difference:+.4} (McNemar's exact test: p = {p_value:.4})"
        ),
        _ => Ok(()),
    }
}

fn share(proportion: &Proportion) -> String {
    match proportion.share {
        Some(share) => format!("{share:.4} ({:.4}-{:.4})", proportion.lower, proportion.upper),
        None => "-".to_owned(),
    }
}
