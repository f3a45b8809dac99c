//! Accuracy of forecasts by the definitions of the M4 competition (Makridakis, Spiliotis and Assimakopoulos,
//! "The M4 Competition: 100,000 time series and 61 forecasting methods", IJF 2020), and the Naive2 benchmark
//! against which OWA is measured. Pure functions on actual values, forecasts and the history before them.

use super::numeric::{autocorrelations, mean};

/// Critical value of the M4 seasonality test: 90 %, two-sided.
const SEASONALITY_CRITICAL: f64 = 1.645;

/// Symmetric mean absolute percentage error in percent, 0 to 200. A step where both are zero counts as no error.
pub fn smape(actual: &[f64], forecast: &[f64]) -> f64 {
    mean_of(actual.iter().zip(forecast).map(|(a, f)| {
        let size = a.abs() + f.abs();
        if size > 0.0 { 200.0 * (a - f).abs() / size } else { 0.0 }
    }))
}

/// Mean absolute error of the seasonal naive forecast inside `history`, the scale of MASE and MSIS. `None` when
/// the history is no longer than one season or repeats itself exactly, for then no scale exists.
pub fn seasonal_scale(history: &[f64], season: usize) -> Option<f64> {
    let lag = season.max(1);
    if history.len() <= lag {
        return None;
    }
    let scale = mean_of(history[lag..].iter().zip(history).map(|(a, b)| (a - b).abs()));
    (scale > 0.0 && scale.is_finite()).then_some(scale)
}

/// Mean absolute scaled error: mean absolute error over [`seasonal_scale`].
pub fn mase(history: &[f64], season: usize, actual: &[f64], forecast: &[f64]) -> Option<f64> {
    let error = mean_of(actual.iter().zip(forecast).map(|(a, f)| (a - f).abs()));
    Some(error / seasonal_scale(history, season)?)
}

/// Mean scaled interval score (Gneiting and Raftery 2007) of the `1 - alpha` interval, scaled as MASE.
pub fn msis(history: &[f64], season: usize, actual: &[f64], lower: &[f64], upper: &[f64], alpha: f64) -> Option<f64> {
    let score = mean_of(
        actual
            .iter()
            .zip(lower.iter().zip(upper))
            .map(|(a, (l, u))| (u - l) + 2.0 / alpha * (l - a).max(0.0) + 2.0 / alpha * (a - u).max(0.0)),
    );
    Some(score / seasonal_scale(history, season)?)
}

/// Share of the actual values inside their bounds, both bounds included, 0 to 1.
pub fn coverage(actual: &[f64], lower: &[f64], upper: &[f64]) -> f64 {
    mean_of(actual.iter().zip(lower.iter().zip(upper)).map(|(a, (l, u))| f64::from(u8::from(l <= a && a <= u))))
}

/// Overall weighted average: mean of the sMAPE and MASE ratios to Naive2. Each argument is the average over all
/// series, so the ratio is taken once, as in the competition.
pub fn owa(smape: f64, mase: f64, naive2_smape: f64, naive2_mase: f64) -> f64 {
    0.5 * (smape / naive2_smape + mase / naive2_mase)
}

/// The competition's seasonality test: the autocorrelation at the season's lag against its 90 % limit by
/// Bartlett's formula; needs three whole seasons.
pub fn is_seasonal(history: &[f64], season: usize) -> bool {
    if season < 2 || history.len() < 3 * season {
        return false;
    }
    let acf = autocorrelations(history, season);
    let spread: f64 = 1.0 + 2.0 * acf[..season - 1].iter().map(|r| r * r).sum::<f64>();
    acf[season - 1].abs() > SEASONALITY_CRITICAL * (spread / history.len() as f64).sqrt()
}

