//! Prediction intervals from back-test errors, for each step and for the horizon's total.
//!
//! Each step's spread comes from the errors at that step and its neighbours over all origins; the multiple of the
//! spread that a level needs comes from errors standardised by the *other* origins' spread (split conformal in
//! spirit; Vovk, Gammerman and Shafer 2005), widened as Student's t for few origins. Counts keep at least the
//! spread that a Poisson count of that mean has, unless many errors show less.

use super::numeric::{mean, quantile_of_sorted};
use super::outcome::{Bounds, Level};

/// Errors of the chosen forecast at past origins: `errors[origin][step]` is actual minus forecast.
#[derive(Debug, Clone)]
pub(crate) struct PastErrors {
    pub(crate) errors: Vec<Vec<f64>>,
    /// Forecast that each error belongs to.
    pub(crate) forecasts: Vec<Vec<f64>>,
}

/// How spread grows over the steps and how wide each level is.
#[derive(Debug, Clone)]
pub(crate) struct Spread {
    /// Standard deviation of each step of the horizon.
    pub(crate) deviations: Vec<f64>,
    /// Multiples of the deviation for 80, 95 and 99 %.
    multiples: [f64; 3],
    /// Standard deviation of the total and its multiples.
    pub(crate) total_deviation: f64,
    total_multiples: [f64; 3],
    /// Share of the Poisson variance that the errors leave plausible, 0 to 1; 0 for values that are no counts.
    poisson: f64,
    /// Share of past outcomes inside the 95 % interval made from the other origins.
    pub(crate) coverage95: Option<f64>,
}

/// Pseudo-origins of the wider neighbourhood's spread mixed into each step's own.
const NEIGHBOURHOOD_ORIGINS: f64 = 2.0;
/// Pseudo-errors at full Poisson variance: few errors cannot argue that a count is smoother than Poisson.
const POISSON_PRIOR: f64 = 4.0;
/// Pseudo-origins of the total's prior spread, mixed in as a geometric mean: a few totals that happen to agree
/// must not promise certainty, and many need no prior.
const TOTAL_PRIOR_ORIGINS: f64 = 1.5;
/// Share of the empirical multiple against the Student one. Errors of one origin move together, so the sample is
/// worth less than its size, and half the trust stays with the distribution.
const EMPIRICAL_SHARE: f64 = 0.5;
/// Widening of the multiples for 80, 95 and 99 %: the next window differs from the past ones by more than they do
/// among themselves. Set where M4 hourly hold-outs at three origins are covered at their nominal share on average.
const WIDENING: [f64; 3] = [1.02, 1.10, 1.12];

impl Spread {
    /// `history` and the forecast `means` are those of the horizon to come.
    pub(crate) fn estimate(history: &[f64], means: &[f64], past: &PastErrors) -> Self {
        let horizon = means.len();
        let poisson = plausible_poisson_share(history, past);
        let origins = past.errors.len();
        if origins == 0 {
            return Self::without_errors(history, means, poisson);
        }
        let steps = past.errors[0].len();
        let squares: Vec<Vec<f64>> = past.errors.iter().map(|line| line.iter().map(|e| e * e).collect()).collect();
        let variance = smoothed_variance(&squares, None);
        let mut standardised = Vec::with_capacity(origins * steps);
        if origins >= 3 {
            for (left_out, line) in past.errors.iter().enumerate() {
                let others = smoothed_variance(&squares, Some(left_out));
                for (h, e) in line.iter().enumerate() {
                    let floor = poisson * past.forecasts[left_out][h];
                    let deviation = others[h].max(floor).sqrt();
                    standardised.push(if deviation > 0.0 {
                        e.abs() / deviation
                    } else if *e == 0.0 {
                        0.0
                    } else {
                        4.0
                    });
                }
            }
        }
        let multiples = step_multiples(&mut standardised, origins);
        let coverage95 = (origins >= 3)
            .then(|| mean(&standardised.iter().map(|z| f64::from(u8::from(*z <= multiples[1]))).collect::<Vec<_>>()));
        let deviations: Vec<f64> = (0..horizon)
            .map(|h| {
                let beyond = (h + 1) as f64 / steps as f64;
                let grown = variance[h.min(steps - 1)] * beyond.max(1.0);
                grown.max(poisson * count_variance(means[h], history.len())).sqrt()
            })
            .collect();
        let total_deviation = total_deviation(past, &deviations, steps);
        // Windows of neighbouring origins overlap by half: they count as half as many.
        let total_multiples =
            widened(Level::ALL.map(|level| student(level.normal_quantile(), 0.5 * origins as f64 + 1.0)));
        Self { deviations, multiples, total_deviation, total_multiples, poisson, coverage95 }
    }

