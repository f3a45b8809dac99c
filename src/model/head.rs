//! The classifier as a Burn module: a sparse vector of features times a matrix of weights, plus a bias.
//!
//! This is the definition that training optimises and the reference that serving is tested against. Burn has no
//! sparse matrix product, and a gather that copies a row of weights for every entry of every text is too slow to train
//! with: so `fit` computes the product itself, lets Burn differentiate the loss by the scores, and carries that gradient
//! through the product's transpose. A test holds the result equal to Burn's own gradient through the whole module.

use burn::module::{Module, Param, ParamId};
use burn::optim::{GradientsParams, LBFGSConfig, LineSearchFn};
use burn::tensor::activation::{log_softmax, relu};
use burn::tensor::{Device, IndexingUpdateOp, Int, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use super::sparse::{Sparse, add_scaled};
use crate::config::DeviceKind;

/// The Burn device of a setting.
pub(crate) fn device(kind: DeviceKind) -> Device {
    match kind {
        DeviceKind::Flex => Device::flex(),
        #[allow(deprecated, reason = "kept while Burn has it, as a second implementation to compare with")]
        DeviceKind::NdArray => Device::ndarray(),
    }
}

/// Weights of a linear classifier.
#[derive(Module, Debug)]
pub(crate) struct Head {
    /// Features × classes.
    weight: Param<Tensor<2>>,
    /// Classes.
    bias: Param<Tensor<1>>,
}

impl Head {
    pub(crate) fn new(weight: Vec<f32>, bias: Vec<f32>, device: &Device) -> Self {
        let classes = bias.len();
        let rows = weight.len() / classes;
        Head {
            weight: Param::from_data(TensorData::new(weight, [rows, classes]), device),
            bias: Param::from_data(TensorData::new(bias, [classes]), device),
        }
    }

    /// Scores of every row of `input`: rows × classes.
    pub(crate) fn forward(&self, input: &Sparse) -> Tensor<2> {
        let device = self.weight.device();
        let [_, classes] = self.weight.dims();
        let entries = input.columns.len();
        let bias = self.bias.val().unsqueeze::<2>();
        let start = Tensor::zeros([input.rows(), classes], &device) + bias;
        if entries == 0 {
            return start;
        }
        let columns: Vec<i64> = input.columns.iter().map(|&column| i64::from(column)).collect();
        let owners: Vec<i64> = (0..input.rows())
            .flat_map(|row| std::iter::repeat_n(row as i64, input.starts[row + 1] - input.starts[row]))
            .collect();
        let columns = Tensor::<1, Int>::from_data(TensorData::new(columns, [entries]), &device);
        let owners = Tensor::<1, Int>::from_data(TensorData::new(owners, [entries]), &device);
        let values = Tensor::<2>::from_data(TensorData::new(input.values.clone(), [entries, 1]), &device);
        let terms = self.weight.val().select(0, columns) * values;
        start.select_assign(0, owners, terms, IndexingUpdateOp::Add)
    }

    /// `forward`, as values: rows × classes.
    pub(crate) fn scores(&self, input: &Sparse) -> Vec<f32> {
        values(self.forward(input))
    }

    fn into_parts(self) -> (Vec<f32>, Vec<f32>) {
        (values(self.weight.val()), values(self.bias.val()))
    }
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_into_vec().expect("the module's tensors are f32")
}

/// What is minimised beside the squared length of the weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Loss {
    /// One class against the rest, squared hinge: a linear SVM.
    SquaredHinge,
    /// Multinomial logistic regression.
    Logistic,
}

/// How weights are fitted; chosen by validation, stored in the package.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FitSettings {
    pub(crate) loss: Loss,
    /// Price of an error, relative to the squared length of the weights.
    pub(crate) cost: f32,
    /// How far small classes are made to count like large ones: 0 not at all, 1 fully.
    pub(crate) balance: f32,
}

pub(crate) const MAX_ITERATIONS: usize = 60;
const HISTORY: usize = 6;

/// Fitting stops when a step improves the mean loss by less than this.
const TOLERANCE: f64 = 1e-6;

/// Weights (features × classes) and bias of a fitted head.
#[derive(Debug, Clone)]
pub(crate) struct Weights {
    pub(crate) weight: Vec<f32>,
    pub(crate) bias: Vec<f32>,
}

impl Weights {
    /// Scores of every row of `input`: rows × classes.
    pub(crate) fn scores(&self, input: &Sparse) -> Vec<f32> {
        let classes = self.bias.len();
        let mut scores = input.times(&self.weight, classes);
        for row in scores.chunks_mut(classes) {
            add_scaled(row, &self.bias, 1.0);
        }
        scores
    }
}

