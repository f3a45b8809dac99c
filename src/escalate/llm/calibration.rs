//! What a model's own confidence is worth.
//!
//! Asked for a number, models say 0.9 nearly always and are right less often (Xiong et al., "Can LLMs Express Their
//! Uncertainty?", ICLR 2024). So a threshold means nothing to them until their answers were compared with true labels.
//! Until then confidence is cut below the default `auto_route`: a person looks at each.

use std::cmp::Ordering;

use crate::config::llm::{Calibration, Isotonic};

/// With fewer answers than this a fitted map would say what chance said.
const MIN_ROWS: usize = 50;

impl Calibration {
    /// `stated` is between 0 and 1, and so is the result.
    pub fn apply(&self, stated: f32) -> f32 {
        match self {
            Calibration::Capped { cap } => stated.min(*cap),
            Calibration::Temperature { temperature } => {
                // "1.0" is a way of speaking, not certainty: its odds would stay infinite at any temperature.
                let bounded = stated.clamp(0.001, 0.999);
                let log_odds = (bounded / (1.0 - bounded)).ln();
                1.0 / (1.0 + (-log_odds / temperature).exp())
            }
            Calibration::Isotonic(isotonic) => isotonic.apply(stated),
        }
    }
}

impl Isotonic {
    /// Pools adjacent violators (Ayer et al. 1955) over answers whose truth is known. `None` when there are too few.
    ///
    /// Each pool counts one more right and one more wrong answer than it has, so that ten right ones are not certainty.
    pub fn fit(rows: impl IntoIterator<Item = (f32, bool)>) -> Option<Self> {
        let mut rows: Vec<(f32, bool)> = rows.into_iter().filter(|row| row.0.is_finite()).collect();
        if rows.len() < MIN_ROWS {
            return None;
        }
        rows.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut pools: Vec<Pool> = Vec::new();
        for equal in rows.chunk_by(|a, b| a.0.total_cmp(&b.0) == Ordering::Equal) {
            let right = equal.iter().filter(|row| row.1).count() as f64;
            let stated = f64::from(equal[0].0);
            let mut pool = Pool { stated: stated * equal.len() as f64, right, rows: equal.len() as f64 };
            while let Some(before) = pools.pop_if(|before| before.share() >= pool.share()) {
                pool.add(&before);
            }
            pools.push(pool);
        }
        let points = pools.iter().map(|pool| ((pool.stated / pool.rows) as f32, pool.share() as f32)).collect();
        Some(Isotonic::new(points))
    }

    fn apply(&self, stated: f32) -> f32 {
        let after = self.points().partition_point(|point| point.0 < stated);
        match (after.checked_sub(1).and_then(|before| self.points().get(before)), self.points().get(after)) {
            (Some(&(x0, y0)), Some(&(x1, y1))) => y0 + (y1 - y0) * (stated - x0) / (x1 - x0),
            (Some(&(_, level)), None) | (None, Some(&(_, level))) => level,
            (None, None) => 0.0,
        }
    }
}

/// Neighbouring answers that count as one.
struct Pool {
    stated: f64,
    right: f64,
    rows: f64,
}

impl Pool {
    fn share(&self) -> f64 {
        (self.right + 1.0) / (self.rows + 2.0)
    }

    fn add(&mut self, other: &Pool) {
        self.stated += other.stated;
        self.right += other.right;
        self.rows += other.rows;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn by_default_nothing_is_routed_unseen() {
        assert!(Calibration::default().apply(1.0) < 0.85);
        assert_eq!(Calibration::default().apply(0.3), 0.3);
    }

    #[test]
    fn temperature_keeps_the_middle_and_lowers_the_rest() {
        let calibration = Calibration::Temperature { temperature: 2.0 };
        assert!((calibration.apply(0.5) - 0.5).abs() < 1e-6);
        assert!((0.7..0.8).contains(&calibration.apply(0.9)));
        assert!(calibration.apply(1.0) < 0.98);
    }

    #[test]
    fn a_fit_finds_the_share_that_is_right() {
        // Says 0.9 and is right in three of four, says 0.6 and is right in two of four.
        let rows = (0..400).map(|row| if row % 2 == 0 { (0.9, row % 8 != 0) } else { (0.6, row % 4 == 1) });
        let isotonic = Isotonic::fit(rows).expect("there are enough");
        assert!((isotonic.apply(0.9) - 0.75).abs() < 0.01 && (isotonic.apply(0.6) - 0.5).abs() < 0.01);
        assert!((isotonic.apply(0.75) - 0.625).abs() < 0.01);
        assert_eq!(isotonic.apply(1.0), isotonic.apply(0.9));
        assert!(Isotonic::fit([(0.9, true); 49]).is_none());
    }

    #[test]
    fn wild_points_are_refused() {
        for points in [vec![], vec![(0.5, 1.2)], vec![(0.5, 0.9), (0.6, 0.8)], vec![(0.5, 0.5), (0.5, 0.6)]] {
            assert!(!Calibration::Isotonic(Isotonic::new(points)).is_sound());
        }
    }

    proptest! {
        #[test]
        fn a_fit_rises_and_stays_within_bounds(
            rows in prop::collection::vec((0f32..=1.0, any::<bool>()), 50..200),
            a in 0f32..=1.0,
            b in 0f32..=1.0,
        ) {
            let calibration = Calibration::Isotonic(Isotonic::fit(rows).expect("there are enough"));
            prop_assert!(calibration.is_sound());
            let (low, high) = (calibration.apply(a.min(b)), calibration.apply(a.max(b)));
            prop_assert!(low <= high + 1e-6 && (0.0..=1.0).contains(&low) && (0.0..=1.0).contains(&high));
        }
    }
}
