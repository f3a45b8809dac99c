//! The package on disk.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use safetensors::tensor::{Dtype, SafeTensorError, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};

use super::{DeepModel, Reading, TunedEncoder};
use crate::config::DeviceKind;
use crate::model::FastModel;
use crate::model::calibration::Calibration;
use crate::model::encoder::{Encoder, EncoderError};
use crate::model::evaluation::Summary;
use crate::model::package::{self, DataSource, MANIFEST_FILE, PackageError, Reproduce, WEIGHTS_FILE};
use crate::record::Kind;

const HEAD_FILE: &str = "head.json";
const HEAD_WEIGHTS_FILE: &str = "head.safetensors";
const TUNED_FILE: &str = "tuned.safetensors";
const FAST_FOLDER: &str = "fast";
pub(super) const FORMAT_VERSION: u32 = 1;

/// The layers of the largest encoder that anybody serves on processors have less.
const MAX_TUNED_BYTES: u64 = 4 << 30;

#[derive(Debug, thiserror::Error)]
pub enum DeepModelError {
    #[error(transparent)]
    Package(#[from] PackageError),
    #[error("{path} cannot be read")]
    Manifest { path: PathBuf, source: serde_json::Error },
    #[error("{path} cannot be read")]
    Weights { path: PathBuf, source: SafeTensorError },
    #[error("{folder} was trained over the encoder {trained}; {given} is another one")]
    OtherEncoder { folder: PathBuf, trained: String, given: String },
    #[error(transparent)]
    Encoder(#[from] EncoderError),
    #[error("{folder}: {problem}")]
    Invalid { folder: PathBuf, problem: String },
}

/// What a package says about itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeepManifest {
    pub format_version: u32,
    pub name: String,
    pub kind: Kind,
    /// Sorted; a class's number is its place here.
    pub labels: Vec<String>,
    pub encoder: EncoderReference,
    /// The encoder's last layers as they were trained on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tuned: Option<TunedReference>,
    pub(crate) reading: Reading,
    pub(crate) calibration: Calibration,
    pub data: DataSource,
    /// Measured by cross-validation: each row by a head that never saw it.
    pub metrics: Summary,
    /// The same for the fast model alone.
    pub fast_metrics: Summary,
    pub weights_sha256: String,
    pub reproduce: Reproduce,
}

/// The encoder that the head was trained over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EncoderReference {
    pub name: String,
    /// Of its weights file.
    pub sha256: String,
    pub max_tokens: usize,
}

/// What `tuned.safetensors` holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TunedReference {
    /// How many of the encoder's last layers.
    pub layers: usize,
    /// Of the file.
    pub sha256: String,
}

/// A package in memory.
#[derive(Debug, Clone)]
pub(super) struct Parts {
    pub(super) manifest: DeepManifest,
    pub(super) weights: Vec<u8>,
    /// Layers and classifier, if the manifest names them.
    pub(super) tuned: Vec<u8>,
}

impl EncoderReference {
    pub(super) fn of(encoder: &Encoder) -> Self {
        EncoderReference {
            name: encoder.name().to_owned(),
            sha256: encoder.sha256().to_owned(),
            max_tokens: encoder.max_tokens(),
        }
    }
}

/// Weights (features × classes) and bias as bytes.
pub(super) fn weights_to_bytes(weight: &[f32], bias: &[f32]) -> Result<Vec<u8>, SafeTensorError> {
    let bytes = |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    let (weight_bytes, bias_bytes) = (bytes(weight), bytes(bias));
    let shape = vec![weight.len() / bias.len().max(1), bias.len()];
    let tensors = [
        ("bias", TensorView::new(Dtype::F32, vec![bias.len()], &bias_bytes)?),
        ("weight", TensorView::new(Dtype::F32, shape, &weight_bytes)?),
    ];
    safetensors::serialize(tensors, None)
}

/// The files of a package, by path within its folder.
pub(super) fn files(parts: &Parts, fast_manifest: Vec<u8>, fast_weights: Vec<u8>) -> Vec<(String, Vec<u8>)> {
    let mut text = serde_json::to_vec_pretty(&parts.manifest).expect("plain data becomes JSON");
    text.push(b'\n');
    let mut files = vec![
        (format!("{FAST_FOLDER}/{WEIGHTS_FILE}"), fast_weights),
        (format!("{FAST_FOLDER}/{MANIFEST_FILE}"), fast_manifest),
        (HEAD_WEIGHTS_FILE.to_owned(), parts.weights.clone()),
        (HEAD_FILE.to_owned(), text),
    ];
    if parts.manifest.tuned.is_some() {
        files.push((TUNED_FILE.to_owned(), parts.tuned.clone()));
    }
    files
}

