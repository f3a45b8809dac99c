//! Training the last layers of an encoder on, together with a classifier over them.
//!
//! Arrives: an encoder, its folder, and labelled texts. Leaves: for any choice of rows, layers and a classifier that were
//! trained on them by Burn's autodiff. What the layers below make of the texts is computed once, by the packed forward,
//! and kept.
//!
//! Method: AdamW with decoupled decay (Loshchilov and Hutter 2019), warm-up and linear decay of the rate, dropout as in
//! BERT; some rows are set aside, and the epoch that does best on them is taken.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use burn::grad_clipping::GradientClippingConfig;
use burn::module::{Module, Param};
use burn::nn::{Dropout, DropoutConfig, Initializer, Linear, LinearConfig};
use burn::optim::{AdamWConfig, GradientsParams, ModuleOptimizer};
use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Int, Tensor, TensorData};
use safetensors::tensor::{Dtype, TensorView};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::Encoder;
use super::error::EncoderError;
use super::layers::Names;
use super::module::{EncoderModule, LayerModule, Padding};
use super::settings::Settings;

/// Texts of one step. More: fewer steps, and a longer way to the same place; fewer: each step is mostly noise.
const BATCH: usize = 32;

/// Batches that are drawn together and sorted by length, so that little of a batch is padding.
const BATCHES_SORTED_TOGETHER: usize = 16;

/// Learning rate of the layers. Higher forgets what they knew.
const LAYER_RATE: f64 = 1e-4;

/// Learning rate of the classifier, which starts from nothing.
const CLASSIFIER_RATE: f64 = 1e-3;

/// Share of the steps in which the rates rise.
const WARM_UP: f64 = 0.1;

const WEIGHT_DECAY: f32 = 0.01;

/// One row of so many is set aside to choose the epoch by; fewer than `MIN_WATCHED` say nothing, and none are then.
const WATCHED: u64 = 10;
const MIN_WATCHED: usize = 20;

/// Epochs without an improvement after which no more are tried.
const PATIENCE: usize = 2;

/// Weight of the log loss beside the error rate, as for the other models.
const LOG_LOSS_WEIGHT: f64 = 0.1;

/// More than this of what the lower layers made is not kept but computed again when it is needed.
const MAX_KEPT_BYTES: usize = 3 << 30;

pub(crate) const CLASSIFIER_WEIGHT: &str = "classifier.weight";
pub(crate) const CLASSIFIER_BIAS: &str = "classifier.bias";

/// Burn draws all random numbers of a process from one source: of trainings side by side none could be repeated.
static ALONE: Mutex<()> = Mutex::new(());

#[derive(Debug, Clone, Copy)]
pub(crate) struct TuneSettings {
    /// How many of the last layers.
    pub(crate) layers: usize,
    pub(crate) epochs: usize,
    pub(crate) seed: u64,
}

/// The last layers and a classifier over mean, first token and maximum of the last one.
#[derive(Module, Debug)]
struct TopModule {
    layers: Vec<LayerModule>,
    dropout: Dropout,
    classifier: Linear,
}

impl TopModule {
    /// Texts × classes.
    fn forward(&self, states: Tensor<3>, padding: &Padding) -> Tensor<2> {
        let states = self.layers.iter().fold(states, |states, layer| layer.forward(states, padding));
        self.classifier.forward(self.dropout.forward(padding.summarise(states)))
    }
}

/// What came out of training on some rows.
#[derive(Debug)]
pub(crate) struct Tuned {
    module: TopModule,
}

/// All that trainings on different rows of the same texts share.
#[derive(Debug)]
pub(crate) struct Tuner<'a> {
    encoder: &'a Encoder,
    settings: TuneSettings,
    start: Vec<LayerModule>,
    tokens: Vec<Vec<u32>>,
    below: Below,
    labels: &'a [u32],
    classes: usize,
    device: Device,
}

/// What the layers below made of the texts.
#[derive(Debug)]
enum Below {
    /// All rows, and where those of each text begin.
    Kept {
        states: Vec<f32>,
        starts: Vec<usize>,
    },
    Computed,
}

