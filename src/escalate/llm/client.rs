//! The client: one request to an OpenAI-compatible server, and what it answered or why it did not.
//!
//! Requests go through async-openai with types of our own, because its strict ones break on servers that differ a little
//! (64bit/async-openai#165). Its retries, its reading of the environment and its HTTP client without time-outs are
//! replaced (`transport`, `endpoint`).
//!
//! Logging: async-openai writes whole responses at ERROR and servers' messages at WARN under the target `async_openai`.
//! `transport` leaves it nothing to write about, but a filter must contain `async_openai=off` all the same, and keep
//! `hyper`, `hyper_util`, `reqwest`, `rustls` and `h2` above `trace`, which show what goes over the wire.

use std::time::Duration;

use async_openai::Client;
use async_openai::error::OpenAIError;
use reqwest::redirect::Policy;
use serde_json::Value;
use serde_json::value::RawValue;

use super::budget::Tokens;
use super::endpoint::Endpoint;
use super::limits::Ending;
use super::prompt::Prompt;
use super::transport::Transport;
use crate::config::llm::LlmSettings;
use crate::https::{self, TlsError};

/// Connections that nobody uses are kept so long; servers close theirs after a minute or more.
const IDLE: Duration = Duration::from_secs(50);

/// Why a client cannot be made. None of it is about the server, so it is an error of the configuration.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error("the API key holds characters that no HTTP header can")]
    Key,
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("the proxy's URL cannot be read")]
    Proxy,
    #[error("the HTTP client cannot be set up")]
    Http(#[source] reqwest::Error),
}

/// Why a request has no answer. Never holds anything of the request or the response but the status.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    #[error("the server cannot be reached")]
    Unreachable(#[source] reqwest::Error),
    #[error("no answer in time")]
    TimedOut,
    #[error("the answer broke off")]
    Broken(#[source] reqwest::Error),
    #[error("the answer is longer than {limit} bytes")]
    TooLong { limit: usize },
    #[error("the answer is not JSON")]
    NotJson,
    #[error("the server asks for fewer requests")]
    RateLimited { after: Option<Duration> },
    #[error("the account's quota is used up")]
    QuotaUsedUp,
    #[error("the server refuses all requests such as this with status {status}: wrong key, model or address")]
    Refused { status: u16 },
    #[error("the server refuses this request with status {status}")]
    Rejected { status: u16 },
    #[error("the server failed with status {status}")]
    ServerFault { status: u16, after: Option<Duration> },
    #[error("the request could not be made")]
    Library,
}

/// The one question that each error answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Remedy {
    /// Ask again, not sooner than the server says.
    Retry { after: Option<Duration> },
    /// Asking the same again gives the same.
    GiveUp,
    /// Asking anything gives the same for a long time.
    Off,
}

impl ClientError {
    pub(super) fn of(error: reqwest::Error) -> Self {
        // The URL may hold a password, and says nothing that the configuration does not.
        let error = error.without_url();
        match error {
            error if error.is_timeout() => ClientError::TimedOut,
            error if error.is_connect() => ClientError::Unreachable(error),
            error if error.is_builder() => ClientError::Library,
            error => ClientError::Broken(error),
        }
    }

    pub(super) fn remedy(&self) -> Remedy {
        match self {
            ClientError::Unreachable(_) | ClientError::TimedOut | ClientError::Broken(_) | ClientError::NotJson => {
                Remedy::Retry { after: None }
            }
            ClientError::RateLimited { after } | ClientError::ServerFault { after, .. } => {
                Remedy::Retry { after: *after }
            }
            ClientError::TooLong { .. } | ClientError::Rejected { .. } | ClientError::Library => Remedy::GiveUp,
            ClientError::QuotaUsedUp | ClientError::Refused { .. } => Remedy::Off,
        }
    }

    /// What it means for the limits.
    pub(super) fn ending(&self) -> Ending {
        match self {
            ClientError::Unreachable(_) | ClientError::ServerFault { .. } => Ending::Failed { spent: false },
            ClientError::TimedOut | ClientError::Broken(_) | ClientError::NotJson => Ending::Failed { spent: true },
            ClientError::RateLimited { after } => Ending::RateLimited(*after),
            // A model that was talked into endless answers is paid for, but the server is well.
            ClientError::TooLong { .. } => Ending::Answered(None),
            ClientError::Rejected { .. } | ClientError::Library => Ending::Rejected,
            ClientError::QuotaUsedUp | ClientError::Refused { .. } => Ending::FailedForGood,
        }
    }
}

/// What the model wrote, and what it took.
pub(super) struct Completion {
    pub(super) content: Option<String>,
    /// As far as the server tells.
    pub(super) usage: Option<Tokens>,
}

pub(super) struct LlmClient {
    client: Client<Endpoint>,
}

