//! The encoder as Burn modules: what is defined here is trained, and the packed forward is held to it by tests.
//!
//! Arrives: a folder as `Encoder` reads it, and tokens. Leaves: the last layer's rows, or the pooled row of each text.
//! Texts of a batch are padded to the longest; what stands in the padding changes nothing.

use std::path::Path;

use burn::module::Module;
use burn::nn::activation::{Activation as ActivationModule, ActivationConfig};
use burn::nn::attention::{MhaInput, MultiHeadAttention, MultiHeadAttentionConfig};
use burn::nn::{Dropout, DropoutConfig, Embedding, EmbeddingConfig, LayerNorm, LayerNormConfig, Linear, LinearConfig};
use burn::store::{
    FloatCastAdapter, ModuleAdapter, ModuleSnapshot, ModuleStore, PyTorchToBurnAdapter, SafetensorsStore,
};
use burn::tensor::{Bool, DType, Device, Int, Tensor, TensorData};

use super::error::EncoderError;
use super::forward::positions;
use super::layers::Names;
use super::pooling::to_unit_length;
use super::settings::{Pooling, Settings};
use super::tensors::{WEIGHTS_FILE, WeightsFile};
use crate::config::DeviceKind;
use crate::model::head;
use crate::model::kernels::Activation;

/// Share of values that training leaves out at random, as BERT was trained with. Serving leaves out none.
const DROPOUT: f64 = 0.1;

/// A whole encoder.
#[derive(Module, Debug)]
pub struct EncoderModule {
    words: Embedding,
    positions: Embedding,
    /// DistilBERT has none.
    types: Option<Embedding>,
    norm: LayerNorm,
    layers: Vec<LayerModule>,
    #[module(skip)]
    settings: Settings,
}

/// One layer: attention and two linear layers, each added to what it read and normalised.
#[derive(Module, Debug)]
pub(crate) struct LayerModule {
    pub(super) attention: MultiHeadAttention,
    pub(super) mixing_norm: LayerNorm,
    pub(super) widening: Linear,
    activation: ActivationModule,
    pub(super) narrowing: Linear,
    pub(super) narrowing_norm: LayerNorm,
    dropout: Dropout,
}

/// Texts of different lengths side by side: what the padded places hold, and which they are.
#[derive(Debug, Clone)]
pub(crate) struct Padding {
    /// Texts × longest: `true` where there is no token. `None` if all are equally long.
    mask: Option<Tensor<2, Bool>>,
    /// Texts × 1: one over the number of tokens.
    shares: Tensor<2>,
}

impl Padding {
    /// For texts of these lengths, none of them empty, padded to `width`.
    pub(crate) fn new(lengths: &[usize], width: usize, device: &Device) -> Padding {
        let rows = lengths.len();
        let mask = lengths.iter().any(|length| *length < width).then(|| {
            let places = lengths.iter().flat_map(|length| (0..width).map(move |at| at >= *length)).collect::<Vec<_>>();
            Tensor::from_data(TensorData::new(places, [rows, width]), device)
        });
        let shares: Vec<f32> = lengths.iter().map(|length| 1.0 / *length as f32).collect();
        Padding { mask, shares: Tensor::from_data(TensorData::new(shares, [rows, 1]), device) }
    }

    /// Texts × three times the width of a row: mean, first and largest, as `Encoder::summarise` has them.
    pub(crate) fn summarise(&self, states: Tensor<3>) -> Tensor<2> {
        let [rows, _, width] = states.dims();
        let first = states.clone().narrow(1, 0, 1).reshape([rows, width]);
        let (summed, largest) = match &self.mask {
            None => (states.clone(), states),
            Some(mask) => {
                let mask = mask.clone().unsqueeze_dim::<3>(2).expand(states.dims());
                (states.clone().mask_fill(mask.clone(), 0.0), states.mask_fill(mask, f32::MIN))
            }
        };
        let mean = summed.sum_dim(1).reshape([rows, width]) * self.shares.clone();
        Tensor::cat(vec![mean, first, largest.max_dim(1).reshape([rows, width])], 1)
    }
}

