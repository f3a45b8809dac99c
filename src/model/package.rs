//! A model on disk: a folder with `manifest.json` and `weights.safetensors`.
//!
//! A package is written whole or not at all (a sibling folder, then a rename), and nothing of it is believed on load:
//! version, hash, shapes, order, and values are checked before anything is built from them.

use std::borrow::Cow;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use burn::tensor::f16;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

use super::calibration::Calibration;
use super::corpus::{Lengths, Weighing};
use super::evaluation::Summary;
use super::features::FeatureSettings;
use super::head::FitSettings;
use super::registry::RegistryError;
use crate::config::ModelSettings;
use crate::record::Kind;

pub const MANIFEST_FILE: &str = "manifest.json";
pub const WEIGHTS_FILE: &str = "weights.safetensors";

const FORMAT_VERSION: u32 = 1;

/// Packages inside the program.
const BUILTIN: [(&str, &[u8], &[u8]); 2] = [
    (
        "tickets",
        include_bytes!("../../models/tickets/manifest.json"),
        include_bytes!("../../models/tickets/weights.safetensors"),
    ),
    (
        "logs",
        include_bytes!("../../models/logs/manifest.json"),
        include_bytes!("../../models/logs/weights.safetensors"),
    ),
];

/// A larger file is no package of ours; refused before it is read into memory.
const MAX_FILE_BYTES: u64 = 256 * 1024 * 1024;

/// Why a package cannot be used.
#[derive(Debug, Error)]
pub enum PackageError {
    #[error("no model `builtin:{name}`; there are: {known}")]
    UnknownBuiltin { name: String, known: String },
    #[error("cannot read {}", .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write {}", .path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("{} exists and is not a model package; choose another folder or remove it", .0.display())]
    Occupied(PathBuf),
    #[error("{} has {bytes} bytes; it may have at most {limit}", .path.display())]
    TooLarge { path: PathBuf, bytes: u64, limit: u64 },
    #[error("{place}: the manifest cannot be read")]
    Manifest { place: String, source: serde_json::Error },
    #[error("{place}: format version {found}; this program reads version {FORMAT_VERSION}")]
    Version { place: String, found: u32 },
    #[error("{place}: the weights do not belong to the manifest (SHA-256 {found}, expected {expected})")]
    Hash { place: String, found: String, expected: String },
    #[error("{place}: the weights cannot be read")]
    Weights { place: String, source: safetensors::SafeTensorError },
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error("{place}: {problem}")]
    Invalid { place: String, problem: String },
}

/// What a package says about itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    pub format_version: u32,
    pub name: String,
    pub kind: Kind,
    /// Sorted; a class's number is its place here.
    pub labels: Vec<String>,
    /// Labels with so few rows that nothing reliable can be said about them.
    pub small_labels: Vec<String>,
    /// Rows of each label, in the order of `labels`: what the model takes for usual. Empty in older packages.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub label_rows: Vec<usize>,
    pub features: FeatureSettings,
    pub(crate) weighing: Weighing,
    pub(crate) fit: FitSettings,
    pub(crate) lengths: Lengths,
    pub(crate) calibration: Calibration,
    /// Confidence at and above which validation reached the target precision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thresholds: Option<Thresholds>,
    pub data: DataSource,
    /// Measured by cross-validation: each row by a model that never saw it.
    pub metrics: Summary,
    pub weights: WeightsFile,
    pub reproduce: Reproduce,
}

/// Confidence that reached a precision on rows not trained on.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Thresholds {
    pub target_precision: f32,
    pub auto_route: f32,
}

/// What a model learned from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataSource {
    pub name: String,
    pub sha256: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub licence: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// Rows read.
    pub rows: usize,
    /// Rows left after duplicates were dropped.
    pub rows_used: usize,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeightsFile {
    pub sha256: String,
    /// Features that have weights.
    pub features: usize,
}

/// How to get this package again, byte for byte.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reproduce {
    pub program: String,
    pub command: String,
    pub seed: u64,
}

/// The numbers of a model. Classes change fastest in `weight`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PackedWeights {
    /// Hash of each feature, rising.
    pub(crate) keys: Vec<u32>,
    /// Weight of each feature in a text's vector.
    pub(crate) scales: Vec<f32>,
    /// Features × classes. Stored as f16.
    pub(crate) weight: Vec<f32>,
    pub(crate) bias: Vec<f32>,
}