impl<'a> Tuner<'a> {
    /// `folder` is where the encoder was loaded from; `labels` are numbers below `classes`, one for each text.
    pub(crate) fn new(
        folder: &Path,
        encoder: &'a Encoder,
        texts: &[&str],
        (labels, classes): (&'a [u32], usize),
        settings: TuneSettings,
        device: &Device,
    ) -> Result<Tuner<'a>, EncoderError> {
        let module = EncoderModule::load_on(folder, device)?;
        let mut tokens = encoder.tokenise(texts)?;
        // Attention over nothing is undefined; the model sees padding instead.
        tokens.iter_mut().filter(|tokens| tokens.is_empty()).for_each(|tokens| tokens.push(0));
        let below = encoder.layers() - settings.layers;
        let total: usize = tokens.iter().map(Vec::len).sum();
        let below = match total * encoder.dimension() * size_of::<f32>() <= MAX_KEPT_BYTES {
            true => {
                let mut end = 0;
                let mut start = |tokens: &Vec<u32>| {
                    end += tokens.len();
                    end - tokens.len()
                };
                let starts = tokens.iter().map(&mut start).collect();
                Below::Kept { states: encoder.states_after(below, &tokens)?, starts }
            }
            false => Below::Computed,
        };
        let start = module.into_last_layers(settings.layers);
        Ok(Tuner { encoder, settings, start, tokens, below, labels, classes, device: device.clone() })
    }

    /// Trains on these rows alone. Tells the texts that it went through.
    pub(crate) fn fit(&self, rows: &[usize], progress: &mut dyn FnMut(usize)) -> Result<Tuned, EncoderError> {
        let is_watched =
            |row: &usize| xxh3_64_with_seed(&(*row as u64).to_le_bytes(), self.settings.seed).is_multiple_of(WATCHED);
        let (watched, mut train): (Vec<usize>, Vec<usize>) = rows.iter().copied().partition(is_watched);
        let watched = if watched.len() < MIN_WATCHED { Vec::new() } else { watched };
        if watched.is_empty() {
            train = rows.to_vec();
        }
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        self.device.seed(self.settings.seed);
        let mut module = self.start_module().train();
        let optimizer = || {
            AdamWConfig::new()
                .with_epsilon(1e-8)
                .with_weight_decay(WEIGHT_DECAY)
                .with_grad_clipping(Some(GradientClippingConfig::Norm(1.0)))
                .init()
        };
        let mut optimizers = [optimizer(), optimizer()];
        let steps = (train.len().div_ceil(BATCH) * self.settings.epochs) as f64;
        let (mut step, mut best, mut waited) = (0.0, None::<(f64, TopModule)>, 0);
        for epoch in 0..self.settings.epochs {
            for batch in self.batches(&train, epoch) {
                step += 1.0;
                let rate = (step / (WARM_UP * steps)).min((steps - step + 1.0) / ((1.0 - WARM_UP) * steps)).min(1.0);
                module = self.step(module, &batch, rate, &mut optimizers)?;
                progress(batch.len());
            }
            let cost = self.cost(&module.valid(), &watched)?;
            tracing::debug!(epoch, cost, "epoch of fine-tuning");
            // Without watched rows every cost is 0, and the last epoch is taken.
            if best.as_ref().is_none_or(|(least, _)| cost <= *least) {
                (best, waited) = (Some((cost, module.valid())), 0);
            } else {
                waited += 1;
                if waited >= PATIENCE {
                    progress(train.len() * (self.settings.epochs - 1 - epoch));
                    break;
                }
            }
        }
        let module = best.map_or_else(|| module.valid(), |(_, module)| module);
        Ok(Tuned { module })
    }

    /// Scores of these rows: rows × classes.
    pub(crate) fn scores(&self, tuned: &Tuned, rows: &[usize]) -> Result<Vec<f32>, EncoderError> {
        self.scores_of(&tuned.module, rows)
    }