impl LayerModule {
    fn new(settings: &Settings, device: &Device) -> LayerModule {
        let norm = || LayerNormConfig::new(settings.hidden).with_epsilon(f64::from(settings.epsilon)).init(device);
        let activation = match settings.activation {
            Activation::GeluTanh => ActivationConfig::GeluApproximate,
            Activation::Relu => ActivationConfig::Relu,
            Activation::Gelu => ActivationConfig::Gelu,
            Activation::None => ActivationConfig::Identity,
        };
        LayerModule {
            attention: MultiHeadAttentionConfig::new(settings.hidden, settings.heads)
                .with_dropout(DROPOUT)
                .init(device),
            mixing_norm: norm(),
            widening: LinearConfig::new(settings.hidden, settings.inner).init(device),
            activation: activation.init(device),
            narrowing: LinearConfig::new(settings.inner, settings.hidden).init(device),
            narrowing_norm: norm(),
            dropout: DropoutConfig::new(DROPOUT).init(),
        }
    }

    /// Texts × longest × width, before and after.
    pub(crate) fn forward(&self, states: Tensor<3>, padding: &Padding) -> Tensor<3> {
        let mut input = MhaInput::self_attn(states.clone());
        if let Some(mask) = &padding.mask {
            input = input.mask_pad(mask.clone());
        }
        let mixed = self.attention.forward(input).context;
        let states = self.mixing_norm.forward(states + self.dropout.forward(mixed));
        let wide = self.activation.forward(self.widening.forward(states.clone()));
        let narrow = self.dropout.forward(self.narrowing.forward(wide));
        self.narrowing_norm.forward(states + narrow)
    }
}

impl EncoderModule {
    /// Loads the folder that `Encoder::load` loads.
    pub fn load(folder: &Path, device: DeviceKind) -> Result<EncoderModule, EncoderError> {
        EncoderModule::load_on(folder, &head::device(device))
    }

    pub(super) fn load_on(folder: &Path, device: &Device) -> Result<EncoderModule, EncoderError> {
        let settings = Settings::read(folder)?;
        let path = folder.join(WEIGHTS_FILE);
        let failed = |problem: String| EncoderError::Module { path: path.clone(), problem };
        let mut store = store(WeightsFile::read(folder)?.into_content(), &settings);
        let rows = store.get_tensor("types.weight").map_err(|error| failed(error.to_string()))?;
        let types = rows.map(|types| types.shape[0]);
        let hidden = settings.hidden;
        let embedding = |rows: usize| EmbeddingConfig::new(rows, hidden).init(device);
        let mut module = EncoderModule {
            words: embedding(settings.vocabulary),
            positions: embedding(settings.positions),
            types: types.map(embedding),
            norm: LayerNormConfig::new(hidden).with_epsilon(f64::from(settings.epsilon)).init(device),
            layers: (0..settings.layers).map(|_| LayerModule::new(&settings, device)).collect(),
            settings,
        };
        let applied = module.load_from(&mut store).map_err(|error| failed(error.to_string()))?;
        match (applied.errors.first(), applied.missing.first()) {
            (Some(error), _) => Err(failed(error.to_string())),
            (None, Some((name, _))) => Err(failed(format!("tensor `{name}` is missing"))),
            (None, None) => Ok(module),
        }
    }

    /// The last `count` layers, for training on.
    pub(crate) fn into_last_layers(mut self, count: usize) -> Vec<LayerModule> {
        self.layers.split_off(self.layers.len().saturating_sub(count))
    }

    /// One row for each text, as `Encoder::embed_tokens` gives them.
    pub fn embed_tokens<T: AsRef<[u32]>>(&self, sequences: &[T]) -> Vec<f32> {
        let longest = sequences.iter().map(|tokens| tokens.as_ref().len()).max().unwrap_or_default();
        self.embed_padded(sequences, longest)
    }

