//! Why an encoder cannot be fetched.

use std::io;
use std::path::{Path, PathBuf};

use crate::https::TlsError;
use crate::model::encoder::EncoderError;
use crate::model::fetch::catalogue::KNOWN;
use crate::model::package::PackageError;

#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("`{0}` cannot name a folder: letters, digits, `-`, `_` and `.` can")]
    Name(String),
    #[error("no encoder is known as `{0}`; there is {names}, or give --url or --folder", names = known_names())]
    Unknown(String),
    #[error("`{0}` is no SHA-256: 64 digits of 0 to 9 and a to f")]
    NoHash(String),
    #[error("{0} is nothing known: give --sha256, so that what comes can be checked")]
    Unchecked(String),
    #[error("{} holds something else already; --replace puts the encoder in its place", .0.display())]
    Occupied(PathBuf),
    #[error("the HTTP client cannot be set up")]
    Client(#[source] reqwest::Error),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("`{0}` is no http:// or https:// URL")]
    Url(String),
    #[error("cannot reach {url}")]
    Unreachable { url: String, source: reqwest::Error },
    #[error("{url} answers with status {status}")]
    Status { url: String, status: u16 },
    #[error("what {url} sends broke off after {bytes} bytes")]
    Broken { url: String, bytes: u64, source: reqwest::Error },
    #[error("{url} sends more than {limit} bytes")]
    TooLong { url: String, limit: u64 },
    #[error("{what} has the SHA-256 {found} and should have {expected}: it is damaged or another one")]
    Hash { what: String, expected: String, found: String },
    #[error("{url} is no list of a package's files (PEP 691)")]
    Index { url: String, source: serde_json::Error },
    #[error("{url} lists no file with the SHA-256 {sha256}")]
    NotListed { url: String, sha256: String },
    #[error("{place} is no wheel or zip file")]
    Archive { place: String, source: zip::result::ZipError },
    #[error("{place} has no {file}")]
    Missing { place: String, file: &'static str },
    #[error("{place}: {file} has more than {limit} bytes")]
    TooLarge { place: String, file: &'static str, limit: u64 },
    #[error("cannot read {}", .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write {}", .path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("what was fetched is no encoder that can be served")]
    Encoder(#[from] EncoderError),
    #[error(transparent)]
    Package(#[from] PackageError),
}

impl FetchError {
    /// The server is at fault, not what it has.
    pub(super) fn is_elsewhere_worth_trying(&self) -> bool {
        matches!(self, FetchError::Unreachable { .. } | FetchError::Status { .. } | FetchError::Broken { .. })
    }
}

fn known_names() -> String {
    KNOWN.iter().map(|known| format!("`{}`", known.name)).collect::<Vec<_>>().join(", ")
}

pub(super) fn reading(path: &Path) -> impl FnOnce(io::Error) -> FetchError + use<> {
    let path = path.to_owned();
    move |source| FetchError::Read { path, source }
}

pub(super) fn writing(path: &Path) -> impl FnOnce(io::Error) -> FetchError + use<> {
    let path = path.to_owned();
    move |source| FetchError::Write { path, source }
}
