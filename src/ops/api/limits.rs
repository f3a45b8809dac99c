//! How often and for how long: rates of each key and of each address, and the time a request may take.

use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::Response;
use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

use crate::config::{ApiSettings, RateSettings};

use super::ApiState;
use super::access::peer;
use super::problem::Problem;

/// After so many requests those that have been quiet are forgotten, so that many addresses do not cost much memory.
const FORGET_EVERY: u32 = 4096;
/// A body that comes too slowly is told so; only then is the request as a whole given up.
const AFTER_THE_BODY: Duration = Duration::from_secs(1);

/// The rates of all callers.
pub(super) struct RateLimits {
    keys: Option<Rate<String>>,
    addresses: Option<Rate<IpAddr>>,
}

impl RateLimits {
    pub(super) fn new(settings: &ApiSettings) -> Self {
        RateLimits { keys: Rate::new(settings.key_rate), addresses: Rate::new(settings.address_rate) }
    }

    pub(super) fn check_key(&self, id: &String) -> Result<(), Problem> {
        self.keys.as_ref().map_or(Ok(()), |rate| rate.check(id, "this key"))
    }

    fn check_address(&self, address: IpAddr) -> Result<(), Problem> {
        self.addresses.as_ref().map_or(Ok(()), |rate| rate.check(&network(address), "this address"))
    }
}

/// Whoever has an IPv6 address has a whole /64 of them.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
    }
}

/// A rate that each `K` has for itself.
struct Rate<K: Hash + Eq + Clone> {
    limiter: DefaultKeyedRateLimiter<K>,
    clock: DefaultClock,
    asked: AtomicU32,
}

impl<K: Hash + Eq + Clone> Rate<K> {
    /// `None` when there is no limit.
    fn new(settings: RateSettings) -> Option<Self> {
        let burst = NonZeroU32::new(settings.burst).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::per_second(NonZeroU32::new(settings.per_second)?).allow_burst(burst);
        Some(Rate { limiter: RateLimiter::keyed(quota), clock: DefaultClock::default(), asked: AtomicU32::new(1) })
    }

    fn check(&self, key: &K, who: &str) -> Result<(), Problem> {
        if self.asked.fetch_add(1, Ordering::Relaxed).is_multiple_of(FORGET_EVERY) {
            self.limiter.retain_recent();
            self.limiter.shrink_to_fit();
        }
        self.limiter.check_key(key).map_err(|until| {
            let wait = until.wait_time_from(self.clock.now());
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            Problem::new(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", format!("{who} asks too often"))
                .retry_after(seconds.max(1))
        })
    }
}

/// Middleware: refuses an address that asks too often.
pub(super) async fn per_address(
    State(state): State<ApiState>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    state.limits.check_address(peer(&request).0.ip())?;
    Ok(next.run(request).await)
}

/// Middleware: gives up a request that takes too long. An answer that has begun is not cut off.
pub(super) async fn within_time(
    State(state): State<ApiState>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let timeout = state.settings.request_timeout;
    tokio::time::timeout(timeout + AFTER_THE_BODY, next.run(request)).await.map_err(|_| {
        let detail = format!("the answer was not there within {timeout:?}");
        Problem::new(StatusCode::GATEWAY_TIMEOUT, "timed_out", detail)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_a_rate_of_its_own() {
        let rate: Rate<u8> = Rate::new(RateSettings { per_second: 1, burst: 3 }).unwrap();
        assert!((0..3).all(|_| rate.check(&1, "one").is_ok()));
        assert!(rate.check(&1, "one").is_err() && rate.check(&2, "two").is_ok());
        assert!(Rate::<u8>::new(RateSettings { per_second: 0, burst: 1 }).is_none());
    }

    #[test]
    fn an_ipv6_address_stands_for_its_network() {
        let network = |text: &str| network(text.parse().unwrap()).to_string();
        assert_eq!(network("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!((network("192.0.2.1"), network("::ffff:192.0.2.1")), ("192.0.2.1".into(), "192.0.2.1".into()));
    }
}
