//! Why an encoder cannot be loaded, or cannot read a text.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// All but `Tokenise` and `Sequence` mean that the folder cannot be served; those two are about one text.
#[derive(Debug, Error)]
pub enum EncoderError {
    #[error("cannot read {}", .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} has {bytes} bytes; at most {limit} are read", .path.display())]
    TooLarge { path: PathBuf, bytes: u64, limit: u64 },
    #[error("{} is not the JSON expected there", .path.display())]
    Json { path: PathBuf, source: serde_json::Error },
    #[error("{}: {problem}", .path.display())]
    Unsupported { path: PathBuf, problem: String },
    #[error("{} is not in the safetensors format", .path.display())]
    Weights { path: PathBuf, source: safetensors::SafeTensorError },
    #[error("{}: tensor `{name}` {problem}", .path.display())]
    Tensor { path: PathBuf, name: String, problem: String },
    #[error("{} does not fill the module: {problem}", .path.display())]
    Module { path: PathBuf, problem: String },
    #[error("{} is not a tokenizer", .path.display())]
    Tokenizer { path: PathBuf, source: tokenizers::Error },
    #[error("text {text} cannot be split into tokens")]
    Tokenise { text: usize, source: tokenizers::Error },
    #[error("sequence {sequence}: {problem}")]
    Sequence { sequence: usize, problem: String },
}