impl PackedWeights {
    /// Rounds the weights to what the file holds, so that a model behaves the same before and after it is stored.
    pub(crate) fn round(&mut self) {
        self.weight.iter_mut().for_each(|value| *value = f16::from_f32(*value).to_f32());
    }

    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>, safetensors::SafeTensorError> {
        let (features, classes) = (self.keys.len(), self.bias.len());
        let keys: Vec<u8> = self.keys.iter().flat_map(|key| key.to_le_bytes()).collect();
        let scales: Vec<u8> = self.scales.iter().flat_map(|scale| scale.to_le_bytes()).collect();
        let weight: Vec<u8> = self.weight.iter().flat_map(|&value| f16::from_f32(value).to_le_bytes()).collect();
        let bias: Vec<u8> = self.bias.iter().flat_map(|value| value.to_le_bytes()).collect();
        let tensors = [
            ("keys", TensorView::new(Dtype::U32, vec![features], &keys)?),
            ("scales", TensorView::new(Dtype::F32, vec![features], &scales)?),
            ("weight", TensorView::new(Dtype::F16, vec![features, classes], &weight)?),
            ("bias", TensorView::new(Dtype::F32, vec![classes], &bias)?),
        ];
        safetensors::serialize(tensors, None)
    }
}

/// A package whose parts fit together.
#[derive(Debug, Clone)]
pub(crate) struct Package {
    pub(crate) manifest: Manifest,
    pub(crate) weights: PackedWeights,
}

impl Package {
    /// Reads `builtin:NAME` or a folder.
    pub(crate) fn load(spec: &str) -> Result<Package, PackageError> {
        let (manifest, weights): (Cow<'_, [u8]>, Cow<'_, [u8]>) = match spec.strip_prefix("builtin:") {
            Some(name) => {
                let (_, manifest, weights) = BUILTIN.iter().find(|(known, ..)| *known == name).ok_or_else(|| {
                    let known = BUILTIN.map(|(known, ..)| known).join(", ");
                    PackageError::UnknownBuiltin { name: name.to_owned(), known }
                })?;
                (Cow::Borrowed(*manifest), Cow::Borrowed(*weights))
            }
            None => {
                let folder = Path::new(spec);
                (read(&folder.join(MANIFEST_FILE))?.into(), read(&folder.join(WEIGHTS_FILE))?.into())
            }
        };
        Package::check(spec, &manifest, &weights)
    }

    fn check(place: &str, manifest: &[u8], weights: &[u8]) -> Result<Package, PackageError> {
        let place = || place.to_owned();
        let unreadable = |source| PackageError::Manifest { place: place(), source };
        let version: Version = serde_json::from_slice(manifest).map_err(unreadable)?;
        if version.format_version != FORMAT_VERSION {
            return Err(PackageError::Version { place: place(), found: version.format_version });
        }
        let manifest: Manifest = serde_json::from_slice(manifest).map_err(unreadable)?;
        let found = sha256(weights);
        if found != manifest.weights.sha256 {
            return Err(PackageError::Hash { place: place(), found, expected: manifest.weights.sha256 });
        }
        let invalid = |problem: String| PackageError::Invalid { place: place(), problem };
        manifest.check().map_err(invalid)?;
        let tensors =
            SafeTensors::deserialize(weights).map_err(|source| PackageError::Weights { place: place(), source })?;
        let (features, classes) = (manifest.weights.features, manifest.labels.len());
        let read = |name: &str, dtype: Dtype, shape: &[usize]| -> Result<Vec<u8>, PackageError> {
            let tensor = tensors.tensor(name).map_err(|source| PackageError::Weights { place: place(), source })?;
            if tensor.dtype() != dtype || tensor.shape() != shape {
                let (found, of) = (tensor.shape(), tensor.dtype());
                return Err(invalid(format!("tensor `{name}` is {of:?} {found:?}, expected {dtype:?} {shape:?}")));
            }
            Ok(tensor.data().to_vec())
        };
        let weights = PackedWeights {
            keys: read("keys", Dtype::U32, &[features])?
                .as_chunks()
                .0
                .iter()
                .map(|&bytes| u32::from_le_bytes(bytes))
                .collect(),
            scales: floats(&read("scales", Dtype::F32, &[features])?),
            weight: read("weight", Dtype::F16, &[features, classes])?
                .as_chunks()
                .0
                .iter()
                .map(|&bytes| f16::from_le_bytes(bytes).to_f32())
                .collect(),
            bias: floats(&read("bias", Dtype::F32, &[classes])?),
        };
        if !weights.keys.is_sorted_by(|a, b| a < b) {
            return Err(invalid("tensor `keys` does not rise".to_owned()));
        }
        if !weights.scales.iter().chain(&weights.weight).chain(&weights.bias).all(|value| value.is_finite()) {
            return Err(invalid("a weight is not a finite number".to_owned()));
        }
        Ok(Package { manifest, weights })
    }

