//! Linear layers in int8: every row of input and every output channel of the weights is rounded on a scale of its own.
//!
//! A value of input is `scale × (byte − zero)` with an unsigned byte, a weight is `scale × byte` with a signed one. Then
//! Σ value × weight = scales × (Σ byte × byte − zero × Σ weight byte), sums of integers that are exact on every path.
//!
//! Packed weights are panels of 32 output columns: for each four inputs the 32 × 4 weights that belong to them. This is
//! the order in which both the vector and the tile instructions take them.

use super::buffer::Aligned;
use super::functions::{OutputTile, activate};
use super::grid::{self, Matrix, PANEL, Shared};
use super::quantised_tiles::{QuantisedTile, Session};
use super::{Activation, Engine};

/// Inputs are padded to this, what one tile instruction takes; the padding has zero weights.
pub(super) const DEPTH_BLOCK: usize = 64;

/// Inputs whose products one instruction adds up.
pub(super) const QUAD: usize = 4;

/// More inputs and a sum of products could leave 32 bits.
const MAX_INPUTS: usize = 65_536;

/// How a row was rounded: value = `scale` × (byte − `zero`).
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Step {
    pub(crate) scale: f32,
    pub(crate) zero: i32,
}

/// Rows of input, rounded.
#[derive(Debug, Default)]
pub(crate) struct QuantisedRows {
    pub(super) bytes: Matrix<u8>,
    pub(super) steps: Vec<Step>,
}

impl QuantisedRows {
    pub(super) fn reshape(&mut self, rows: usize, width: usize) {
        self.bytes.reshape(rows, width);
        self.steps.resize(rows, Step::default());
    }

    #[cfg(test)]
    pub(super) fn row(&self, row: usize) -> (&[u8], Step) {
        (self.bytes.row(row), self.steps[row])
    }
}

/// Weights and bias of a linear layer.
#[derive(Debug)]
pub(crate) struct QuantisedWeights {
    panels: Aligned<i8>,
    columns: Columns,
    inputs: usize,
    outputs: usize,
}

/// What belongs to output columns; padded with zeros to whole panels.
#[derive(Debug)]
struct Columns {
    scales: Aligned<f32>,
    sums: Aligned<i32>,
    bias: Aligned<f32>,
}

impl QuantisedWeights {
    /// Rounds `weights[output][input]`, one row for each output; one bias for each output.
    ///
    /// # Panics
    /// When the lengths do not belong together, or there are more than 65,536 inputs.
    pub(crate) fn pack(weights: &[f32], bias: &[f32], inputs: usize) -> QuantisedWeights {
        let outputs = bias.len();
        assert!(inputs <= MAX_INPUTS, "{inputs} inputs");
        assert_eq!(weights.len(), inputs * outputs, "weights of {inputs} inputs and {outputs} outputs");
        let padded = outputs.next_multiple_of(PANEL);
        let depth = inputs.next_multiple_of(DEPTH_BLOCK);
        let mut columns =
            Columns { scales: Aligned::zeroed(padded), sums: Aligned::zeroed(padded), bias: Aligned::zeroed(padded) };
        columns.bias[..outputs].copy_from_slice(bias);
        let mut panels = Aligned::zeroed(padded * depth);
        for (output, row) in weights.chunks_exact(inputs.max(1)).enumerate() {
            let largest = row.iter().fold(0.0f32, |largest, weight| largest.max(weight.abs()));
            // A channel of zeros stays zero with any scale.
            let scale = if largest > 0.0 { largest / 127.0 } else { 1.0 };
            let panel = &mut panels[output / PANEL * PANEL * depth..];
            let mut sum = 0;
            for (input, weight) in row.iter().enumerate() {
                let byte = (weight / scale).round_ties_even().clamp(-127.0, 127.0) as i8;
                panel[(input / QUAD * PANEL + output % PANEL) * QUAD + input % QUAD] = byte;
                sum += i32::from(byte);
            }
            columns.scales[output] = scale;
            columns.sums[output] = sum;
        }
        QuantisedWeights { panels, columns, inputs, outputs }
    }

    pub(crate) fn bytes(&self) -> usize {
        size_of_val(&*self.panels) + 3 * size_of_val(&*self.columns.bias)
    }

