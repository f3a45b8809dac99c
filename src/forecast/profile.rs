//! Recency-weighted seasonal profile with the current level: the mean of the same phase in past cycles, newer
//! cycles counting more, shifted by how far the last season lies above or below that profile.

/// Weight of a cycle relative to the next newer one.
const CYCLE_MEMORY: f64 = 0.5;

/// Forecasts with the longest of the supported `seasons` (shortest first). In logs the profile is a geometric mean
/// and the shift a ratio. `None` without a season of two whole cycles.
pub(crate) fn forecast(history: &[f64], seasons: &[usize], logs: bool, horizon: usize) -> Option<Vec<f64>> {
    let n = history.len();
    let season = seasons.iter().copied().rfind(|s| n >= 2 * s)?;
    let shortest = *seasons.first()?;
    let y: Vec<f64> = if logs { history.iter().map(|v| v.ln_1p()).collect() } else { history.to_vec() };
    let level = moving_level(&y, shortest);
    let mut figure = vec![(0.0, 0.0); season];
    for (t, (v, l)) in y.iter().zip(&level).enumerate() {
        let weight = CYCLE_MEMORY.powf(((n - 1 - t) / season) as f64);
        figure[t % season].0 += weight * (v - l);
        figure[t % season].1 += weight;
    }
    let figure: Vec<f64> = figure.iter().map(|(total, weight)| total / weight).collect();
    let recent = |count: usize| (n - count..n).map(|t| y[t] - figure[t % season]).sum::<f64>() / count as f64;
    let (near, far) = (recent(shortest), recent(season));
    Some(
        (0..horizon)
            .map(|h| {
                // What the last short season shows fades into the longer one's view.
                let hold = 0.5 + 0.5 * (-(h as f64) / season as f64).exp();
                let value = figure[(n + h) % season] + hold * near + (1.0 - hold) * far;
                if logs { value.exp_m1() } else { value }
            })
            .collect(),
    )
}

/// Centred moving average over one season, its ends held constant.
fn moving_level(y: &[f64], season: usize) -> Vec<f64> {
    let n = y.len();
    let half = season / 2;
    let mut sums = Vec::with_capacity(n + 1);
    let mut total = 0.0;
    sums.push(total);
    for v in y {
        total += v;
        sums.push(total);
    }
    (0..n)
        .map(|t| {
            let centre = t.clamp(half, (n - 1).saturating_sub(half).max(half)).min(n - 1);
            let (from, to) = (centre.saturating_sub(half), (centre + season - half).min(n));
            (sums[to] - sums[from]) / (to - from) as f64
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shifted_week_keeps_its_shape_at_the_new_level() {
        let pattern = [1.0, 5.0, 3.0, 7.0];
        let history: Vec<f64> = (0..40).map(|t| pattern[t % 4] + if t < 32 { 10.0 } else { 20.0 }).collect();
        let forecast = forecast(&history, &[4], false, 4).unwrap();
        for (v, p) in forecast.iter().zip(pattern) {
            assert!((v - p - 20.0).abs() < 2.0, "{forecast:?}");
        }
    }

    #[test]
    fn without_two_cycles_there_is_no_profile() {
        assert!(forecast(&[1.0; 7], &[4], false, 3).is_none());
    }
}
