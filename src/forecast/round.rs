//! One round of a window: what is forecast, what came true, and what was out of the ordinary. Reads the store and writes
//! nothing; `role` publishes the result.

use std::collections::BTreeMap;

use crate::config::{ForecastSettings as Settings, WindowSettings};
use crate::volumes::{
    AccuracyRow, AnomalyRow, ForecastRow, ForecastTotalRow, StoreError, TOTAL, VolumeQuery, VolumeStore,
};

use super::history::{History, due};
use super::{Forecast, ForecastSettings, Series, Trend, accuracy, forecast_many, reconcile};

/// Everything that one round has to say.
#[derive(Debug, Default)]
pub struct Round {
    /// By queue, the total among them.
    pub forecasts: BTreeMap<String, Forecast>,
    /// Second at which they start.
    pub from: i64,
    pub made_at: i64,
    pub totals: Vec<ForecastTotalRow>,
    pub steps: Vec<ForecastRow>,
    pub accuracy: Vec<AccuracyRow>,
    pub anomalies: Vec<AnomalyRow>,
}

/// Makes the forecasts of a window if they are due. `now` in milliseconds since 1970-01-01 UTC.
pub async fn round(
    store: &VolumeStore,
    settings: &Settings,
    window: &WindowSettings,
    now: i64,
) -> Result<Option<Round>, StoreError> {
    let newest = store.newest_forecast(&window.name).await?;
    let Some(from) = due(window, settings.settle.as_secs() as i64, now / 1000, newest.map(i64::from)) else {
        return Ok(None);
    };
    let bucket = window.bucket_seconds();
    let earliest = from.div_euclid(bucket) * bucket - window.lookback.as_secs() as i64;
    let volumes = store.volumes(VolumeQuery { from: earliest, to: from, bucket }).await?;
    let history = History::new(&volumes, bucket, from);
    let made = Making { window, history: &history, from, now };
    let forecasts = made.forecasts();
    let mut round = Round { from, made_at: now, ..Round::default() };
    for (queue, forecast) in &forecasts {
        round.totals.push(made.total_row(queue, forecast));
        round.steps.extend(made.step_rows(queue, forecast));
    }
    round.forecasts = forecasts;
    round.accuracy = made.compare(store, earliest).await?;
    if let Some(newest) = newest.filter(|newest| i64::from(*newest) < from) {
        round.anomalies = made.anomalies(store, newest, settings.anomaly_cooldown).await?;
    }
    Ok(Some(round))
}

struct Making<'a> {
    window: &'a WindowSettings,
    history: &'a History,
    from: i64,
    now: i64,
}

