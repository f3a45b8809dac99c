//! Weights of the methods from their back-test errors, and the weighted mean of their paths.

use super::backtest::Trial;
use super::method::Method;

/// Weights fall with this power of the relative error. Higher picks a winner, lower averages.
const ERROR_POWER: i32 = 4;
/// Methods with an error beyond this multiple of the best get no weight.
const ERROR_CUT: f64 = 2.0;
/// Most methods in one mean; further ones would add time and little else.
const MOST_METHODS: usize = 8;

/// Chosen methods with weights that sum to one, heaviest first.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Combination {
    pub(crate) parts: Vec<(Method, f64)>,
}

impl Combination {
    /// From the trials; `fallback` alone when there is none.
    pub(crate) fn choose(trials: &[Trial], fallback: Method) -> Self {
        let mut ranked: Vec<(Method, f64)> = trials.iter().map(|t| (t.method, t.relative_error)).collect();
        ranked.sort_by(|a, b| a.1.total_cmp(&b.1));
        let Some((first, best)) = ranked.first().copied() else { return Self { parts: vec![(fallback, 1.0)] } };
        if best <= 0.0 || !best.is_finite() {
            return Self { parts: vec![(first, 1.0)] };
        }
        ranked.retain(|(_, error)| *error <= ERROR_CUT * best);
        ranked.truncate(MOST_METHODS);
        let weight = |error: f64| (best / error).powi(ERROR_POWER);
        let total: f64 = ranked.iter().map(|(_, error)| weight(*error)).sum();
        Self { parts: ranked.into_iter().map(|(method, error)| (method, weight(error) / total)).collect() }
    }

    /// `card_24` or `mean(card_24,ets)`.
    pub(crate) fn name(&self) -> String {
        let names: Vec<String> = self.parts.iter().map(|(method, _)| method.name()).collect();
        if let [only] = names.as_slice() { only.clone() } else { format!("mean({})", names.join(",")) }
    }

    /// Weighted mean of the paths that `path_of` has; `None` when it has none. Weights of missing ones go to the
    /// others in proportion.
    pub(crate) fn merge(&self, path_of: impl Fn(Method) -> Option<Vec<f64>>) -> Option<Vec<f64>> {
        let mut merged: Option<Vec<f64>> = None;
        let mut total = 0.0;
        for (method, weight) in &self.parts {
            let Some(path) = path_of(*method) else { continue };
            total += weight;
            match &mut merged {
                None => merged = Some(path.iter().map(|v| weight * v).collect()),
                Some(sum) => sum.iter_mut().zip(&path).for_each(|(s, v)| *s += weight * v),
            }
        }
        let mut merged = merged?;
        merged.iter_mut().for_each(|v| *v /= total);
        Some(merged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trial(method: Method, relative_error: f64) -> Trial {
        Trial { method, paths: Vec::new(), relative_error }
    }

    #[test]
    fn good_methods_share_and_bad_ones_are_left_out() {
        let chosen = Combination::choose(
            &[trial(Method::Mean, 3.0), trial(Method::Level, 1.0), trial(Method::Ets, 1.1)],
            Method::Level,
        );
        assert_eq!(chosen.name(), "mean(level,ets)");
        assert!((chosen.parts.iter().map(|p| p.1).sum::<f64>() - 1.0).abs() < 1e-12);
        assert!(chosen.parts[0].1 > chosen.parts[1].1);
    }

    #[test]
    fn a_missing_path_leaves_its_weight_to_the_rest() {
        let chosen = Combination { parts: vec![(Method::Level, 0.5), (Method::Mean, 0.5)] };
        let merged = chosen.merge(|method| (method == Method::Mean).then(|| vec![4.0, 6.0]));
        assert_eq!(merged, Some(vec![4.0, 6.0]));
        assert_eq!(chosen.merge(|_| None), None);
    }
}
