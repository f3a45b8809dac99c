//! What a request holds, read within limits; whatever is wrong with it is a problem document.

use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{FromRequestParts, Path as PathParts, Query as QueryString};
use axum::http::StatusCode;
use axum::http::request::Parts;
use chrono::{DateTime, Utc};
use serde::de::DeserializeOwned;

use crate::volumes::EventCursor;

use super::problem::Problem;

/// Times of the store end in 2106.
const LAST_SECOND: i64 = u32::MAX as i64;

/// Entries of a page.
const PAGE: usize = 100;
const LARGEST_PAGE: usize = 1000;

/// What is taken of a body that is refused.
const MOST_DISCARDED: usize = 1 << 20;
const LONGEST_DISCARD: Duration = Duration::from_secs(1);

/// The parameters after `?`. Their type refuses those that it does not know: a mistyped one must not be ignored.
pub(super) struct Query<T>(pub(super) T);

impl<S: Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        QueryString::<T>::try_from_uri(&parts.uri)
            .map(|QueryString(value)| Query(value))
            .map_err(|refused| Problem::invalid("invalid_parameter", refused.body_text()))
    }
}

/// The variable parts of the path.
pub(super) struct Path<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        PathParts::<T>::from_request_parts(parts, state)
            .await
            .map(|PathParts(value)| Path(value))
            .map_err(|refused| Problem::invalid("invalid_parameter", refused.body_text()))
    }
}

/// The next piece of a body; `None` at its end.
pub(super) async fn next_piece(body: &mut Body, deadline: Duration) -> Result<Option<Bytes>, Problem> {
    let piece = async {
        loop {
            match poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await {
                None => return Ok(None),
                // Trailers say nothing to us.
                Some(Ok(frame)) => {
                    if let Ok(bytes) = frame.into_data() {
                        return Ok(Some(bytes));
                    }
                }
                Some(Err(_)) => {
                    return Err(Problem::new(StatusCode::BAD_REQUEST, "broken_body", "the body broke off"));
                }
            }
        }
    };
    tokio::time::timeout(deadline, piece).await.unwrap_or_else(|_| Err(too_slow(deadline)))
}

/// A whole body of at most `limit` bytes that comes within the deadline.
pub(super) async fn whole_body(mut body: Body, limit: usize, deadline: Duration) -> Result<Vec<u8>, Problem> {
    if body.size_hint().lower() > limit as u64 {
        return Err(refuse_large(body, limit).await);
    }
    let read = async {
        let mut whole = Vec::new();
        while let Some(piece) = next_piece(&mut body, deadline).await? {
            if whole.len() + piece.len() > limit {
                return Ok(None);
            }
            whole.extend_from_slice(&piece);
        }
        Ok(Some(whole))
    };
    match tokio::time::timeout(deadline, read).await {
        Ok(Ok(Some(whole))) => Ok(whole),
        Ok(Ok(None)) => Err(refuse_large(body, limit).await),
        Ok(Err(problem)) => Err(problem),
        Err(_) => Err(too_slow(deadline)),
    }
}

/// Who is still sending when the connection is closed may lose the answer, so the rest of a body that is a little too
/// large is taken and thrown away.
pub(super) async fn refuse_large(mut body: Body, limit: usize) -> Problem {
    let discard = async {
        let mut taken = 0;
        while let Ok(Some(piece)) = next_piece(&mut body, LONGEST_DISCARD).await
            && taken < MOST_DISCARDED
        {
            taken += piece.len();
        }
    };
    // However much came: the answer is the same.
    drop(tokio::time::timeout(LONGEST_DISCARD, discard).await);
    too_large(limit)
}

pub(super) fn too_large(limit: usize) -> Problem {
    let detail = format!("the body has more than {limit} bytes");
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", detail)
}

fn too_slow(deadline: Duration) -> Problem {
    let detail = format!("the body did not come within {deadline:?}");
    Problem::new(StatusCode::REQUEST_TIMEOUT, "body_too_slow", detail)
}

/// Entries of one page, 100 if it does not say.
pub(super) fn page_limit(limit: Option<usize>) -> Result<usize, Problem> {
    let limit = limit.unwrap_or(PAGE);
    match (1..=LARGEST_PAGE).contains(&limit) {
        true => Ok(limit),
        false => Err(Problem::invalid("invalid_parameter", format!("`limit` must be from 1 to {LARGEST_PAGE}"))),
    }
}

/// The `next` of the page before.
pub(super) fn page_cursor(cursor: Option<&str>) -> Result<Option<EventCursor>, Problem> {
    let cursor = cursor.map(str::parse::<EventCursor>).transpose();
    cursor.map_err(|rule| Problem::invalid("invalid_parameter", format!("`cursor` {rule}")))
}

/// A span of event time in milliseconds since 1970-01-01 UTC; the end no longer counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) from: i64,
    pub(super) to: i64,
}

impl Span {
    /// Reads RFC 3339 times. Without an end it is now, without a start it is `length` before the end.
    pub(super) fn read(from: Option<&str>, to: Option<&str>, length: Duration) -> Result<Self, Problem> {
        // The end does not belong to it, and what has just happened does.
        let to = to.map_or_else(|| Ok(Utc::now().timestamp_millis() + 1), |text| time("to", text))?;
        let from = from.map_or_else(|| Ok(to - length.as_millis() as i64), |text| time("from", text))?;
        match from <= to {
            true => Ok(Span { from: from.max(0), to: to.clamp(0, LAST_SECOND * 1000) }),
            false => Err(Problem::invalid("invalid_parameter", "`from` must not be after `to`")),
        }
    }

    pub(super) fn first_second(self) -> i64 {
        self.from / 1000
    }

    /// The first second that no longer counts.
    pub(super) fn end_second(self) -> i64 {
        self.to.div_euclid(1000) + i64::from(self.to % 1000 > 0)
    }
}

fn time(name: &str, text: &str) -> Result<i64, Problem> {
    // A `+` that was not escaped arrives as a space.
    DateTime::parse_from_rfc3339(&text.replace(' ', "+")).map(|time| time.timestamp_millis()).map_err(|_| {
        Problem::invalid("invalid_parameter", format!("`{name}` is no RFC 3339 time such as 2026-01-31T08:00:00Z"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_span_ends_now_unless_it_says_otherwise() {
        let now = Utc::now().timestamp_millis();
        let span = Span::read(None, None, HOUR).unwrap();
        assert!(span.to >= now && span.to - span.from == 3_600_000);
        let span = Span::read(Some("2026-01-01T01:00:00+01:00"), Some("2026-01-01T00:00:00.001Z"), HOUR).unwrap();
        assert_eq!((span.first_second(), span.end_second()), (1_767_225_600, 1_767_225_601));
    }

    #[test]
    fn what_is_no_span_is_refused() {
        for (from, to) in [("yesterday", "2026-01-01T00:00:00Z"), ("2026-01-02T00:00:00Z", "2026-01-01T00:00:00Z")] {
            assert!(Span::read(Some(from), Some(to), HOUR).is_err(), "{from}");
        }
        let all = Span::read(Some("0001-01-01T00:00:00Z"), Some("9999-12-31T23:59:59Z"), HOUR).unwrap();
        assert_eq!((all.first_second(), all.end_second()), (0, LAST_SECOND));
    }

    #[tokio::test]
    async fn a_body_has_a_limit() {
        assert_eq!(whole_body(Body::from("12345"), 5, HOUR).await.unwrap(), b"12345");
        assert!(whole_body(Body::from("123456"), 5, HOUR).await.is_err());
    }
}