    /// The layers under their names in the encoder's file, and the classifier, as a safetensors file.
    pub(crate) fn to_bytes(&self, tuned: &Tuned) -> Vec<u8> {
        let settings = &self.encoder.settings;
        let mut tensors = Vec::new();
        for (at, layer) in tuned.module.layers.iter().enumerate() {
            layer_tensors(layer, settings, settings.layers - self.settings.layers + at, &mut tensors);
        }
        let classifier = &tuned.module.classifier;
        tensors.push((CLASSIFIER_WEIGHT.to_owned(), values(classifier.weight.val())));
        tensors.push((CLASSIFIER_BIAS.to_owned(), bias(classifier)));
        let bytes: Vec<(String, Vec<usize>, Vec<u8>)> = tensors
            .into_iter()
            .map(|(name, (shape, values))| (name, shape, values.iter().flat_map(|value| value.to_le_bytes()).collect()))
            .collect();
        let views = bytes.iter().map(|(name, shape, bytes)| {
            (name.as_str(), TensorView::new(Dtype::F32, shape.clone(), bytes).expect("the shape of the values"))
        });
        safetensors::serialize(views, None).expect("names are unique and shapes fit")
    }

    fn start_module(&self) -> TopModule {
        let width = 3 * self.encoder.dimension();
        // Small random weights, as BERT's classifiers have them.
        let initializer = Initializer::Normal { mean: 0.0, std: 0.02 };
        let mut classifier = LinearConfig::new(width, self.classes).with_initializer(initializer).init(&self.device);
        classifier.bias = Some(Param::from_data(TensorData::zeros::<f32, _>([self.classes]), &self.device));
        TopModule { layers: self.start.clone(), dropout: DropoutConfig::new(0.1).init(), classifier }
    }

    fn step(
        &self,
        mut module: TopModule,
        batch: &[usize],
        rate: f64,
        [layers, classifier]: &mut [ModuleOptimizer; 2],
    ) -> Result<TopModule, EncoderError> {
        let device = self.device.clone().autodiff();
        let (states, padding) = self.input(batch, &device)?;
        let labels: Vec<i64> = batch.iter().map(|&row| i64::from(self.labels[row])).collect();
        let labels = Tensor::<2, Int>::from_data(TensorData::new(labels, [batch.len(), 1]), &device);
        let loss = log_softmax(module.forward(states, &padding), 1).gather(1, labels).mean().neg();
        let mut gradients = loss.backward();
        let of_layers = GradientsParams::from_module(&mut gradients, &module.layers);
        let of_classifier = GradientsParams::from_module(&mut gradients, &module.classifier);
        module.layers = layers.step(LAYER_RATE * rate, module.layers, of_layers);
        module.classifier = classifier.step(CLASSIFIER_RATE * rate, module.classifier, of_classifier);
        Ok(module)
    }

    /// The rows in an order that only seed and epoch decide, in batches of texts that are about equally long.
    fn batches(&self, rows: &[usize], epoch: usize) -> Vec<Vec<usize>> {
        let seed = self.settings.seed.wrapping_add(1 + epoch as u64);
        let mut order = rows.to_vec();
        order.sort_by_key(|row| xxh3_64_with_seed(&(*row as u64).to_le_bytes(), seed));
        let mut batches: Vec<Vec<usize>> = Vec::new();
        for group in order.chunks_mut(BATCH * BATCHES_SORTED_TOGETHER) {
            group.sort_by_key(|&row| self.tokens[row].len());
            batches.extend(group.chunks(BATCH).map(<[usize]>::to_vec));
        }
        batches.sort_by_key(|batch| xxh3_64_with_seed(&(batch[0] as u64).to_le_bytes(), seed));
        batches
    }

    /// Error rate and log loss on these rows.
    fn cost(&self, module: &TopModule, rows: &[usize]) -> Result<f64, EncoderError> {
        let scores = self.scores_of(module, rows)?;
        let cost = |(scores, &row): (&[f32], &usize)| {
            let label = self.labels[row] as usize;
            let largest = scores.iter().copied().fold(f32::MIN, f32::max);
            let sum = scores.iter().map(|score| (score - largest).exp()).sum::<f32>();
            let loss = largest + sum.ln() - scores[label];
            f64::from(u8::from(scores[label] < largest)) + LOG_LOSS_WEIGHT * f64::from(loss)
        };
        Ok(scores.chunks_exact(self.classes).zip(rows).map(cost).sum::<f64>() / rows.len().max(1) as f64)
    }

