//! The candidate methods under one roof: which of them suit a history, what each is called, and one call which
//! forecasts with any of them and never gives a negative or non-finite number.

use super::lagged::{Lagged, LaggedShape};
use super::smoothing::Smoothing;
use super::{card, library, numeric, profile, simple};

/// A series with at least this share of zeros is sparse.
const SPARSE_SHARE: f64 = 0.3;
/// Below this mean, logs of counts are too skewed for their mean to stand for the mean of the counts.
const LOG_LEVEL: f64 = 20.0;
/// Fewest values for the methods that estimate anything.
const SHORTEST_ESTIMATED: usize = 12;

/// One candidate. Season lengths inside come from the series' supported seasons.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Method {
    Level,
    Mean,
    Sparse,
    SeasonalNaive(usize),
    SeasonalMean(usize),
    Profile { logs: bool },
    Card(usize),
    DampedTrend { logs: bool },
    Ets,
    MstlEts,
    Lagged(LaggedShape, SeasonUse),
}

/// Which of the supported seasons a regression sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SeasonUse {
    All,
    Shortest,
    None,
}

impl Method {
    /// Name as it appears in published forecasts.
    pub(crate) fn name(self) -> String {
        let logs = |logs: bool| if logs { "_log" } else { "" };
        match self {
            Self::Level => "level".into(),
            Self::Mean => "mean".into(),
            Self::Sparse => "tsb".into(),
            Self::SeasonalNaive(season) if season > 1 => format!("seasonal_naive_{season}"),
            Self::SeasonalNaive(_) => "naive".into(),
            Self::SeasonalMean(season) => format!("seasonal_mean_{season}"),
            Self::Profile { logs: l } => format!("profile{}", logs(l)),
            Self::Card(season) if season > 1 => format!("card_{season}"),
            Self::Card(_) => "card".into(),
            Self::DampedTrend { logs: l } => format!("damped_trend{}", logs(l)),
            Self::Ets => "ets".into(),
            Self::MstlEts => "mstl_ets".into(),
            Self::Lagged(shape, seasons) => {
                let kind = if shape.changes { "changes" } else { "lagged" };
                let dummies = if shape.dummies { "_dummies" } else { "" };
                let seasons = match seasons {
                    SeasonUse::All => "",
                    SeasonUse::Shortest => "_short",
                    SeasonUse::None => "_plain",
                };
                format!("{kind}{}{dummies}{seasons}", logs(shape.logs))
            }
        }
    }

    /// Whether one fit takes milliseconds, so that the back-test can afford it at a few origins only.
    pub(crate) fn is_slow(self) -> bool {
        matches!(self, Self::Ets | Self::MstlEts | Self::DampedTrend { .. })
    }

    /// The methods worth trying on `history` with these supported seasons, shortest first.
    pub(crate) fn candidates(history: &[f64], seasons: &[usize]) -> Vec<Self> {
        let n = history.len();
        let mean = numeric::mean(history);
        let zeros = count_zeros(history);
        let mut methods = vec![Self::Level];
        if n < SHORTEST_ESTIMATED {
            if n >= 4 {
                methods.extend([Self::SeasonalNaive(1), Self::Mean]);
            }
            return methods;
        }
        if is_sparse(history) {
            methods.extend([Self::Sparse, Self::Mean]);
            methods.extend(seasons.iter().map(|s| Self::SeasonalMean(*s)));
            if zeros * 2 > n {
                return methods;
            }
        }
        // Positive measurements that are no counts may be small and still suit logs.
        let counts = history.iter().all(|v| v.fract() == 0.0);
        let logs = if counts { mean >= LOG_LEVEL && zeros * 50 < n } else { zeros == 0 };
        let mut lagged = |logs: bool, dummies: bool, changes: bool, seasons: SeasonUse| {
            methods.push(Self::Lagged(LaggedShape { logs, dummies, changes }, seasons));
        };
        for changes in [false, true] {
            lagged(false, false, changes, SeasonUse::All);
            if logs {
                lagged(true, false, changes, SeasonUse::All);
            }
        }
        if !seasons.is_empty() {
            lagged(false, true, false, SeasonUse::All);
            if logs {
                lagged(true, true, false, SeasonUse::All);
            }
            lagged(logs, true, true, SeasonUse::All);
            lagged(logs, false, true, SeasonUse::None);
        }
        if seasons.len() > 1 {
            lagged(logs, true, false, SeasonUse::Shortest);
        }
        methods.extend([Self::Card(seasons.last().copied().unwrap_or(1)), Self::SeasonalNaive(1)]);
        if let (Some(shortest), Some(longest)) = (seasons.first(), seasons.last()) {
            methods.extend([Self::SeasonalNaive(*longest), Self::SeasonalMean(*longest), Self::MstlEts]);
            methods.push(Self::Profile { logs });
            if shortest != longest {
                methods.extend([Self::SeasonalNaive(*shortest), Self::Card(*shortest)]);
            }
        }
        if seasons.first().is_none_or(|s| *s > 24) {
            methods.extend([Self::Ets, Self::DampedTrend { logs }]);
        }
        methods
    }

