//! A bucket that fills evenly and may owe: what is taken is paid back in time.
//!
//! A library such as governor counts whole cells and gives none back. Here a request takes what it is estimated to need
//! and later returns the rest, or takes what it used beyond that.

use std::time::Duration;

use tokio::time::Instant;

/// Seconds' worth that a rested bucket holds. Providers that limit by the minute look at shorter times too.
const BURST_SECONDS: f64 = 10.0;

/// One rate's account.
#[derive(Debug)]
pub(super) struct Bucket {
    per_second: f64,
    capacity: f64,
    /// Below zero: owed.
    level: f64,
    filled_at: Instant,
}

impl Bucket {
    /// `None` for 0, which is no limit.
    pub(super) fn per_minute(limit: u32, now: Instant) -> Option<Self> {
        let per_second = f64::from(limit) / 60.0;
        let capacity = (per_second * BURST_SECONDS).max(1.0);
        (limit > 0).then_some(Bucket { per_second, capacity, level: capacity, filled_at: now })
    }

    /// How long until `amount` may be taken. More than the bucket holds may be taken when it is full.
    pub(super) fn wait(&mut self, amount: f64, now: Instant) -> Duration {
        self.fill(now);
        let missing = amount.min(self.capacity) - self.level;
        // Far beyond every deadline, and still a duration.
        Duration::from_secs_f64((missing / self.per_second).clamp(0.0, 1e6))
    }

    /// Takes, or gives back a negative amount.
    pub(super) fn take(&mut self, amount: f64, now: Instant) {
        self.fill(now);
        self.level = (self.level - amount).min(self.capacity);
    }

    fn fill(&mut self, now: Instant) {
        let seconds = now.saturating_duration_since(self.filled_at).as_secs_f64();
        self.level = (self.level + seconds * self.per_second).min(self.capacity);
        self.filled_at = self.filled_at.max(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_the_rate() {
        let start = Instant::now();
        let mut bucket = Bucket::per_minute(60, start).expect("there is a limit");
        for _ in 0..10 {
            assert_eq!(bucket.wait(1.0, start), Duration::ZERO);
            bucket.take(1.0, start);
        }
        assert_eq!(bucket.wait(1.0, start), Duration::from_secs(1));
        bucket.take(1.0, start);
        assert_eq!(bucket.wait(1.0, start), Duration::from_secs(2));
        assert_eq!(bucket.wait(1.0, start + Duration::from_secs(5)), Duration::ZERO);
        assert!(Bucket::per_minute(0, start).is_none());
    }

    #[test]
    fn what_is_too_big_waits_for_a_full_bucket_and_owes() {
        let start = Instant::now();
        let mut bucket = Bucket::per_minute(600, start).expect("there is a limit");
        assert_eq!(bucket.wait(1_000.0, start), Duration::ZERO);
        bucket.take(1_000.0, start);
        assert_eq!(bucket.wait(1.0, start), Duration::from_secs_f64(90.1));
        bucket.take(-950.0, start);
        assert_eq!(bucket.wait(50.0, start), Duration::ZERO);
    }
}
