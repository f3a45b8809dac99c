//! Whether a request may begin now, later, or not at all. All limits are in one place, so that an answer to "not in
//! time" is given at once, before any waiting.
//!
//! A request passes the breaker, the day's budget, one of the slots, and the two rates, in this order. What it is
//! estimated to need is taken before and corrected by what the server says it used. A pause that the server asks for
//! holds for all.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::breaker::Breaker;
use super::budget::{Budget, Clock, Spent, Tokens};
use super::rate::Bucket;
use crate::config::llm::LlmSettings;

/// Why a request does not begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("the day's budget is used up")]
    OverBudget,
    #[error("the server failed too often and is left alone")]
    BreakerOpen,
    #[error("the rate limit leaves no room before the deadline")]
    RateLimited,
    #[error("all slots are taken until the deadline")]
    Busy,
    #[error("too little time is left")]
    Deadline,
}

/// How a request has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// With an answer, good or bad; with the tokens used where the server tells.
    Answered(Option<Tokens>),
    /// The server asks for patience; for so long, where it tells.
    RateLimited(Option<Duration>),
    /// The server has refused this very request. It is up, and whoever writes a ticket can bring this about, so it does
    /// not count against the server.
    Rejected,
    /// No answer. `spent`: the server may have worked for it all the same.
    Failed { spent: bool },
    /// Waiting does not help.
    FailedForGood,
}

pub(super) struct Limits {
    slots: Semaphore,
    clock: Clock,
    account: Mutex<Account>,
}

struct Account {
    requests: Option<Bucket>,
    tokens: Option<Bucket>,
    budget: Budget,
    breaker: Breaker,
    /// The server has asked for quiet until then.
    paused_until: Option<Instant>,
}

impl Limits {
    /// `wall` is the time now.
    pub(super) fn new(settings: &LlmSettings, wall: DateTime<Utc>) -> Self {
        let now = Instant::now();
        let rates = &settings.rates;
        Limits {
            slots: Semaphore::new(rates.concurrency.clamp(1, Semaphore::MAX_PERMITS)),
            clock: Clock::starting_at(wall),
            account: Mutex::new(Account {
                requests: Bucket::per_minute(rates.requests_per_minute, now),
                tokens: Bucket::per_minute(rates.tokens_per_minute, now),
                budget: Budget::new(settings.budget.clone(), wall),
                breaker: Breaker::new(settings.breaker.clone()),
                paused_until: None,
            }),
        }
    }

    /// Waits until a request with so many tokens may begin, if that is at `start_by` or before.
    pub(super) async fn admit(&self, tokens: Tokens, start_by: Instant) -> Result<Permit<'_>, Refusal> {
        let now = Instant::now();
        if now > start_by {
            return Err(Refusal::Deadline);
        }
        // Before a slot is waited for: most refusals are known now.
        let (refused, start) = self.outlook(tokens, now);
        refused.map_or(Ok(()), Err)?;
        if start > start_by {
            return Err(Refusal::RateLimited);
        }
        let slot = timeout_at(start_by, self.slots.acquire()).await.map_err(|_| Refusal::Busy)?;
        let slot = slot.expect("the semaphore is never closed");

        let now = Instant::now();
        let (refused, start) = self.outlook(tokens, now);
        refused.map_or(Ok(()), Err)?;
        if start > start_by {
            return Err(Refusal::RateLimited);
        }
        // Taken now, so that who comes later waits behind; given back when dropped.
        let booking = Booking::new(self, tokens, now);
        let mut start = start;
        loop {
            sleep_until(start).await;
            let now = Instant::now();
            let mut account = self.account();
            match account.paused_until.filter(|until| *until > now) {
                Some(until) if until > start_by => return Err(Refusal::RateLimited),
                Some(until) => start = until,
                None if account.breaker.enter(now) => break,
                None => return Err(Refusal::BreakerOpen),
            }
        }
        Ok(Permit { booking: Some(booking), _slot: slot })
    }

    /// What was spent today.
    pub(super) fn spent(&self) -> Spent {
        let wall = self.clock.wall(Instant::now());
        self.account().budget.spent(wall)
    }

    /// `closed`, `open` or `half_open`.
    pub(super) fn breaker(&self) -> &'static str {
        self.account().breaker.state()
    }

    /// How long no request can begin, whatever the record: the breaker's pause, or the server's.
    pub(super) fn pause(&self) -> Duration {
        let now = Instant::now();
        let account = self.account();
        let asked = account.paused_until.map(|until| until.saturating_duration_since(now));
        account.breaker.pause(now).max(asked).unwrap_or_default()
    }

    /// Whether a request is refused, and when it could begin.
    fn outlook(&self, tokens: Tokens, now: Instant) -> (Option<Refusal>, Instant) {
        let wall = self.clock.wall(now);
        let account = &mut *self.account();
        if !account.breaker.allows(now) {
            return (Some(Refusal::BreakerOpen), now);
        }
        if !account.budget.allows(tokens, wall) {
            return (Some(Refusal::OverBudget), now);
        }
        let time_for = |bucket: &mut Option<Bucket>, amount| {
            bucket.as_mut().map_or(Duration::ZERO, |bucket| bucket.wait(amount, now))
        };
        let wait = time_for(&mut account.requests, 1.0).max(time_for(&mut account.tokens, tokens.total()));
        (None, account.paused_until.map_or(now + wait, |until| until.max(now + wait)))
    }

    fn account(&self) -> MutexGuard<'_, Account> {
        // Numbers are never left half changed, so a panic elsewhere does not spoil them.
        self.account.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tokens {
    fn total(self) -> f64 {
        (self.input + self.output) as f64
    }
}

