//! Exponential smoothing state space models (ETS) and MSTL decomposition through `augurs`, wrapped so that a
//! failure inside is a `None` here and never a panic further up.

use std::borrow::Cow;

use augurs::ets::AutoETS;
use augurs::mstl::{FittedTrendModel, MSTLModel, TrendModel};
use augurs::{Fit, Predict};

/// Newest values an ETS model is fitted to: its level and trend forget what is older, and its search takes time
/// in proportion.
const ETS_MEMORY: usize = 200;

/// Newest cycles of the longest season that are decomposed, and the fewest values that are never cut: the loess
/// windows are local, so older cycles change the newest seasonal figure little.
const MSTL_CYCLES: usize = 4;
const MSTL_SHORTEST: usize = 240;

/// ETS without season, its trend chosen by AICc among none, linear and damped.
pub(crate) fn ets(history: &[f64], horizon: usize) -> Option<Vec<f64>> {
    let recent = &history[history.len().saturating_sub(ETS_MEMORY)..];
    if recent.len() < 8 {
        return None;
    }
    let model = AutoETS::new(1, "AZN").ok()?.fit(recent).ok()?;
    checked(model.predict(horizon, None).ok()?.point, horizon)
}

/// MSTL over the season lengths that have two whole cycles, with ETS on the newest seasonally adjusted values.
pub(crate) fn mstl_ets(history: &[f64], seasons: &[usize], horizon: usize) -> Option<Vec<f64>> {
    let periods: Vec<usize> = seasons.iter().copied().filter(|s| *s > 1 && history.len() > 2 * s).collect();
    if periods.is_empty() || history.len() < 8 {
        return None;
    }
    let longest = periods.iter().copied().max().unwrap_or(1);
    let history = &history[history.len().saturating_sub((MSTL_CYCLES * longest).max(MSTL_SHORTEST))..];
    let model = MSTLModel::new(periods, RecentEts).fit(history).ok()?;
    checked(model.predict(horizon, None).ok()?.point, horizon)
}

fn checked(point: Vec<f64>, horizon: usize) -> Option<Vec<f64>> {
    (point.len() == horizon && point.iter().all(|v| v.is_finite())).then_some(point)
}

type Failure = Box<dyn std::error::Error + Send + Sync + 'static>;

/// Trend model of the decomposition: ETS on the newest [`ETS_MEMORY`] values.
#[derive(Debug)]
struct RecentEts;

impl TrendModel for RecentEts {
    fn name(&self) -> Cow<'_, str> {
        Cow::Borrowed("RecentEts")
    }

    fn fit(&self, y: &[f64]) -> Result<Box<dyn FittedTrendModel + Sync + Send>, Failure> {
        AutoETS::new(1, "AZN")?.into_trend_model().fit(&y[y.len().saturating_sub(ETS_MEMORY)..])
    }
}