/// The file whose presence says that a folder is such a package.
pub(super) const MARK: &str = HEAD_FILE;

pub(super) fn read(folder: &Path, encoder: Arc<Encoder>, device: DeviceKind) -> Result<DeepModel, DeepModelError> {
    let path = folder.join(HEAD_FILE);
    let manifest: DeepManifest = serde_json::from_slice(&package::read(&path)?)
        .map_err(|source| DeepModelError::Manifest { path: path.clone(), source })?;
    let weights = package::read(&folder.join(HEAD_WEIGHTS_FILE))?;
    let tuned = match &manifest.tuned {
        Some(_) => package::read_up_to(&folder.join(TUNED_FILE), MAX_TUNED_BYTES)?,
        None => Vec::new(),
    };
    let fast = FastModel::load(&folder.join(FAST_FOLDER).to_string_lossy(), device)?;
    assemble(folder, Parts { manifest, weights, tuned }, fast, encoder)
}

/// Checks that the parts fit together; `folder` is what errors call them.
pub(super) fn assemble(
    folder: &Path,
    Parts { manifest, weights: bytes, tuned }: Parts,
    fast: FastModel,
    encoder: Arc<Encoder>,
) -> Result<DeepModel, DeepModelError> {
    let invalid = |problem: String| DeepModelError::Invalid { folder: folder.to_owned(), problem };
    if manifest.format_version != FORMAT_VERSION {
        let found = manifest.format_version;
        return Err(invalid(format!("format version {found}; this program reads version {FORMAT_VERSION}")));
    }
    if manifest.encoder.sha256 != encoder.sha256() {
        return Err(DeepModelError::OtherEncoder {
            folder: folder.to_owned(),
            trained: manifest.encoder.name.clone(),
            given: encoder.id(),
        });
    }
    manifest.calibration.check().map_err(invalid)?;
    let path = folder.join(HEAD_WEIGHTS_FILE);
    if package::sha256(&bytes) != manifest.weights_sha256 {
        return Err(invalid(format!("{HEAD_WEIGHTS_FILE} does not belong to {HEAD_FILE}")));
    }
    if fast.labels().iter().map(|label| &**label).ne(manifest.labels.iter().map(String::as_str)) {
        return Err(invalid("the labels of the fast model are others".to_owned()));
    }
    let classes = manifest.labels.len();
    let tuned = match &manifest.tuned {
        None if manifest.reading.tuned > 0.0 => {
            return Err(invalid("the layers that were trained are missing".to_owned()));
        }
        None => None,
        Some(reference) => {
            if package::sha256(&tuned) != reference.sha256 {
                return Err(invalid(format!("{TUNED_FILE} does not belong to {HEAD_FILE}")));
            }
            let path = folder.join(TUNED_FILE);
            let (encoder, classifier) = encoder.with_tuned_layers(reference.layers, classes, &path, tuned)?;
            Some(TunedEncoder { encoder, classifier })
        }
    };
    let count = manifest.reading.count(classes, encoder.dimension());
    let failed = |source| DeepModelError::Weights { path: path.clone(), source };
    let tensors = SafeTensors::deserialize(&bytes).map_err(failed)?;
    let floats = |name: &str, shape: &[usize]| -> Result<Vec<f32>, DeepModelError> {
        let tensor = tensors.tensor(name).map_err(failed)?;
        if tensor.dtype() != Dtype::F32 || tensor.shape() != shape {
            return Err(invalid(format!("tensor `{name}` is {:?}, expected {shape:?}", tensor.shape())));
        }
        let values: Vec<f32> = tensor.data().as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
        match values.iter().all(|value| value.is_finite()) {
            true => Ok(values),
            false => Err(invalid(format!("tensor `{name}` holds what is no finite number"))),
        }
    };
    Ok(DeepModel {
        id: format!("{}@{}", manifest.name, &manifest.weights_sha256[..8]),
        labels: manifest.labels.iter().map(|label| Arc::from(label.as_str())).collect(),
        weight: floats("weight", &[count, classes])?,
        bias: floats("bias", &[classes])?,
        reading: manifest.reading,
        calibration: manifest.calibration,
        encoder,
        tuned,
        fast,
    })
}
