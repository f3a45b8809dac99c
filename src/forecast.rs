//! Rolling forecasts of volumes: pure functions from equally spaced counts to means, calibrated intervals, a total
//! over the horizon and a trend. No input or output, no clock, and the same answer for the same input.
//!
//! [`forecast()`] cleans a [`Series`], tries every suitable method at several past origins of that same series
//! (`backtest`), weights the good ones (`combine`), and turns the errors that the weighted mean made at those
//! origins into intervals (`intervals`). Values are counts per step throughout; nothing that leaves is negative,
//! NaN or infinite.

pub mod accuracy;
mod backtest;
mod card;
mod combine;
mod event;
mod history;
mod intervals;
mod lagged;
mod library;
mod method;
mod numeric;
mod outcome;
mod profile;
mod reconcile;
mod role;
mod round;
mod series;
mod simple;
mod smoothing;

use rayon::prelude::*;

use backtest::Origins;
use combine::Combination;
pub use event::{Backtest, Estimate, ForecastEvent, Point};
use intervals::{PastErrors, Spread};
use method::Method;
pub use outcome::{BacktestSummary, Bounds, FALLING_TO, Forecast, Level, RISING_FROM, Total, Trend};
pub use reconcile::reconcile;
pub use role::{ForecastError, Forecaster};
pub use round::{Round, round};
pub use series::Series;

/// What the caller may trade between time and accuracy.
#[derive(Debug, Clone, PartialEq)]
pub struct ForecastSettings {
    /// Past origins to test from. Fewer make weights and intervals rough, more cost time in proportion.
    pub origins: usize,
    /// Newest values used; older ones are dropped. Must hold two of the longest season and a horizon more for
    /// that season to be seen; time grows in proportion.
    pub longest_history: usize,
    /// Of the origins, how many the slow methods (ETS and MSTL) are tested from on a long series.
    pub slow_origins: usize,
}

impl Default for ForecastSettings {
    fn default() -> Self {
        Self { origins: 10, longest_history: 4096, slow_origins: 3 }
    }
}

/// Forecasts one series. Any input gives an answer, an empty history zeros with counting noise around them.
pub fn forecast(series: &Series, settings: &ForecastSettings) -> Forecast {
    let mut history = series.cleaned();
    history.drain(..history.len().saturating_sub(settings.longest_history));
    let horizon = series.horizon.max(1);
    let n = history.len();
    let seasons = tested_seasons(series, &history, horizon);
    let origins = Origins::plan(n, &seasons, horizon, settings.origins);
    let methods = Method::candidates(&history, &seasons);
    let trials = backtest::run(&history, &seasons, &origins, &methods, settings.slow_origins);
    let combination = Combination::choose(&trials, Method::Level);
    let means = combination
        .merge(|method| method.forecast(&history, &seasons, horizon))
        .unwrap_or_else(|| simple::smoothed_level(&history, horizon));

    let past = past_errors(&history, &origins, &trials, &combination);
    let spread = Spread::estimate(&history, &means, &past);
    let total_mean: f64 = means.iter().sum();
    let previous = previous_window(&history, horizon);
    let probability = outcome::probability_of_increase(total_mean, spread.total_deviation, previous);
    Forecast {
        bounds: means.iter().enumerate().map(|(h, mean)| spread.bounds(h, *mean)).collect(),
        total: Total {
            mean: total_mean,
            bounds: spread.total_bounds(total_mean),
            deviation: spread.total_deviation,
            previous,
        },
        probability_of_increase: probability,
        trend: Trend::of(probability),
        method: combination.name(),
        backtest: BacktestSummary {
            mase: past_mase(&history, &seasons, &past),
            coverage95: spread.coverage95,
            origins: past.errors.len(),
        },
        deviations: spread.deviations,
        means,
    }
}

/// Point forecasts of every candidate method that suits the series, by name, without test or weighting; what
/// [`forecast()`] would choose among.
pub fn forecast_by_method(series: &Series) -> Vec<(String, Vec<f64>)> {
    let history = series.cleaned();
    let horizon = series.horizon.max(1);
    let seasons = tested_seasons(series, &history, horizon);
    Method::candidates(&history, &seasons)
        .into_iter()
        .filter_map(|method| Some((method.name(), method.forecast(&history, &seasons, horizon)?)))
        .collect()
}