    /// As `embed_tokens`, padded to `width` places, which is no less than the longest has.
    pub(super) fn embed_padded<T: AsRef<[u32]>>(&self, sequences: &[T], width: usize) -> Vec<f32> {
        let hidden = self.settings.hidden;
        let mut result = vec![0.0; sequences.len() * hidden];
        // A text without tokens keeps its zeros: there is nothing to attend to.
        let (rows, texts): (Vec<usize>, Vec<&[u32]>) =
            sequences.iter().map(AsRef::as_ref).enumerate().filter(|(_, tokens)| !tokens.is_empty()).unzip();
        if texts.is_empty() {
            return result;
        }
        let lengths: Vec<usize> = texts.iter().map(|tokens| tokens.len()).collect();
        let padding = Padding::new(&lengths, width, &self.norm.gamma.device());
        let summaries = padding.summarise(self.forward(&texts, width, &padding));
        let start = match self.settings.pooling {
            Pooling::Mean => 0,
            Pooling::Cls => hidden,
            Pooling::Max => 2 * hidden,
        };
        let values: Vec<f32> = summaries.narrow(1, start, hidden).into_data().try_into_vec().expect("f32 was loaded");
        for (row, values) in rows.into_iter().zip(values.chunks_exact(hidden)) {
            let target = &mut result[row * hidden..][..hidden];
            target.copy_from_slice(values);
            if self.settings.unit_length {
                to_unit_length(target);
            }
        }
        result
    }

    /// Texts × width × hidden.
    fn forward(&self, texts: &[&[u32]], width: usize, padding: &Padding) -> Tensor<3> {
        let device = self.norm.gamma.device();
        let numbers = |of: &dyn Fn(&[u32]) -> Vec<i64>| {
            let padded = texts.iter().flat_map(|tokens| {
                let mut row = of(tokens);
                row.resize(width, 0);
                row
            });
            let data = TensorData::new(padded.collect::<Vec<i64>>(), [texts.len(), width]);
            Tensor::<2, Int>::from_data(data, &device)
        };
        let tokens = numbers(&|tokens| tokens.iter().map(|token| i64::from(*token)).collect());
        let places = numbers(&|tokens| positions(tokens, self.settings.padding).map(|place| place as i64).collect());
        let mut states = self.words.forward(tokens.clone()) + self.positions.forward(places);
        if let Some(types) = &self.types {
            states = states + types.forward(tokens.zeros_like());
        }
        let states = self.norm.forward(states);
        self.layers.iter().fold(states, |states, layer| layer.forward(states, padding))
    }
}

/// The weights under the names that the modules here have.
fn store(content: Vec<u8>, settings: &Settings) -> SafetensorsStore {
    let names = Names::of(settings.family);
    let prefix = names.prefixes.join("|").replace('.', r"\.");
    let mut store = SafetensorsStore::from_bytes(Some(content))
        .with_from_adapter(PyTorchToBurnAdapter.chain(FloatCastAdapter::to(DType::F32)))
        // What is missing or does not fit is told by `load_on`.
        .validate(false)
        .allow_partial(true)
        // Old files have TensorFlow's names.
        .with_key_remapping(r"\.gamma$", ".weight")
        .with_key_remapping(r"\.beta$", ".bias");
    for (theirs, ours) in [
        ("word_embeddings", "words"),
        ("position_embeddings", "positions"),
        ("token_type_embeddings", "types"),
        ("LayerNorm", "norm"),
    ] {
        store = store.with_key_remapping(format!(r"^(?:{prefix})embeddings\.{theirs}\."), format!("{ours}."));
    }
    for (theirs, ours) in [
        (names.query, "attention.query"),
        (names.key, "attention.key"),
        (names.value, "attention.value"),
        (names.mixing, "attention.output"),
        (names.mixing_norm, "mixing_norm"),
        (names.widening, "widening"),
        (names.narrowing, "narrowing"),
        (names.narrowing_norm, "narrowing_norm"),
    ] {
        let (layer, theirs) = (names.layer.replace('.', r"\."), theirs.replace('.', r"\."));
        store =
            store.with_key_remapping(format!(r"^(?:{prefix}){layer}\.(\d+)\.{theirs}\."), format!("layers.$1.{ours}."));
    }
    store
}
