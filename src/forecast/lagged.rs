//! Autoregression on near and seasonal lags with seasonal dummies, fitted by recency-weighted ridge least squares
//! and run forward step by step. The workhorse for series with one or two seasons: on the M4 hourly data no other
//! single method here comes near it.

use super::numeric::{NormalEquations, mean};
use super::series::supports;

/// Lags of the near past that enter the regression.
const NEAR_LAGS: usize = 3;
/// Penalty of a lag and of a dummy, relative to its column's own sum of squares.
const LAG_RIDGE: f64 = 1e-3;
const DUMMY_RIDGE: f64 = 0.1;
/// Longest season that gets a dummy for each position; more would cost time with the cube and fit noise.
const LONGEST_DUMMY_SEASON: usize = 60;
/// An observation this share of the history older counts half. Smaller adapts faster and fits more noise.
const HALF_LIFE_SHARE: f64 = 1.0 / 3.0;

/// Rows beyond the number of lags that a fit needs at least.
const SPARE_ROWS: usize = 9;

/// Newest values whose range, doubled on each side, bounds the forecast.
const BOUNDING_VALUES: usize = 200;

/// The variants worth a trial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LaggedShape {
    /// Work on `ln(1 + y)`.
    pub(crate) logs: bool,
    /// One intercept for each position in the shortest season.
    pub(crate) dummies: bool,
    /// Explain the change from the last value, so that the ridge draws towards a random walk.
    pub(crate) changes: bool,
}

/// A fitted regression, applicable to any longer history of the same series.
#[derive(Debug, Clone)]
pub(crate) struct Lagged {
    /// Ascending.
    lags: Vec<usize>,
    /// One for each lag.
    coefficients: Vec<f64>,
    /// One for each position in the shortest season, or a single one.
    intercepts: Vec<f64>,
    logs: bool,
}

impl Lagged {
    /// Fits on `history` with the season lengths, shortest first. `None` when the history is too short.
    pub(crate) fn fit(history: &[f64], seasons: &[usize], shape: LaggedShape) -> Option<Self> {
        let n = history.len();
        let y = transform(history, shape.logs);
        let lags = lags(n, seasons);
        let longest = *lags.last()?;
        let positions = match seasons.first() {
            Some(season) if shape.dummies && *season <= LONGEST_DUMMY_SEASON && supports(n, *season) => *season,
            _ => 1,
        };
        if n < longest + lags.len() + SPARE_ROWS {
            return None;
        }
        let width = lags.len() + positions;
        let centre = mean(&y);
        let first = longest + usize::from(shape.changes);
        let base = |t: usize| if shape.changes { y[t - 1] } else { centre };
        let mut equations = NormalEquations::new(width);
        let mut row = vec![0.0; width];
        let decay = 0.5_f64.powf(1.0 / (n as f64 * HALF_LIFE_SHARE));
        let mut weight = decay.powi((n - first) as i32);
        for t in first..n {
            for (cell, lag) in row.iter_mut().zip(&lags) {
                *cell = y[t - lag] - base(t - lag);
            }
            row[lags.len()..].fill(0.0);
            row[lags.len() + t % positions] = 1.0;
            equations.add(&row, y[t] - base(t), weight);
            weight /= decay;
        }
        let mut penalty = vec![LAG_RIDGE; width];
        penalty[lags.len()..].fill(if positions > 1 { DUMMY_RIDGE } else { 0.0 });
        let mut coefficients = equations.solve(&penalty)?;
        let mut intercepts = coefficients.split_off(lags.len());
        let logs = shape.logs;
        if shape.changes {
            let (lags, coefficients) = changes_as_levels(&lags, &coefficients);
            return Some(Self { lags, coefficients, intercepts, logs });
        }
        // The centre goes into the intercepts, so that a forecast needs no more history than its lags.
        let pull: f64 = coefficients.iter().sum();
        intercepts.iter_mut().for_each(|b| *b += centre * (1.0 - pull));
        Some(Self { lags, coefficients, intercepts, logs })
    }