/// Only seasons that a back-test can see as well: the test must judge what will be used.
fn tested_seasons(series: &Series, history: &[f64], horizon: usize) -> Vec<usize> {
    let tested = history.len() - Origins::steps(history.len(), horizon).min(history.len());
    series.supported_seasons(&history[..tested])
}

/// Forecasts many series side by side on the current rayon pool; the order of the answers is that of the input.
pub fn forecast_many(series: &[Series], settings: &ForecastSettings) -> Vec<Forecast> {
    series.par_iter().map(|one| forecast(one, settings)).collect()
}

/// Errors of the combination at every origin where at least one of its methods ran.
fn past_errors(
    history: &[f64],
    origins: &Origins,
    trials: &[backtest::Trial],
    combination: &Combination,
) -> PastErrors {
    let mut past = PastErrors { errors: Vec::new(), forecasts: Vec::new() };
    for (i, origin) in origins.at.iter().enumerate() {
        let path_of = |method: Method| trials.iter().find(|t| t.method == method).and_then(|t| t.paths[i].clone());
        if let Some(path) = combination.merge(path_of) {
            past.errors.push(path.iter().zip(&history[*origin..]).map(|(p, a)| a - p).collect());
            past.forecasts.push(path);
        }
    }
    past
}

fn past_mase(history: &[f64], seasons: &[usize], past: &PastErrors) -> Option<f64> {
    if past.errors.is_empty() {
        return None;
    }
    let scale = accuracy::seasonal_scale(history, seasons.first().copied().unwrap_or(1))?;
    let sizes: Vec<f64> = past.errors.iter().flatten().map(|e| e.abs()).collect();
    Some(numeric::mean(&sizes) / scale)
}

