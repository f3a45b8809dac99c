//! The weights file of a model: tensors by name, checked for shape, as f32.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use sha2::{Digest, Sha256};

use super::error::EncoderError;
use super::settings::read_bounded;

pub(super) const WEIGHTS_FILE: &str = "model.safetensors";

/// A larger file is refused before it is read into memory.
const MAX_WEIGHTS_BYTES: u64 = 8 * 1024 * 1024 * 1024;

/// The file as it is on disk.
pub(super) struct WeightsFile {
    path: PathBuf,
    content: Vec<u8>,
}

/// The tensors in it. Names are looked up behind the prefix that the file puts before all of them.
pub(super) struct Tensors<'a> {
    path: &'a Path,
    tensors: SafeTensors<'a>,
    prefix: &'static str,
}

impl WeightsFile {
    pub(super) fn read(folder: &Path) -> Result<WeightsFile, EncoderError> {
        let path = folder.join(WEIGHTS_FILE);
        let content = read_bounded(&path, MAX_WEIGHTS_BYTES)?;
        Ok(WeightsFile { path, content })
    }

    /// A file's content that is in memory already; `path` is what errors call it.
    pub(super) fn new(path: &Path, content: Vec<u8>) -> WeightsFile {
        WeightsFile { path: path.to_owned(), content }
    }

    pub(super) fn into_content(self) -> Vec<u8> {
        self.content
    }

    /// In lower-case hexadecimal digits.
    pub(super) fn sha256(&self) -> String {
        Sha256::digest(&self.content).iter().fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").expect("a string takes everything");
            text
        })
    }

    /// `probe` is a tensor that every model has; `prefixes` are what may stand before it.
    pub(super) fn tensors(&self, probe: &str, prefixes: &[&'static str]) -> Result<Tensors<'_>, EncoderError> {
        let path = self.path.as_path();
        let tensors = SafeTensors::deserialize(&self.content)
            .map_err(|source| EncoderError::Weights { path: path.to_owned(), source })?;
        let found = prefixes.iter().find(|prefix| tensors.tensor(&format!("{prefix}{probe}")).is_ok());
        let prefix = found.ok_or_else(|| EncoderError::Tensor {
            path: path.to_owned(),
            name: probe.to_owned(),
            problem: format!("is missing, also after any of the prefixes {prefixes:?}"),
        })?;
        Ok(Tensors { path, tensors, prefix })
    }
}

impl Tensors<'_> {
    pub(super) fn has(&self, name: &str) -> bool {
        self.tensors.tensor(&format!("{}{name}", self.prefix)).is_ok()
    }

    /// The values of a tensor of this shape; all finite.
    pub(super) fn get(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, EncoderError> {
        let name = format!("{}{name}", self.prefix);
        let failed = |problem: String| EncoderError::Tensor { path: self.path.to_owned(), name: name.clone(), problem };
        let view = self.tensors.tensor(&name).map_err(|_| failed("is missing".to_owned()))?;
        if view.shape() != shape {
            return Err(failed(format!("has shape {:?} instead of {shape:?}", view.shape())));
        }
        let values =
            to_f32(&view).ok_or_else(|| failed(format!("has type {:?}; there are F32, F16, BF16", view.dtype())))?;
        if values.iter().any(|value| !value.is_finite()) {
            return Err(failed("has a value that is no finite number".to_owned()));
        }
        Ok(values)
    }
}

fn to_f32(view: &TensorView<'_>) -> Option<Vec<f32>> {
    let halves = || view.data().as_chunks::<2>().0.iter().map(|bytes| u16::from_le_bytes(*bytes));
    match view.dtype() {
        Dtype::F32 => Some(view.data().as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()),
        Dtype::BF16 => Some(halves().map(|bits| f32::from_bits(u32::from(bits) << 16)).collect()),
        Dtype::F16 => Some(halves().map(f16_to_f32).collect()),
        _ => None,
    }
}

/// Half precision by IEEE 754: 1 bit sign, 5 bits exponent, 10 bits fraction.
fn f16_to_f32(bits: u16) -> f32 {
    let sign = u32::from(bits & 0x8000) << 16;
    let exponent = u32::from(bits >> 10 & 0x1f);
    let fraction = u32::from(bits & 0x3ff);
    match exponent {
        // Subnormal: multiples of 2⁻²⁴.
        0 => f32::from_bits(sign | (fraction as f32 / 16_777_216.0).to_bits()),
        31 => f32::from_bits(sign | 0x7f80_0000 | fraction << 13),
        exponent => f32::from_bits(sign | (exponent + 112) << 23 | fraction << 13),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_precision_is_read_exactly() {
        for (bits, value) in [
            (0x0000, 0.0),
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x3555, 0.333_251_95),
            (0x0001, 5.960_464_5e-8),
            (0x83ff, -6.097_555e-5),
            (0x0400, 6.103_515_6e-5),
            (0x7bff, 65_504.0),
            (0xfc00, f32::NEG_INFINITY),
        ] {
            assert_eq!(f16_to_f32(bits), value);
        }
        assert!(f16_to_f32(0x7e00).is_nan());
    }
}
