//! Card: the calibrated average of the Rho and Delta methods, written anew from the description by Doornik,
//! Castle and Hendry, "Card forecasts for M4", International Journal of Forecasting 36 (2020).
//!
//! Delta extrapolates damped growth rates, Rho a simple autoregression that turns to differences near a unit
//! root. Calibration then fits a richer autoregression to the history with the averaged forecasts attached as if
//! they had been observed; its fitted values over the horizon are the forecast.

use super::numeric::{NormalEquations, autocorrelations, mean, variance};

/// Weights of the last seasons' patterns, newest last: differenced and level series.
const PATTERN_WEIGHTS_DIFFERENCED: [f64; 4] = [1.0, 2.0, 3.0, 9.0];
const PATTERN_WEIGHTS_LEVEL: [f64; 6] = [1.0, 2.0, 3.0, 4.0, 5.0, 20.0];
/// 90 % point of the chi-squared distribution with one degree of freedom.
const CHI_SQUARED_90: f64 = 2.706;
/// One-sided 95 % point of the normal distribution.
const ONE_SIDED_95: f64 = 1.645;

/// Forecasts `horizon` steps of `history` with one season length (1 for none). Needs at least four values;
/// shorter histories give `None`.
pub(crate) fn forecast(history: &[f64], season: usize, horizon: usize) -> Option<Vec<f64>> {
    if history.len() < 4 {
        return None;
    }
    let logs = history.iter().all(|v| *v > 1.0);
    let y: Vec<f64> = if logs { history.iter().map(|v| v.ln()).collect() } else { history.to_vec() };
    let shape = Shape::of(&y, season);
    let mut extended = y.clone();
    let delta = delta(&y, &shape, horizon);
    let rho = rho(&y, &shape, horizon);
    extended.extend(delta.iter().zip(&rho).map(|(d, r)| 0.5 * (d + r)));
    let calibrated = calibrate(&extended, &shape, horizon).unwrap_or_else(|| extended[y.len()..].to_vec());
    // A forecast far outside everything seen is a failure of the regression, not news.
    let (low, high) = y.iter().fold((f64::MAX, f64::MIN), |(l, h), v| (l.min(*v), h.max(*v)));
    let room = (high - low).max(if logs { 0.1 } else { 1.0 });
    Some(
        calibrated
            .into_iter()
            .map(|v| v.clamp(low - room, high + room))
            .map(|v| if logs { v.exp() } else { v })
            .collect(),
    )
}

/// What the tests at the start say of a series.
struct Shape {
    season: usize,
    /// Differences vary less than levels: work with growth.
    differenced: bool,
    /// Season means differ (analysis of variance).
    seasonal: bool,
    /// Autocorrelation at the season's lag.
    seasonal_lag: bool,
}

impl Shape {
    fn of(y: &[f64], season: usize) -> Self {
        let differences: Vec<f64> = y.windows(2).map(|w| w[1] - w[0]).collect();
        let differenced = variance(&differences) < 1.2 * variance(y);
        let z = if differenced { &differences[..] } else { y };
        let usable = season > 1 && z.len() >= 3 * season;
        Self {
            season: if usable { season } else { 1 },
            differenced,
            seasonal: usable && season_means_differ(z, season),
            seasonal_lag: usable && season_lag_matters(z, season),
        }
    }
}

fn season_means_differ(z: &[f64], season: usize) -> bool {
    let cycles = z.len() / season;
    let recent = &z[z.len() - cycles * season..];
    let means: Vec<f64> =
        (0..season).map(|j| mean(&recent.iter().skip(j).step_by(season).copied().collect::<Vec<_>>())).collect();
    let (between, total) = (variance(&means), variance(recent));
    let freedom = (season * (cycles - 1)) as f64;
    let statistic = freedom / (season - 1) as f64 * between / (total - between).max(1e-300);
    // 90 % point of F by the Wilson-Hilferty approximation.
    let (d1, d2) = ((season - 1) as f64, freedom);
    let (a, b, z90) = (2.0 / (9.0 * d1), 2.0 / (9.0 * d2), 1.2816_f64);
    let centre = 1.0 - b;
    let curvature = centre * centre - z90 * z90 * b;
    let root = ((1.0 - a) * centre
        + z90 * (centre * centre * a + (1.0 - a).powi(2) * b - z90 * z90 * a * b).max(0.0).sqrt())
        / curvature.max(1e-6);
    statistic > root.powi(3)
}

fn season_lag_matters(z: &[f64], season: usize) -> bool {
    let acf = autocorrelations(z, season);
    let spread: f64 = 1.0 + acf[..season - 1].iter().map(|r| r * r).sum::<f64>();
    z.len() as f64 * acf[season - 1].powi(2) / spread > CHI_SQUARED_90
}

/// The value nearer to zero when both have one sign, else zero.
fn damped(a: f64, b: f64) -> f64 {
    if a * b > 0.0 { a.signum() * a.abs().min(b.abs()) } else { 0.0 }
}