/// Fits a head to `input`, whose rows have the classes `labels`, by L-BFGS over all rows. Weights start from zero, the bias from
/// the best one for weights of zero: with dozens of classes, getting there would take many steps.
pub(crate) fn fit(input: &Sparse, labels: &[u32], classes: usize, settings: &FitSettings, device: &Device) -> Weights {
    let objective = Objective::new(input, labels, classes, settings, device);
    let bias = objective.start_bias(labels);
    let head = Head::new(vec![0.0; input.width * classes], bias, &objective.differentiable);
    let mut optimizer = LBFGSConfig::new()
        .with_max_iter(MAX_ITERATIONS)
        .with_history_size(HISTORY)
        .with_tolerance_change(TOLERANCE)
        .with_line_search_fn(LineSearchFn::StrongWolfe)
        .init();
    let (head, _) = optimizer.step(1.0, head, |head| objective.loss_and_gradients(head));
    let (weight, bias) = head.into_parts();
    Weights { weight, bias }
}

/// Mean loss over the training rows plus the penalty on long weights.
struct Objective<'a> {
    input: &'a Sparse,
    transposed: Sparse,
    classes: usize,
    loss: Loss,
    balance: f32,
    penalty: f32,
    /// Rows × classes: 1 at a row's class; elsewhere -1 for the hinge, 0 for the logistic loss.
    targets: Tensor<2>,
    /// Rows × classes: what an error costs there.
    costs: Tensor<2>,
    plain: Device,
    differentiable: Device,
}

impl<'a> Objective<'a> {
    fn new(input: &'a Sparse, labels: &[u32], classes: usize, settings: &FitSettings, device: &Device) -> Self {
        let mut counts = vec![0u32; classes];
        for &label in labels {
            counts[label as usize] += 1;
        }
        let rows = labels.len();
        let present = counts.iter().filter(|&&count| count > 0).count().max(1);
        let weigh = |label: usize| (rows as f32 / (present as f32 * counts[label] as f32)).powf(settings.balance);
        let other = match settings.loss {
            Loss::SquaredHinge => (-1.0, 1.0),
            Loss::Logistic => (0.0, 0.0),
        };
        let mut targets = vec![other.0; rows * classes];
        let mut costs = vec![other.1; rows * classes];
        for (row, &label) in labels.iter().enumerate() {
            let at = row * classes + label as usize;
            targets[at] = 1.0;
            costs[at] = weigh(label as usize);
        }
        let differentiable = device.clone().autodiff();
        let tensor = |values| Tensor::from_data(TensorData::new(values, [rows, classes]), &differentiable);
        Objective {
            input,
            transposed: input.transpose(),
            classes,
            loss: settings.loss,
            balance: settings.balance,
            penalty: 1.0 / (settings.cost * rows as f32),
            targets: tensor(targets),
            costs: tensor(costs),
            plain: device.clone(),
            differentiable,
        }
    }

    fn start_bias(&self, labels: &[u32]) -> Vec<f32> {
        let rows = labels.len() as f32;
        let mut counts = vec![0.0f32; self.classes];
        for &label in labels {
            counts[label as usize] += 1.0;
        }
        let present = counts.iter().filter(|&&count| count > 0.0).count().max(1) as f32;
        let bias = |&count: &f32| {
            let cost = if count > 0.0 { count * (rows / (present * count)).powf(self.balance) } else { 0.0 };
            match self.loss {
                Loss::SquaredHinge => (cost - (rows - count)) / (cost + (rows - count)).max(1.0),
                Loss::Logistic => 0.0,
            }
        };
        counts.iter().map(bias).collect()
    }

    fn mean_loss(&self, scores: Tensor<2>) -> Tensor<1> {
        let rows = self.input.rows() as f32;
        let (targets, costs) = (self.targets.clone(), self.costs.clone());
        match self.loss {
            Loss::SquaredHinge => {
                let short = relu(targets.mul(scores).neg().add_scalar(1.0));
                (short.clone() * short * costs).sum() / rows
            }
            Loss::Logistic => (log_softmax(scores, 1) * targets * costs).sum().neg() / rows,
        }
    }