    /// Too short a history to have errors: its own spread and the counting noise are all there is.
    fn without_errors(history: &[f64], means: &[f64], poisson: f64) -> Self {
        let n = history.len() as f64;
        let own =
            if history.len() < 2 { 0.0 } else { super::numeric::variance(history) * n / (n - 1.0) * (1.0 + 1.0 / n) };
        let deviations: Vec<f64> =
            means.iter().map(|m| own.max(poisson.max(0.25) * count_variance(*m, history.len())).sqrt()).collect();
        // The level itself is uncertain and common to all steps: errors of the steps are taken as half common.
        let (sum, squares) = deviations.iter().fold((0.0, 0.0), |(s, q), d| (s + d, q + d * d));
        let total_deviation = (0.5 * sum * sum + 0.5 * squares).sqrt();
        let multiples = Level::ALL.map(|level| student(level.normal_quantile(), n.max(2.0)));
        Self { deviations, multiples, total_deviation, total_multiples: multiples, poisson, coverage95: None }
    }

    /// Bounds of step `h` around `mean`.
    pub(crate) fn bounds(&self, h: usize, mean: f64) -> Bounds {
        self.around(mean, self.deviations[h], self.multiples)
    }

    /// Bounds of the total around its mean.
    pub(crate) fn total_bounds(&self, mean: f64) -> Bounds {
        self.around(mean, self.total_deviation, self.total_multiples)
    }

    fn around(&self, mean: f64, deviation: f64, multiples: [f64; 3]) -> Bounds {
        let mut pairs = multiples.map(|m| (mean - m * deviation, mean + m * deviation));
        if self.poisson >= 0.5 {
            for (pair, level) in pairs.iter_mut().zip(Level::ALL) {
                let tail = 0.5 * (1.0 - level.share());
                if let Some((low, high)) = poisson_bounds(mean, tail) {
                    *pair = (pair.0.min(low), pair.1.max(high));
                }
            }
        }
        Bounds::nested(mean, pairs)
    }
}

/// Variance at each step: errors at the step and its close neighbours, drawn towards those of a wider
/// neighbourhood.
fn smoothed_variance(squares: &[Vec<f64>], left_out: Option<usize>) -> Vec<f64> {
    let steps = squares[0].len();
    let lines: Vec<&Vec<f64>> =
        squares.iter().enumerate().filter(|(i, _)| Some(*i) != left_out).map(|(_, l)| l).collect();
    let count = lines.len() as f64;
    let mut sums = Vec::with_capacity(steps + 1);
    let mut total = 0.0;
    sums.push(total);
    for h in 0..steps {
        total += lines.iter().map(|line| line[h]).sum::<f64>() / count;
        sums.push(total);
    }
    let window = |h: usize, radius: usize| {
        let (from, to) = (h.saturating_sub(radius), (h + radius + 1).min(steps));
        (sums[to] - sums[from]) / (to - from) as f64
    };
    (0..steps)
        .map(|h| {
            let (near, wide) = (window(h, (steps / 24).max(1)), window(h, (steps / 3).max(1)));
            (count * near + NEIGHBOURHOOD_ORIGINS * wide) / (count + NEIGHBOURHOOD_ORIGINS)
        })
        .collect()
}

/// Multiples of the deviation for the three levels.
fn step_multiples(standardised: &mut [f64], origins: usize) -> [f64; 3] {
    let parametric = Level::ALL.map(|level| student(level.normal_quantile(), 2.0 * origins as f64 + 1.0));
    if standardised.is_empty() {
        return widened(parametric);
    }
    standardised.sort_by(f64::total_cmp);
    let n = standardised.len() as f64;
    let mut multiples = parametric;
    for (multiple, level) in multiples.iter_mut().zip(Level::ALL) {
        let empirical = quantile_of_sorted(standardised, (level.share() * (n + 1.0) / n).min(1.0));
        *multiple = EMPIRICAL_SHARE * empirical + (1.0 - EMPIRICAL_SHARE) * *multiple;
    }
    widened(multiples)
}

fn widened(multiples: [f64; 3]) -> [f64; 3] {
    std::array::from_fn(|i| multiples[i] * WIDENING[i])
}