    /// `output = activation(input × weights + bias)`.
    ///
    /// # Panics
    /// When `input` has another width than the weights.
    pub(crate) fn apply(&self, engine: Engine<'_>, input: &QuantisedRows, activation: Activation, output: &mut Matrix) {
        let rows = input.bytes.rows();
        assert_eq!(input.bytes.width(), self.inputs, "width of the input");
        output.reshape(rows, self.outputs);
        let stride = output.stride();
        let depth = self.inputs.next_multiple_of(DEPTH_BLOCK);
        let panels = self.outputs.div_ceil(PANEL);
        let parts = grid::parts(engine.team, panels, panels);
        let memory = Shared::new(output.memory_mut());
        engine.team.for_each(parts, |part| {
            let session = Session::begin(engine.cpu);
            for panel in grid::share(panels, parts, part) {
                for block in session.blocks(rows) {
                    let target =
                        memory.pointer(block.start * stride + panel * PANEL, (block.len() - 1) * stride + PANEL);
                    let columns = panel * PANEL..(panel + 1) * PANEL;
                    let tile = QuantisedTile {
                        input: input.bytes.memory()[block.start * input.bytes.stride()..].as_ptr(),
                        input_stride: input.bytes.stride(),
                        depth,
                        panel: self.panels[panel * PANEL * depth..][..PANEL * depth].as_ptr(),
                        steps: input.steps[block.clone()].as_ptr(),
                        scales: self.columns.scales[columns.clone()].as_ptr(),
                        sums: self.columns.sums[columns.clone()].as_ptr(),
                        bias: self.columns.bias[columns].as_ptr(),
                        output: target,
                        output_stride: stride,
                    };
                    // SAFETY: the slices above hold a panel, what belongs to its columns, and the steps of the rows. The
                    // input has the rows of the block, each padded to `depth` bytes, and memory for 16 rows from any
                    // multiple of 16 on, which is what `blocks` begins at where more rows are read. `pointer` checked
                    // the output. Panels of different parts are different columns, so no other thread uses these.
                    unsafe { session.compute(block.len(), tile) };
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
    use super::super::rows::quantise;
    use super::super::team::with_team;
    use super::*;

    fn numbers(count: usize, seed: usize) -> Vec<f32> {
        (0..count).map(|at| ((at * 7919 + seed * 104_729) % 2003) as f32 / 1001.0 - 1.0).collect()
    }

    #[test]
    fn every_path_computes_the_same_product_for_all_shapes() {
        for (rows, inputs, outputs) in
            [(1, 1, 1), (3, 7, 33), (16, 64, 32), (17, 65, 96), (33, 100, 70), (57, 192, 320)]
        {
            let (weights, bias) = (numbers(inputs * outputs, 1), numbers(outputs, 2));
            let packed = QuantisedWeights::pack(&weights, &bias, inputs);
            let mut matrix = Matrix::new(rows, inputs);
            for row in 0..rows {
                matrix.row_mut(row).copy_from_slice(&numbers(inputs, 3 + row));
            }
            for cpu in cpus() {
                for threads in [1, 3] {
                    let (mut input, mut output) = (QuantisedRows::default(), Matrix::default());
                    with_team(threads, |team| {
                        quantise(Engine { cpu, team }, &matrix, &mut input);
                        packed.apply(Engine { cpu, team }, &input, Activation::None, &mut output);
                    });
                    for row in 0..rows {
                        let (bytes, step) = input.row(row);
                        for (column, &found) in output.row(row).iter().enumerate() {
                            let weights = &weights[column * inputs..][..inputs];
                            let scale = weights.iter().fold(0.0f32, |a, b| a.max(b.abs())) / 127.0;
                            let sum: i32 = bytes
                                .iter()
                                .zip(weights)
                                .map(|(&byte, weight)| {
                                    (i32::from(byte) - step.zero) * (weight / scale).round_ties_even() as i32
                                })
                                .sum();
                            let exact =
                                f64::from(sum) * f64::from(step.scale) * f64::from(scale) + f64::from(bias[column]);
                            assert!(
                                (f64::from(found) - exact).abs() < 1e-5 * exact.abs().max(1.0),
                                "{cpu:?} {rows}×{inputs}×{outputs}: {found} for {exact}"
                            );
                        }
                    }
                }
            }
        }
    }
}
