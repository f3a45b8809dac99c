//! The ways: signed webhooks, Slack's incoming webhooks, e-mail. One attempt each; whoever asks decides about the next.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hmac::{Hmac, KeyInit, Mac};
use reqwest::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use reqwest::redirect::Policy;
use rustls::{ClientConfig, RootCertStore};
use serde_json::json;
use sha2::Sha256;

use crate::config::{ChannelSettings, ChannelTarget, Secret, SmtpSettings, Template};
use crate::mail::{Letter, MailError, Postbox};

use super::message::Message;
use super::template::{Escape, render, usual, usual_subject};

const SIGNATURE: &str = "x-triaged-signature";
const TIMESTAMP: &str = "x-triaged-timestamp";
const DELIVERY: &str = "x-triaged-delivery";
/// No server may silence a channel for longer.
const LONGEST_AFTER: Duration = Duration::from_secs(3600);

/// Why a channel cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    #[error("the HTTP client of a channel cannot be made")]
    Http(#[source] reqwest::Error),
    #[error("the system has no certificates to know a server by")]
    NoRoots,
    #[error("TLS cannot be set up")]
    Tls(#[from] rustls::Error),
    #[error("mail cannot be sent")]
    Mail(#[from] MailError),
}

/// What became of one attempt. `why` is fit for a log: it holds no address and no secret.
#[derive(Debug)]
pub(super) enum Outcome {
    Sent,
    /// `after`: what the server asked for.
    Later {
        after: Option<Duration>,
        why: String,
    },
    Never {
        why: String,
    },
}

/// How messages of a channel are sent.
#[derive(Debug)]
pub(super) enum Way {
    Webhook { client: reqwest::Client, url: Secret, secret: Secret, template: Option<Template> },
    Slack { client: reqwest::Client, url: Secret, template: Option<Template> },
    Email { postbox: Box<Postbox>, subject: Option<Template>, template: Option<Template> },
}

impl Way {
    pub(super) fn new(settings: &ChannelSettings, smtp: &SmtpSettings) -> Result<Self, SetupError> {
        let template = settings.template.clone();
        Ok(match &settings.target {
            ChannelTarget::Webhook { url, secret } => {
                Way::Webhook { client: client(settings, url)?, url: url.clone(), secret: secret.clone(), template }
            }
            ChannelTarget::Slack { url } => Way::Slack { client: client(settings, url)?, url: url.clone(), template },
            ChannelTarget::Email { to } => {
                let subject = settings.subject.clone();
                Way::Email { postbox: Box::new(Postbox::new(smtp, to)?), subject, template }
            }
        })
    }

    /// Tries once. `now` in milliseconds since 1970-01-01 UTC.
    pub(super) async fn send(&self, message: &Message, now: i64) -> Outcome {
        match self {
            Way::Webhook { client, url, secret, template } => {
                let body = match template {
                    Some(template) => render(template, message, Escape::Json),
                    None => serde_json::to_string(&message.notification(now)).expect("plain data becomes JSON"),
                };
                let timestamp = now / 1000;
                let request = client
                    .post(url.reveal())
                    .header(TIMESTAMP, timestamp)
                    .header(SIGNATURE, signature(secret, timestamp, &body))
                    .header(DELIVERY, message.delivery_id.to_string());
                exchange(request, body).await
            }
            Way::Slack { client, url, template } => {
                let text = match template {
                    Some(template) => render(template, message, Escape::Slack),
                    None => usual(message, Escape::Slack),
                };
                exchange(client.post(url.reveal()), json!({ "text": text }).to_string()).await
            }
            Way::Email { postbox, subject, template } => {
                let text = match template {
                    Some(template) => render(template, message, Escape::Plain),
                    None => usual(message, Escape::Plain),
                };
                let subject = match subject {
                    Some(template) => render(template, message, Escape::Plain),
                    None => usual_subject(message),
                };
                let id = Some(format!("<{}@triaged>", message.delivery_id));
                match postbox.send(Letter { subject, text, page: None, id }).await {
                    Ok(()) => Outcome::Sent,
                    Err(error) if error.is_permanent() => Outcome::Never { why: error.to_string() },
                    Err(error) => Outcome::Later { after: None, why: error.to_string() },
                }
            }
        }
    }
}

/// `sha256=` and the HMAC of the time, a dot and the body: a request that somebody saw cannot be sent again later.
fn signature(secret: &Secret, timestamp: i64, body: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.reveal().as_bytes()).expect("a key of any length will do");
    mac.update(timestamp.to_string().as_bytes());
    mac.update(b".");
    mac.update(body.as_bytes());
    format!("sha256={}", data_encoding::HEXLOWER.encode(&mac.finalize().into_bytes()))
}

async fn exchange(request: reqwest::RequestBuilder, body: String) -> Outcome {
    match request.header(CONTENT_TYPE, "application/json").body(body).send().await {
        Ok(response) => of_status(response.status().as_u16(), response.headers(), SystemTime::now()),
        Err(error) => {
            let what = match &error {
                error if error.is_timeout() => "the time-out is over",
                error if error.is_connect() => "no connection",
                _ => "the connection broke",
            };
            Outcome::Later { after: None, why: what.to_owned() }
        }
    }
}

fn of_status(status: u16, headers: &HeaderMap, now: SystemTime) -> Outcome {
    let why = format!("the answer was {status}");
    match status {
        200..=299 => Outcome::Sent,
        408 | 425 | 429 | 500.. => Outcome::Later { after: retry_after(headers, now), why },
        // A redirect is not followed: it would carry the message to where nobody configured it to go.
        _ => Outcome::Never { why },
    }
}

/// Seconds or a date (RFC 9110, 10.2.3).
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let after = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => httpdate::parse_http_date(text).ok()?.duration_since(now).unwrap_or_default(),
    };
    Some(after.min(LONGEST_AFTER))
}

