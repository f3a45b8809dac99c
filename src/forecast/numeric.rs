//! Small numerics shared by the methods: means, quantiles, the normal distribution, ridge least squares and
//! a simplex search. Everything works on plain slices of `f64`; nothing here knows about time.

/// Arithmetic mean; 0 for an empty slice.
pub(crate) fn mean(values: &[f64]) -> f64 {
    if values.is_empty() { 0.0 } else { values.iter().sum::<f64>() / values.len() as f64 }
}

/// Population variance; 0 for fewer than two values.
pub(crate) fn variance(values: &[f64]) -> f64 {
    if values.len() < 2 {
        return 0.0;
    }
    let centre = mean(values);
    values.iter().map(|v| (v - centre).powi(2)).sum::<f64>() / values.len() as f64
}

/// Quantile of already sorted values at `p` in [0, 1] with linear interpolation (type 7); 0 when empty.
pub(crate) fn quantile_of_sorted(sorted: &[f64], p: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return 0.0 };
    let position = p.clamp(0.0, 1.0) * last as f64;
    let below = position.floor() as usize;
    let above = (below + 1).min(last);
    sorted[below] + (position - below as f64) * (sorted[above] - sorted[below])
}

/// Median; 0 when empty.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    quantile_of_sorted(&sorted, 0.5)
}

/// Standard normal distribution function, by the complementary error function of Numerical Recipes
/// (Press et al., 6.2.2), absolute error below 1.2e-7.
pub(crate) fn normal_cdf(z: f64) -> f64 {
    let x = z.abs() / std::f64::consts::SQRT_2;
    let t = 1.0 / (1.0 + 0.5 * x);
    let polynomial = -1.265_512_23
        + t * (1.000_023_68
            + t * (0.374_091_96
                + t * (0.096_784_18
                    + t * (-0.186_288_06
                        + t * (0.278_868_07
                            + t * (-1.135_203_98 + t * (1.488_515_87 + t * (-0.822_152_23 + t * 0.170_872_77))))))));
    let upper_tail = 0.5 * t * (-x * x + polynomial).exp();
    if z >= 0.0 { 1.0 - upper_tail } else { upper_tail }
}

/// Sample autocorrelations at lags `1..=max_lag` (index 0 holds lag 1), with the mean removed, divided by n as
/// in R's `acf`. A constant series gives zeros.
pub(crate) fn autocorrelations(values: &[f64], max_lag: usize) -> Vec<f64> {
    let centre = mean(values);
    let centred: Vec<f64> = values.iter().map(|v| v - centre).collect();
    let total: f64 = centred.iter().map(|v| v * v).sum();
    (1..=max_lag)
        .map(|lag| {
            if lag >= values.len() || total <= 0.0 {
                return 0.0;
            }
            centred[lag..].iter().zip(&centred).map(|(a, b)| a * b).sum::<f64>() / total
        })
        .collect()
}

/// Ridge least squares on accumulated normal equations.
#[derive(Debug, Clone)]
pub(crate) struct NormalEquations {
    width: usize,
    /// Lower triangle of X'WX, row by row.
    gram: Vec<f64>,
    moment: Vec<f64>,
}

impl NormalEquations {
    pub(crate) fn new(width: usize) -> Self {
        Self { width, gram: vec![0.0; width * width], moment: vec![0.0; width] }
    }

    pub(crate) fn add(&mut self, row: &[f64], target: f64, weight: f64) {
        for i in 0..self.width {
            let scaled = weight * row[i];
            if scaled == 0.0 {
                continue;
            }
            self.moment[i] += scaled * target;
            let line = &mut self.gram[i * self.width..i * self.width + i + 1];
            for (cell, value) in line.iter_mut().zip(row) {
                *cell += scaled * value;
            }
        }
    }

    /// Coefficients that minimise the squared error plus `penalty[i] * gram[i][i] * b[i]^2`: the penalty is
    /// relative to each column's own size, so it means the same for every scale. A column without variation gets
    /// a coefficient of zero. `None` when the equations have no finite solution.
    pub(crate) fn solve(&self, penalty: &[f64]) -> Option<Vec<f64>> {
        let n = self.width;
        let mut factor = self.gram.clone();
        let largest = (0..n).map(|i| factor[i * n + i]).fold(0.0, f64::max);
        if !largest.is_finite() {
            return None;
        }
        let tiny = largest * 1e-12 + f64::MIN_POSITIVE;
        for i in 0..n {
            let diagonal = factor[i * n + i];
            factor[i * n + i] = diagonal * (1.0 + penalty[i]) + tiny;
        }
        for j in 0..n {
            for k in 0..j {
                let pivot = factor[j * n + k];
                if pivot != 0.0 {
                    for i in j..n {
                        factor[i * n + j] -= factor[i * n + k] * pivot;
                    }
                }
            }
            let pivot = factor[j * n + j];
            // A dependent column: its remaining mass is rounding noise. Dropping it keeps the others exact.
            if pivot <= tiny * 0.5 {
                for i in j..n {
                    factor[i * n + j] = 0.0;
                }
                factor[j * n + j] = f64::INFINITY;
            } else {
                let root = pivot.sqrt();
                for i in j..n {
                    factor[i * n + j] /= root;
                }
            }
        }
        let mut solution = self.moment.clone();
        for i in 0..n {
            let known: f64 = (0..i).map(|k| factor[i * n + k] * solution[k]).sum();
            solution[i] = (solution[i] - known) / factor[i * n + i];
        }
        for i in (0..n).rev() {
            let known: f64 = (i + 1..n).map(|k| factor[k * n + i] * solution[k]).sum();
            solution[i] = (solution[i] - known) / factor[i * n + i];
        }
        solution.iter().all(|b| b.is_finite()).then_some(solution)
    }
}