/// Mean without the `count` values largest in size.
fn mean_without_largest(z: &[f64], count: usize) -> f64 {
    let mut sorted = z.to_vec();
    sorted.sort_by(|a, b| a.abs().total_cmp(&b.abs()));
    mean(&sorted[..sorted.len().saturating_sub(count)])
}

/// Mean-free seasonal pattern of `z`, recent cycles weighted most; index 0 is the step after the last value.
fn pattern(z: &[f64], season: usize, weights: &[f64]) -> Vec<f64> {
    let cycles = (z.len() / season).min(weights.len());
    let weights = &weights[weights.len() - cycles..];
    let total: f64 = weights.iter().sum();
    let start = z.len() - cycles * season;
    let mut figure = vec![0.0; season];
    for (cycle, weight) in weights.iter().enumerate() {
        for (j, cell) in figure.iter_mut().enumerate() {
            *cell += weight / total * z[start + cycle * season + j];
        }
    }
    let centre = mean(&figure);
    figure.iter_mut().for_each(|v| *v -= centre);
    figure
}

fn delta(y: &[f64], shape: &Shape, horizon: usize) -> Vec<f64> {
    let m = shape.season;
    if !shape.differenced {
        if !shape.seasonal {
            let recent = mean(&y[y.len().saturating_sub(m.max(4))..]);
            let longer = mean(&y[y.len().saturating_sub(6 * m.max(4))..]);
            return (0..horizon).map(|h| if h == 0 { recent } else { 0.5 * (recent + longer) }).collect();
        }
        let figure = pattern(y, m, &PATTERN_WEIGHTS_LEVEL);
        let recent = mean(&y[y.len() - m..]);
        let longer = mean(&y[y.len() - (y.len() / m).min(6) * m..]);
        return (0..horizon).map(|h| if h < m { recent } else { 0.5 * (recent + longer) } + figure[h % m]).collect();
    }
    let z: Vec<f64> = y.windows(2).map(|w| w[1] - w[0]).collect();
    let whole = mean(&z);
    let seasonal_growth = if y.len() > m { (y[y.len() - 1] - y[y.len() - 1 - m]) / m as f64 } else { whole };
    let (growths, recent) = if shape.seasonal {
        let start = z.len() % m;
        let cycle_means: Vec<f64> = z[start..].chunks_exact(m).map(mean).collect();
        let recent = mean(&cycle_means[cycle_means.len().saturating_sub(6)..]);
        (cycle_means, recent)
    } else {
        let recent = mean(&z[z.len().saturating_sub(m.max(6))..]);
        (z.clone(), recent)
    };
    let first = mean_without_largest(&growths, 1);
    let later = mean_without_largest(&growths, 3.min(growths.len() / 2));
    let trend = damped(recent, damped(whole, seasonal_growth));
    let figure = if shape.seasonal { pattern(&z, m, &PATTERN_WEIGHTS_DIFFERENCED) } else { vec![0.0; m] };
    let mut value = y[y.len() - 1];
    (0..horizon)
        .map(|h| {
            value += damped(trend, if h == 0 { first } else { later }) + figure[h % m];
            value
        })
        .collect()
}

/// Least squares of `target` on `columns` for `t` in `from..n`, with a mean per season position when asked.
/// Gives the coefficients, the means per position and the residual standard deviation.
struct Regression {
    coefficients: Vec<f64>,
    means: Vec<f64>,
    deviation: f64,
}

fn regress(
    from: usize,
    n: usize,
    positions: usize,
    target: impl Fn(usize) -> f64,
    columns: &[&dyn Fn(usize) -> f64],
) -> Option<Regression> {
    let width = columns.len();
    if n < from + positions + width + 3 {
        return None;
    }
    let mut sums = vec![vec![0.0; width + 1]; positions];
    let mut counts = vec![0.0_f64; positions];
    for t in from..n {
        let line = &mut sums[t % positions];
        line[width] += target(t);
        columns.iter().enumerate().for_each(|(i, column)| line[i] += column(t));
        counts[t % positions] += 1.0;
    }
    for (line, count) in sums.iter_mut().zip(&counts) {
        line.iter_mut().for_each(|v| *v /= count.max(1.0));
    }
    let mut equations = NormalEquations::new(width);
    let mut row = vec![0.0; width];
    for t in from..n {
        let line = &sums[t % positions];
        row.iter_mut().enumerate().for_each(|(i, cell)| *cell = columns[i](t) - line[i]);
        equations.add(&row, target(t) - line[width], 1.0);
    }
    let coefficients = equations.solve(&vec![1e-8; width])?;
    let means: Vec<f64> =
        sums.iter().map(|line| line[width] - coefficients.iter().zip(line).map(|(b, x)| b * x).sum::<f64>()).collect();
    let squares: f64 = (from..n)
        .map(|t| {
            let fitted: f64 = columns.iter().zip(&coefficients).map(|(column, b)| b * column(t)).sum();
            (target(t) - means[t % positions] - fitted).powi(2)
        })
        .sum();
    let freedom = (n - from - positions - width).max(1) as f64;
    Some(Regression { coefficients, means, deviation: (squares / freedom).sqrt() })
}

