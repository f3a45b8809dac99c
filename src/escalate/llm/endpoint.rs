//! Where requests go and how they are authorised.
//!
//! The library's own configurations read the environment, and panic on a key that is no header's value; this one does
//! neither.

use async_openai::config::Config;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use secrecy::SecretString;

use super::client::BuildError;
use crate::config::llm::{Api, LlmSettings};

const AZURE_KEY: HeaderName = HeaderName::from_static("api-key");

pub(super) struct Endpoint {
    /// Without a slash at its end.
    base: String,
    headers: HeaderMap,
    query: Vec<(String, String)>,
    /// The library wants one; it is sent by `headers` alone.
    no_key: SecretString,
}

impl Endpoint {
    pub(super) fn try_new(settings: &LlmSettings) -> Result<Self, BuildError> {
        let base = settings.base_url.trim_end_matches('/');
        let (base, query, header) = match &settings.api {
            Api::OpenAi => (base.to_owned(), vec![], AUTHORIZATION),
            Api::Azure { deployment, api_version } => (
                format!("{base}/openai/deployments/{deployment}"),
                vec![("api-version".to_owned(), api_version.clone())],
                AZURE_KEY,
            ),
        };
        let mut headers = HeaderMap::new();
        // A key from a file ends in a line feed more often than not.
        if let Some(key) = settings.api_key.as_ref().map(|key| key.reveal().trim()).filter(|key| !key.is_empty()) {
            let value = if header == AUTHORIZATION { format!("Bearer {key}") } else { key.to_owned() };
            let mut value = HeaderValue::try_from(value).map_err(|_| BuildError::Key)?;
            value.set_sensitive(true);
            headers.insert(header, value);
        }
        Ok(Endpoint { base, headers, query, no_key: SecretString::default() })
    }
}

impl Config for Endpoint {
    fn headers(&self) -> HeaderMap {
        self.headers.clone()
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    fn query(&self) -> Vec<(&str, &str)> {
        self.query.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
    }

    fn api_base(&self) -> &str {
        &self.base
    }

    fn api_key(&self) -> &SecretString {
        &self.no_key
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    fn endpoint(api: Api, base_url: &str, key: &str) -> Result<Endpoint, BuildError> {
        let settings = LlmSettings {
            api,
            base_url: base_url.to_owned(),
            api_key: Some(Secret::new(key)),
            ..LlmSettings::default()
        };
        Endpoint::try_new(&settings)
    }

    #[test]
    fn plain_and_azure_addresses() {
        let plain = endpoint(Api::OpenAi, "https://x.test/v1/", "k\n").expect("it is sound");
        assert_eq!(plain.url("/chat/completions"), "https://x.test/v1/chat/completions");
        assert_eq!((plain.headers()[AUTHORIZATION].as_bytes(), plain.query()), (&b"Bearer k"[..], vec![]));

        let api = Api::Azure { deployment: "d".to_owned(), api_version: "2024-10-21".to_owned() };
        let azure = endpoint(api, "https://x.azure.test", "k").expect("it is sound");
        assert_eq!(azure.url("/chat/completions"), "https://x.azure.test/openai/deployments/d/chat/completions");
        assert_eq!(
            (azure.headers()[AZURE_KEY].as_bytes(), azure.query()),
            (&b"k"[..], vec![("api-version", "2024-10-21")])
        );
        assert!(!azure.headers().contains_key(AUTHORIZATION));
    }

    #[test]
    fn a_key_that_no_header_can_hold_is_an_error_without_the_key() {
        let error = endpoint(Api::OpenAi, "https://x.test", "very\nsecret").err().expect("it is refused");
        assert!(!format!("{error} {error:?}").contains("secret"));
        let plain = endpoint(Api::OpenAi, "https://x.test", "very-secret").expect("it is sound");
        assert!(!format!("{:?}", plain.headers()).contains("very-secret"));
    }
}
