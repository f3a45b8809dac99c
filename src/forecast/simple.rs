//! The plain methods: means, last values, seasonal naive and the Teunter-Syntetos-Babai method for sparse counts.
//! They serve short histories, and keep the stronger methods honest.

/// Smoothing of the demand probability and of the demand size in the sparse method.
const PROBABILITY_SMOOTHING: f64 = 0.1;
const SIZE_SMOOTHING: f64 = 0.2;
/// Simple smoothing factor for histories too short to estimate one.
const SHORT_SMOOTHING: f64 = 0.3;

/// Repeats the newest cycle. Needs a whole one.
pub(crate) fn seasonal_naive(history: &[f64], season: usize, horizon: usize) -> Option<Vec<f64>> {
    let cycle = &history[history.len().checked_sub(season.max(1))?..];
    Some((0..horizon).map(|h| cycle[h % cycle.len()]).collect())
}

/// Mean of the same phase over the newest four cycles: the seasonal naive with less noise.
pub(crate) fn seasonal_mean(history: &[f64], season: usize, horizon: usize) -> Option<Vec<f64>> {
    let cycles = (history.len() / season.max(1)).min(4);
    if cycles < 2 {
        return None;
    }
    let n = history.len();
    Some(
        (0..horizon)
            .map(|h| {
                let phase = h % season;
                (1..=cycles).map(|c| history[n - c * season + phase]).sum::<f64>() / cycles as f64
            })
            .collect(),
    )
}

/// Exponentially smoothed level, held flat. Zeros for an empty history.
pub(crate) fn smoothed_level(history: &[f64], horizon: usize) -> Vec<f64> {
    // The weight of a new value starts at an equal share, so that three values give nearly their mean.
    let level = history.iter().enumerate().fold(0.0, |level, (t, v)| {
        let weight = SHORT_SMOOTHING.max(1.0 / (t + 1) as f64);
        level + weight * (v - level)
    });
    vec![level; horizon]
}

/// Mean of the whole history, held flat.
pub(crate) fn overall_mean(history: &[f64], horizon: usize) -> Vec<f64> {
    vec![super::numeric::mean(history); horizon]
}

/// Expected demand of a sparse series: smoothed probability of a non-zero step times smoothed size (Teunter,
/// Syntetos and Babai, "Intermittent demand: linking forecasting to inventory obsolescence", EJOR 2011). Unlike
/// Croston's, the probability also falls while nothing comes.
pub(crate) fn sparse(history: &[f64], horizon: usize) -> Vec<f64> {
    let demands: Vec<f64> = history.iter().copied().filter(|v| *v > 0.0).collect();
    if demands.is_empty() {
        return vec![0.0; horizon];
    }
    let mut probability = demands.len() as f64 / history.len() as f64;
    let mut size = super::numeric::mean(&demands);
    for value in history {
        if *value > 0.0 {
            probability += PROBABILITY_SMOOTHING * (1.0 - probability);
            size += SIZE_SMOOTHING * (value - size);
        } else {
            probability -= PROBABILITY_SMOOTHING * probability;
        }
    }
    vec![probability * size; horizon]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seasonal_naive_repeats_the_last_cycle() {
        assert_eq!(seasonal_naive(&[9.0, 1.0, 2.0, 3.0], 3, 4), Some(vec![1.0, 2.0, 3.0, 1.0]));
        assert_eq!(seasonal_naive(&[9.0], 3, 4), None);
    }

    #[test]
    fn few_values_are_averaged_and_none_gives_zero() {
        assert_eq!(smoothed_level(&[], 2), vec![0.0; 2]);
        assert!((smoothed_level(&[2.0, 4.0, 6.0], 1)[0] - 4.0).abs() < 1e-12);
    }

    #[test]
    fn sparse_demand_is_a_rate_and_fades() {
        let steady: Vec<f64> = (0..100).map(|t| if t % 5 == 0 { 10.0 } else { 0.0 }).collect();
        let rate = sparse(&steady, 1)[0];
        assert!(rate > 1.0 && rate < 3.5, "{rate}");
        let mut gone = steady;
        gone.extend([0.0; 60]);
        assert!(sparse(&gone, 1)[0] < 0.1);
        assert_eq!(sparse(&[0.0; 9], 3), vec![0.0; 3]);
    }
}
