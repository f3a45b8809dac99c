//! The weights of a model, packed for serving.

use std::sync::Arc;

use super::error::EncoderError;
use super::settings::{Family, Settings};
use super::tensors::{Tensors, WeightsFile};
use crate::model::kernels::{
    Activation, DenseWeights, Engine, Matrix, Norm, QuantisedRows, QuantisedWeights, quantise,
};

/// Numbers that a model computes with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    F32,
    /// Products of linear layers in 8-bit integers, the rest in f32.
    Int8,
}

/// A linear layer.
#[derive(Debug)]
pub(super) enum Linear {
    Dense(DenseWeights),
    Quantised(QuantisedWeights),
}

#[derive(Debug)]
pub(super) struct Layer {
    /// Queries, keys and values side by side. Queries come out scaled by one over the root of the head's size.
    pub(super) projection: Linear,
    pub(super) mixing: Linear,
    pub(super) mixing_norm: Norm,
    pub(super) widening: Linear,
    pub(super) narrowing: Linear,
    pub(super) narrowing_norm: Norm,
}

/// What a token's number and place give.
#[derive(Debug)]
pub(super) struct Embeddings {
    pub(super) words: Vec<f32>,
    /// With the row of the first token type in each.
    pub(super) positions: Vec<f32>,
    pub(super) norm: Norm,
}

/// Parts are shared by encoders that differ in others.
#[derive(Debug, Clone)]
pub(super) struct Layers {
    pub(super) embeddings: Arc<Embeddings>,
    pub(super) layers: Vec<Arc<Layer>>,
}

/// What a family calls its tensors.
pub(super) struct Names {
    /// What may stand before all of them.
    pub(super) prefixes: [&'static str; 2],
    pub(super) layer: &'static str,
    pub(super) query: &'static str,
    pub(super) key: &'static str,
    pub(super) value: &'static str,
    pub(super) mixing: &'static str,
    pub(super) mixing_norm: &'static str,
    pub(super) widening: &'static str,
    pub(super) narrowing: &'static str,
    pub(super) narrowing_norm: &'static str,
}

const BERT: Names = Names {
    prefixes: ["", "bert."],
    layer: "encoder.layer",
    query: "attention.self.query",
    key: "attention.self.key",
    value: "attention.self.value",
    mixing: "attention.output.dense",
    mixing_norm: "attention.output.LayerNorm",
    widening: "intermediate.dense",
    narrowing: "output.dense",
    narrowing_norm: "output.LayerNorm",
};

const ROBERTA: Names = Names { prefixes: ["", "roberta."], ..BERT };

const DISTILBERT: Names = Names {
    prefixes: ["", "distilbert."],
    layer: "transformer.layer",
    query: "attention.q_lin",
    key: "attention.k_lin",
    value: "attention.v_lin",
    mixing: "attention.out_lin",
    mixing_norm: "sa_layer_norm",
    widening: "ffn.lin1",
    narrowing: "ffn.lin2",
    narrowing_norm: "output_layer_norm",
};

const WORDS: &str = "embeddings.word_embeddings.weight";

impl Names {
    pub(super) fn of(family: Family) -> &'static Names {
        match family {
            Family::Bert => &BERT,
            Family::Roberta => &ROBERTA,
            Family::DistilBert => &DISTILBERT,
        }
    }
}

impl Linear {
    fn pack(precision: Precision, weights: &[f32], bias: &[f32], inputs: usize) -> Linear {
        match precision {
            Precision::F32 => Linear::Dense(DenseWeights::pack(weights, bias, inputs)),
            Precision::Int8 => Linear::Quantised(QuantisedWeights::pack(weights, bias, inputs)),
        }
    }

    /// `output = activation(input × weights + bias)`; `rounded` is working memory.
    pub(super) fn apply(
        &self,
        engine: Engine<'_>,
        input: &Matrix,
        rounded: &mut QuantisedRows,
        activation: Activation,
        output: &mut Matrix,
    ) {
        match self {
            Linear::Dense(weights) => weights.apply(engine, input, activation, output),
            Linear::Quantised(weights) => {
                quantise(engine, input, rounded);
                weights.apply(engine, rounded, activation, output);
            }
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Linear::Dense(weights) => weights.bytes(),
            Linear::Quantised(weights) => weights.bytes(),
        }
    }
}

impl Layers {
    pub(super) fn pack(file: &WeightsFile, settings: &Settings, precision: Precision) -> Result<Layers, EncoderError> {
        let names = Names::of(settings.family);
        let tensors = file.tensors(WORDS, &names.prefixes)?;
        let embeddings = Arc::new(read_embeddings(&tensors, settings)?);
        let layers = (0..settings.layers).map(|number| read_layer(&tensors, settings, precision, number));
        Ok(Layers { embeddings, layers: layers.collect::<Result<_, _>>()? })
    }

