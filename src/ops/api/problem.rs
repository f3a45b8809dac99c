//! Every refusal and failure of the API: a problem document (RFC 9457).

use std::borrow::Cow;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::finding::Finding;
use crate::volumes::StoreError;

const CONTENT_TYPE: &str = "application/problem+json";
/// Seconds after which a store that was away is worth asking again.
const STORE_RETRY: u64 = 5;

/// Why there is no other answer (RFC 9457).
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct Problem {
    /// Always `about:blank`: the status says what kind of problem it is, `code` which one.
    #[serde(rename = "type")]
    problem_type: &'static str,
    /// The name of the status.
    title: &'static str,
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// For programs: a name out of a small fixed set.
    #[schema(value_type = String)]
    code: &'static str,
    /// For people: what is wrong and what helps.
    #[schema(value_type = String)]
    detail: Cow<'static, str>,
    /// Everything that is wrong with a configuration that is refused.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    faults: Vec<Finding>,
    #[serde(skip)]
    retry_after: Option<u64>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Problem {
            problem_type: "about:blank",
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            code,
            detail: detail.into(),
            faults: Vec::new(),
            retry_after: None,
        }
    }

    /// A request that is understood and cannot be done as it stands.
    pub(super) fn invalid(code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, code, detail)
    }

    pub(super) fn not_found(detail: impl Into<Cow<'static, str>>) -> Self {
        Problem::new(StatusCode::NOT_FOUND, "not_found", detail)
    }

    pub(super) fn unauthorized(detail: &'static str) -> Self {
        Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", detail)
    }

    /// A mistake of ours; what it was stands in the log.
    pub(super) fn internal() -> Self {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", "the request could not be worked through")
    }

    pub(super) fn busy(code: &'static str, detail: &'static str) -> Self {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, code, detail).retry_after(1)
    }

    /// A configuration that cannot be taken up.
    pub(super) fn faulty(code: &'static str, detail: &'static str, faults: Vec<Finding>) -> Self {
        Problem { faults, ..Problem::invalid(code, detail) }
    }

    pub(super) fn code(&self) -> &'static str {
        self.code
    }

    pub(super) fn detail(&self) -> &str {
        &self.detail
    }

    /// Seconds until it is worth trying again.
    pub(super) fn retry_after(self, seconds: u64) -> Self {
        Problem { retry_after: Some(seconds), ..self }
    }
}

/// What the store answers may name tables and servers: it goes to the log, not to the caller.
impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        tracing::warn!(%error, failure = error.failure().as_str(), "the store did not answer the API");
        let detail = "the volume store does not answer; the log of the daemon says why";
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "store_unavailable", detail).retry_after(STORE_RETRY)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = serde_json::to_vec(&self).expect("plain data becomes JSON");
        let status = StatusCode::from_u16(self.status).expect("it was made of one");
        let mut response = (status, [(header::CONTENT_TYPE, CONTENT_TYPE)], body).into_response();
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

pub(super) async fn no_such_path() -> Problem {
    Problem::not_found("there is no such path; /docs shows those that there are")
}

pub(super) async fn no_such_method() -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "the Allow header names what this path answers")
}