    /// Manifest and weights, as they are written.
    pub(crate) fn to_bytes(&self) -> Result<(Vec<u8>, Vec<u8>), PackageError> {
        let place = || self.manifest.name.clone();
        let weights = self.weights.to_bytes().map_err(|source| PackageError::Weights { place: place(), source })?;
        let mut manifest = serde_json::to_vec_pretty(&self.manifest)
            .map_err(|source| PackageError::Manifest { place: place(), source })?;
        manifest.push(b'\n');
        Ok((manifest, weights))
    }

    /// Writes the package as the folder `out`, replacing a package that is there.
    pub(crate) fn write(&self, out: &Path) -> Result<(), PackageError> {
        let (manifest, weights) = self.to_bytes()?;
        let files = [(WEIGHTS_FILE.to_owned(), weights), (MANIFEST_FILE.to_owned(), manifest)];
        write_folder(out, MANIFEST_FILE, &files)
    }
}

/// Writes `files`, by path within the folder, as the folder `out`: whole or not at all. A folder that is there is replaced
/// when it is empty or holds `mark`.
pub(crate) fn write_folder(out: &Path, mark: &str, files: &[(String, Vec<u8>)]) -> Result<(), PackageError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| PackageError::Write { path, source }
    };
    check_free(out, mark)?;
    let fresh = sibling(out, "new");
    let write_all = || -> Result<(), PackageError> {
        fs::create_dir_all(&fresh).map_err(failed(&fresh))?;
        for (path, bytes) in files {
            let path = fresh.join(path);
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent).map_err(failed(parent))?;
            }
            write_durably(&path, bytes).map_err(failed(&path))?;
        }
        put_in_place(&fresh, out, mark)
    };
    let written = write_all();
    if written.is_err() {
        // The first error is the one to report; this only tidies up after it.
        fs::remove_dir_all(&fresh).ok();
    }
    written
}

/// Makes the folder `fresh`, which lies on the same disk, the folder `out`. A folder that is there gives way when it is
/// empty or holds `mark`, and is there again if that fails.
pub(crate) fn put_in_place(fresh: &Path, out: &Path, mark: &str) -> Result<(), PackageError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| PackageError::Write { path, source }
    };
    check_free(out, mark)?;
    let old = sibling(out, "old");
    // A folder cannot be renamed over a full one, so the old package steps aside first.
    if out.exists() {
        fs::rename(out, &old).map_err(failed(&old))?;
    }
    if let Err(source) = fs::rename(fresh, out) {
        // The first error is the one to report; this only brings back what was there.
        fs::rename(&old, out).ok();
        return Err(failed(out)(source));
    }
    match old.exists() {
        true => fs::remove_dir_all(&old).map_err(failed(&old)),
        false => Ok(()),
    }
}

fn check_free(out: &Path, mark: &str) -> Result<(), PackageError> {
    if out.exists() && !out.join(mark).exists() && fs::read_dir(out).map_or(true, |mut files| files.next().is_some()) {
        return Err(PackageError::Occupied(out.to_owned()));
    }
    Ok(())
}

/// A hidden folder beside `out`, for this process alone.
fn sibling(out: &Path, role: &str) -> std::path::PathBuf {
    let name = out.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    out.with_file_name(format!(".{name}.{role}-{}", std::process::id()))
}

#[derive(Deserialize)]
struct Version {
    format_version: u32,
}

impl Manifest {
    pub(crate) const VERSION: u32 = FORMAT_VERSION;

    /// What the configuration names says about itself; the weights are checked, and then forgotten.
    pub fn load_configured(spec: &str, settings: &ModelSettings) -> Result<Manifest, PackageError> {
        let folder = super::registry::resolve(spec, settings.registry.as_deref())?;
        Ok(Package::load(folder.as_deref().unwrap_or(spec))?.manifest)
    }

    /// Name and version, such as `tickets@1a2b3c4d`.
    pub fn id(&self) -> String {
        format!("{}@{}", self.name, &self.weights.sha256[..8])
    }

    fn check(&self) -> Result<(), String> {
        if self.labels.len() < 2 {
            return Err("a model needs at least two labels".to_owned());
        }
        if !self.labels.is_sorted_by(|a, b| a < b) {
            return Err("labels must be sorted and unique".to_owned());
        }
        if self.name.is_empty() {
            return Err("the model has no name".to_owned());
        }
        if !self.label_rows.is_empty() && self.label_rows.len() != self.labels.len() {
            return Err("label_rows must have a number for each label".to_owned());
        }
        let features = &self.features;
        if features.char_min > features.char_max
            || features.char_max > 16
            || (features.char_min == 0) != (features.char_max == 0)
        {
            return Err(format!("character n-grams of {} to {}", features.char_min, features.char_max));
        }
        if !features.char_share.is_finite() || features.char_share < 0.0 || !self.lengths.are_valid() {
            return Err("a length is negative or not a finite number".to_owned());
        }
        self.calibration.check()
    }
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
}

