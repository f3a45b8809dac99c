//! Exponential smoothing with a damped trend and a first-order error correction, on levels or on logs, for series
//! without a usable season (Gardner and McKenzie, "Forecasting trends in time series", Management Science 1985).

use super::numeric::minimise;

/// Evaluations the search over smoothing parameters may spend.
const SEARCH_EVALUATIONS: usize = 120;
/// Newest values fitted to.
const MEMORY: usize = 400;
/// Level smoothing, error correction, trend smoothing and damping: start and box of the search.
const START: [f64; 4] = [0.5, 0.0, 0.05, 0.9];
const LOWER: [f64; 4] = [0.0, -0.5, 0.0, 0.7];
const UPPER: [f64; 4] = [1.0, 0.9, 0.5, 0.98];

/// Fitted parameters.
#[derive(Debug, Clone)]
pub(crate) struct Smoothing {
    logs: bool,
    parameters: Vec<f64>,
}

#[derive(Debug, Clone, Copy)]
struct State {
    level: f64,
    slope: f64,
    error: f64,
}

impl Smoothing {
    /// Fits by the mean squared one-step error. `None` for fewer than five values.
    pub(crate) fn fit(history: &[f64], logs: bool) -> Option<Self> {
        if history.len() < 5 {
            return None;
        }
        let y = newest(history, logs);
        let parameters = minimise(&START, &LOWER, &UPPER, SEARCH_EVALUATIONS, |candidate| run(&y, candidate).1);
        Some(Self { logs, parameters })
    }

    pub(crate) fn forecast(&self, history: &[f64], horizon: usize) -> Vec<f64> {
        let (state, _) = run(&newest(history, self.logs), &self.parameters);
        let (correction, damping) = (self.parameters[1], self.parameters[3]);
        let (mut error, mut slope, mut level) = (state.error, state.slope, state.level);
        (0..horizon)
            .map(|_| {
                error *= correction;
                slope *= damping;
                level += slope;
                if self.logs { (level + error).exp_m1() } else { level + error }
            })
            .collect()
    }
}

fn newest(history: &[f64], logs: bool) -> Vec<f64> {
    history[history.len().saturating_sub(MEMORY)..].iter().map(|v| if logs { v.ln_1p() } else { *v }).collect()
}

/// Runs the recursions over `y`; gives the last state and the mean squared one-step error.
fn run(y: &[f64], parameters: &[f64]) -> (State, f64) {
    let [alpha, phi, beta, damping] = *parameters else {
        return (State { level: 0.0, slope: 0.0, error: 0.0 }, f64::MAX);
    };
    let mut state = State { level: y[0], slope: 0.0, error: 0.0 };
    let mut squares = 0.0;
    for value in y {
        let base = state.level + damping * state.slope;
        let surprise = value - base;
        let error = surprise - phi * state.error;
        squares += error * error;
        state = State {
            level: base + alpha * error,
            slope: damping * state.slope + beta * error,
            error: surprise - alpha * error,
        };
    }
    (state, squares / y.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_continued_with_damping() {
        let history: Vec<f64> = (0..60).map(|t| 100.0 + 2.0 * f64::from(t)).collect();
        let forecast = Smoothing::fit(&history, false).unwrap().forecast(&history, 5);
        assert!(forecast[0] > 218.0 && forecast[0] < 222.0, "{forecast:?}");
        assert!(forecast[4] > forecast[0] && forecast[4] < 231.0, "{forecast:?}");
    }
}
