//! Linear layers in f32: weights packed once, products computed tile by tile.
//!
//! Packed weights are panels of 32 output columns: for each input the 32 weights that belong to it, one after another.
//! A product goes panel by panel, so each weight comes from memory once, and within a panel by blocks of rows.

use super::buffer::Aligned;
use super::dense_tiles::{self, DenseTile};
use super::functions::{OutputTile, activate};
use super::grid::{self, Matrix, PANEL, Shared};
use super::{Activation, Engine};

/// Weights and bias of a linear layer.
#[derive(Debug)]
pub(crate) struct DenseWeights {
    panels: Aligned<f32>,
    /// Padded with zeros to whole panels, as the weights are.
    bias: Aligned<f32>,
    inputs: usize,
    outputs: usize,
}

impl DenseWeights {
    /// From `weights[output][input]`, one row for each output, and one bias for each output.
    ///
    /// # Panics
    /// When the lengths do not belong together.
    pub(crate) fn pack(weights: &[f32], bias: &[f32], inputs: usize) -> DenseWeights {
        let outputs = bias.len();
        assert_eq!(weights.len(), inputs * outputs, "weights of {inputs} inputs and {outputs} outputs");
        let padded = outputs.next_multiple_of(PANEL);
        let mut panels = Aligned::zeroed(padded * inputs);
        for (output, row) in weights.chunks_exact(inputs.max(1)).enumerate() {
            let panel = &mut panels[output / PANEL * PANEL * inputs..];
            for (input, &weight) in row.iter().enumerate() {
                panel[input * PANEL + output % PANEL] = weight;
            }
        }
        let mut padded_bias = Aligned::zeroed(padded);
        padded_bias[..outputs].copy_from_slice(bias);
        DenseWeights { panels, bias: padded_bias, inputs, outputs }
    }

    pub(crate) fn bytes(&self) -> usize {
        size_of_val(&*self.panels) + size_of_val(&*self.bias)
    }

    /// `output = activation(input × weights + bias)`.
    ///
    /// # Panics
    /// When `input` has another width than the weights.
    pub(crate) fn apply(&self, engine: Engine<'_>, input: &Matrix, activation: Activation, output: &mut Matrix) {
        assert_eq!(input.width(), self.inputs, "width of the input");
        output.reshape(input.rows(), self.outputs);
        let (rows, stride) = (input.rows(), output.stride());
        let panels = self.outputs.div_ceil(PANEL);
        let parts = grid::parts(engine.team, panels, panels);
        let max_rows = dense_tiles::max_rows(engine.cpu);
        let blocks = rows.div_ceil(max_rows);
        let memory = Shared::new(output.memory_mut());
        engine.team.for_each(parts, |part| {
            for panel in grid::share(panels, parts, part) {
                for block in 0..blocks {
                    let block = grid::share(rows, blocks, block);
                    let target =
                        memory.pointer(block.start * stride + panel * PANEL, (block.len() - 1) * stride + PANEL);
                    let tile = DenseTile {
                        input: input.memory()[block.start * input.stride()..].as_ptr(),
                        input_stride: input.stride(),
                        depth: self.inputs,
                        panel: self.panels[panel * PANEL * self.inputs..][..PANEL * self.inputs].as_ptr(),
                        bias: self.bias[panel * PANEL..][..PANEL].as_ptr(),
                        output: target,
                        output_stride: stride,
                    };
                    // SAFETY: the slices above hold a panel and its biases; the input has the rows of the block, each
                    // of `inputs` numbers; `pointer` checked the output. Panels of different parts are different
                    // columns, so no other thread uses these.
                    unsafe { dense_tiles::compute(engine.cpu, block.len(), tile) };
                    // SAFETY: the tile that was just written.
                    let tile = unsafe { OutputTile::new(target, block.len(), stride) };
                    activate(engine.cpu, activation, tile);
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::functions::tests::cpus;
    use super::super::team::{Team, with_team};
    use super::*;

    /// Numbers that look random and are the same every time.
    fn numbers(count: usize, seed: u64) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        };
        std::iter::repeat_with(&mut next).take(count).collect()
    }

    #[test]
    fn every_path_computes_the_product_for_all_shapes() {
        for (rows, inputs, outputs) in [(1, 1, 1), (3, 7, 33), (14, 32, 32), (15, 64, 96), (29, 100, 70), (57, 48, 320)]
        {
            let (weights, bias) = (numbers(inputs * outputs, 1), numbers(outputs, 2));
            let mut input = Matrix::new(rows, inputs);
            for row in 0..rows {
                input.row_mut(row).copy_from_slice(&numbers(inputs, 3 + row as u64));
            }
            let packed = DenseWeights::pack(&weights, &bias, inputs);
            for cpu in cpus() {
                for threads in [1, 3] {
                    let mut output = Matrix::default();
                    with_team(threads, |team| {
                        packed.apply(Engine { cpu, team }, &input, Activation::None, &mut output);
                    });
                    for row in 0..rows {
                        for (column, &found) in output.row(row).iter().enumerate() {
                            let weights = &weights[column * inputs..][..inputs];
                            let products =
                                input.row(row).iter().zip(weights).map(|(a, b)| f64::from(*a) * f64::from(*b));
                            let exact = products.sum::<f64>() + f64::from(bias[column]);
                            assert!((f64::from(found) - exact).abs() < 1e-5, "{cpu:?} {rows}×{inputs}×{outputs}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn no_rows_give_no_rows() {
        let packed = DenseWeights::pack(&[1.0, 2.0], &[0.0], 2);
        let mut output = Matrix::new(3, 3);
        let engine = Engine { cpu: Cpu::best(), team: &Team::solo() };
        packed.apply(engine, &Matrix::new(0, 2), Activation::Gelu, &mut output);
        assert_eq!((output.rows(), output.width()), (0, 1));
    }

    use super::super::Cpu;
}
