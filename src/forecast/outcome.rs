//! What a forecast says: means, bounds, the horizon's total, and the comparison with the window before.

use serde::{Deserialize, Serialize};

use super::numeric::normal_cdf;

/// Probability of an increase at and above which the trend is called rising.
pub const RISING_FROM: f64 = 0.8;
/// Probability of an increase at and below which the trend is called falling.
pub const FALLING_TO: f64 = 0.2;

/// Nominal share of outcomes that an interval should hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Level {
    P80,
    P95,
    P99,
}

impl Level {
    pub const ALL: [Self; 3] = [Self::P80, Self::P95, Self::P99];

    /// The level as a share, 0.80, 0.95 or 0.99.
    pub fn share(self) -> f64 {
        match self {
            Self::P80 => 0.80,
            Self::P95 => 0.95,
            Self::P99 => 0.99,
        }
    }

    /// Two-sided standard normal quantile of the level.
    pub(crate) fn normal_quantile(self) -> f64 {
        match self {
            Self::P80 => 1.281_552,
            Self::P95 => 1.959_964,
            Self::P99 => 2.575_829,
        }
    }
}

/// Lower and upper bounds at the three levels; index by [`Level`] with [`Bounds::at`].
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Bounds {
    pub lower80: f64,
    pub upper80: f64,
    pub lower95: f64,
    pub upper95: f64,
    pub lower99: f64,
    pub upper99: f64,
}

impl Bounds {
    /// Lower and upper bound at `level`.
    pub fn at(&self, level: Level) -> (f64, f64) {
        match level {
            Level::P80 => (self.lower80, self.upper80),
            Level::P95 => (self.lower95, self.upper95),
            Level::P99 => (self.lower99, self.upper99),
        }
    }

    /// From `(lower, upper)` pairs in the order 80, 95, 99, forced to hold `mean`, to nest and to be no less than 0.
    pub(crate) fn nested(mean: f64, pairs: [(f64, f64); 3]) -> Self {
        let mut inner = (mean, mean);
        let [p80, p95, p99] = pairs.map(|(lower, upper)| {
            inner = (lower.max(0.0).min(inner.0), upper.max(inner.1));
            inner
        });
        Self { lower80: p80.0, upper80: p80.1, lower95: p95.0, upper95: p95.1, lower99: p99.0, upper99: p99.1 }
    }

    /// The same widths around a mean moved from `from` to `to`.
    pub(crate) fn shifted(&self, from: f64, to: f64) -> Self {
        let shift = to - from;
        Self::nested(to, Level::ALL.map(|level| (self.at(level).0 + shift, self.at(level).1 + shift)))
    }
}

/// Sum over the whole horizon.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Total {
    pub mean: f64,
    /// From the errors of totals at past origins, not from the sums of the steps' bounds.
    pub bounds: Bounds,
    /// Standard deviation of the total's error.
    pub deviation: f64,
    /// Sum over the equally long window just before; for a shorter history scaled up to that length.
    pub previous: f64,
}

/// Direction of the next window against the last, see [`RISING_FROM`] and [`FALLING_TO`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Trend {
    /// Probability of an increase at least 0.8.
    Rising,
    /// Probability of an increase at most 0.2.
    Falling,
    /// Anything between.
    Steady,
}

impl Trend {
    pub fn of(probability_of_increase: f64) -> Self {
        if probability_of_increase >= RISING_FROM {
            Self::Rising
        } else if probability_of_increase <= FALLING_TO {
            Self::Falling
        } else {
            Self::Steady
        }
    }
}

/// How the chosen method did at past origins of the same series.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BacktestSummary {
    /// Mean absolute scaled error at the first season length; `None` where it has no scale or no origin fits.
    pub mase: Option<f64>,
    /// Share of past outcomes inside the 95 % interval that the other origins' errors would have given.
    pub coverage95: Option<f64>,
    /// Number of origins.
    pub origins: usize,
}

/// A forecast of one series. Vectors have one entry for each step of the horizon.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Forecast {
    pub means: Vec<f64>,
    pub bounds: Vec<Bounds>,
    /// Standard deviation of each step's error.
    pub deviations: Vec<f64>,
    pub total: Total,
    /// Probability that the horizon's total exceeds [`Total::previous`], 0 to 1.
    pub probability_of_increase: f64,
    pub trend: Trend,
    /// The method, or the weighted mean of several, heaviest first: `mean(lagged_log,mstl_ets)`.
    pub method: String,
    pub backtest: BacktestSummary,
}

/// Probability that a total with this mean and deviation exceeds `previous`; an exact tie counts one half.
pub(crate) fn probability_of_increase(mean: f64, deviation: f64, previous: f64) -> f64 {
    if deviation > 0.0 {
        return normal_cdf((mean - previous) / deviation);
    }
    // Sums in another order differ in the last digits; that is no increase.
    let rounding = 1e-9 * previous.abs().max(mean.abs());
    if (mean - previous).abs() <= rounding { 0.5 } else { f64::from(u8::from(mean > previous)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trend_words_follow_the_probability() {
        assert_eq!(Trend::of(0.8), Trend::Rising);
        assert_eq!(Trend::of(0.5), Trend::Steady);
        assert_eq!(Trend::of(0.2), Trend::Falling);
    }

    #[test]
    fn certainty_and_ties_without_deviation() {
        assert_eq!(probability_of_increase(5.0, 0.0, 5.0), 0.5);
        assert_eq!(probability_of_increase(6.0, 0.0, 5.0), 1.0);
        assert!((probability_of_increase(6.0, 1.0, 5.0) - 0.8413).abs() < 1e-3);
    }

    #[test]
    fn bounds_nest_and_stay_above_zero_when_shifted() {
        let bounds = Bounds::nested(5.0, [(4.0, 6.0), (4.5, 5.5), (1.0, 9.0)]);
        assert_eq!(bounds.at(Level::P95), (4.0, 6.0));
        let low = bounds.shifted(5.0, 1.0);
        assert_eq!(low.at(Level::P99), (0.0, 5.0));
    }
}
