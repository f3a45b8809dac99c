//! The encoder: a transformer that turns a text into numbers that stand for its meaning.
//!
//! Arrives: a folder as Hugging Face models have it, and texts. Leaves: one row of numbers for each text. BERT, RoBERTa
//! and DistilBERT and what is made of them are served; weights are packed once, on loading.
//!
//! Guarantee: the row of a text does not depend on the texts beside it, on their order or on the number of threads, but
//! for rounding.

mod error;
mod forward;
mod layers;
mod module;
mod plan;
mod pooling;
mod settings;
#[cfg(test)]
pub(crate) mod small_model;
mod tensors;
#[cfg(test)]
mod tests;
mod tokens;
pub(crate) mod tune;

use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use forward::Workspace;
use layers::Layers;
use plan::Plan;
use settings::Settings;
use tensors::WeightsFile;
use tokens::TextSplitter;

pub use super::kernels::{Cpu, InstructionSet};
use super::kernels::{Engine, Team, with_team};
pub use error::EncoderError;
pub use layers::Precision;
pub use module::EncoderModule;
pub use settings::{Family, Pooling};

/// A loaded model. Shared by all threads.
pub struct Encoder {
    name: String,
    sha256: String,
    settings: Settings,
    precision: Precision,
    layers: Layers,
    splitter: TextSplitter,
    cpu: Cpu,
    /// Memory of passes that are over, for the next ones.
    workspaces: Mutex<Vec<Workspace>>,
}

/// A linear layer over a summary, as training on left it.
#[derive(Debug, Clone)]
pub(crate) struct Classifier {
    /// Three times the dimension × classes.
    pub(crate) weight: Vec<f32>,
    pub(crate) bias: Vec<f32>,
}

impl fmt::Debug for Encoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encoder").field("id", &self.id()).field("precision", &self.precision).finish_non_exhaustive()
    }
}

impl Encoder {
    /// Loads a folder with `config.json`, `model.safetensors` and `tokenizer.json`. Pooling is what
    /// `1_Pooling/config.json` says; without one it is the mean in folders of sentence-transformers and else the first
    /// token.
    pub fn load(folder: &Path, precision: Precision) -> Result<Encoder, EncoderError> {
        Encoder::load_on(folder, precision, Cpu::best())
    }

    /// As `load`, with chosen instructions instead of the fastest.
    pub fn load_on(folder: &Path, precision: Precision, cpu: Cpu) -> Result<Encoder, EncoderError> {
        let settings = Settings::read(folder)?;
        let splitter = TextSplitter::read(folder, &settings)?;
        let file = WeightsFile::read(folder)?;
        let layers = Layers::pack(&file, &settings, precision)?;
        let name = folder.file_name().map_or_else(|| "encoder".into(), |name| name.to_string_lossy());
        Ok(Encoder {
            name: name.into_owned(),
            sha256: file.sha256(),
            settings,
            precision,
            layers,
            splitter,
            cpu,
            workspaces: Mutex::default(),
        })
    }

    /// Cuts texts at `max_tokens` where that is less than the model's limit.
    pub fn with_max_tokens(mut self, max_tokens: usize) -> Result<Encoder, EncoderError> {
        self.settings.limit_tokens(max_tokens);
        self.splitter.limit_tokens(&self.settings)?;
        Ok(self)
    }