fn previous_window(history: &[f64], horizon: usize) -> f64 {
    let window = &history[history.len() - horizon.min(history.len())..];
    if window.len() == horizon { window.iter().sum() } else { numeric::mean(window) * horizon as f64 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ask(values: Vec<f64>, seasons: &[usize], horizon: usize) -> Forecast {
        forecast(&Series { values, seasons: seasons.to_vec(), horizon }, &ForecastSettings::default())
    }

    /// What must hold of every forecast.
    fn check(forecast: &Forecast, horizon: usize) {
        assert_eq!(forecast.means.len(), horizon);
        assert_eq!(forecast.bounds.len(), horizon);
        assert_eq!(forecast.deviations.len(), horizon);
        for (mean, bounds) in forecast.means.iter().zip(&forecast.bounds) {
            check_bounds(*mean, bounds);
        }
        check_bounds(forecast.total.mean, &forecast.total.bounds);
        let sum: f64 = forecast.means.iter().sum();
        assert!((sum - forecast.total.mean).abs() <= 1e-9 * sum.max(1.0));
        assert!(forecast.deviations.iter().all(|d| d.is_finite() && *d >= 0.0));
        assert!((0.0..=1.0).contains(&forecast.probability_of_increase));
        assert!(!forecast.method.is_empty());
    }

    fn check_bounds(mean: f64, b: &Bounds) {
        let ordered = [0.0, b.lower99, b.lower95, b.lower80, mean, b.upper80, b.upper95, b.upper99];
        assert!(ordered.iter().all(|v| v.is_finite()), "{ordered:?}");
        assert!(ordered.windows(2).all(|w| w[0] <= w[1]), "{ordered:?}");
    }

    fn any_count() -> impl Strategy<Value = f64> {
        prop_oneof![
            4 => (0_u32..50).prop_map(f64::from),
            2 => Just(0.0),
            2 => 0.0..1e6_f64,
            1 => any::<f64>(),
        ]
    }

    fn any_seasons() -> impl Strategy<Value = Vec<usize>> {
        prop_oneof![
            Just(vec![]),
            Just(vec![1]),
            Just(vec![7]),
            Just(vec![24, 168]),
            prop::collection::vec(0_usize..40, 0..3)
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_series_gets_an_ordered_finite_forecast(
            values in prop::collection::vec(any_count(), 0..120),
            seasons in any_seasons(),
            horizon in 0_usize..60,
        ) {
            let series = Series { values, seasons, horizon };
            let settings = ForecastSettings::default();
            let first = forecast(&series, &settings);
            check(&first, horizon.max(1));
            prop_assert_eq!(first, forecast(&series, &settings));
        }

        #[test]
        fn queues_add_up_to_the_total(
            queues in prop::collection::vec(prop::collection::vec((0_u32..40).prop_map(f64::from), 40), 1..5),
            factor in 0.3..3.0_f64,
        ) {
            let total = (0..40).map(|t| factor * queues.iter().map(|q| q[t]).sum::<f64>()).collect();
            let mut total = ask(total, &[7], 10);
            let mut queues: Vec<Forecast> = queues.into_iter().map(|q| ask(q, &[7], 10)).collect();
            reconcile(&mut queues, &mut total);
            for h in 0..10 {
                let sum: f64 = queues.iter().map(|q| q.means[h]).sum();
                prop_assert!((sum - total.means[h]).abs() <= 1e-9 * sum.max(1.0));
            }
            check(&total, 10);
            queues.iter().for_each(|queue| check(queue, 10));
        }
    }

    #[test]
    fn new_queues_get_sensible_answers() {
        let unknown = ask(vec![], &[24], 5);
        check(&unknown, 5);
        assert_eq!(unknown.means, vec![0.0; 5]);
        assert_eq!(unknown.trend, Trend::Steady);
        let first_day = ask(vec![12.0, 9.0], &[24], 5);
        check(&first_day, 5);
        assert!((first_day.means[0] - 10.5).abs() < 1.0, "{:?}", first_day.means);
        assert!(first_day.bounds[0].upper95 >= 16.0 && first_day.bounds[0].lower95 <= 5.0);
    }

    #[test]
    fn a_silent_queue_stays_silent_and_one_ticket_is_news() {
        let silent = ask(vec![0.0; 1000], &[24], 24);
        assert!(silent.means.iter().all(|m| *m < 1e-3));
        assert!(silent.bounds[0].upper99 < 1.0, "{:?}", silent.bounds[0]);
    }

    #[test]
    fn a_constant_is_continued() {
        let constant = ask(vec![7.5; 200], &[7], 14);
        assert!(constant.means.iter().all(|m| (m - 7.5).abs() < 0.05), "{:?}", constant.means);
        assert_eq!(constant.trend, Trend::Steady);
    }

    #[test]
    fn a_sparse_queue_keeps_its_rate() {
        let values: Vec<f64> = (0..400).map(|t| if t * 7919 % 23 < 3 { 2.0 } else { 0.0 }).collect();
        let rate = numeric::mean(&values);
        let sparse = ask(values, &[24], 48);
        let expected = 48.0 * rate;
        assert!((sparse.total.mean - expected).abs() < 0.5 * expected, "{} of {expected}", sparse.total.mean);
        let bounds = sparse.total.bounds;
        assert!(bounds.lower95 < expected && expected < bounds.upper95);
    }

    #[test]
    fn growth_is_rising_and_decline_falling() {
        let noise = |t: u32| f64::from(t * 7919 % 13);
        let up: Vec<f64> = (0..200).map(|t| 50.0 + 2.0 * f64::from(t) + noise(t)).collect();
        let down: Vec<f64> = (0..200).map(|t| 500.0 - 2.0 * f64::from(t) + noise(t)).collect();
        assert_eq!(ask(up, &[7], 30).trend, Trend::Rising);
        assert_eq!(ask(down, &[7], 30).trend, Trend::Falling);
    }

    #[test]
    fn a_year_ahead_from_little_more_than_a_year() {
        let values: Vec<f64> = (0..400_u32).map(|t| 30.0 + 10.0 * f64::from(t % 7) + f64::from(t * 31 % 5)).collect();
        let year = ask(values, &[7], 366);
        check(&year, 366);
        assert!(year.means.iter().all(|m| *m > 20.0 && *m < 110.0));
    }

    #[test]
    fn many_give_the_same_as_one_by_one() {
        let series: Vec<Series> = (1..6)
            .map(|k| Series { values: (0..80).map(|t| f64::from(t % 7 * k)).collect(), seasons: vec![7], horizon: 7 })
            .collect();
        let settings = ForecastSettings::default();
        let one_by_one: Vec<Forecast> = series.iter().map(|s| forecast(s, &settings)).collect();
        assert_eq!(forecast_many(&series, &settings), one_by_one);
    }

    #[test]
    fn every_candidate_can_be_asked_alone() {
        let values: Vec<f64> = (0..100).map(|t| f64::from(t % 7)).collect();
        let paths = forecast_by_method(&Series { values, seasons: vec![7], horizon: 5 });
        assert!(paths.len() > 5 && paths.iter().all(|(_, path)| path.len() == 5));
    }
}