    /// `horizon` finite values at or above zero, or `None` where the method does not fit this history.
    pub(crate) fn forecast(self, history: &[f64], seasons: &[usize], horizon: usize) -> Option<Vec<f64>> {
        let point = match self {
            Self::Level => Some(simple::smoothed_level(history, horizon)),
            Self::Mean => Some(simple::overall_mean(history, horizon)),
            Self::Sparse => Some(simple::sparse(history, horizon)),
            Self::SeasonalNaive(season) => simple::seasonal_naive(history, season, horizon),
            Self::SeasonalMean(season) => simple::seasonal_mean(history, season, horizon),
            Self::Profile { logs } => profile::forecast(history, seasons, logs, horizon),
            Self::Card(season) => card::forecast(history, season, horizon),
            Self::DampedTrend { logs } => Smoothing::fit(history, logs).map(|model| model.forecast(history, horizon)),
            Self::Ets => library::ets(history, horizon),
            Self::MstlEts => library::mstl_ets(history, seasons, horizon),
            Self::Lagged(shape, used) => {
                let seasons = match used {
                    SeasonUse::All => seasons,
                    SeasonUse::Shortest => &seasons[..seasons.len().min(1)],
                    SeasonUse::None => &[],
                };
                Lagged::fit(history, seasons, shape).map(|model| model.forecast(history, horizon))
            }
        }?;
        let ceiling = 10.0 * history.iter().copied().fold(0.0, f64::max);
        point.iter().all(|v| v.is_finite()).then(|| point.into_iter().map(|v| v.clamp(0.0, ceiling)).collect())
    }
}

/// Whether a good share of the history is zero.
pub(crate) fn is_sparse(history: &[f64]) -> bool {
    !history.is_empty() && count_zeros(history) as f64 >= SPARSE_SHARE * history.len() as f64
}

fn count_zeros(history: &[f64]) -> usize {
    history.iter().filter(|v| **v == 0.0).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_candidate_gives_clean_numbers_or_declines() {
        let history: Vec<f64> = (0..460).map(|t| 40.0 + 9.0 * f64::from(t % 24) + f64::from(t * 7 % 11)).collect();
        let methods = Method::candidates(&history, &[24, 168]);
        assert!(methods.len() > 12);
        for method in methods {
            let point = method.forecast(&history, &[24, 168], 30).unwrap_or_else(|| panic!("{method:?} declined"));
            assert!(point.len() == 30 && point.iter().all(|v| v.is_finite() && *v >= 0.0), "{method:?}");
        }
    }

    #[test]
    fn names_are_distinct() {
        let history: Vec<f64> = (0..460).map(|t| 40.0 + f64::from(t % 24)).collect();
        let mut names: Vec<String> = Method::candidates(&history, &[24, 168]).iter().map(|m| m.name()).collect();
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn sparse_and_tiny_histories_get_plain_methods() {
        let sparse: Vec<f64> = (0..60).map(|t| f64::from(u8::from(t % 4 == 0))).collect();
        assert!(Method::candidates(&sparse, &[]).contains(&Method::Sparse));
        assert_eq!(Method::candidates(&[3.0], &[]), vec![Method::Level]);
    }
}