    /// Name of the folder and version of the weights, such as `all-minilm-l6-v2@53aa5117`.
    pub fn id(&self) -> String {
        format!("{}@{}", self.name, &self.sha256[..8])
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Of the weights file.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// Numbers of an embedding.
    pub fn dimension(&self) -> usize {
        self.settings.hidden
    }

    pub fn family(&self) -> Family {
        self.settings.family
    }

    pub fn pooling(&self) -> Pooling {
        self.settings.pooling
    }

    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// What the embeddings are computed with.
    pub fn cpu(&self) -> Cpu {
        self.cpu
    }

    /// Tokens of a text that are read; the rest is cut off.
    pub fn max_tokens(&self) -> usize {
        self.settings.max_tokens
    }

    /// Bytes that embeddings and packed weights take.
    pub fn memory(&self) -> usize {
        self.layers.bytes()
    }

    /// The tokens of each text, cut at the limit, with the marks that the model expects around them.
    pub fn tokenise<T: AsRef<str> + Sync>(&self, texts: &[T]) -> Result<Vec<Vec<u32>>, EncoderError> {
        self.splitter.split(texts)
    }

    /// One row of `dimension()` numbers for each text, pooled as the model was trained to be.
    pub fn embed<T: AsRef<str> + Sync>(&self, texts: &[T]) -> Result<Vec<f32>, EncoderError> {
        self.embed_tokens(&self.tokenise(texts)?)
    }

    /// As `embed`, of texts that are tokens already. No tokens give a row of zeros.
    pub fn embed_tokens<T: AsRef<[u32]> + Sync>(&self, sequences: &[T]) -> Result<Vec<f32>, EncoderError> {
        let Settings { pooling, unit_length, layers, .. } = self.settings;
        self.read(
            sequences,
            layers,
            |_| self.dimension(),
            |workspace, rows, target| {
                pooling::pool(&workspace.states, rows, pooling, target);
                if unit_length {
                    pooling::to_unit_length(target);
                }
            },
        )
    }

    /// For each text three rows of `dimension()` numbers one after another: mean, first token, and maximum of the last
    /// layer, none scaled to a length. More than an embedding for a head that learns what to make of them.
    pub fn summarise<T: AsRef<str> + Sync>(&self, texts: &[T]) -> Result<Vec<f32>, EncoderError> {
        self.summarise_tokens(&self.tokenise(texts)?)
    }

    /// As `summarise`, of texts that are tokens already.
    pub fn summarise_tokens<T: AsRef<[u32]> + Sync>(&self, sequences: &[T]) -> Result<Vec<f32>, EncoderError> {
        let width = self.dimension();
        self.read(
            sequences,
            self.settings.layers,
            |_| 3 * width,
            |workspace, rows, target| {
                for (target, pooling) in target.chunks_exact_mut(width).zip([Pooling::Mean, Pooling::Cls, Pooling::Max])
                {
                    pooling::pool(&workspace.states, rows.clone(), pooling, target);
                }
            },
        )
    }

    /// The rows of all tokens after the first `layers` layers, text after text: what the layers above read.
    pub(crate) fn states_after<T: AsRef<[u32]> + Sync>(
        &self,
        layers: usize,
        sequences: &[T],
    ) -> Result<Vec<f32>, EncoderError> {
        let width = self.dimension();
        self.read(
            sequences,
            layers,
            |tokens| tokens * width,
            |workspace, rows, target| {
                for (target, row) in target.chunks_exact_mut(width).zip(rows) {
                    target.copy_from_slice(workspace.states.row(row));
                }
            },
        )
    }

    /// This encoder with its last `layers` layers as they are in `content`, a safetensors file that `path` names in
    /// errors, and the classifier in it. All else is shared.
    pub(crate) fn with_tuned_layers(
        &self,
        layers: usize,
        classes: usize,
        path: &Path,
        content: Vec<u8>,
    ) -> Result<(Encoder, Classifier), EncoderError> {
        if layers == 0 || layers > self.settings.layers {
            let problem = format!("has {layers} layers; the encoder has {}", self.settings.layers);
            return Err(EncoderError::Unsupported { path: path.to_owned(), problem });
        }
        let file = WeightsFile::new(path, content);
        let tensors = file.tensors(tune::CLASSIFIER_WEIGHT, &[""])?;
        let classifier = Classifier {
            weight: tensors.get(tune::CLASSIFIER_WEIGHT, &[3 * self.dimension(), classes])?,
            bias: tensors.get(tune::CLASSIFIER_BIAS, &[classes])?,
        };
        let encoder = Encoder {
            name: self.name.clone(),
            sha256: self.sha256.clone(),
            settings: self.settings.clone(),
            precision: self.precision,
            layers: self.layers.with_last(&file, &self.settings, self.precision, layers)?,
            splitter: self.splitter.clone(),
            cpu: self.cpu,
            workspaces: Mutex::default(),
        };
        Ok((encoder, classifier))
    }

    /// How many layers there are.
    pub fn layers(&self) -> usize {
        self.settings.layers
    }

    /// Runs all sequences through the first `layers` layers and calls `pool` for the rows of each and its part of the
    /// result, which has the `size` that follows from the number of tokens.
    fn read<T: AsRef<[u32]> + Sync>(
        &self,
        sequences: &[T],
        layers: usize,
        size: impl Fn(usize) -> usize,
        pool: impl Fn(&Workspace, Range<usize>, &mut [f32]) + Sync,
    ) -> Result<Vec<f32>, EncoderError> {
        for (number, tokens) in sequences.iter().enumerate() {
            self.check(number, tokens.as_ref())?;
        }
        let lengths: Vec<usize> = sequences.iter().map(|tokens| tokens.as_ref().len()).collect();
        let plan = Plan::new(&lengths, rayon::current_num_threads());
        let mut end = 0;
        let parts: Vec<Range<usize>> = lengths
            .iter()
            .map(|length| {
                let start = end;
                end += size(*length);
                start..end
            })
            .collect();
        let mut result = vec![0.0; end];
        let target = Mutex::new(&mut result);
        let run = |pass: &[usize], team: &Team| {
            let mut workspace =
                self.workspaces.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
            let inputs: Vec<&[u32]> = pass.iter().map(|&sequence| sequences[sequence].as_ref()).collect();
            workspace.run(Engine { cpu: self.cpu, team }, &self.layers, layers, &self.settings, &inputs);
            {
                let mut target = target.lock().unwrap_or_else(PoisonError::into_inner);
                for (&sequence, rows) in pass.iter().zip(&workspace.sequences) {
                    pool(&workspace, rows.clone(), &mut target[parts[sequence].clone()]);
                }
            }
            self.workspaces.lock().unwrap_or_else(PoisonError::into_inner).push(workspace);
        };
        with_team(plan.threads, |team| match plan.shared {
            true => plan.passes.iter().for_each(|pass| run(pass, team)),
            false => team.for_each(plan.passes.len(), |number| run(&plan.passes[number], &Team::solo())),
        });
        Ok(result)
    }

    fn check(&self, number: usize, tokens: &[u32]) -> Result<(), EncoderError> {
        let failed = |problem: String| Err(EncoderError::Sequence { sequence: number, problem });
        if tokens.len() > self.settings.max_tokens {
            return failed(format!("has {} tokens; at most {} are read", tokens.len(), self.settings.max_tokens));
        }
        match tokens.iter().find(|token| **token as usize >= self.settings.vocabulary) {
            Some(token) => failed(format!("has token {token}; the model knows {}", self.settings.vocabulary)),
            None => Ok(()),
        }
    }
}
