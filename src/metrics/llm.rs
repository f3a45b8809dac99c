//! How the LLM is doing, asked when Prometheus asks: a day that begins and a pause that ends change it while no record
//! comes.

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Gauge, Registry};

/// What the tier says of itself.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct LlmState {
    /// Whether requests are held back because of failures.
    pub breaker_open: bool,
    /// How long nobody may ask, because of failures or because the server said so.
    pub pause_seconds: f64,
    /// Since midnight UTC.
    pub tokens: u64,
    /// Since midnight UTC, in the currency of the prices.
    pub cost: f64,
    /// The part of the day's budget that is spent, of tokens or of costs, whichever is nearer to its end; 0 without one.
    pub budget_used: f64,
}

struct LlmCollector {
    read: Box<dyn Fn() -> LlmState + Send + Sync>,
    breaker_open: Gauge,
    pause: Gauge,
    tokens: Gauge,
    cost: Gauge,
    budget_used: Gauge,
}

/// Adds the LLM's metrics. There is one LLM in a process.
pub(super) fn register(registry: &Registry, read: impl Fn() -> LlmState + Send + Sync + 'static) {
    let gauge = |name, help| Gauge::new(name, help).expect("constant names");
    let collector = LlmCollector {
        read: Box::new(read),
        breaker_open: gauge("triaged_llm_breaker_open", "1 while the LLM is left alone after failures, else 0."),
        pause: gauge("triaged_llm_pause_seconds", "How long the LLM is not asked, after failures or at its own wish."),
        tokens: gauge("triaged_llm_spent_tokens", "Tokens sent and received since midnight UTC."),
        cost: gauge("triaged_llm_spent_cost", "Cost since midnight UTC, in the currency of the prices."),
        budget_used: gauge("triaged_llm_budget_used_ratio", "Part of the day's budget that is spent; 0 without one."),
    };
    registry.register(Box::new(collector)).expect("each name is registered once");
}

impl LlmCollector {
    fn gauges(&self) -> [&Gauge; 5] {
        [&self.breaker_open, &self.pause, &self.tokens, &self.cost, &self.budget_used]
    }
}

impl Collector for LlmCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.gauges().into_iter().flat_map(|gauge| gauge.desc()).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let state = (self.read)();
        self.breaker_open.set(f64::from(u8::from(state.breaker_open)));
        self.pause.set(state.pause_seconds);
        self.tokens.set(state.tokens as f64);
        self.cost.set(state.cost);
        self.budget_used.set(state.budget_used);
        self.gauges().into_iter().flat_map(|gauge| gauge.collect()).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::metrics::Metrics;

    #[test]
    fn each_scrape_asks_anew() {
        let metrics = Metrics::new();
        let tokens = Arc::new(AtomicU64::new(7));
        let spent = Arc::clone(&tokens);
        metrics.watch_llm(move || LlmState { tokens: spent.load(Ordering::Relaxed), ..LlmState::default() });
        assert!(metrics.encode().contains("\ntriaged_llm_spent_tokens 7\n"));
        tokens.store(0, Ordering::Relaxed);
        assert!(metrics.encode().contains("\ntriaged_llm_spent_tokens 0\n"));
    }
}
