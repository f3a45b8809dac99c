//! A share with how sure one can be of it.

use serde::Serialize;
use utoipa::ToSchema;

/// Of the standard normal distribution, for 95 %.
const Z: f64 = 1.959_963_984_540_054;

/// A share of something with its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, ToSchema)]
pub struct Proportion {
    pub right: u64,
    pub of: u64,
    /// Absent without any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub share: Option<f64>,
    pub lower: f64,
    pub upper: f64,
}

impl Proportion {
    /// Wilson's score interval (E. B. Wilson, "Probable inference, the law of succession, and statistical inference",
    /// 1927), which stays within 0 and 1 and is honest about few trials.
    pub fn new(right: u64, of: u64) -> Self {
        if of == 0 {
            return Proportion { right, of, share: None, lower: 0.0, upper: 1.0 };
        }
        let n = of as f64;
        let share = right as f64 / n;
        let scale = 1.0 + Z * Z / n;
        let middle = (share + Z * Z / (2.0 * n)) / scale;
        let half = Z / scale * (share * (1.0 - share) / n + Z * Z / (4.0 * n * n)).sqrt();
        let (lower, upper) = ((middle - half).max(0.0), (middle + half).min(1.0));
        Proportion { right, of, share: Some(share), lower, upper }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn it_is_what_the_literature_says() {
        // R: binom::binom.confint(8, 10, methods = "wilson"): 0.4901625, 0.9433178.
        let eight = Proportion::new(8, 10);
        assert!((eight.lower - 0.490_162_5).abs() < 1e-6 && (eight.upper - 0.943_317_8).abs() < 1e-6, "{eight:?}");
        assert_eq!(Proportion::new(0, 0).share, None);
    }

    proptest! {
        #[test]
        fn the_share_lies_within_and_more_trials_narrow_it(right in 0u64..1000, more in 0u64..1000) {
            let of = right + more;
            prop_assume!(of > 0);
            let one = Proportion::new(right, of);
            let share = one.share.expect("there are some");
            prop_assert!(0.0 <= one.lower && one.lower <= share + 1e-12 && share <= one.upper + 1e-12 && one.upper <= 1.0);
            let ten = Proportion::new(right * 10, of * 10);
            prop_assert!(ten.upper - ten.lower < one.upper - one.lower);
        }
    }
}