/// Total's standard deviation from errors of totals, drawn towards what half-correlated steps would give, and
/// scaled up where the horizon is longer than the past windows.
fn total_deviation(past: &PastErrors, deviations: &[f64], steps: usize) -> f64 {
    let origins = past.errors.len() as f64;
    let squared = past.errors.iter().map(|line| line.iter().sum::<f64>().powi(2)).sum::<f64>() / origins;
    let implied = |d: &[f64]| {
        let (sum, squares) = d.iter().fold((0.0, 0.0), |(s, q), d| (s + d, q + d * d));
        (0.3 * sum * sum + 0.7 * squares, squares)
    };
    let (prior, independent) = implied(&deviations[..steps.min(deviations.len())]);
    let share = TOTAL_PRIOR_ORIGINS / (origins + TOTAL_PRIOR_ORIGINS);
    let drawn = (squared.powf(1.0 - share) * prior.powf(share)).max(0.5 * independent);
    if deviations.len() <= steps {
        return drawn.sqrt();
    }
    let (whole, _) = implied(deviations);
    if prior > 0.0 { (drawn * whole / prior).sqrt() } else { whole.sqrt() }
}

/// Poisson variance of a count whose mean was itself estimated; never quite 0, for a count not seen in `n` steps
/// may still come.
fn count_variance(mean: f64, n: usize) -> f64 {
    let n = n as f64 + 1.0;
    mean.max(0.5 / n) * (1.0 + 1.0 / n)
}

/// How much of the Poisson variance the errors leave plausible: 0 when the history holds fractions.
fn plausible_poisson_share(history: &[f64], past: &PastErrors) -> f64 {
    if history.iter().any(|v| v.fract() != 0.0) {
        return 0.0;
    }
    let (mut dispersion, mut count) = (0.0, 0.0);
    for (errors, forecasts) in past.errors.iter().zip(&past.forecasts) {
        for (e, f) in errors.iter().zip(forecasts) {
            dispersion += e * e / f.max(0.05);
            count += 1.0;
        }
    }
    ((dispersion + POISSON_PRIOR) / (count + POISSON_PRIOR)).min(1.0)
}

/// Smallest and largest count that leave no more than `tail` outside on each side. `None` above the means where
/// the normal bounds serve as well.
fn poisson_bounds(mean: f64, tail: f64) -> Option<(f64, f64)> {
    if mean <= 0.0 || mean > 50.0 {
        return None;
    }
    let (mut probability, mut below, mut count) = ((-mean).exp(), 0.0, 0.0);
    let mut lower = None;
    while below + probability < 1.0 - tail && count < 200.0 {
        if lower.is_none() && below + probability > tail {
            lower = Some(count);
        }
        below += probability;
        count += 1.0;
        probability *= mean / count;
    }
    Some((lower.unwrap_or(0.0).min(mean), count.max(mean)))
}

/// Two-sided Student quantile with `freedom` degrees, from the normal one by the Cornish-Fisher expansion
/// (Abramowitz and Stegun 26.7.5); good to a few percent from three degrees on, which is its use here.
fn student(z: f64, freedom: f64) -> f64 {
    let v = freedom.max(2.0);
    let (z3, z5) = (z.powi(3), z.powi(5));
    z + (z3 + z) / (4.0 * v) + (5.0 * z5 + 16.0 * z3 + 3.0 * z) / (96.0 * v * v)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn past(errors: Vec<Vec<f64>>, level: f64) -> PastErrors {
        let forecasts = errors.iter().map(|line| vec![level; line.len()]).collect();
        PastErrors { errors, forecasts }
    }

    #[test]
    fn a_total_of_opposite_errors_is_tighter_than_the_sum_of_bounds() {
        let errors = (0..8).map(|o| (0..12).map(|h| if (h + o) % 2 == 0 { 5.0 } else { -5.0 }).collect()).collect();
        let means = vec![100.5; 12];
        let spread = Spread::estimate(&[100.5; 40], &means, &past(errors, 100.5));
        let total = spread.total_bounds(1206.0);
        let width: f64 = (0..12).map(|h| spread.bounds(h, 100.5)).map(|b| b.upper95 - b.lower95).sum();
        assert!(total.upper95 - total.lower95 < 0.8 * width);
    }

    #[test]
    fn a_count_keeps_poisson_spread_while_few_errors_argue() {
        let spread = Spread::estimate(&[9.0; 6], &[9.0; 3], &past(vec![vec![0.0; 2]], 9.0));
        assert!(spread.deviations[0] > 2.0, "{spread:?}");
        let sure = Spread::estimate(&[9.0; 900], &[9.0; 3], &past(vec![vec![0.0; 48]; 10], 9.0));
        assert!(sure.deviations[0] < 0.6, "{sure:?}");
    }

    #[test]
    fn rare_counts_allow_one() {
        let (low, high) = poisson_bounds(0.1, 0.025).unwrap();
        assert_eq!((low, high), (0.0, 1.0));
    }

    #[test]
    fn student_is_close_to_its_table() {
        assert!((student(1.959_964, 10.0) - 2.228).abs() < 0.01);
    }
}