/// What a request has taken from the rates and the budget.
struct Booking<'l> {
    limits: &'l Limits,
    tokens: Tokens,
    /// What is booked in the end; what is left of `tokens` goes back.
    used: Tokens,
    used_request: bool,
}

impl<'l> Booking<'l> {
    fn new(limits: &'l Limits, tokens: Tokens, now: Instant) -> Self {
        let wall = limits.clock.wall(now);
        let mut account = limits.account();
        if let Some(requests) = &mut account.requests {
            requests.take(1.0, now);
        }
        if let Some(bucket) = &mut account.tokens {
            bucket.take(tokens.total(), now);
        }
        account.budget.book(tokens, wall);
        drop(account);
        Booking { limits, tokens, used: Tokens::default(), used_request: false }
    }
}

impl Drop for Booking<'_> {
    fn drop(&mut self) {
        let now = Instant::now();
        let wall = self.limits.clock.wall(now);
        let mut account = self.limits.account();
        if let Some(requests) = account.requests.as_mut().filter(|_| !self.used_request) {
            requests.take(-1.0, now);
        }
        if let Some(bucket) = &mut account.tokens {
            bucket.take(self.used.total() - self.tokens.total(), now);
        }
        account.budget.unbook(self.tokens, wall);
        account.budget.book(self.used, wall);
    }
}

/// A request that may be sent now. Dropped without an ending, it counts as sent and paid for.
pub(super) struct Permit<'l> {
    booking: Option<Booking<'l>>,
    _slot: SemaphorePermit<'l>,
}

