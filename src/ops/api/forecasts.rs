//! What is expected: `GET /v1/forecasts`, `/v1/forecasts.csv`, `/v1/trends`. Always the newest forecast of each window.

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Json, Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::record::rfc3339;
use crate::volumes::{ForecastRow, ForecastTotalRow, VolumeQuery};

use super::ApiState;
use super::problem::Problem;
use super::request::Query;

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Parameters {
    /// This forecast window of the configuration alone; all of them if absent.
    window: Option<String>,
    /// This queue alone; `*`: all together. All of them if absent.
    queue: Option<String>,
}

impl Parameters {
    /// The newest forecasts as a whole, window by window, each with its queues in the order of their names.
    async fn totals(&self, state: &ApiState) -> Result<Vec<ForecastTotalRow>, Problem> {
        let windows = match &self.window {
            Some(name) => vec![state.window(name)?.name.as_str()],
            None => state.windows.iter().map(|window| window.name.as_str()).collect(),
        };
        let mut totals = Vec::new();
        for window in windows {
            if let Some(starts_at) = state.store.newest_forecast(window).await? {
                totals.extend(state.store.forecast_totals(window, starts_at).await?);
            }
        }
        totals.retain(|total| self.queue.as_ref().is_none_or(|queue| *queue == total.queue));
        Ok(totals)
    }

    /// The same with their steps.
    async fn forecasts(&self, state: &ApiState) -> Result<Vec<(ForecastTotalRow, Vec<ForecastRow>)>, Problem> {
        let totals = self.totals(state).await?;
        let mut forecasts = Vec::with_capacity(totals.len());
        for of_window in totals.chunk_by(|a, b| a.window == b.window) {
            let mut steps = state.store.forecast_steps(&of_window[0].window, of_window[0].starts_at).await?;
            for total in of_window {
                let (own, others) = steps.into_iter().partition(|step| step.queue == total.queue);
                steps = others;
                forecasts.push((total.clone(), own));
            }
        }
        Ok(forecasts)
    }
}

/// A mean with its intervals: events of a bucket, or of the whole horizon.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Expected {
    mean: f64,
    lower80: f64,
    upper80: f64,
    lower95: f64,
    upper95: f64,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ForecastPoint {
    /// Start of the bucket.
    #[schema(format = "date-time")]
    at: String,
    #[serde(flatten)]
    expected: Expected,
}

/// How the method did at earlier origins of the same series; absent where the series is too short.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Backtest {
    /// Mean absolute scaled error.
    #[serde(skip_serializing_if = "Option::is_none")]
    mase: Option<f64>,
    /// Share of buckets within the 95 % interval.
    #[serde(skip_serializing_if = "Option::is_none")]
    coverage95: Option<f64>,
}

/// The forecast of one queue in one window, as it was published.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct QueueForecast {
    /// `*`: all queues together.
    queue: String,
    window: String,
    #[schema(format = "date-time")]
    made_at: String,
    /// Start of the first bucket.
    #[schema(format = "date-time")]
    from: String,
    bucket_seconds: u32,
    points: Vec<ForecastPoint>,
    /// The sum over all points, with intervals of its own.
    total: Expected,
    /// That the total exceeds the volume of the equally long time before `from`.
    probability_of_increase: f64,
    trend: Trend,
    method: String,
    backtest: Backtest,
}

#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Trend {
    Falling,
    Steady,
    Rising,
}