pub(crate) fn read(path: &Path) -> Result<Vec<u8>, PackageError> {
    read_up_to(path, MAX_FILE_BYTES)
}

pub(crate) fn read_up_to(path: &Path, limit: u64) -> Result<Vec<u8>, PackageError> {
    let failed = |source| PackageError::Read { path: path.to_owned(), source };
    let bytes = fs::metadata(path).map_err(failed)?.len();
    if bytes > limit {
        return Err(PackageError::TooLarge { path: path.to_owned(), bytes, limit });
    }
    fs::read(path).map_err(failed)
}

pub(super) fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    use std::io::Write;
    let mut file = fs::File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A copy of a shipped package in a folder, with a change made to its manifest.
    fn changed(change: impl FnOnce(&mut serde_json::Value)) -> (tempfile::TempDir, String) {
        let (_, manifest, weights) = BUILTIN[1];
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut manifest: serde_json::Value = serde_json::from_slice(manifest).expect("JSON");
        change(&mut manifest);
        fs::write(folder.path().join(MANIFEST_FILE), manifest.to_string()).expect("written");
        fs::write(folder.path().join(WEIGHTS_FILE), weights).expect("written");
        let spec = folder.path().to_str().expect("a UTF-8 path").to_owned();
        (folder, spec)
    }

    fn fault(change: impl FnOnce(&mut serde_json::Value)) -> PackageError {
        let (_folder, spec) = changed(change);
        Package::load(&spec).expect_err("a fault")
    }

    #[test]
    fn a_written_package_is_read_back_the_same() {
        let package = Package::load("builtin:logs").expect("a shipped package");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let out = folder.path().join("copy");
        // Twice: into nothing, then over a package.
        for _ in 0..2 {
            package.write(&out).expect("written");
            let copy = Package::load(out.to_str().expect("a UTF-8 path")).expect("readable");
            assert_eq!((copy.manifest, copy.weights), (package.manifest.clone(), package.weights.clone()));
        }
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1, "nothing is left beside the package");
    }

    #[test]
    fn a_folder_of_something_else_is_not_replaced() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::write(folder.path().join("thesis.txt"), "years of work").expect("written");
        let package = Package::load("builtin:logs").expect("a shipped package");
        assert!(matches!(package.write(folder.path()), Err(PackageError::Occupied(_))));
        assert!(folder.path().join("thesis.txt").exists());
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        assert!(matches!(
            fault(|manifest| manifest["format_version"] = 7.into()),
            PackageError::Version { found: 7, .. }
        ));
        assert!(matches!(fault(|manifest| manifest["surprise"] = 1.into()), PackageError::Manifest { .. }));
        assert!(matches!(fault(|manifest| manifest["weights"]["sha256"] = "00".into()), PackageError::Hash { .. }));
        assert!(matches!(
            fault(|manifest| manifest["calibration"]["slope"] = (-1).into()),
            PackageError::Invalid { .. }
        ));
        let swapped = fault(|manifest| manifest["labels"].as_array_mut().expect("labels").swap(0, 1));
        assert!(swapped.to_string().contains("sorted"), "{swapped}");
        let shorter = |manifest: &mut serde_json::Value, list: &str| {
            manifest[list].as_array_mut().expect("a list").pop();
        };
        let uneven = fault(|manifest| shorter(manifest, "labels")).to_string();
        assert!(uneven.contains("label_rows"), "{uneven}");
        let fewer = fault(|manifest| ["labels", "label_rows"].into_iter().for_each(|list| shorter(manifest, list)));
        assert!(fewer.to_string().contains("tensor"), "{fewer}");
    }

    #[test]
    fn a_flipped_bit_and_a_missing_file_are_noticed() {
        let (folder, spec) = changed(|_| {});
        let path = folder.path().join(WEIGHTS_FILE);
        let mut bytes = fs::read(&path).expect("readable");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&path, bytes).expect("written");
        assert!(matches!(Package::load(&spec), Err(PackageError::Hash { .. })));
        fs::remove_file(&path).expect("removed");
        let missing = Package::load(&spec).expect_err("a fault").to_string();
        assert!(missing.contains(WEIGHTS_FILE), "{missing}");
        let unknown = Package::load("builtin:nothing").expect_err("a fault").to_string();
        assert!(unknown.contains("tickets, logs"), "{unknown}");
    }
}