fn client(settings: &ChannelSettings, url: &Secret) -> Result<reqwest::Client, SetupError> {
    let mut roots = RootCertStore::empty();
    if url.reveal().starts_with("https:") {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            return Err(SetupError::NoRoots);
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls.with_root_certificates(roots).with_no_client_auth())
        .connect_timeout(settings.timeout)
        .timeout(settings.timeout)
        .user_agent(concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION")))
        .redirect(Policy::none())
        .no_proxy()
        .build()
        .map_err(|error| SetupError::Http(error.without_url()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_what_others_compute() {
        // hmac.new(b"0123456789abcdef", b'1700000000.{"a":1}', "sha256").hexdigest() of Python's standard library.
        let signature = signature(&Secret::new("0123456789abcdef"), 1_700_000_000, r#"{"a":1}"#);
        assert_eq!(signature, "sha256=9eb18f493f8ec135d9eb2dad817c369bb4e9cbfa818657897a7437c1cd8c3a23");
    }

    #[test]
    fn each_status_has_its_meaning() {
        let of = |status: u16, after: Option<&str>| {
            let headers = after.map(|after| (RETRY_AFTER, after.parse().expect("a header")));
            of_status(status, &HeaderMap::from_iter(headers), SystemTime::UNIX_EPOCH)
        };
        assert!(matches!(of(204, None), Outcome::Sent));
        let after = |status: u16, header: &str| match of(status, Some(header)) {
            Outcome::Later { after, .. } => after,
            other => panic!("{other:?}"),
        };
        assert_eq!(after(429, "7"), Some(Duration::from_secs(7)));
        assert_eq!(after(503, "Thu, 01 Jan 1970 00:00:09 GMT"), Some(Duration::from_secs(9)));
        assert_eq!((after(500, "999999"), after(500, "soon")), (Some(LONGEST_AFTER), None));
        assert!(matches!(of(503, None), Outcome::Later { after: None, .. }));
        for never in [301, 302, 400, 401, 404] {
            assert!(matches!(of(never, Some("7")), Outcome::Never { .. }), "{never}");
        }
    }
}
