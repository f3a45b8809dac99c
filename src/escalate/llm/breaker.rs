//! A switch that stops asking a server that does not answer.
//!
//! ```text
//! closed ── failures in a row ──► open ── pause over ──► half open: one request tries
//!    ▲                             ▲                        │ fails            │ succeeds
//!    │                             └────────────────────────┘                  │
//!    └─────────────────────────────────────────────────────────────────────────┘
//! ```

use std::time::Duration;

use tokio::time::Instant;

use crate::config::llm::BreakerSettings;

#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    Closed {
        failures: u32,
    },
    Open {
        until: Instant,
    },
    /// One request is under way.
    HalfOpen,
}

#[derive(Debug)]
pub(super) struct Breaker {
    settings: BreakerSettings,
    state: State,
}

impl Breaker {
    pub(super) fn new(settings: BreakerSettings) -> Self {
        Breaker { settings, state: State::Closed { failures: 0 } }
    }

    /// Whether a request could begin.
    pub(super) fn allows(&self, now: Instant) -> bool {
        match self.state {
            State::Closed { .. } => true,
            State::Open { until } => now >= until,
            State::HalfOpen => false,
        }
    }

    /// Begins a request, which must end with one of the calls below.
    pub(super) fn enter(&mut self, now: Instant) -> bool {
        let allowed = self.allows(now);
        if allowed && matches!(self.state, State::Open { .. }) {
            self.state = State::HalfOpen;
        }
        allowed
    }

    /// The server has answered, whatever it said.
    pub(super) fn succeeded(&mut self) {
        if self.state == State::HalfOpen {
            tracing::info!("the LLM answers again");
        }
        // A late answer to an old request does not end a pause.
        if !matches!(self.state, State::Open { .. }) {
            self.state = State::Closed { failures: 0 };
        }
    }

    pub(super) fn failed(&mut self, now: Instant) {
        match self.state {
            State::Closed { failures } if failures + 1 < self.settings.failures => {
                self.state = State::Closed { failures: failures + 1 };
            }
            State::Closed { .. } | State::HalfOpen => self.open(self.settings.pause, now),
            State::Open { .. } => {}
        }
    }

    /// What waiting does not cure.
    pub(super) fn failed_for_good(&mut self, now: Instant) {
        self.open(self.settings.long_pause, now);
    }

    /// Nobody knows how the request would have ended.
    pub(super) fn abandoned(&mut self, now: Instant) {
        if self.state == State::HalfOpen {
            self.state = State::Open { until: now };
        }
    }

    /// How long nobody may ask; `None` when requests may begin or one tries.
    pub(super) fn pause(&self, now: Instant) -> Option<Duration> {
        match self.state {
            State::Open { until } => Some(until.saturating_duration_since(now)),
            State::Closed { .. } | State::HalfOpen => None,
        }
    }

    /// `closed`, `open` or `half_open`.
    pub(super) fn state(&self) -> &'static str {
        match self.state {
            State::Closed { .. } => "closed",
            State::Open { .. } => "open",
            State::HalfOpen => "half_open",
        }
    }

    fn open(&mut self, pause: Duration, now: Instant) {
        let until = now + pause;
        match self.state {
            // A long pause is not cut short.
            State::Open { until: longer } if longer >= until => {}
            _ => {
                tracing::warn!(?pause, "the LLM is not asked for a while; records go to people");
                self.state = State::Open { until };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_secs(30);

    fn breaker() -> (Breaker, Instant) {
        let settings = BreakerSettings { failures: 3, pause: PAUSE, long_pause: 10 * PAUSE };
        (Breaker::new(settings), Instant::now())
    }

    #[test]
    fn failures_in_a_row_open_it() {
        let (mut breaker, now) = breaker();
        breaker.failed(now);
        breaker.failed(now);
        breaker.succeeded();
        breaker.failed(now);
        breaker.failed(now);
        assert!(breaker.enter(now));
        breaker.failed(now);
        assert!(!breaker.enter(now));
        assert_eq!((breaker.state(), breaker.pause(now)), ("open", Some(PAUSE)));
    }

    #[test]
    fn one_request_tries_when_the_pause_is_over() {
        let (mut breaker, now) = breaker();
        (0..3).for_each(|_| breaker.failed(now));
        let later = now + PAUSE;
        assert!(breaker.enter(later) && !breaker.enter(later));
        breaker.failed(later);
        assert!(!breaker.enter(later + PAUSE / 2) && breaker.enter(later + PAUSE));
        breaker.abandoned(later + PAUSE);
        assert!(breaker.enter(later + PAUSE));
        breaker.succeeded();
        assert!(breaker.enter(later + PAUSE) && breaker.enter(later + PAUSE));
    }

    #[test]
    fn what_waiting_does_not_cure_opens_it_for_long() {
        let (mut breaker, now) = breaker();
        breaker.failed_for_good(now);
        breaker.failed(now);
        breaker.succeeded();
        assert!(!breaker.enter(now + 9 * PAUSE) && breaker.enter(now + 10 * PAUSE));
    }
}
