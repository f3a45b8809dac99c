//! One HTTP exchange, in the place of the library's own: no retries of its own, a bounded body, the server's wish when
//! to come back, and nothing handed on that the library would fail to parse, because it logs what it cannot parse.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::SystemTime;

use async_openai::error::OpenAIError;
use async_openai::middleware::HttpRequestFactory;
use reqwest::Response;
use reqwest::header::HeaderMap;
use serde_json::Value;
use serde_json::value::RawValue;
use tower_service::Service;

use super::client::ClientError;
use super::retry::retry_after;

/// Of the answers that are no success only a code is read.
const MAX_ERROR_BYTES: usize = 64 * 1024;

/// Codes of a 429 or 403 that no waiting cures: OpenAI's, and those of servers that follow it.
const QUOTA_CODES: [&str; 5] = [
    "insufficient_quota",
    "billing_hard_limit_reached",
    "billing_not_active",
    "quota_exceeded",
    "insufficient_balance",
];

#[derive(Clone)]
pub(super) struct Transport {
    client: reqwest::Client,
    max_bytes: usize,
}

impl Transport {
    pub(super) fn new(client: reqwest::Client, max_bytes: usize) -> Self {
        Transport { client, max_bytes }
    }

    async fn exchange(self, request: HttpRequestFactory) -> Result<Response, ClientError> {
        let request = request.build().await.map_err(|_| ClientError::Library)?;
        let mut response = self.client.execute(request).await.map_err(ClientError::of)?;
        let status = response.status();
        if status.is_success() {
            let body = read(&mut response, self.max_bytes).await?;
            // As strict as the library's own parse will be.
            serde_json::from_slice::<&RawValue>(&body).map_err(|_| ClientError::NotJson)?;
            return Ok(http::Response::new(body).into());
        }
        let body = read(&mut response, MAX_ERROR_BYTES).await.unwrap_or_default();
        Err(refusal(status.as_u16(), response.headers(), &body))
    }
}

impl Service<HttpRequestFactory> for Transport {
    type Response = Response;
    type Error = ClientError;
    type Future = Pin<Box<dyn Future<Output = Result<Response, ClientError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ClientError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: HttpRequestFactory) -> Self::Future {
        Box::pin(self.clone().exchange(request))
    }
}

/// Carries our error through the library unharmed.
impl From<ClientError> for OpenAIError {
    fn from(error: ClientError) -> Self {
        OpenAIError::Boxed(Box::new(error))
    }
}

async fn read(response: &mut Response, max_bytes: usize) -> Result<Vec<u8>, ClientError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(ClientError::of)? {
        if body.len() + chunk.len() > max_bytes {
            return Err(ClientError::TooLong { limit: max_bytes });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn refusal(status: u16, headers: &HeaderMap, body: &[u8]) -> ClientError {
    let after = retry_after(headers, SystemTime::now());
    let quota = has_quota_code(body);
    match status {
        402 => ClientError::QuotaUsedUp,
        403 | 429 if quota => ClientError::QuotaUsedUp,
        429 => ClientError::RateLimited { after },
        408 | 425 | 500.. => ClientError::ServerFault { status, after },
        // Wrong key, wrong model, wrong address: the next record would fare no better.
        ..=399 | 401 | 403..=405 => ClientError::Refused { status },
        _ => ClientError::Rejected { status },
    }
}

/// Servers disagree on which member has the code.
fn has_quota_code(body: &[u8]) -> bool {
    let Ok(body) = serde_json::from_slice::<Value>(body) else { return false };
    let error = body.get("error").unwrap_or(&body);
    ["code", "type"]
        .into_iter()
        .filter_map(|member| error.get(member).and_then(Value::as_str))
        .any(|code| QUOTA_CODES.contains(&code))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(status: u16, body: &str) -> ClientError {
        refusal(status, &HeaderMap::new(), body.as_bytes())
    }

    #[test]
    fn each_status_has_its_meaning() {
        let quota = r#"{"error":{"message":"m","type":"insufficient_quota","code":null}}"#;
        assert!(matches!(of(429, quota), ClientError::QuotaUsedUp));
        assert!(matches!(of(429, r#"{"code":"insufficient_quota"}"#), ClientError::QuotaUsedUp));
        assert!(matches!(of(402, ""), ClientError::QuotaUsedUp));
        assert!(matches!(of(429, r#"{"error":"slow down"}"#), ClientError::RateLimited { after: None }));
        assert!(matches!(of(429, "<html>"), ClientError::RateLimited { .. }));
        assert!(matches!(of(503, quota), ClientError::ServerFault { status: 503, .. }));
        assert!(matches!(of(401, ""), ClientError::Refused { status: 401 }));
        assert!(matches!(of(302, ""), ClientError::Refused { status: 302 }));
        assert!(matches!(of(400, ""), ClientError::Rejected { status: 400 }));
    }
}
