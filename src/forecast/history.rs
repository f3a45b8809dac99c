//! From volumes to series: which buckets a forecast may look at, and the empty ones filled in.

use std::collections::BTreeMap;

use crate::config::WindowSettings;
use crate::volumes::{TOTAL, Volume};

/// When a window is to be forecast next, and from where.
///
/// Returns the second at which the forecast starts: the end of the newest complete bucket, on a multiple of `every`.
/// `None` when that forecast, or a later one, is out already. Only the newest is ever made: what was missed while nobody
/// ran would be no forecast any more. A newest forecast that starts more than a horizon in the future was made by a
/// clock that was wrong, and is ignored.
pub(super) fn due(window: &WindowSettings, settle_seconds: i64, now: i64, newest: Option<i64>) -> Option<i64> {
    let every = window.every.as_secs() as i64;
    let start = (now - settle_seconds).div_euclid(every) * every;
    let credible = newest.filter(|newest| *newest <= now + window.horizon.as_secs() as i64);
    match credible {
        Some(newest) if newest >= start => None,
        _ => Some(start),
    }
}

/// The volumes of a window by queue, `TOTAL` among them, all of the same length and without gaps.
///
/// They begin with the first bucket in which anything happened at all, because what lies before is not "no events" but
/// "no daemon".
#[derive(Debug, Clone, PartialEq)]
pub(super) struct History {
    /// Second at which the first bucket begins.
    pub(super) from: i64,
    bucket: i64,
    pub(super) by_queue: BTreeMap<String, Vec<f64>>,
}

impl History {
    /// `volumes` of buckets of `bucket` seconds; those at or after `to` are left out.
    pub(super) fn new(volumes: &[Volume], bucket: i64, to: i64) -> Self {
        let from = volumes.iter().map(|volume| volume.at).filter(|at| *at < to).min().unwrap_or(to);
        let length = ((to - from) / bucket) as usize;
        let mut by_queue: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        by_queue.insert(TOTAL.to_owned(), vec![0.0; length]);
        for volume in volumes.iter().filter(|volume| volume.at < to) {
            let values = by_queue.entry(volume.queue.clone()).or_insert_with(|| vec![0.0; length]);
            values[((volume.at - from) / bucket) as usize] = volume.events as f64;
        }
        History { from, bucket, by_queue }
    }

    /// What happened in a bucket; `None` when it lies outside.
    pub(super) fn at(&self, queue: &str, second: i64) -> Option<f64> {
        let index = usize::try_from((second - self.from).div_euclid(self.bucket)).ok()?;
        let length = self.by_queue[TOTAL].len();
        // A queue without events has no series, but it has a volume: none.
        (index < length).then(|| self.by_queue.get(queue).map_or(0.0, |values| values[index]))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::Config;

    fn hours() -> WindowSettings {
        Config::from_toml("").unwrap().forecast.windows[1].clone()
    }

    #[test]
    fn a_forecast_starts_where_the_last_complete_bucket_ends() {
        let window = hours();
        assert_eq!(due(&window, 20, 7200 + 19, None), Some(3600), "the last hour has not settled");
        assert_eq!(due(&window, 20, 7200 + 20, None), Some(7200));
        assert_eq!(due(&window, 20, 7200 + 20, Some(7200)), None);
        assert_eq!(due(&window, 20, 7200 + 20, Some(3600)), Some(7200));
        assert_eq!(due(&window, 20, 72_000, Some(3600)), Some(68_400), "what was missed is not made up for");
    }

    #[test]
    fn a_clock_that_jumps_back_repeats_nothing_and_one_that_was_far_ahead_blocks_nothing() {
        let window = hours();
        assert_eq!(due(&window, 0, 36_000, Some(39_600)), None);
        let year = 365 * 86_400;
        assert_eq!(due(&window, 0, 36_000, Some(36_000 + year)), Some(36_000));
    }

    #[test]
    fn gaps_are_filled_and_the_time_before_the_first_event_is_left_out() {
        let volume = |queue: &str, at, events| Volume { queue: queue.to_owned(), at, events };
        let volumes = [
            volume("*", 7200, 3),
            volume("a", 7200, 3),
            volume("*", 14_400, 1),
            volume("b", 14_400, 1),
            volume("*", 18_000, 9),
        ];
        let history = History::new(&volumes, 3600, 18_000);
        assert_eq!(history.from, 7200);
        assert_eq!(history.by_queue["*"], [3.0, 0.0, 1.0]);
        assert_eq!(history.by_queue["b"], [0.0, 0.0, 1.0]);
        assert_eq!(
            (history.at("a", 7200), history.at("c", 7200), history.at("a", 18_000)),
            (Some(3.0), Some(0.0), None)
        );
        assert!(History::new(&[], 3600, 18_000).by_queue["*"].is_empty());
    }

    proptest! {
        /// Whatever the clock says, one at a time is made, in order, and never for a bucket that is not complete.
        #[test]
        fn each_forecast_is_made_once(mut now in 0i64..1_000_000, steps in prop::collection::vec(-5_000i64..20_000, 1..50)) {
            let window = hours();
            let mut made: Vec<i64> = Vec::new();
            for step in steps {
                now += step;
                if let Some(start) = due(&window, 20, now, made.last().copied()) {
                    prop_assert!(start + 20 <= now && start % 3600 == 0);
                    prop_assert!(made.iter().all(|earlier| *earlier < start));
                    made.push(start);
                }
            }
        }
    }
}
