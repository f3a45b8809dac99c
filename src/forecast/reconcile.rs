//! Coherence of the queues' forecasts with the total's: after reconciliation the queues' means add up to the
//! total's, step by step and over the horizon.

use super::outcome::{Forecast, Trend, probability_of_increase};

/// Spreads each step's gap between `total` and the sum of `queues` over all of them in proportion to their error
/// variances (weighted least squares with a diagonal matrix; Wickramasuriya, Athanasopoulos and Hyndman, "Optimal
/// forecast reconciliation", JASA 2019), keeps every mean at or above zero, and moves the bounds along. Horizons
/// must agree; steps beyond the shortest are left alone.
pub fn reconcile(queues: &mut [Forecast], total: &mut Forecast) {
    if queues.is_empty() {
        return;
    }
    let horizon = queues.iter().map(|q| q.means.len()).min().unwrap_or(0).min(total.means.len());
    let mut means: Vec<Vec<f64>> = queues.iter().map(|q| q.means.clone()).collect();
    let mut total_means = total.means.clone();
    for h in 0..horizon {
        let step: Vec<f64> = queues.iter().map(|q| q.means[h]).collect();
        let variances: Vec<f64> = queues.iter().map(|q| q.deviations[h].powi(2)).collect();
        let reconciled = reconcile_step(&step, &variances, total.means[h], total.deviations[h].powi(2));
        for (line, value) in means.iter_mut().zip(&reconciled) {
            line[h] = *value;
        }
        total_means[h] = reconciled.iter().sum();
    }
    for (queue, line) in queues.iter_mut().zip(means) {
        replace_means(queue, line);
    }
    replace_means(total, total_means);
}

/// Reconciled means of one step: each queue takes a share of the gap as large as its share of the variance. What
/// a queue at zero cannot give is asked of the others.
fn reconcile_step(means: &[f64], variances: &[f64], total: f64, total_variance: f64) -> Vec<f64> {
    let all: f64 = variances.iter().sum();
    let sum: f64 = means.iter().sum();
    let gap = total - sum;
    // Without any variance the queues are taken as they are.
    let moved = if all + total_variance > 0.0 { gap * all / (all + total_variance) } else { 0.0 };
    let target = (sum + moved).max(0.0);
    let mut reconciled = means.to_vec();
    for _ in 0..=means.len() {
        let left = target - reconciled.iter().sum::<f64>();
        if left.abs() <= 1e-12 * target.max(1.0) {
            break;
        }
        let movable = |i: usize| if left < 0.0 && reconciled[i] <= 0.0 { 0.0 } else { variances[i] };
        let weights: Vec<f64> = (0..means.len()).map(movable).collect();
        let weight: f64 = weights.iter().sum();
        if weight <= 0.0 {
            break;
        }
        for (value, w) in reconciled.iter_mut().zip(&weights) {
            *value = (*value + left * w / weight).max(0.0);
        }
    }
    reconciled
}

fn replace_means(forecast: &mut Forecast, means: Vec<f64>) {
    for ((bounds, from), to) in forecast.bounds.iter_mut().zip(&forecast.means).zip(&means) {
        *bounds = bounds.shifted(*from, *to);
    }
    let sum: f64 = means.iter().sum();
    let total = &mut forecast.total;
    total.bounds = total.bounds.shifted(total.mean, sum);
    total.mean = sum;
    forecast.means = means;
    forecast.probability_of_increase = probability_of_increase(sum, total.deviation, total.previous);
    forecast.trend = Trend::of(forecast.probability_of_increase);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gap_goes_where_the_uncertainty_is() {
        let reconciled = reconcile_step(&[10.0, 10.0], &[1.0, 3.0], 28.0, 4.0);
        assert_eq!(reconciled, vec![11.0, 13.0]);
    }

    #[test]
    fn no_mean_falls_below_zero() {
        let reconciled = reconcile_step(&[1.0, 30.0], &[100.0, 1.0], 10.0, 1e-6);
        assert!(reconciled.iter().all(|v| *v >= 0.0));
        assert!((reconciled.iter().sum::<f64>() - 10.0).abs() < 1e-3, "{reconciled:?}");
    }

    #[test]
    fn queues_without_spread_stay() {
        assert_eq!(reconcile_step(&[2.0, 3.0], &[0.0, 0.0], 9.0, 0.0), vec![2.0, 3.0]);
    }
}