    /// `horizon` steps after `history`, which starts at the same phase as the one fitted on.
    pub(crate) fn forecast(&self, history: &[f64], horizon: usize) -> Vec<f64> {
        let n = history.len();
        let keep = self.lags.last().copied().unwrap_or(1).min(n);
        let mut path = transform(&history[n - keep..], self.logs);
        let (low, high) = transform(&history[n - BOUNDING_VALUES.max(keep).min(n)..], self.logs)
            .into_iter()
            .fold((f64::MAX, f64::MIN), |(l, h), v| (l.min(v), h.max(v)));
        let room = (high - low).max(1e-3 * high.abs());
        for h in 0..horizon {
            let mut value = self.intercepts[(n + h) % self.intercepts.len()];
            for (b, lag) in self.coefficients.iter().zip(&self.lags) {
                value += b * path[(keep + h).saturating_sub(*lag)];
            }
            // An explosive root must not run away with the horizon.
            path.push(value.clamp(low - room, high + room));
        }
        path[keep..].iter().map(|v| if self.logs { v.exp_m1() } else { *v }).collect()
    }
}

/// Near lags, and for each season the lags at and beside it; twice the season too, if it is the shorter of two or
/// the history has five of it.
fn lags(n: usize, seasons: &[usize]) -> Vec<usize> {
    let mut lags: Vec<usize> = (1..=NEAR_LAGS).collect();
    let usable: Vec<usize> = seasons.iter().copied().filter(|s| supports(n, *s)).collect();
    for (i, season) in usable.iter().enumerate() {
        lags.extend(season - 1..=season + 1);
        if (i == 0 && usable.len() > 1) || n >= 5 * season {
            lags.push(2 * season);
        }
    }
    lags.sort_unstable();
    lags.dedup();
    lags.retain(|lag| *lag > 0);
    lags
}

/// `y[t] = y[t-1] + sum of b (y[t-k] - y[t-k-1])` written with coefficients of levels.
fn changes_as_levels(lags: &[usize], coefficients: &[f64]) -> (Vec<usize>, Vec<f64>) {
    let mut levels = vec![0.0; lags.last().copied().unwrap_or(0) + 2];
    levels[1] = 1.0;
    for (b, lag) in coefficients.iter().zip(lags) {
        levels[*lag] += b;
        levels[lag + 1] -= b;
    }
    levels.into_iter().enumerate().filter(|(_, b)| *b != 0.0).unzip()
}

fn transform(values: &[f64], logs: bool) -> Vec<f64> {
    if logs { values.iter().map(|v| v.ln_1p()).collect() } else { values.to_vec() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: LaggedShape = LaggedShape { logs: false, dummies: true, changes: false };

    #[test]
    fn two_seasons_are_carried_on() {
        let value = |t: usize| 50.0 + 10.0 * (t % 7) as f64 + 4.0 * ((t / 7) % 4) as f64;
        let history: Vec<f64> = (0..280).map(value).collect();
        let model = Lagged::fit(&history, &[7, 28], SHAPE).unwrap();
        for (h, v) in model.forecast(&history, 28).iter().enumerate() {
            assert!((v - value(280 + h)).abs() < 2.0, "step {h}: {v} instead of {}", value(280 + h));
        }
    }

    #[test]
    fn changes_follow_a_line_beyond_what_was_seen() {
        let history: Vec<f64> = (0..60).map(|t| 100.0 + 3.0 * f64::from(t) + f64::from(t % 3)).collect();
        let shape = LaggedShape { logs: false, dummies: false, changes: true };
        let forecast = Lagged::fit(&history, &[], shape).unwrap().forecast(&history, 10);
        assert!((forecast[9] - 307.0).abs() < 4.0, "{forecast:?}");
    }

    #[test]
    fn an_explosive_history_stays_bounded() {
        let history: Vec<f64> = (0..40).map(|t| 1.5_f64.powi(t)).collect();
        let top = history[39];
        let model = Lagged::fit(&history, &[], SHAPE).unwrap();
        assert!(model.forecast(&history, 300).iter().all(|v| v.is_finite() && *v < 3.0 * top));
    }

    #[test]
    fn a_short_history_is_declined() {
        assert!(Lagged::fit(&[1.0; 10], &[], SHAPE).is_none());
    }
}