impl LlmClient {
    pub(super) fn try_new(settings: &LlmSettings) -> Result<Self, BuildError> {
        let endpoint = Endpoint::try_new(settings)?;
        let mut http = reqwest::Client::builder()
            .tls_backend_preconfigured(https::client_config(settings.base_url.starts_with("https:"))?)
            .connect_timeout(settings.connect_timeout)
            .timeout(settings.request_timeout)
            .user_agent(concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION")))
            .pool_idle_timeout(IDLE)
            // A redirect would carry text and key to where nobody configured them to go.
            .redirect(Policy::none())
            .no_proxy();
        if let Some(proxy) = &settings.proxy {
            http = http.proxy(reqwest::Proxy::all(proxy.reveal()).map_err(|_| BuildError::Proxy)?);
        }
        let http = http.build().map_err(|error| BuildError::Http(error.without_url()))?;
        let transport = Transport::new(http.clone(), settings.max_response_bytes);
        Ok(LlmClient { client: Client::build(http, endpoint).with_http_service(transport) })
    }

    pub(super) async fn complete(&self, prompt: &Prompt) -> Result<Completion, ClientError> {
        let response: Result<Box<RawValue>, OpenAIError> = self.client.chat().create_byot(&prompt.body).await;
        let response = response.map_err(|error| match error {
            OpenAIError::Boxed(ours) => ours.downcast().map_or(ClientError::Library, |ours| *ours),
            _ => ClientError::Library,
        })?;
        completion(response.get())
    }
}

/// Takes what is there and needs nothing to be there.
fn completion(response: &str) -> Result<Completion, ClientError> {
    let response: Value = serde_json::from_str(response).map_err(|_| ClientError::NotJson)?;
    // Gateways report faults of the server behind them with status 200.
    if let Some(error) = response.get("error").filter(|error| !error.is_null()) {
        let status = error.get("code").and_then(Value::as_u64).and_then(|code| u16::try_from(code).ok());
        return Err(match status {
            Some(429) => ClientError::RateLimited { after: None },
            status => ClientError::ServerFault { status: status.unwrap_or(200), after: None },
        });
    }
    let tokens = |member: &str| response.get("usage").and_then(|usage| usage.get(member)).and_then(Value::as_u64);
    let usage = match (tokens("prompt_tokens"), tokens("completion_tokens"), tokens("total_tokens")) {
        (Some(input), Some(output), _) => Some(Tokens { input, output }),
        (Some(input), None, Some(total)) => Some(Tokens { input, output: total.saturating_sub(input) }),
        (None, None, Some(total)) => Some(Tokens { input: total, output: 0 }),
        _ => None,
    };
    let content = response.pointer("/choices/0/message/content").and_then(content_of);
    Ok(Completion { content, usage: usage.filter(|usage| usage.input.saturating_add(usage.output) < 1 << 32) })
}

/// Plain text, or a list of parts of which some are text.
fn content_of(content: &Value) -> Option<String> {
    match content {
        Value::String(text) => Some(text.clone()),
        Value::Array(parts) => {
            Some(parts.iter().filter_map(|part| part.get("text").and_then(Value::as_str)).collect::<String>())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(response: &str) -> Option<String> {
        completion(response).expect("it is an answer").content
    }

    #[test]
    fn answers_of_many_servers_are_read() {
        assert_eq!(content(r#"{"choices":[{"message":{"content":"x"}}]}"#).as_deref(), Some("x"));
        let parts =
            r#"{"choices":[{"message":{"content":[{"type":"text","text":"x"},{"type":"image"},{"text":"y"}]}}]}"#;
        assert_eq!(content(parts).as_deref(), Some("xy"));
        for empty in
            ["{}", "[]", "null", r#"{"choices":[]}"#, r#"{"choices":[{"message":{"content":null,"refusal":"no"}}]}"#]
        {
            assert_eq!(content(empty), None, "{empty}");
        }
    }

    #[test]
    fn usage_is_taken_where_it_is_told() {
        let usage = |usage: &str| completion(&format!(r#"{{"usage":{usage}}}"#)).expect("it is an answer").usage;
        assert_eq!(usage(r#"{"prompt_tokens":5,"completion_tokens":2}"#), Some(Tokens { input: 5, output: 2 }));
        assert_eq!(usage(r#"{"prompt_tokens":5,"total_tokens":9}"#), Some(Tokens { input: 5, output: 4 }));
        assert_eq!(usage(r#"{"total_tokens":9}"#), Some(Tokens { input: 9, output: 0 }));
        assert_eq!(usage(r#"{"prompt_tokens":-5}"#), None);
        assert_eq!(usage(r#"{"prompt_tokens":18446744073709551615,"completion_tokens":18446744073709551615}"#), None);
        assert_eq!(usage("7"), None);
    }

    #[test]
    fn faults_within_a_success_are_faults() {
        let fault = |error: &str| completion(&format!(r#"{{"error":{error}}}"#)).err().map(|fault| fault.remedy());
        assert_eq!(fault(r#"{"code":429,"message":"m"}"#), Some(Remedy::Retry { after: None }));
        assert_eq!(fault(r#""overloaded""#), Some(Remedy::Retry { after: None }));
        assert_eq!(fault("null"), None);
    }

    #[test]
    fn a_client_for_an_encrypted_server_has_roots() {
        let settings = LlmSettings { model: "m".to_owned(), ..LlmSettings::default() };
        assert!(matches!(LlmClient::try_new(&settings), Ok(_) | Err(BuildError::Tls(TlsError::NoRoots))));
    }
}
