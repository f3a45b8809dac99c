//! `--backtest`: the last horizon of each series is held back and forecast from the rest; errors by the definitions of
//! the M4 competition.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Instant;

use rayon::prelude::*;
use serde::Serialize;

use crate::forecast::{Level, Series, accuracy, forecast_by_method};

use super::forecast_all;
use super::input::Given;

/// MSIS is that of 95 % intervals.
const ALPHA: f64 = 0.05;

/// Means over all series.
#[derive(Debug, Clone, Default, Serialize)]
struct Score {
    series: usize,
    smape: f64,
    mase: f64,
    owa: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    msis: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    coverage95: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Report {
    /// Series that are too short to hold anything back.
    left_out: usize,
    seconds: f64,
    chosen: Score,
    by_method: BTreeMap<String, Score>,
}

/// A series with what was held back.
struct Trial {
    series: Series,
    season: usize,
    held_back: Vec<f64>,
}

/// Sums of sMAPE and MASE, of a method and of Naive2 on the same series.
#[derive(Debug, Clone, Default)]
struct Sums {
    series: usize,
    own: [f64; 2],
    naive: [f64; 2],
}

impl Sums {
    fn add(&mut self, trial: &Trial, means: &[f64], naive: &[f64]) {
        let history = &trial.series.values;
        // A series that never changes has no scale; it is right to forecast it without error.
        let mase = |forecast: &[f64]| accuracy::mase(history, trial.season, &trial.held_back, forecast).unwrap_or(0.0);
        self.series += 1;
        for (sums, forecast) in [(&mut self.own, means), (&mut self.naive, naive)] {
            sums[0] += accuracy::smape(&trial.held_back, forecast);
            sums[1] += mase(forecast);
        }
    }

    fn score(&self) -> Score {
        let mean = |sum: f64| sum / self.series.max(1) as f64;
        let [smape, mase] = self.own.map(mean);
        let [naive_smape, naive_mase] = self.naive.map(mean);
        let owa = accuracy::owa(smape, mase, naive_smape, naive_mase);
        Score { series: self.series, smape, mase, owa, msis: None, coverage95: None }
    }
}

pub(super) fn run(given: &[Given], json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
    let trials: Vec<Trial> = given.iter().filter_map(|given| hold_back(&given.series)).collect();
    let series: Vec<Series> = trials.iter().map(|trial| trial.series.clone()).collect();
    let started = Instant::now();
    let forecasts = forecast_all(&series);
    let seconds = started.elapsed().as_secs_f64();
    let naive: Vec<Vec<f64>> = trials
        .par_iter()
        .map(|trial| accuracy::naive2(&trial.series.values, trial.season, trial.held_back.len()))
        .collect();

    let mut chosen = Sums::default();
    let (mut msis, mut coverage) = (0.0, 0.0);
    for ((trial, forecast), naive) in trials.iter().zip(&forecasts).zip(&naive) {
        chosen.add(trial, &forecast.means, naive);
        let (lower, upper): (Vec<f64>, Vec<f64>) = forecast.bounds.iter().map(|bounds| bounds.at(Level::P95)).unzip();
        let history = &trial.series.values;
        msis += accuracy::msis(history, trial.season, &trial.held_back, &lower, &upper, ALPHA).unwrap_or(0.0);
        coverage += accuracy::coverage(&trial.held_back, &lower, &upper);
    }
    let count = trials.len().max(1) as f64;
    let chosen = Score { msis: Some(msis / count), coverage95: Some(coverage / count), ..chosen.score() };

    let by_series: Vec<Vec<(String, Vec<f64>)>> = series.par_iter().map(forecast_by_method).collect();
    let mut by_method: BTreeMap<String, Sums> = BTreeMap::new();
    for ((trial, methods), naive) in trials.iter().zip(&by_series).zip(&naive) {
        for (name, means) in methods {
            by_method.entry(name.clone()).or_default().add(trial, means, naive);
        }
    }
    let by_method = by_method.into_iter().map(|(name, sums)| (name, sums.score())).collect();
    let report = Report { left_out: given.len() - trials.len(), seconds, chosen, by_method };
    if json {
        serde_json::to_writer_pretty(&mut *out, &report).map_err(std::io::Error::from)?;
        writeln!(out)?;
    } else {
        table(&report, out)?;
    }
    Ok(())
}

fn hold_back(series: &Series) -> Option<Trial> {
    let kept = series.values.len().checked_sub(series.horizon).filter(|kept| *kept > 0)?;
    let (history, held_back) = series.values.split_at(kept);
    Some(Trial {
        series: Series { values: history.to_vec(), ..series.clone() },
        season: series.seasons.first().copied().unwrap_or(1).max(1),
        held_back: held_back.to_vec(),
    })
}

fn table(report: &Report, out: &mut dyn Write) -> std::io::Result<()> {
    writeln!(
        out,
        "{:<24} {:>7} {:>8} {:>8} {:>7} {:>8} {:>9}",
        "method", "series", "sMAPE", "MASE", "OWA", "MSIS", "95 % cov."
    )?;
    let row = |out: &mut dyn Write, name: &str, score: &Score| {
        let optional = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.3}"));
        writeln!(
            out,
            "{name:<24} {:>7} {:>8.3} {:>8.3} {:>7.3} {:>8} {:>9}",
            score.series,
            score.smape,
            score.mase,
            score.owa,
            optional(score.msis),
            optional(score.coverage95)
        )
    };
    row(out, "chosen by back-test", &report.chosen)?;
    for (name, score) in &report.by_method {
        row(out, name, score)?;
    }
    writeln!(out, "\n{:.1} s for {} series; {} too short", report.seconds, report.chosen.series, report.left_out)
}