    /// These layers with the last `count`, of which there are so many, as they are in `file`.
    pub(super) fn with_last(
        &self,
        file: &WeightsFile,
        settings: &Settings,
        precision: Precision,
        count: usize,
    ) -> Result<Layers, EncoderError> {
        let first = settings.layers - count;
        let names = Names::of(settings.family);
        let tensors = file.tensors(&format!("{}.{first}.{}.weight", names.layer, names.query), &[""])?;
        let last = (first..settings.layers).map(|number| read_layer(&tensors, settings, precision, number));
        let below = self.layers[..first].iter().map(|layer| Ok(Arc::clone(layer)));
        Ok(Layers { embeddings: Arc::clone(&self.embeddings), layers: below.chain(last).collect::<Result<_, _>>()? })
    }

    /// Memory of the packed weights.
    pub(super) fn bytes(&self) -> usize {
        let linear = |layer: &Arc<Layer>| {
            [&layer.projection, &layer.mixing, &layer.widening, &layer.narrowing]
                .map(Linear::bytes)
                .iter()
                .sum::<usize>()
        };
        let embeddings = size_of_val(&*self.embeddings.words) + size_of_val(&*self.embeddings.positions);
        embeddings + self.layers.iter().map(linear).sum::<usize>()
    }
}

fn read_embeddings(tensors: &Tensors<'_>, settings: &Settings) -> Result<Embeddings, EncoderError> {
    let hidden = settings.hidden;
    let words = tensors.get(WORDS, &[settings.vocabulary, hidden])?;
    let mut positions = tensors.get("embeddings.position_embeddings.weight", &[settings.positions, hidden])?;
    const TYPES: &str = "embeddings.token_type_embeddings.weight";
    if tensors.has(TYPES) {
        // Texts are single, so all tokens have the first type. BERT has two types, RoBERTa one.
        let types = tensors.get(TYPES, &[2, hidden]).or_else(|_| tensors.get(TYPES, &[1, hidden]))?;
        for row in positions.chunks_exact_mut(hidden) {
            row.iter_mut().zip(&types[..hidden]).for_each(|(value, added)| *value += added);
        }
    }
    Ok(Embeddings { words, positions, norm: read_norm(tensors, settings, "embeddings.LayerNorm")? })
}

fn read_layer(
    tensors: &Tensors<'_>,
    settings: &Settings,
    precision: Precision,
    number: usize,
) -> Result<Arc<Layer>, EncoderError> {
    let (hidden, inner) = (settings.hidden, settings.inner);
    let names = Names::of(settings.family);
    let at = format!("{}.{number}", names.layer);
    let read = |name: &str, inputs: usize, outputs: usize| -> Result<_, EncoderError> {
        let weights = tensors.get(&format!("{at}.{name}.weight"), &[outputs, inputs])?;
        Ok((weights, tensors.get(&format!("{at}.{name}.bias"), &[outputs])?))
    };
    let linear = |name: &str, inputs: usize, outputs: usize| {
        read(name, inputs, outputs).map(|(weights, bias)| Linear::pack(precision, &weights, &bias, inputs))
    };
    let norm = |name: &str| read_norm(tensors, settings, &format!("{at}.{name}"));
    let (mut weights, mut bias) = read(names.query, hidden, hidden)?;
    let scale = 1.0 / (settings.head_size() as f32).sqrt();
    weights.iter_mut().chain(&mut bias).for_each(|value| *value *= scale);
    for name in [names.key, names.value] {
        let (more_weights, more_bias) = read(name, hidden, hidden)?;
        weights.extend(more_weights);
        bias.extend(more_bias);
    }
    Ok(Arc::new(Layer {
        projection: Linear::pack(precision, &weights, &bias, hidden),
        mixing: linear(names.mixing, hidden, hidden)?,
        mixing_norm: norm(names.mixing_norm)?,
        widening: linear(names.widening, hidden, inner)?,
        narrowing: linear(names.narrowing, inner, hidden)?,
        narrowing_norm: norm(names.narrowing_norm)?,
    }))
}

fn read_norm(tensors: &Tensors<'_>, settings: &Settings, name: &str) -> Result<Norm, EncoderError> {
    // Old files have TensorFlow's names.
    let old = tensors.has(&format!("{name}.gamma"));
    let (gain, shift) = if old { ("gamma", "beta") } else { ("weight", "bias") };
    Ok(Norm {
        gain: tensors.get(&format!("{name}.{gain}"), &[settings.hidden])?,
        shift: tensors.get(&format!("{name}.{shift}"), &[settings.hidden])?,
        epsilon: settings.epsilon,
    })
}
