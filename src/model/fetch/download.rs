//! Bytes over HTTP into a file, bounded and hashed while they arrive.
//!
//! A proxy is taken from the usual variables of the environment (`HTTPS_PROXY`, `HTTP_PROXY`, `NO_PROXY`). No redirect
//! leads from an encrypted connection to an open one.

use std::fs::File;
use std::io::Write;
use std::ops::Deref;
use std::path::Path;
use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{Client, Response, Url};
use sha2::{Digest, Sha256};

use super::error::{FetchError, writing};
use super::unpack::{FILES, MAX_WEIGHTS_BYTES, ModelFile};
use super::{FetchProgress, hex};
use crate::https;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// Longest wait for the next bytes. A whole model may take as long as the line needs.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

const MAX_REDIRECTS: usize = 5;

pub(super) struct Downloader<'a> {
    client: Client,
    progress: &'a mut (dyn FnMut(FetchProgress) + Send),
}

impl<'a> Downloader<'a> {
    pub(super) fn new(progress: &'a mut (dyn FnMut(FetchProgress) + Send)) -> Result<Downloader<'a>, FetchError> {
        let client = Client::builder()
            .tls_backend_preconfigured(https::client_config(true)?)
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .user_agent(concat!("triaged/", env!("CARGO_PKG_VERSION")))
            .redirect(Policy::custom(|attempt| {
                let was_encrypted = attempt.previous().last().is_some_and(|url| url.scheme() == "https");
                if attempt.previous().len() > MAX_REDIRECTS {
                    attempt.error("too many redirects")
                } else if was_encrypted && attempt.url().scheme() != "https" {
                    attempt.error("a redirect to an open connection")
                } else {
                    attempt.follow()
                }
            }))
            .build()
            .map_err(FetchError::Client)?;
        Ok(Downloader { client, progress })
    }

    /// Downloads an archive and checks its hash.
    pub(super) async fn file(&mut self, url: &str, to: &Path, sha256: &str) -> Result<(), FetchError> {
        let response = self.get(url, None).await?;
        let found = self.save(url, response, to, MAX_WEIGHTS_BYTES).await?;
        match found == sha256 {
            true => Ok(()),
            false => Err(FetchError::Hash { what: without_secrets(url), expected: sha256.to_owned(), found }),
        }
    }

    /// Downloads the files of a model that lie under `base`; those that it can do without may be missing.
    pub(super) async fn files(mut self, base: &str, to: &Path) -> Result<(), FetchError> {
        for ModelFile { path, required, limit } in FILES {
            let url = format!("{base}{path}");
            let response = match self.get(&url, None).await {
                Err(FetchError::Status { status: 404, .. }) if !required => continue,
                response => response?,
            };
            let target = to.join(path);
            if let Some(parent) = target.parent() {
                std::fs::create_dir_all(parent).map_err(writing(parent))?;
            }
            self.save(&url, response, &target, *limit).await?;
        }
        Ok(())
    }

    /// The body of an answer of at most `limit` bytes.
    pub(super) async fn bytes(&mut self, url: &str, accept: &str, limit: u64) -> Result<(Url, Vec<u8>), FetchError> {
        let mut response = self.get(url, Some(accept)).await?;
        let final_url = response.url().clone();
        let mut body = Vec::new();
        while let Some(chunk) = next(url, &mut response, body.len() as u64).await? {
            if (body.len() + chunk.len()) as u64 > limit {
                return Err(FetchError::TooLong { url: without_secrets(url), limit });
            }
            body.extend_from_slice(&chunk);
        }
        Ok((final_url, body))
    }

    async fn get(&self, url: &str, accept: Option<&str>) -> Result<Response, FetchError> {
        let parsed = Url::parse(url).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        let parsed = parsed.ok_or_else(|| FetchError::Url(without_secrets(url)))?;
        let mut request = self.client.get(parsed);
        if let Some(accept) = accept {
            request = request.header(reqwest::header::ACCEPT, accept);
        }
        let response = request
            .send()
            .await
            .map_err(|source| FetchError::Unreachable { url: without_secrets(url), source: source.without_url() })?;
        match response.status() {
            status if status.is_success() => Ok(response),
            status => Err(FetchError::Status { url: without_secrets(url), status: status.as_u16() }),
        }
    }

    /// Writes a body to a file and returns its SHA-256.
    async fn save(&mut self, url: &str, mut response: Response, to: &Path, limit: u64) -> Result<String, FetchError> {
        let too_long = || FetchError::TooLong { url: without_secrets(url), limit };
        let of = response.content_length();
        if of.is_some_and(|bytes| bytes > limit) {
            return Err(too_long());
        }
        let mut file = File::create(to).map_err(writing(to))?;
        let (mut hash, mut done) = (Sha256::new(), 0);
        while let Some(chunk) = next(url, &mut response, done).await? {
            done += chunk.len() as u64;
            if done > limit {
                return Err(too_long());
            }
            hash.update(&chunk[..]);
            file.write_all(&chunk).map_err(writing(to))?;
            (self.progress)(FetchProgress { done, of });
        }
        file.sync_all().map_err(writing(to))?;
        Ok(hex(hash))
    }
}

async fn next(
    url: &str,
    response: &mut Response,
    done: u64,
) -> Result<Option<impl Deref<Target = [u8]> + use<>>, FetchError> {
    response.chunk().await.map_err(|source| FetchError::Broken {
        url: without_secrets(url),
        bytes: done,
        source: source.without_url(),
    })
}

/// A URL as it may be shown: without a password in it.
pub(super) fn without_secrets(url: &str) -> String {
    let Ok(mut url) = Url::parse(url) else { return url.to_owned() };
    // Both refuse URLs that can have neither.
    url.set_username("").ok();
    url.set_password(None).ok();
    if url.query().is_some() {
        url.set_query(Some("..."));
    }
    url.into()
}
