//! What the JSON files of a model's folder say: which family, which sizes, how texts become one vector.
//!
//! Nothing is believed: sizes are bounded before anything is allocated by them, and what this program does not compute
//! is refused instead of being left out.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::error::EncoderError;
use crate::model::kernels::Activation;

/// Larger files are no configuration. Tokenizers of many languages have 20 MB.
const MAX_JSON_BYTES: u64 = 128 * 1024 * 1024;

const MAX_LAYERS: usize = 128;
const MAX_HIDDEN: usize = 8_192;
const MAX_INNER: usize = 65_536;
const MAX_VOCABULARY: usize = 4_000_000;
const MAX_POSITIONS: usize = 65_536;

/// A shorter limit leaves no room for a text beside the marks around it.
const MIN_TOKENS: usize = 8;

/// Token limit where a folder says nothing but how many positions there are, and for models with more: attention grows
/// with the square of the length.
const MAX_TOKENS: usize = 8_192;

/// Families of encoders; they differ in names and positions, not in what a layer computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    Bert,
    Roberta,
    DistilBert,
}

/// How the rows of a text's tokens become one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    Mean,
    /// The first token's.
    Cls,
    Max,
}

/// Sizes and choices of a model, checked.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Settings {
    pub(super) family: Family,
    pub(super) layers: usize,
    pub(super) hidden: usize,
    pub(super) heads: usize,
    pub(super) inner: usize,
    pub(super) vocabulary: usize,
    pub(super) positions: usize,
    /// RoBERTa counts positions from the one after this token's number; others from 0.
    pub(super) padding: Option<u32>,
    pub(super) epsilon: f32,
    pub(super) activation: Activation,
    pub(super) max_tokens: usize,
    pub(super) pooling: Pooling,
    pub(super) unit_length: bool,
}

#[derive(Debug, Deserialize)]
struct RawConfig {
    model_type: Option<String>,
    #[serde(alias = "dim")]
    hidden_size: usize,
    #[serde(alias = "n_layers")]
    num_hidden_layers: usize,
    #[serde(alias = "n_heads")]
    num_attention_heads: usize,
    #[serde(alias = "hidden_dim")]
    intermediate_size: usize,
    vocab_size: usize,
    max_position_embeddings: usize,
    #[serde(alias = "activation")]
    hidden_act: Option<String>,
    /// DistilBERT has no such setting.
    #[serde(default = "default_epsilon")]
    layer_norm_eps: f32,
    pad_token_id: Option<u32>,
    position_embedding_type: Option<String>,
    #[serde(default)]
    is_decoder: bool,
}

fn default_epsilon() -> f32 {
    1e-12
}

#[derive(Debug, Deserialize)]
struct RawPooling {
    #[serde(default)]
    pooling_mode_cls_token: bool,
    #[serde(default)]
    pooling_mode_mean_tokens: bool,
    #[serde(default)]
    pooling_mode_max_tokens: bool,
    #[serde(flatten)]
    others: serde_json::Map<String, serde_json::Value>,
}

#[derive(Debug, Deserialize)]
struct RawSentence {
    max_seq_length: Option<usize>,
}

#[derive(Debug, Deserialize)]
struct RawTokenizerConfig {
    /// Some folders have 10³⁰ here, for "none".
    model_max_length: Option<f64>,
}

#[derive(Debug, Deserialize)]
struct RawModule {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    path: String,
}

impl Settings {
    /// Reads `config.json` and what stands beside it in `folder`.
    pub(super) fn read(folder: &Path) -> Result<Settings, EncoderError> {
        let path = folder.join("config.json");
        let raw: RawConfig = read_json(&path)?;
        let mut settings = Settings::check(&raw).map_err(|problem| EncoderError::Unsupported { path, problem })?;
        settings.read_modules(folder)?;
        settings.read_limit(folder)?;
        Ok(settings)
    }

    fn check(raw: &RawConfig) -> Result<Settings, String> {
        let family = match raw.model_type.as_deref() {
            Some("bert") | None => Family::Bert,
            Some("roberta" | "xlm-roberta" | "camembert") => Family::Roberta,
            Some("distilbert") => Family::DistilBert,
            Some(other) => return Err(format!("model_type `{other}`; there are bert, roberta and distilbert")),
        };
        let activation = match raw.hidden_act.as_deref() {
            Some("gelu") | None => Activation::Gelu,
            Some("gelu_new" | "gelu_fast" | "gelu_pytorch_tanh") => Activation::GeluTanh,
            Some("relu") => Activation::Relu,
            Some(other) => return Err(format!("activation `{other}`; there are gelu, gelu_new and relu")),
        };
        if let Some(kind) = raw.position_embedding_type.as_deref().filter(|kind| *kind != "absolute") {
            return Err(format!("position_embedding_type `{kind}`; there is absolute"));
        }
        if raw.is_decoder {
            return Err("is_decoder is true: it reads texts from left to right only".to_owned());
        }
        let within = |name: &str, value: usize, limit: usize| match value {
            0 => Err(format!("{name} is 0")),
            value if value > limit => Err(format!("{name} is {value}; at most {limit} is served")),
            _ => Ok(()),
        };
        within("num_hidden_layers", raw.num_hidden_layers, MAX_LAYERS)?;
        within("hidden_size", raw.hidden_size, MAX_HIDDEN)?;
        within("intermediate_size", raw.intermediate_size, MAX_INNER)?;
        within("vocab_size", raw.vocab_size, MAX_VOCABULARY)?;
        within("max_position_embeddings", raw.max_position_embeddings, MAX_POSITIONS)?;
        within("num_attention_heads", raw.num_attention_heads, raw.hidden_size)?;
        if !raw.hidden_size.is_multiple_of(raw.num_attention_heads) {
            return Err(format!("hidden_size {} is no multiple of {} heads", raw.hidden_size, raw.num_attention_heads));
        }
        if !(raw.layer_norm_eps > 0.0 && raw.layer_norm_eps < 1.0) {
            return Err(format!("layer_norm_eps is {}; it must lie between 0 and 1", raw.layer_norm_eps));
        }
        let padding = (family == Family::Roberta).then(|| raw.pad_token_id.unwrap_or(1));
        let usable = padding.map_or(Some(raw.max_position_embeddings), |padding| {
            raw.max_position_embeddings.checked_sub(padding as usize + 1)
        });
        let max_tokens = usable.filter(|usable| *usable >= MIN_TOKENS);
        let max_tokens =
            max_tokens.ok_or(format!("max_position_embeddings {} is too few", raw.max_position_embeddings))?;
        Ok(Settings {
            family,
            layers: raw.num_hidden_layers,
            hidden: raw.hidden_size,
            heads: raw.num_attention_heads,
            inner: raw.intermediate_size,
            vocabulary: raw.vocab_size,
            positions: raw.max_position_embeddings,
            padding,
            epsilon: raw.layer_norm_eps,
            activation,
            max_tokens: max_tokens.min(MAX_TOKENS),
            pooling: Pooling::Cls,
            unit_length: false,
        })
    }