impl Permit<'_> {
    pub(super) fn end(mut self, ending: Ending) {
        let Some(mut booking) = self.booking.take() else { return };
        let now = Instant::now();
        booking.used_request = true;
        booking.used = match ending {
            Ending::Answered(used) => used.unwrap_or(booking.tokens),
            Ending::Failed { spent: true } => booking.tokens,
            Ending::RateLimited(_) | Ending::Rejected | Ending::Failed { spent: false } | Ending::FailedForGood => {
                Tokens::default()
            }
        };
        let mut account = booking.limits.account();
        match ending {
            Ending::Answered(_) | Ending::Rejected => account.breaker.succeeded(),
            Ending::RateLimited(pause) => {
                account.breaker.succeeded();
                account.paused_until = account.paused_until.max(pause.map(|pause| now + pause));
            }
            Ending::Failed { .. } => account.breaker.failed(now),
            Ending::FailedForGood => account.breaker.failed_for_good(now),
        }
        drop(account);
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if let Some(booking) = &mut self.booking {
            (booking.used, booking.used_request) = (booking.tokens, true);
            booking.limits.account().breaker.abandoned(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::llm::{BreakerSettings, BudgetSettings, RateSettings};

    const SECOND: Duration = Duration::from_secs(1);
    const SMALL: Tokens = Tokens { input: 8, output: 2 };

    fn limits(rates: RateSettings, tokens_per_day: u64) -> Limits {
        let budget = BudgetSettings { tokens_per_day, ..LlmSettings::default().budget };
        let breaker = BreakerSettings { failures: 2, pause: 30 * SECOND, long_pause: 3600 * SECOND };
        let settings = LlmSettings { rates, budget, breaker, ..LlmSettings::default() };
        Limits::new(&settings, "2026-03-01T23:00:00Z".parse().expect("a time"))
    }

    fn rates(concurrency: usize, requests_per_minute: u32, tokens_per_minute: u32) -> RateSettings {
        RateSettings { concurrency, requests_per_minute, tokens_per_minute }
    }

    fn within(time: Duration) -> Instant {
        Instant::now() + time
    }

    #[tokio::test(start_paused = true)]
    async fn a_slot_is_waited_for_until_the_deadline() {
        let limits = limits(rates(1, 0, 0), 0);
        let held = limits.admit(SMALL, within(SECOND)).await.expect("it is free");
        let started = Instant::now();
        assert_eq!(limits.admit(SMALL, within(SECOND)).await.err(), Some(Refusal::Busy));
        assert_eq!(started.elapsed(), SECOND);
        held.end(Ending::Answered(None));
        assert!(limits.admit(SMALL, Instant::now()).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_begin_in_time_is_told_at_once() {
        // One request a second, ten at rest.
        let limits = limits(rates(4, 60, 0), 0);
        for _ in 0..10 {
            limits.admit(SMALL, within(SECOND)).await.expect("there is room").end(Ending::Answered(None));
        }
        let started = Instant::now();
        assert_eq!(limits.admit(SMALL, within(SECOND / 2)).await.err(), Some(Refusal::RateLimited));
        assert_eq!(started.elapsed(), Duration::ZERO);
        assert!(limits.admit(SMALL, within(2 * SECOND)).await.is_ok());
        assert!((SECOND..SECOND * 11 / 10).contains(&started.elapsed()), "{:?}", started.elapsed());
        assert_eq!(limits.admit(SMALL, started).await.err(), Some(Refusal::Deadline));
    }

    #[tokio::test(start_paused = true)]
    async fn estimates_are_corrected() {
        // Ten tokens a second, a hundred at rest.
        let limits = limits(rates(4, 0, 600), 0);
        let big = Tokens { input: 100, output: 0 };
        let permit = limits.admit(big, Instant::now()).await.expect("the bucket is full");
        assert_eq!(limits.admit(SMALL, Instant::now()).await.err(), Some(Refusal::RateLimited));
        permit.end(Ending::Answered(Some(Tokens { input: 60, output: 20 })));
        let permit = limits.admit(SMALL, Instant::now()).await.expect("twenty came back");
        assert_eq!(limits.spent().tokens, 90);
        permit.end(Ending::Rejected);
        assert_eq!(limits.spent().tokens, 80);
        limits.admit(SMALL, Instant::now()).await.expect("they came back again").end(Ending::Failed { spent: true });
        drop(limits.admit(SMALL, Instant::now()).await.expect("ten are left"));
        assert_eq!(limits.spent().tokens, 100);
    }

    #[tokio::test(start_paused = true)]
    async fn who_stops_waiting_gives_back() {
        let limits = limits(rates(4, 60, 0), 0);
        for _ in 0..10 {
            limits.admit(SMALL, within(SECOND)).await.expect("there is room").end(Ending::Answered(None));
        }
        let waiting = limits.admit(SMALL, within(60 * SECOND));
        assert!(tokio::time::timeout(SECOND / 2, waiting).await.is_err());
        assert_eq!(limits.spent().tokens, 100);
        assert!(limits.admit(SMALL, within(SECOND)).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_used_up_budget_is_told_at_once_and_ends_at_midnight() {
        let limits = limits(rates(4, 0, 0), 25);
        for _ in 0..2 {
            limits.admit(SMALL, within(SECOND)).await.expect("there is room").end(Ending::Answered(None));
        }
        assert_eq!(limits.admit(SMALL, within(60 * SECOND)).await.err(), Some(Refusal::OverBudget));
        tokio::time::advance(3600 * SECOND).await;
        assert!(limits.admit(SMALL, within(SECOND)).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_that_the_server_asks_for_holds_for_all() {
        let limits = limits(rates(4, 0, 0), 0);
        let first = limits.admit(SMALL, within(SECOND)).await.expect("it is free");
        first.end(Ending::RateLimited(Some(20 * SECOND)));
        assert_eq!(limits.pause(), 20 * SECOND);
        assert_eq!(limits.admit(SMALL, within(10 * SECOND)).await.err(), Some(Refusal::RateLimited));
        let started = Instant::now();
        assert!(limits.admit(SMALL, within(30 * SECOND)).await.is_ok());
        assert!(started.elapsed() >= 20 * SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn failures_in_a_row_refuse_all_until_one_succeeds() {
        let limits = limits(rates(4, 0, 0), 0);
        for _ in 0..2 {
            limits.admit(SMALL, within(SECOND)).await.expect("it is closed").end(Ending::Failed { spent: false });
        }
        assert_eq!(limits.admit(SMALL, within(60 * SECOND)).await.err(), Some(Refusal::BreakerOpen));
        assert_eq!((limits.breaker(), limits.pause()), ("open", 30 * SECOND));
        tokio::time::advance(30 * SECOND).await;
        let probe = limits.admit(SMALL, within(SECOND)).await.expect("one may try");
        assert_eq!(limits.admit(SMALL, within(SECOND)).await.err(), Some(Refusal::BreakerOpen));
        drop(probe);
        limits.admit(SMALL, within(SECOND)).await.expect("another may try").end(Ending::Answered(None));
        assert_eq!(limits.breaker(), "closed");
        limits.admit(SMALL, within(SECOND)).await.expect("it is closed").end(Ending::FailedForGood);
        assert_eq!(limits.pause(), 3600 * SECOND);
    }
}
