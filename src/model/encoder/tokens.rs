//! Texts to token numbers, by the model's own tokenizer.

use std::path::{Path, PathBuf};

use rayon::prelude::*;
use tokenizers::{Tokenizer, TruncationParams};

use super::error::EncoderError;
use super::settings::{Settings, read_json_bytes};

const TOKENIZER_FILE: &str = "tokenizer.json";

/// A text is cut here, times its limit of tokens, before it is split: a token of prose has four to five bytes. Smaller:
/// texts of long words lose what would have fitted; larger: a huge text costs time although nearly all of it is dropped.
const BYTES_PER_TOKEN: usize = 64;

/// A tokenizer that cuts at the model's limit and does not pad.
#[derive(Clone)]
pub(super) struct TextSplitter {
    path: PathBuf,
    tokenizer: Tokenizer,
    max_bytes: usize,
}

impl TextSplitter {
    pub(super) fn read(folder: &Path, settings: &Settings) -> Result<TextSplitter, EncoderError> {
        let path = folder.join(TOKENIZER_FILE);
        let content = read_json_bytes(&path)?;
        let failed = |source| EncoderError::Tokenizer { path: path.clone(), source };
        let mut tokenizer = Tokenizer::from_bytes(content).map_err(failed)?;
        tokenizer.with_padding(None);
        let largest = tokenizer.get_vocab(true).into_values().max().unwrap_or_default();
        if largest as usize >= settings.vocabulary {
            let problem = format!("has token {largest}; the model knows {} tokens", settings.vocabulary);
            return Err(EncoderError::Unsupported { path, problem });
        }
        let mut splitter = TextSplitter { path, tokenizer, max_bytes: 0 };
        splitter.limit_tokens(settings)?;
        Ok(splitter)
    }

    pub(super) fn limit_tokens(&mut self, settings: &Settings) -> Result<(), EncoderError> {
        let truncation = TruncationParams { max_length: settings.max_tokens, ..TruncationParams::default() };
        let failed = |source| EncoderError::Tokenizer { path: self.path.clone(), source };
        self.tokenizer.with_truncation(Some(truncation)).map_err(failed)?;
        self.max_bytes = settings.max_tokens * BYTES_PER_TOKEN;
        Ok(())
    }

    /// The tokens of each text, with the marks that the model was trained with around them.
    pub(super) fn split<T: AsRef<str> + Sync>(&self, texts: &[T]) -> Result<Vec<Vec<u32>>, EncoderError> {
        match texts {
            [] => Ok(Vec::new()),
            // Not worth waking another thread.
            [text] => Ok(vec![self.split_one(0, text.as_ref())?]),
            texts => texts.par_iter().enumerate().map(|(number, text)| self.split_one(number, text.as_ref())).collect(),
        }
    }

    fn split_one(&self, number: usize, text: &str) -> Result<Vec<u32>, EncoderError> {
        let text = &text[..text.floor_char_boundary(self.max_bytes)];
        let failed = |source| EncoderError::Tokenise { text: number, source };
        Ok(self.tokenizer.encode_fast(text, true).map_err(failed)?.get_ids().to_vec())
    }
}