/// Seasonal indices of the classical multiplicative decomposition, one for each position in the season counted
/// from the first value, mean 1 (R's `decompose(type = "multiplicative")`). Positions without any usable ratio
/// get 1.
pub fn multiplicative_indices(history: &[f64], season: usize) -> Vec<f64> {
    let n = history.len();
    let half = season / 2;
    let mut ratios = vec![(0.0, 0_u32); season];
    for centre in half..n.saturating_sub(half) {
        let window = &history[centre - half..=centre + half];
        let mut sum: f64 = window.iter().sum();
        if season.is_multiple_of(2) {
            sum -= 0.5 * (window[0] + window[window.len() - 1]);
        }
        let ratio = history[centre] / (sum / season as f64);
        if ratio.is_finite() {
            let (total, count) = &mut ratios[centre % season];
            *total += ratio;
            *count += 1;
        }
    }
    let mut indices: Vec<f64> =
        ratios.iter().map(|(total, count)| if *count > 0 { total / f64::from(*count) } else { 1.0 }).collect();
    let level = mean(&indices);
    if level > 0.0 {
        indices.iter_mut().for_each(|index| *index /= level);
    }
    indices
}

/// Naive2: the last value of the seasonally adjusted history, put back into season, when [`is_seasonal`] says
/// so; otherwise the last value.
pub fn naive2(history: &[f64], season: usize, horizon: usize) -> Vec<f64> {
    let Some(last) = history.last() else { return vec![0.0; horizon] };
    if !is_seasonal(history, season) {
        return vec![*last; horizon];
    }
    let indices = multiplicative_indices(history, season);
    let n = history.len();
    let own = indices[(n - 1) % season];
    let adjusted = if own > 0.0 { last / own } else { *last };
    (0..horizon).map(|step| adjusted * indices[(n + step) % season]).collect()
}

fn mean_of(values: impl Iterator<Item = f64>) -> f64 {
    let (mut total, mut count) = (0.0, 0_u32);
    for value in values {
        total += value;
        count += 1;
    }
    if count == 0 { 0.0 } else { total / f64::from(count) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measures_match_hand_computed_values() {
        let history = [1.0, 2.0, 4.0, 7.0];
        assert_eq!(seasonal_scale(&history, 1), Some(2.0));
        assert_eq!(mase(&history, 1, &[10.0, 10.0], &[8.0, 14.0]), Some(1.5));
        assert!((smape(&[10.0], &[30.0]) - 100.0).abs() < 1e-12);
        assert_eq!(smape(&[0.0], &[0.0]), 0.0);
        // Width 4, and 1 below the lower bound: 4 + 40 * 1, over a scale of 2.
        assert_eq!(msis(&history, 1, &[1.0], &[2.0], &[6.0], 0.05), Some(22.0));
        assert_eq!(coverage(&[1.0, 3.0], &[2.0, 2.0], &[6.0, 3.0]), 0.5);
        assert_eq!(owa(5.0, 1.0, 10.0, 4.0), 0.375);
    }

    #[test]
    fn a_constant_history_has_no_scale() {
        assert_eq!(seasonal_scale(&[3.0; 30], 7), None);
        assert_eq!(mase(&[3.0; 30], 7, &[1.0], &[1.0]), None);
    }

    #[test]
    fn naive2_repeats_a_multiplicative_season() {
        let pattern = [0.5, 1.0, 1.5, 1.0];
        let history: Vec<f64> = (0..40).map(|t| 100.0 * pattern[t % 4]).collect();
        assert!(is_seasonal(&history, 4));
        let forecast = naive2(&history, 4, 6);
        for (step, value) in forecast.iter().enumerate() {
            assert!((value - 100.0 * pattern[(40 + step) % 4]).abs() < 1e-9);
        }
    }

    #[test]
    fn naive2_without_season_is_the_last_value() {
        let history = [5.0, 1.0, 4.0, 2.0, 8.0];
        assert_eq!(naive2(&history, 1, 3), vec![8.0; 3]);
        assert_eq!(naive2(&[], 1, 2), vec![0.0; 2]);
    }
}
