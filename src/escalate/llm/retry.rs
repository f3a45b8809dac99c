//! When to ask again: what the server says, or ever longer pauses.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, SystemTime};

use reqwest::header::{HeaderMap, RETRY_AFTER};

use crate::config::llm::RetrySettings;

/// In milliseconds; Azure and OpenAI send it beside the other.
const RETRY_AFTER_MS: &str = "retry-after-ms";

/// No server may switch the tier off for longer.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// What a response says about when to come back: milliseconds, seconds, or a date (RFC 9110, 10.2.3).
pub(super) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let value = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let number = |text: &str| text.parse::<f64>().ok().filter(|number| number.is_finite() && *number >= 0.0);
    let bounded = |seconds: f64| Duration::from_secs_f64(seconds.min(LONGEST.as_secs_f64()));
    if let Some(millis) = value(RETRY_AFTER_MS).and_then(number) {
        return Some(bounded(millis / 1000.0));
    }
    let text = value(RETRY_AFTER.as_str())?;
    if let Some(seconds) = number(text) {
        return Some(bounded(seconds));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    // A date that has passed: now.
    Some(date.duration_since(now).unwrap_or_default().min(LONGEST))
}

/// The pause before the attempt behind `attempt`, which counts from 1.
pub(super) fn backoff(settings: &RetrySettings, attempt: u32) -> Duration {
    let doublings = attempt.saturating_sub(1).min(20);
    let full = settings.backoff.saturating_mul(1 << doublings).min(settings.backoff_max);
    // Each call draws new keys; chance is all that is asked of them.
    let share = RandomState::new().hash_one(attempt) as f64 / u64::MAX as f64;
    full.mul_f64(0.5 + share / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(name: &'static str, value: &str) -> Option<Duration> {
        let headers = HeaderMap::from_iter([(
            reqwest::header::HeaderName::from_static(name),
            value.parse().expect("a header's value"),
        )]);
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").expect("a date");
        retry_after(&headers, now)
    }

    #[test]
    fn seconds_milliseconds_and_dates() {
        assert_eq!(said("retry-after", "7"), Some(Duration::from_secs(7)));
        assert_eq!(said("retry-after", " 1.5 "), Some(Duration::from_millis(1500)));
        assert_eq!(said("retry-after-ms", "20"), Some(Duration::from_millis(20)));
        assert_eq!(said("retry-after", "Sun, 06 Nov 1994 08:50:07 GMT"), Some(Duration::from_secs(30)));
        assert_eq!(said("retry-after", "Sun, 06 Nov 1994 08:00:00 GMT"), Some(Duration::ZERO));
        for nonsense in ["-1", "soon", "", "NaN", "inf"] {
            assert_eq!(said("retry-after", nonsense), None, "{nonsense:?}");
        }
        assert_eq!(said("retry-after", "1e300"), Some(LONGEST));
    }

    #[test]
    fn pauses_double_up_to_a_bound_and_vary() {
        let settings =
            RetrySettings { attempts: 9, backoff: Duration::from_millis(100), backoff_max: Duration::from_secs(1) };
        for (attempt, full) in [(1, 100), (2, 200), (4, 800), (5, 1000), (40, 1000)] {
            let pause = backoff(&settings, attempt);
            assert!((full / 2..=full).contains(&(pause.as_millis() as u64)), "{attempt}: {pause:?}");
        }
        let pauses: std::collections::BTreeSet<_> = (0..20).map(|_| backoff(&settings, 3)).collect();
        assert!(pauses.len() > 10);
    }
}