    fn loss_and_gradients(&self, head: Head) -> (f64, GradientsParams) {
        let (weight_id, bias_id): (ParamId, ParamId) = (head.weight.id, head.bias.id);
        let (weight, bias) = head.into_parts();
        let weights = Weights { weight, bias };
        let scores = weights.scores(self.input);
        let shape = [self.input.rows(), self.classes];
        let scores = Tensor::<2>::from_data(TensorData::new(scores, shape), &self.differentiable).require_grad();
        let loss = self.mean_loss(scores.clone());
        let gradients = loss.backward();
        let by_score = values(scores.grad(&gradients).expect("the loss depends on the scores"));

        let mut by_weight = self.transposed.times(&by_score, self.classes);
        let mut by_bias = vec![0.0; self.classes];
        for row in by_score.chunks(self.classes) {
            add_scaled(&mut by_bias, row, 1.0);
        }
        let mut square = 0.0;
        for (gradients, parameters) in [(&mut by_weight, &weights.weight), (&mut by_bias, &weights.bias)] {
            for (gradient, &parameter) in gradients.iter_mut().zip(parameters) {
                *gradient += self.penalty * parameter;
                square += f64::from(parameter) * f64::from(parameter);
            }
        }
        let mut result = GradientsParams::new();
        result.register(
            weight_id,
            Tensor::<2>::from_data(TensorData::new(by_weight, [self.input.width, self.classes]), &self.plain),
        );
        result.register(bias_id, Tensor::<1>::from_data(TensorData::new(by_bias, [self.classes]), &self.plain));
        let loss: f32 = loss.into_scalar();
        (f64::from(loss) + 0.5 * f64::from(self.penalty) * square, result)
    }
}

#[cfg(test)]
mod tests {
    use super::super::fast::best;
    use super::*;

    fn toy() -> (Sparse, Vec<u32>) {
        let mut input = Sparse::new(4);
        input.push(&mut [(0, 0.8), (3, 0.6)]);
        input.push(&mut [(1, 1.0)]);
        input.push(&mut [(2, 0.6), (0, 0.8)]);
        input.push(&mut [(1, 0.5), (2, -0.5)]);
        input.push(&mut []);
        (input, vec![0, 1, 0, 2, 1])
    }

    const WEIGHT: [f32; 12] = [0.3, -0.2, 0.1, 0.5, 0.4, -0.3, -0.6, 0.2, 0.7, 0.05, -0.15, 0.25];
    const BIAS: [f32; 3] = [0.1, -0.1, 0.2];

    #[test]
    fn flex_and_ndarray_agree_with_the_plain_product() {
        let (input, _) = toy();
        let expected = Weights { weight: WEIGHT.to_vec(), bias: BIAS.to_vec() }.scores(&input);
        for kind in [DeviceKind::Flex, DeviceKind::NdArray] {
            let head = Head::new(WEIGHT.to_vec(), BIAS.to_vec(), &device(kind));
            for (found, expected) in values(head.forward(&input)).iter().zip(&expected) {
                assert!((found - expected).abs() < 1e-6, "{kind:?}: {found} for {expected}");
            }
        }
    }

    #[test]
    fn gradients_are_those_of_autodiff_through_the_whole_module() {
        let (input, labels) = toy();
        for loss in [Loss::SquaredHinge, Loss::Logistic] {
            let settings = FitSettings { loss, cost: 0.7, balance: 0.5 };
            let plain = device(DeviceKind::Flex);
            let objective = Objective::new(&input, &labels, 3, &settings, &plain);
            let head = Head::new(WEIGHT.to_vec(), BIAS.to_vec(), &plain);
            let weight_id = head.weight.id;
            let (_, found) = objective.loss_and_gradients(head);
            let found = values(found.get::<2>(weight_id).expect("the weights have a gradient"));

            let whole = Head::new(WEIGHT.to_vec(), BIAS.to_vec(), &plain.autodiff());
            let penalty = whole.weight.val().powf_scalar(2.0).sum() * (0.5 * objective.penalty);
            let gradients = (objective.mean_loss(whole.forward(&input)) + penalty).backward();
            let expected = values(whole.weight.val().grad(&gradients).expect("the weights have a gradient"));
            for (found, expected) in found.iter().zip(&expected) {
                assert!((found - expected).abs() < 1e-5, "{loss:?}: {found} for {expected}");
            }
        }
    }

    #[test]
    fn a_fitted_head_tells_its_training_rows_apart() {
        let (input, labels) = toy();
        for loss in [Loss::SquaredHinge, Loss::Logistic] {
            let settings = FitSettings { loss, cost: 100.0, balance: 0.0 };
            let weights = fit(&input, &labels, 3, &settings, &device(DeviceKind::Flex));
            for (row, &label) in weights.scores(&input).chunks(3).zip(&labels) {
                let best = best(row);
                assert_eq!(best as u32, label, "{loss:?}: {row:?}");
            }
        }
    }
}
