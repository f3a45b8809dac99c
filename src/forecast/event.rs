//! The JSON of what the role publishes; see `schemas/forecast.json` and `schemas/anomaly.json`.

use serde::Serialize;

use crate::record::rfc3339;
use crate::stream::{Announcement, Headers};
use crate::volumes::AnomalyRow;

use super::{Bounds, Forecast, Trend};

const FORECAST_TYPE: &str = "dev.triaged.forecast.v1";
const ANOMALY_TYPE: &str = "dev.triaged.anomaly.v1";

/// A mean with its intervals. Units: events a bucket, or events in the whole horizon.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Estimate {
    pub mean: f64,
    pub lower80: f64,
    pub upper80: f64,
    pub lower95: f64,
    pub upper95: f64,
}

impl Estimate {
    pub fn new(mean: f64, bounds: &Bounds) -> Self {
        let Bounds { lower80, upper80, lower95, upper95, .. } = *bounds;
        Estimate { mean, lower80, upper80, lower95, upper95 }
    }
}

/// One bucket.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Point {
    /// Start of the bucket, RFC 3339.
    pub at: String,
    #[serde(flatten)]
    pub estimate: Estimate,
}

/// How the method did at earlier origins of the same series.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Backtest {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mase: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub coverage95: Option<f64>,
}

/// The value of `forecasts`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ForecastEvent<'a> {
    /// `*`: all queues together.
    pub queue: &'a str,
    pub window: &'a str,
    pub made_at: String,
    /// Start of the first bucket, RFC 3339.
    pub from: String,
    pub bucket_seconds: i64,
    pub points: Vec<Point>,
    /// The sum over all buckets.
    pub total: Estimate,
    /// Probability that the total exceeds that of the equally long time before.
    pub probability_of_increase: f64,
    pub trend: Trend,
    pub method: &'a str,
    pub backtest: Backtest,
}

impl<'a> ForecastEvent<'a> {
    /// `from` and the bucket in seconds, `made_at` in milliseconds since 1970-01-01 UTC.
    pub fn new(
        (window, queue): (&'a str, &'a str),
        (from, bucket_seconds): (i64, i64),
        made_at: i64,
        forecast: &'a Forecast,
    ) -> Self {
        let steps = forecast.means.iter().zip(&forecast.bounds).enumerate();
        ForecastEvent {
            queue,
            window,
            made_at: rfc3339(made_at),
            from: rfc3339(from * 1000),
            bucket_seconds,
            points: steps
                .map(|(step, (mean, bounds))| Point {
                    at: rfc3339((from + step as i64 * bucket_seconds) * 1000),
                    estimate: Estimate::new(*mean, bounds),
                })
                .collect(),
            total: Estimate::new(forecast.total.mean, &forecast.total.bounds),
            probability_of_increase: forecast.probability_of_increase,
            trend: forecast.trend,
            method: &forecast.method,
            backtest: Backtest { mase: forecast.backtest.mase, coverage95: forecast.backtest.coverage95 },
        }
    }

    pub(super) fn announce(&self, topic: &str) -> Announcement {
        announcement(topic, (self.window, self.queue), &self.from, FORECAST_TYPE, self)
    }
}

/// The value of `anomalies`.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct AnomalyEvent<'a> {
    queue: &'a str,
    window: &'a str,
    /// Start of the bucket, RFC 3339.
    at: String,
    detected_at: String,
    actual: f64,
    expected: f64,
    lower99: f64,
    upper99: f64,
    direction: &'static str,
}

pub(super) fn announce_anomaly(topic: &str, row: &AnomalyRow) -> Announcement {
    let event = AnomalyEvent {
        queue: &row.queue,
        window: &row.window,
        at: rfc3339(i64::from(row.at) * 1000),
        detected_at: rfc3339(row.detected_at),
        actual: row.actual,
        expected: row.expected,
        lower99: row.lower99,
        upper99: row.upper99,
        direction: if row.direction == 1 { "below" } else { "above" },
    };
    announcement(topic, (event.window, event.queue), &event.at, ANOMALY_TYPE, &event)
}

/// What is said of the same bucket again has the same id.
fn announcement(
    topic: &str,
    (window, queue): (&str, &str),
    at: &str,
    kind: &'static str,
    value: &impl Serialize,
) -> Announcement {
    let headers = Headers::with_capacity(7)
        .add("queue", queue)
        .add("window", window)
        .add("content-type", "application/json")
        .add("ce_specversion", "1.0")
        .add("ce_type", kind)
        .add("ce_source", format!("triaged/forecast/{window}"))
        .add("ce_id", format!("{window}/{queue}/{at}"));
    Announcement {
        topic: topic.to_owned(),
        key: format!("{window}/{queue}"),
        value: serde_json::to_vec(value).expect("plain data and memory cannot fail"),
        headers,
    }
}