impl Trend {
    /// From the number that the tables hold.
    fn of(total: &ForecastTotalRow) -> Self {
        match total.trend {
            1 => Trend::Falling,
            3 => Trend::Rising,
            _ => Trend::Steady,
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Forecasts {
    forecasts: Vec<QueueForecast>,
}

/// The newest forecasts
///
/// Of each window and queue, with every bucket. A window that has no forecast yet is left out.
#[utoipa::path(
    get, path = "/v1/forecasts", tag = "forecasts", params(Parameters),
    responses((status = 200, description = "The forecasts.", body = Forecasts)),
)]
pub(super) async fn forecasts(
    State(state): State<ApiState>,
    Query(parameters): Query<Parameters>,
) -> Result<Json<Forecasts>, Problem> {
    let forecasts = parameters.forecasts(&state).await?.into_iter().map(|(total, steps)| QueueForecast {
        from: rfc3339(i64::from(total.starts_at) * 1000),
        made_at: rfc3339(total.made_at),
        bucket_seconds: total.bucket_seconds,
        points: steps
            .into_iter()
            .map(|step| ForecastPoint {
                at: rfc3339(i64::from(step.at) * 1000),
                expected: Expected {
                    mean: step.mean,
                    lower80: step.lower80,
                    upper80: step.upper80,
                    lower95: step.lower95,
                    upper95: step.upper95,
                },
            })
            .collect(),
        total: expected_total(&total),
        probability_of_increase: total.probability_of_increase,
        trend: Trend::of(&total),
        backtest: Backtest { mase: known(total.backtest_mase), coverage95: known(total.backtest_coverage95) },
        queue: total.queue,
        window: total.window,
        method: total.method,
    });
    Ok(Json(Forecasts { forecasts: forecasts.collect() }))
}

fn expected_total(total: &ForecastTotalRow) -> Expected {
    let ForecastTotalRow { mean, lower80, upper80, lower95, upper95, .. } = *total;
    Expected { mean, lower80, upper80, lower95, upper95 }
}

/// The tables hold what is not known as no number.
fn known(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}

const CSV_COLUMNS: [&str; 10] =
    ["window", "queue", "made_at", "from", "at", "mean", "lower80", "upper80", "lower95", "upper95"];

/// The newest forecasts as CSV
///
/// One row for each window, queue and bucket, with a header.
#[utoipa::path(
    get, path = "/v1/forecasts.csv", tag = "forecasts", params(Parameters),
    responses((status = 200, description = "The forecasts.", body = String, content_type = "text/csv")),
)]
pub(super) async fn forecasts_csv(
    State(state): State<ApiState>,
    Query(parameters): Query<Parameters>,
) -> Result<Response, Problem> {
    let forecasts = parameters.forecasts(&state).await?;
    let mut writer = csv::Writer::from_writer(Vec::new());
    let mut write = |row: [String; CSV_COLUMNS.len()]| writer.write_record(row).expect("writing to memory");
    write(CSV_COLUMNS.map(str::to_owned));
    for (total, steps) in forecasts {
        let (made_at, from) = (rfc3339(total.made_at), rfc3339(i64::from(total.starts_at) * 1000));
        for step in steps {
            let at = rfc3339(i64::from(step.at) * 1000);
            let [mean, lower80, upper80, lower95, upper95] =
                [step.mean, step.lower80, step.upper80, step.lower95, step.upper95].map(|value| value.to_string());
            let (window, queue) = (step.window, step.queue);
            write([window, queue, made_at.clone(), from.clone(), at, mean, lower80, upper80, lower95, upper95]);
        }
    }
    let text = writer.into_inner().expect("writing to memory");
    Ok(([(header::CONTENT_TYPE, "text/csv; charset=utf-8")], text).into_response())
}

/// Whether more or less is expected than there was.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct QueueTrend {
    /// `*`: all queues together.
    queue: String,
    window: String,
    /// Start of the horizon.
    #[schema(format = "date-time")]
    from: String,
    horizon_seconds: u32,
    /// rising: the probability of an increase is at least 0.8; falling: at most 0.2.
    trend: Trend,
    probability_of_increase: f64,
    /// Of the whole horizon.
    expected: Expected,
    /// Events of the equally long time before `from`.
    previous: u64,
    /// What is expected more than there was, as a share of what there was; absent where there was nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    change: Option<f64>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Trends {
    trends: Vec<QueueTrend>,
}

/// Trends
///
/// The newest forecast of each window and queue as a whole, compared with the equally long time before it.
#[utoipa::path(
    get, path = "/v1/trends", tag = "forecasts", params(Parameters),
    responses((status = 200, description = "The trends.", body = Trends)),
)]
pub(super) async fn trends(
    State(state): State<ApiState>,
    Query(parameters): Query<Parameters>,
) -> Result<Json<Trends>, Problem> {
    let totals = parameters.totals(&state).await?;
    let mut trends = Vec::with_capacity(totals.len());
    for of_window in totals.chunk_by(|a, b| a.window == b.window) {
        let ForecastTotalRow { starts_at, steps, bucket_seconds, .. } = of_window[0];
        let (start, horizon) = (i64::from(starts_at), steps * bucket_seconds);
        let before = VolumeQuery { from: start - i64::from(horizon), to: start, bucket: i64::from(bucket_seconds) };
        let volumes = state.store.volumes_of(before, parameters.queue.as_deref()).await?;
        for total in of_window {
            let of_queue = volumes.iter().filter(|volume| volume.queue == total.queue);
            let previous: u64 = of_queue.map(|volume| volume.events).sum();
            trends.push(QueueTrend {
                queue: total.queue.clone(),
                window: total.window.clone(),
                from: rfc3339(start * 1000),
                horizon_seconds: horizon,
                trend: Trend::of(total),
                probability_of_increase: total.probability_of_increase,
                expected: expected_total(total),
                previous,
                change: (previous > 0).then(|| total.mean / previous as f64 - 1.0),
            });
        }
    }
    Ok(Json(Trends { trends }))
}
