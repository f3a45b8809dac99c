//! What a forecast starts from: the counts of one queue or of the total, cleaned, and the season lengths that its
//! history can support.

use super::numeric::autocorrelations;

/// Values above this are cut: sums of squares over a long history must stay finite.
const LARGEST_VALUE: f64 = 1e60;
/// Longer cycles that often lie over a shorter one: hours in a day and in a week, minutes in an hour and in a day.
const LONGER_CYCLES: [(usize, usize); 5] = [(24, 168), (60, 1440), (48, 336), (96, 672), (1440, 10_080)];
/// Cycles looked for when no season is named, the first that shows being taken: weeks in a year, hours in a day,
/// months in a year, days in a week.
const UNNAMED_CYCLES: [usize; 4] = [52, 24, 12, 7];
/// A season needs this many steps of history beyond two whole cycles before a regression may use it.
const STEPS_BEYOND_TWO_CYCLES: usize = 16;

/// Equally spaced counts, oldest first, and what is asked of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// Counts per step; negative or non-finite values are cleaned before use.
    pub values: Vec<f64>,
    /// Season lengths in steps, in any order; empty or `[1]` when none is known.
    pub seasons: Vec<usize>,
    /// Steps to forecast; 0 counts as 1.
    pub horizon: usize,
}

impl Series {
    /// Values without gaps: a negative value becomes 0, a non-finite one repeats its predecessor.
    pub(crate) fn cleaned(&self) -> Vec<f64> {
        let mut last = 0.0;
        self.values
            .iter()
            .map(|value| {
                if value.is_finite() {
                    last = value.clamp(0.0, LARGEST_VALUE);
                }
                last
            })
            .collect()
    }

    /// Season lengths, shortest first, that `history` can support, with a longer or an unnamed cycle added where
    /// the history's autocorrelation shows one.
    pub(crate) fn supported_seasons(&self, history: &[f64]) -> Vec<usize> {
        let n = history.len();
        let mut seasons: Vec<usize> = self.seasons.iter().copied().filter(|s| *s > 1).collect();
        if seasons.is_empty() {
            seasons.extend(unnamed_cycle(history));
        } else if seasons.len() == 1
            && let Some((_, longer)) = LONGER_CYCLES.iter().find(|(short, _)| *short == seasons[0])
        {
            seasons.push(*longer);
        }
        seasons.sort_unstable();
        seasons.dedup();
        seasons.retain(|s| supports(n, *s));
        seasons
    }
}

/// Whether `n` values are enough to estimate a season of this length.
pub(crate) fn supports(n: usize, season: usize) -> bool {
    n >= 2 * season + STEPS_BEYOND_TWO_CYCLES
}

/// The first of [`UNNAMED_CYCLES`] at whose lag the differences are autocorrelated beyond the one-sided 95 % limit.
fn unnamed_cycle(history: &[f64]) -> Option<usize> {
    let growth: Vec<f64> = history.windows(2).map(|w| w[1] - w[0]).collect();
    let longest = UNNAMED_CYCLES.iter().copied().filter(|s| supports(history.len(), *s)).max()?;
    let acf = autocorrelations(&growth, longest);
    let limit = |season: usize| {
        let spread: f64 = 1.0 + 2.0 * acf[..season - 1].iter().map(|r| r * r).sum::<f64>();
        1.645 * (spread / growth.len() as f64).sqrt()
    };
    UNNAMED_CYCLES.iter().copied().find(|s| supports(history.len(), *s) && acf[s - 1] > limit(*s))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(values: Vec<f64>, seasons: &[usize]) -> Series {
        Series { values, seasons: seasons.to_vec(), horizon: 4 }
    }

    #[test]
    fn cleaning_removes_what_no_count_can_be() {
        let cleaned = series(vec![f64::NAN, 3.0, -1.0, f64::INFINITY, 5.0], &[]).cleaned();
        assert_eq!(cleaned, vec![0.0, 3.0, 0.0, 0.0, 5.0]);
    }

    #[test]
    fn seasons_need_history_and_days_bring_weeks() {
        let long = series(vec![1.0; 400], &[24]);
        assert_eq!(long.supported_seasons(&long.values), vec![24, 168]);
        let short = series(vec![1.0; 70], &[168, 24]);
        assert_eq!(short.supported_seasons(&short.values), vec![24]);
    }

    #[test]
    fn an_unnamed_year_of_weeks_is_found() {
        let values = (0..300).map(|t| 50.0 + 20.0 * f64::from(u8::from(t % 52 < 9))).collect();
        let weekly = series(values, &[1]);
        assert_eq!(weekly.supported_seasons(&weekly.values), vec![52]);
        let flat = series(vec![4.0; 300], &[]);
        assert!(flat.supported_seasons(&flat.values).is_empty());
    }
}