impl Making<'_> {
    /// Of every queue and of all together, made to add up.
    fn forecasts(&self) -> BTreeMap<String, Forecast> {
        let names: Vec<&String> = self.history.by_queue.keys().collect();
        let series: Vec<Series> = self
            .history
            .by_queue
            .values()
            .map(|values| Series {
                values: values.clone(),
                seasons: self.window.season_lengths(),
                horizon: self.window.steps(),
            })
            .collect();
        let forecasts = forecast_many(&series, &ForecastSettings::default());
        let mut by_queue: BTreeMap<String, Forecast> = names.into_iter().cloned().zip(forecasts).collect();
        let mut total = by_queue.remove(TOTAL).expect("a history has a total");
        let (names, mut queues): (Vec<String>, Vec<Forecast>) = by_queue.into_iter().unzip();
        if !queues.is_empty() {
            reconcile(&mut queues, &mut total);
        }
        let mut by_queue: BTreeMap<String, Forecast> = names.into_iter().zip(queues).collect();
        by_queue.insert(TOTAL.to_owned(), total);
        by_queue
    }

    fn total_row(&self, queue: &str, forecast: &Forecast) -> ForecastTotalRow {
        let values = &self.history.by_queue[queue];
        let season = self.window.season_lengths().first().copied().unwrap_or(1);
        let (total, bounds) = (&forecast.total, &forecast.total.bounds);
        ForecastTotalRow {
            window: self.window.name.clone(),
            queue: queue.to_owned(),
            starts_at: self.from as u32,
            made_at: self.now,
            steps: forecast.means.len() as u32,
            bucket_seconds: self.window.bucket_seconds() as u32,
            mean: total.mean,
            lower80: bounds.lower80,
            upper80: bounds.upper80,
            lower95: bounds.lower95,
            upper95: bounds.upper95,
            probability_of_increase: forecast.probability_of_increase,
            trend: match forecast.trend {
                Trend::Falling => 1,
                Trend::Steady => 2,
                Trend::Rising => 3,
            },
            method: forecast.method.clone(),
            scale: accuracy::seasonal_scale(values, season)
                .or_else(|| accuracy::seasonal_scale(values, 1))
                .unwrap_or(0.0),
            backtest_mase: forecast.backtest.mase.unwrap_or(f64::NAN),
            backtest_coverage95: forecast.backtest.coverage95.unwrap_or(f64::NAN),
        }
    }

    fn step_rows(&self, queue: &str, forecast: &Forecast) -> impl Iterator<Item = ForecastRow> {
        let bucket = self.window.bucket_seconds();
        let steps = forecast.means.iter().zip(&forecast.bounds).enumerate();
        steps.map(move |(step, (mean, bounds))| ForecastRow {
            window: self.window.name.clone(),
            queue: queue.to_owned(),
            starts_at: self.from as u32,
            made_at: self.now,
            at: (self.from + step as i64 * bucket) as u32,
            mean: *mean,
            lower80: bounds.lower80,
            upper80: bounds.upper80,
            lower95: bounds.lower95,
            upper95: bounds.upper95,
            lower99: bounds.lower99,
            upper99: bounds.upper99,
        })
    }

    /// Forecasts whose horizon has passed, against what came true.
    async fn compare(&self, store: &VolumeStore, earliest: i64) -> Result<Vec<AccuracyRow>, StoreError> {
        // What began before the history can no longer be compared in full.
        let ended_after = u32::try_from(earliest + self.window.horizon.as_secs() as i64).unwrap_or(0);
        let name = &self.window.name;
        let due = store.forecasts_to_compare(name, ended_after, self.from as u32).await?;
        let mut rows = Vec::new();
        let mut steps: Vec<ForecastRow> = Vec::new();
        let mut steps_of = None;
        for total in due {
            if steps_of != Some(total.starts_at) {
                steps = store.forecast_steps(name, total.starts_at).await?;
                steps_of = Some(total.starts_at);
            }
            let of_queue: Vec<(&ForecastRow, f64)> = steps
                .iter()
                .filter(|step| step.queue == total.queue)
                .filter_map(|step| Some((step, self.history.at(&step.queue, i64::from(step.at))?)))
                .collect();
            if of_queue.len() == total.steps as usize {
                rows.push(accuracy_row(&total, &of_queue, self.now));
            }
        }
        Ok(rows)
    }

    /// Buckets since the newest forecast began that lie outside its 99 % interval, one for each queue within the
    /// cool-down.
    async fn anomalies(
        &self,
        store: &VolumeStore,
        newest: u32,
        cooldown: usize,
    ) -> Result<Vec<AnomalyRow>, StoreError> {
        let name = &self.window.name;
        let mut last: BTreeMap<String, i64> =
            store.last_anomalies(name).await?.into_iter().map(|(queue, at)| (queue, i64::from(at))).collect();
        let quiet = cooldown as i64 * self.window.bucket_seconds();
        let mut rows = Vec::new();
        for step in store.forecast_steps(name, newest).await? {
            let at = i64::from(step.at);
            let Some(actual) = self.history.at(&step.queue, at).filter(|_| at < self.from) else { continue };
            let is_above = actual > step.upper99;
            if !is_above && actual >= step.lower99 {
                continue;
            }
            // One that lies after the bucket was found by a clock that was ahead.
            if last.get(&step.queue).is_some_and(|last| *last <= at && at - last <= quiet) {
                continue;
            }
            last.insert(step.queue.clone(), at);
            rows.push(AnomalyRow {
                window: name.clone(),
                queue: step.queue,
                at: step.at,
                detected_at: self.now,
                actual,
                expected: step.mean,
                lower99: step.lower99,
                upper99: step.upper99,
                direction: if is_above { 2 } else { 1 },
            });
        }
        Ok(rows)
    }
}

fn accuracy_row(total: &ForecastTotalRow, steps: &[(&ForecastRow, f64)], now: i64) -> AccuracyRow {
    let count = steps.len().max(1) as f64;
    let share = |inside: &dyn Fn(&ForecastRow, f64) -> bool| {
        steps.iter().filter(|(step, actual)| inside(step, *actual)).count() as f64 / count
    };
    let error = steps.iter().map(|(step, actual)| (step.mean - actual).abs()).sum::<f64>() / count;
    AccuracyRow {
        window: total.window.clone(),
        queue: total.queue.clone(),
        starts_at: total.starts_at,
        compared_at: now,
        steps: total.steps,
        method: total.method.clone(),
        // A history that never changed has no scale.
        mase: if total.scale > 0.0 { error / total.scale } else { f64::NAN },
        coverage80: share(&|step, actual| (step.lower80..=step.upper80).contains(&actual)),
        coverage95: share(&|step, actual| (step.lower95..=step.upper95).contains(&actual)),
        forecast_total: total.mean,
        actual_total: steps.iter().map(|(_, actual)| actual).sum(),
    }
}