/// Nelder and Mead's simplex search inside a box, from `start`, with at most `max_evaluations` calls.
/// Deterministic; a loss that is not finite counts as infinitely bad.
pub(crate) fn minimise(
    start: &[f64],
    lower: &[f64],
    upper: &[f64],
    max_evaluations: usize,
    mut loss: impl FnMut(&[f64]) -> f64,
) -> Vec<f64> {
    let n = start.len();
    let mut evaluations = 0;
    let mut evaluate = |point: &mut Vec<f64>| {
        for i in 0..n {
            point[i] = point[i].clamp(lower[i], upper[i]);
        }
        evaluations += 1;
        let value = loss(point);
        (if value.is_finite() { value } else { f64::INFINITY }, evaluations)
    };
    let mut simplex: Vec<(f64, Vec<f64>)> = Vec::with_capacity(n + 1);
    for corner in 0..=n {
        let mut point = start.to_vec();
        if let Some(i) = corner.checked_sub(1) {
            let width = upper[i] - lower[i];
            point[i] += if point[i] + 0.25 * width <= upper[i] { 0.25 * width } else { -0.25 * width };
        }
        let (value, _) = evaluate(&mut point);
        simplex.push((value, point));
    }
    loop {
        simplex.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (best, worst) = (simplex[0].0, simplex[n].0);
        if (worst - best).abs() <= 1e-6 * (best.abs() + 1e-12) {
            break;
        }
        let centroid: Vec<f64> =
            (0..n).map(|i| simplex[..n].iter().map(|(_, p)| p[i]).sum::<f64>() / n as f64).collect();
        let along = |factor: f64, worst_point: &[f64]| -> Vec<f64> {
            centroid.iter().zip(worst_point).map(|(c, w)| c + factor * (c - w)).collect()
        };
        let mut reflected = along(1.0, &simplex[n].1);
        let (reflected_value, mut spent) = evaluate(&mut reflected);
        if reflected_value < best {
            let mut expanded = along(2.0, &simplex[n].1);
            let (expanded_value, after) = evaluate(&mut expanded);
            spent = after;
            simplex[n] = if expanded_value < reflected_value {
                (expanded_value, expanded)
            } else {
                (reflected_value, reflected)
            };
        } else if reflected_value < simplex[n - 1].0 {
            simplex[n] = (reflected_value, reflected);
        } else {
            let mut contracted = along(-0.5, &simplex[n].1);
            let (contracted_value, after) = evaluate(&mut contracted);
            spent = after;
            if contracted_value < worst {
                simplex[n] = (contracted_value, contracted);
            } else {
                let anchor = simplex[0].1.clone();
                for (value, point) in simplex.iter_mut().skip(1) {
                    for i in 0..n {
                        point[i] = anchor[i] + 0.5 * (point[i] - anchor[i]);
                    }
                    (*value, spent) = evaluate(point);
                }
            }
        }
        if spent >= max_evaluations {
            break;
        }
    }
    simplex.sort_by(|a, b| a.0.total_cmp(&b.0));
    simplex.swap_remove(0).1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ridge_recovers_a_line_and_ignores_a_repeated_column() {
        let mut equations = NormalEquations::new(3);
        for t in 0..50 {
            let x = f64::from(t);
            equations.add(&[1.0, x, x], 3.0 + 2.0 * x, 1.0);
        }
        let b = equations.solve(&[0.0, 0.0, 0.0]).unwrap();
        assert!((b[0] - 3.0).abs() < 1e-4, "{b:?}");
        assert!((b[1] + b[2] - 2.0).abs() < 1e-4, "{b:?}");
    }

    #[test]
    fn normal_distribution_has_its_known_values() {
        assert!((normal_cdf(1.959_964) - 0.975).abs() < 1e-6);
        assert!((normal_cdf(-1.0) - 0.158_655).abs() < 1e-6);
    }

    #[test]
    fn simplex_finds_the_bottom_of_a_bowl() {
        let found =
            minimise(&[0.5, 0.5], &[0.0, 0.0], &[1.0, 1.0], 300, |p| (p[0] - 0.2).powi(2) + (p[1] - 0.9).powi(2));
        assert!((found[0] - 0.2).abs() < 1e-2 && (found[1] - 0.9).abs() < 1e-2, "{found:?}");
    }

    #[test]
    fn quantiles_interpolate() {
        assert_eq!(quantile_of_sorted(&[1.0, 2.0, 3.0, 4.0], 0.5), 2.5);
        assert_eq!(median(&[]), 0.0);
    }
}