    pub(super) fn head_size(&self) -> usize {
        self.hidden / self.heads
    }

    /// Lowers the token limit to `limit`, but not below what a text needs at least.
    pub(super) fn limit_tokens(&mut self, limit: usize) {
        self.max_tokens = self.max_tokens.min(limit.max(MIN_TOKENS));
    }

    /// How sentence-transformers would pool: by `modules.json`, or by the folders that it usually names.
    fn read_modules(&mut self, folder: &Path) -> Result<(), EncoderError> {
        let path = folder.join("modules.json");
        let mut pooling_folder = "1_Pooling".to_owned();
        let listed: Option<Vec<RawModule>> = read_json_if_there(&path)?;
        if let Some(modules) = &listed {
            for module in modules {
                match module.kind.rsplit('.').next().unwrap_or_default() {
                    "Transformer" => {}
                    "Pooling" => pooling_folder.clone_from(&module.path),
                    "Normalize" => self.unit_length = true,
                    other => {
                        let problem = format!("module `{other}`; there are Transformer, Pooling and Normalize");
                        return Err(EncoderError::Unsupported { path, problem });
                    }
                }
            }
        } else {
            self.unit_length = folder.join("2_Normalize").is_dir();
        }
        // A name of a sub-folder, not a way out of the folder.
        let inside =
            Path::new(&pooling_folder).components().all(|part| matches!(part, std::path::Component::Normal(_)));
        if !inside {
            let problem = format!("path `{pooling_folder}` leaves the folder");
            return Err(EncoderError::Unsupported { path, problem });
        }
        let path = folder.join(pooling_folder).join("config.json");
        let sentence = listed.is_some() || folder.join("sentence_bert_config.json").is_file();
        self.pooling = match read_json_if_there::<RawPooling>(&path)? {
            Some(raw) => raw.check().map_err(|problem| EncoderError::Unsupported { path, problem })?,
            None if sentence => Pooling::Mean,
            None => Pooling::Cls,
        };
        Ok(())
    }

    fn read_limit(&mut self, folder: &Path) -> Result<(), EncoderError> {
        let sentence: Option<RawSentence> = read_json_if_there(&folder.join("sentence_bert_config.json"))?;
        // The limit in `tokenizer.json` is what the file was last used with, not what the model was made for.
        if let Some(limit) = sentence.and_then(|sentence| sentence.max_seq_length) {
            self.limit_tokens(limit);
            return Ok(());
        }
        let tokenizer: Option<RawTokenizerConfig> = read_json_if_there(&folder.join("tokenizer_config.json"))?;
        if let Some(limit) = tokenizer.and_then(|tokenizer| tokenizer.model_max_length)
            && limit < MAX_TOKENS as f64
        {
            self.limit_tokens(limit as usize);
        }
        Ok(())
    }
}

impl RawPooling {
    fn check(&self) -> Result<Pooling, String> {
        let others = self.others.iter().filter(|(name, value)| name.starts_with("pooling_mode_") && value == &true);
        if let Some((name, _)) = others.into_iter().next() {
            return Err(format!("`{name}`; there are cls, mean and max"));
        }
        match (self.pooling_mode_mean_tokens, self.pooling_mode_cls_token, self.pooling_mode_max_tokens) {
            (true, false, false) => Ok(Pooling::Mean),
            (false, true, false) => Ok(Pooling::Cls),
            (false, false, true) => Ok(Pooling::Max),
            _ => Err("not exactly one way of pooling".to_owned()),
        }
    }
}

/// Reads a file of at most `limit` bytes.
pub(super) fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>, EncoderError> {
    let failed = |source| EncoderError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    let bytes = file.metadata().map_err(failed)?.len();
    if bytes > limit {
        return Err(EncoderError::TooLarge { path: path.to_owned(), bytes, limit });
    }
    let mut content = Vec::with_capacity(usize::try_from(bytes).unwrap_or_default());
    file.take(limit).read_to_end(&mut content).map_err(failed)?;
    Ok(content)
}

pub(super) fn read_json_bytes(path: &Path) -> Result<Vec<u8>, EncoderError> {
    read_bounded(path, MAX_JSON_BYTES)
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, EncoderError> {
    let content = read_json_bytes(path)?;
    serde_json::from_slice(&content).map_err(|source| EncoderError::Json { path: PathBuf::from(path), source })
}

fn read_json_if_there<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, EncoderError> {
    if path.is_file() { read_json(path).map(Some) } else { Ok(None) }
}
