//! Rolling-origin back-test: every candidate forecasts from several past origins of the same series, seeing only
//! what lay before each. The paths it gives are what methods are weighted by and what intervals are made from.

use super::method::{Method, is_sparse};
use super::numeric::{mean, median};
use super::series::supports;

/// Fewest values before an origin.
const SHORTEST_TRAINING: usize = 4;
/// A history this short makes even a slow method cheap.
const SLOW_EVERYWHERE_BELOW: usize = 300;
/// Slow methods join only when their error at the newest origin is within this factor of the best fast one.
const SLOW_CUT: f64 = 1.5;

/// Past origins, newest first, and how many steps each is compared over.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Origins {
    /// Each origin is the number of values known at it.
    pub(crate) at: Vec<usize>,
    pub(crate) steps: usize,
}

impl Origins {
    /// At most `most` origins for a history of `n` values. They lie whole short seasons apart, so that a step of
    /// the horizon falls on the same phase at each and its errors show that phase's spread.
    pub(crate) fn plan(n: usize, seasons: &[usize], horizon: usize, most: usize) -> Self {
        let steps = Self::steps(n, horizon);
        let longest = seasons.last().copied().unwrap_or(1);
        let mut training = (n / 3).max(SHORTEST_TRAINING);
        while longest > 1 && !supports(training, longest) {
            training += 1;
        }
        let room = n.saturating_sub(steps + training);
        let unit = match seasons.first() {
            Some(season) if *season <= 2 * steps => *season,
            _ => 1,
        };
        let wished = (steps / 2).max(1).div_ceil(unit) * unit;
        let affordable = room / most.saturating_sub(1).max(1) / unit * unit;
        let spacing = wished.min(affordable.max(unit));
        let at = match n.checked_sub(steps) {
            Some(newest) if newest >= training && most > 0 => {
                (0..most).map_while(|i| newest.checked_sub(i * spacing)).take_while(|o| *o >= training).collect()
            }
            _ => Vec::new(),
        };
        Self { at, steps }
    }

    /// Steps compared: the horizon, or a third of a short history.
    pub(crate) fn steps(n: usize, horizon: usize) -> usize {
        horizon.min(n / 3).max(1)
    }
}

/// What one method forecast at each origin; `None` where it was not run or declined.
#[derive(Debug, Clone)]
pub(crate) struct Trial {
    pub(crate) method: Method,
    pub(crate) paths: Vec<Option<Vec<f64>>>,
    /// Error relative to the typical fast method at the same origins; smaller is better.
    pub(crate) relative_error: f64,
}

/// Runs `methods` over the origins; slow ones at no more than `slow_origins` of them unless the history is short.
/// Absolute errors decide, except for sparse counts: there the best absolute error belongs to a forecast of nothing.
pub(crate) fn run(
    history: &[f64],
    seasons: &[usize],
    origins: &Origins,
    methods: &[Method],
    slow_origins: usize,
) -> Vec<Trial> {
    let slow_limit = if history.len() < SLOW_EVERYWHERE_BELOW { origins.at.len() } else { slow_origins };
    let squared = is_sparse(history);
    let error = |actual: &[f64], path: &[f64]| {
        let size = |(a, p): (&f64, &f64)| if squared { (a - p).powi(2) } else { (a - p).abs() };
        let average = mean(&actual.iter().zip(path).map(size).collect::<Vec<_>>());
        if squared { average.sqrt() } else { average }
    };
    let attempt = |method: Method, origin: &usize| method.forecast(&history[..*origin], seasons, origins.steps);
    let mut trials: Vec<(Method, Vec<Option<Vec<f64>>>)> = methods
        .iter()
        .filter(|method| !method.is_slow())
        .map(|method| (*method, origins.at.iter().map(|origin| attempt(*method, origin)).collect()))
        .collect();
    let errors_of = |paths: &[Option<Vec<f64>>]| -> Vec<Option<f64>> {
        paths.iter().zip(&origins.at).map(|(path, o)| path.as_ref().map(|p| error(&history[*o..], p))).collect()
    };
    let fast_errors: Vec<Vec<Option<f64>>> = trials.iter().map(|(_, paths)| errors_of(paths)).collect();
    // Typical error at each origin: what is hard for all says nothing about one.
    let typical: Vec<f64> =
        (0..origins.at.len()).map(|i| median(&fast_errors.iter().filter_map(|e| e[i]).collect::<Vec<_>>())).collect();
    let best_at_newest = fast_errors.iter().filter_map(|e| *e.first()?).fold(f64::INFINITY, f64::min);
    for method in methods.iter().filter(|method| method.is_slow()) {
        let mut paths = vec![None; origins.at.len()];
        for (i, origin) in origins.at.iter().enumerate().take(slow_limit) {
            let path = attempt(*method, origin);
            let hopeless =
                i == 0 && path.as_ref().is_none_or(|p| error(&history[*origin..], p) > SLOW_CUT * best_at_newest);
            paths[i] = path;
            if hopeless && slow_limit < origins.at.len() {
                break;
            }
        }
        trials.push((*method, paths));
    }
    trials
        .into_iter()
        .filter_map(|(method, paths)| {
            let (mut own, mut others) = (0.0, 0.0);
            for (e, t) in errors_of(&paths).iter().zip(&typical) {
                if let Some(e) = e {
                    own += e;
                    others += t;
                }
            }
            let ran = paths.iter().any(Option::is_some);
            let relative_error = if others > 0.0 {
                own / others
            } else if own > 0.0 {
                f64::MAX
            } else {
                1.0
            };
            ran.then_some(Trial { method, paths, relative_error })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_keep_phase_and_leave_training() {
        let plan = Origins::plan(700, &[24, 168], 48, 10);
        assert_eq!(plan.at[0], 652);
        assert!(plan.at.len() > 5 && plan.at.windows(2).all(|w| (w[0] - w[1]) % 24 == 0));
        assert!(plan.at.iter().all(|o| supports(*o, 168)));
    }

    #[test]
    fn tiny_histories_have_no_origins() {
        assert!(Origins::plan(0, &[], 48, 10).at.is_empty());
        assert!(Origins::plan(4, &[], 48, 10).at.is_empty());
        assert_eq!(Origins::plan(9, &[], 48, 10).steps, 3);
    }

    #[test]
    fn the_method_that_fits_has_the_smallest_error() {
        let history: Vec<f64> = (0..120).map(|t| f64::from(t % 7) * 10.0).collect();
        let origins = Origins::plan(120, &[7], 7, 6);
        let methods = [Method::Level, Method::SeasonalNaive(7)];
        let trials = run(&history, &[7], &origins, &methods, 2);
        assert!(trials[1].relative_error < 1e-9 && trials[0].relative_error > 1.0);
    }
}