fn rho(y: &[f64], shape: &Shape, horizon: usize) -> Vec<f64> {
    let (n, m) = (y.len(), shape.season);
    let positions = if shape.seasonal { m } else { 1 };
    let last = y[n - 1];
    let fallback =
        || if shape.seasonal { (0..horizon).map(|h| y[n - m + h % m]).collect() } else { vec![last; horizon] };
    if !shape.differenced {
        let Some(fit) = regress(0, n, positions, |t| y[t], &[]) else { return fallback() };
        return (0..horizon).map(|h| fit.means[(n + h) % positions]).collect();
    }
    let lag = |t: usize| y[t - 1];
    let season_lag = |t: usize| y[t - m];
    let use_season_lag = shape.seasonal_lag && n > 4 * m;
    let from = if use_season_lag { m } else { 1 };
    let columns: Vec<&dyn Fn(usize) -> f64> = if use_season_lag { vec![&lag, &season_lag] } else { vec![&lag] };
    let Some(fit) = regress(from, n, positions, |t| y[t], &columns) else { return fallback() };
    let spread = (variance(&y[from..]) * (n - from) as f64).sqrt().max(1e-12);
    let unit_root = fit.coefficients[0] > 0.5 && fit.coefficients[0] + 2.0 * fit.deviation / spread > 0.9;
    if unit_root && !use_season_lag {
        let Some(growth) = regress(1, n, positions, |t| y[t] - y[t - 1], &[]) else { return fallback() };
        let average = mean(&growth.means);
        let noise = ONE_SIDED_95 * growth.deviation / ((n - 1) as f64).sqrt();
        let drift = average.signum() * (average.abs() - noise).max(0.0);
        let mut value = last;
        return (0..horizon)
            .map(|h| {
                value += growth.means[(n + h) % positions] - average + drift;
                value
            })
            .collect();
    }
    let mut path = y.to_vec();
    for t in n..n + horizon {
        let mut value = fit.means[t % positions] + fit.coefficients[0] * path[t - 1];
        if use_season_lag {
            value += fit.coefficients[1] * path[t - m];
        }
        path.push(value);
    }
    path.split_off(n)
}

fn calibrate(extended: &[f64], shape: &Shape, horizon: usize) -> Option<Vec<f64>> {
    let (n, m) = (extended.len(), shape.season);
    let history = n - horizon;
    let positions = if shape.seasonal { m } else { 1 };
    let richer = shape.differenced && shape.seasonal_lag && history > 4 * m;
    let lag = |t: usize| extended[t - 1];
    let season_lag = |t: usize| extended[t - m];
    let season_lag_before = |t: usize| extended[t - m - 1];
    let angle = |t: usize| std::f64::consts::TAU * t as f64 / m as f64;
    let (sine, cosine) = (|t: usize| angle(t).sin(), |t: usize| angle(t).cos());
    let recent = |t: usize| f64::from(u8::from(t + 2 * m >= history));
    let mut columns: Vec<&dyn Fn(usize) -> f64> = Vec::new();
    let mut from = 0;
    if shape.differenced {
        columns.push(&lag);
        from = 1;
    }
    if richer {
        columns.extend([&season_lag as &dyn Fn(usize) -> f64, &season_lag_before]);
        from = m + 1;
    }
    if !shape.seasonal && m > 1 {
        columns.extend([&sine as &dyn Fn(usize) -> f64, &cosine]);
    }
    if m > 1 && m < 24 && history > 3 * m {
        columns.push(&recent);
    }
    let fit = regress(from, n, positions, |t| extended[t], &columns)?;
    Some(
        (history..n)
            .map(|t| {
                fit.means[t % positions] + columns.iter().zip(&fit.coefficients).map(|(c, b)| b * c(t)).sum::<f64>()
            })
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seasonal_series_keeps_its_season() {
        let history: Vec<f64> = (0..240)
            .map(|t| 100.0 + 30.0 * (std::f64::consts::TAU * f64::from(t) / 24.0).sin() + f64::from(t % 7) * 0.1)
            .collect();
        let forecast = forecast(&history, 24, 48).unwrap();
        for (h, value) in forecast.iter().enumerate() {
            let expected = 100.0 + 30.0 * (std::f64::consts::TAU * (240 + h) as f64 / 24.0).sin();
            assert!((value - expected).abs() < 6.0, "step {h}: {value} instead of {expected}");
        }
    }

    #[test]
    fn too_short_a_series_is_declined() {
        assert!(forecast(&[1.0, 2.0, 3.0], 1, 2).is_none());
    }
}