    fn scores_of(&self, module: &TopModule, rows: &[usize]) -> Result<Vec<f32>, EncoderError> {
        let mut order: Vec<usize> = (0..rows.len()).collect();
        order.sort_by_key(|&at| self.tokens[rows[at]].len());
        let mut scores = vec![0.0; rows.len() * self.classes];
        for places in order.chunks(BATCH) {
            let batch: Vec<usize> = places.iter().map(|&at| rows[at]).collect();
            let (states, padding) = self.input(&batch, &self.device)?;
            let (_, found) = values(module.forward(states, &padding));
            for (&at, found) in places.iter().zip(found.chunks_exact(self.classes)) {
                scores[at * self.classes..][..self.classes].copy_from_slice(found);
            }
        }
        Ok(scores)
    }

    /// What the trained layers read, padded to the longest: texts × longest × width.
    fn input(&self, rows: &[usize], device: &Device) -> Result<(Tensor<3>, Padding), EncoderError> {
        let width = self.encoder.dimension();
        let lengths: Vec<usize> = rows.iter().map(|&row| self.tokens[row].len()).collect();
        let longest = lengths.iter().copied().max().unwrap_or_default();
        let mut padded = vec![0.0; rows.len() * longest * width];
        let computed = match &self.below {
            Below::Kept { .. } => Vec::new(),
            Below::Computed => {
                let tokens: Vec<&[u32]> = rows.iter().map(|&row| self.tokens[row].as_slice()).collect();
                self.encoder.states_after(self.encoder.layers() - self.settings.layers, &tokens)?
            }
        };
        let mut next = 0;
        for ((&row, &length), target) in rows.iter().zip(&lengths).zip(padded.chunks_exact_mut(longest * width)) {
            let states = match &self.below {
                Below::Kept { states, starts } => &states[starts[row] * width..][..length * width],
                Below::Computed => &computed[next * width..][..length * width],
            };
            next += length;
            target[..length * width].copy_from_slice(states);
        }
        let states = Tensor::from_data(TensorData::new(padded, [rows.len(), longest, width]), device);
        Ok((states, Padding::new(&lengths, longest, device)))
    }
}

type NamedTensor = (String, (Vec<usize>, Vec<f32>));

fn layer_tensors(layer: &LayerModule, settings: &Settings, number: usize, tensors: &mut Vec<NamedTensor>) {
    let names = Names::of(settings.family);
    let at = format!("{}.{number}", names.layer);
    let linears = [
        (names.query, &layer.attention.query),
        (names.key, &layer.attention.key),
        (names.value, &layer.attention.value),
        (names.mixing, &layer.attention.output),
        (names.widening, &layer.widening),
        (names.narrowing, &layer.narrowing),
    ];
    for (name, linear) in linears {
        tensors.push((format!("{at}.{name}.weight"), values(linear.weight.val().transpose())));
        tensors.push((format!("{at}.{name}.bias"), bias(linear)));
    }
    for (name, norm) in [(names.mixing_norm, &layer.mixing_norm), (names.narrowing_norm, &layer.narrowing_norm)] {
        tensors.push((format!("{at}.{name}.weight"), values(norm.gamma.val())));
        let shift = norm.beta.as_ref().map(|shift| values(shift.val()));
        tensors.push((format!("{at}.{name}.bias"), shift.expect("norms of these modules have one")));
    }
}

fn bias(linear: &Linear) -> (Vec<usize>, Vec<f32>) {
    values(linear.bias.as_ref().expect("linear parts of these modules have one").val())
}

fn values<const D: usize>(tensor: Tensor<D>) -> (Vec<usize>, Vec<f32>) {
    let shape = tensor.dims().to_vec();
    (shape, tensor.into_data().try_into_vec().expect("the modules' tensors are f32"))
}
