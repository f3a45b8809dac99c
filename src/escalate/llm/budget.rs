//! What a day may cost, and what it has cost so far.

use chrono::{DateTime, NaiveDate, Utc};
use tokio::time::Instant;

use crate::config::llm::BudgetSettings;

/// The wall clock, read once and then carried on by the monotonic one: setting the clock back does not give a day's
/// budget twice, and tests can stop it. It drifts by seconds in months.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    wall: DateTime<Utc>,
    at: Instant,
}

impl Clock {
    pub(super) fn starting_at(wall: DateTime<Utc>) -> Self {
        Clock { wall, at: Instant::now() }
    }

    pub(super) fn wall(&self, now: Instant) -> DateTime<Utc> {
        let since = chrono::Duration::from_std(now.saturating_duration_since(self.at)).unwrap_or(chrono::Duration::MAX);
        self.wall.checked_add_signed(since).unwrap_or(DateTime::<Utc>::MAX_UTC)
    }
}

/// Tokens sent and received.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tokens {
    pub(super) input: u64,
    pub(super) output: u64,
}

/// What was spent on one day.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Spent {
    pub tokens: u64,
    /// In the currency of the prices; 0 without prices.
    pub cost: f64,
}

/// The account of the current day.
#[derive(Debug)]
pub(super) struct Budget {
    settings: BudgetSettings,
    day: NaiveDate,
    spent: Spent,
    /// Said once a day.
    exhausted: bool,
}

impl Budget {
    pub(super) fn new(settings: BudgetSettings, wall: DateTime<Utc>) -> Self {
        Budget { settings, day: wall.date_naive(), spent: Spent::default(), exhausted: false }
    }

    /// Whether a request with so many tokens still fits into the day.
    pub(super) fn allows(&mut self, tokens: Tokens, wall: DateTime<Utc>) -> bool {
        self.turn(wall);
        let BudgetSettings { tokens_per_day, cost_per_day, .. } = self.settings;
        let after = self.spent.tokens.saturating_add(tokens.input + tokens.output);
        let fits = (tokens_per_day == 0 || after <= tokens_per_day)
            && (cost_per_day == 0.0 || self.spent.cost + self.cost(tokens) <= cost_per_day);
        if !fits && !self.exhausted {
            self.exhausted = true;
            tracing::warn!(spent = ?self.spent, "the LLM's daily budget is used up; records go to people until midnight UTC");
        }
        fits
    }

    /// Books tokens; those of yesterday's requests too, which end today.
    pub(super) fn book(&mut self, tokens: Tokens, wall: DateTime<Utc>) {
        self.turn(wall);
        self.spent.tokens = self.spent.tokens.saturating_add(tokens.input + tokens.output);
        self.spent.cost += self.cost(tokens);
    }

    /// Takes a booking back.
    pub(super) fn unbook(&mut self, tokens: Tokens, wall: DateTime<Utc>) {
        self.turn(wall);
        self.spent.tokens = self.spent.tokens.saturating_sub(tokens.input + tokens.output);
        self.spent.cost = (self.spent.cost - self.cost(tokens)).max(0.0);
    }

    pub(super) fn spent(&mut self, wall: DateTime<Utc>) -> Spent {
        self.turn(wall);
        self.spent
    }

    fn cost(&self, tokens: Tokens) -> f64 {
        let BudgetSettings { price_per_1k_input, price_per_1k_output, .. } = self.settings;
        (tokens.input as f64 * price_per_1k_input + tokens.output as f64 * price_per_1k_output) / 1000.0
    }

    fn turn(&mut self, wall: DateTime<Utc>) {
        if wall.date_naive() != self.day {
            self.day = wall.date_naive();
            self.spent = Spent::default();
            self.exhausted = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn wall(text: &str) -> DateTime<Utc> {
        text.parse().expect("a time")
    }

    fn tokens(input: u64, output: u64) -> Tokens {
        Tokens { input, output }
    }

    #[test]
    fn a_day_ends_at_midnight_utc() {
        let settings = BudgetSettings {
            tokens_per_day: 100,
            cost_per_day: 0.0,
            price_per_1k_input: 0.0,
            price_per_1k_output: 0.0,
        };
        let evening = wall("2026-03-01T23:59:59Z");
        let mut budget = Budget::new(settings, evening);
        assert!(budget.allows(tokens(60, 40), evening));
        budget.book(tokens(60, 30), evening);
        assert!(!budget.allows(tokens(10, 1), evening));
        assert!(budget.allows(tokens(60, 40), wall("2026-03-02T00:00:00Z")));
        assert_eq!(budget.spent(wall("2026-03-02T00:00:00Z")), Spent::default());
    }

    #[test]
    fn prices_make_costs() {
        let settings =
            BudgetSettings { tokens_per_day: 0, cost_per_day: 1.0, price_per_1k_input: 0.5, price_per_1k_output: 2.0 };
        let now = wall("2026-03-01T12:00:00Z");
        let mut budget = Budget::new(settings, now);
        budget.book(tokens(1000, 200), now);
        assert!((budget.spent(now).cost - 0.9).abs() < 1e-12);
        assert!(budget.allows(tokens(200, 0), now) && !budget.allows(tokens(0, 51), now));
        budget.unbook(tokens(1000, 200), now);
        assert_eq!(budget.spent(now), Spent::default());
    }

    #[tokio::test(start_paused = true)]
    async fn the_clock_goes_on_by_itself() {
        let clock = Clock::starting_at(wall("2026-03-01T23:00:00Z"));
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!(clock.wall(Instant::now()), wall("2026-03-02T00:00:00Z"));
    }
}
