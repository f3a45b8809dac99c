//! Attention within each sequence of a batch.
//!
//! Arrives: queries, keys and values of all tokens, side by side in one row a token. Sequences only meet themselves, so
//! there is no padding and no mask. For each sequence and head, keys and values are copied into panels as weights are;
//! then blocks of queries go through both products and the softmax while they are in the innermost cache.

use std::cell::RefCell;
use std::ops::Range;

use super::Engine;
use super::buffer::Aligned;
use super::dense_tiles::{self, DenseTile};
use super::grid::{self, Matrix, PANEL, Shared};
use super::rows::{scale_row, softmax_rows};

/// Products that a softmax step of scores needs; queries arrive scaled by one over the root of `head_size`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attention {
    pub(crate) heads: usize,
    pub(crate) head_size: usize,
}

/// Sequences × heads × tokens that are worth a step of their own; smaller: threads meet more often than they work.
const TOKENS_PER_PART: usize = 32;

static ZEROS: [f32; PANEL] = [0.0; PANEL];

/// A thread's working memory.
#[derive(Default)]
struct Scratch {
    /// Panels of 32 keys: for each place in the head 32 numbers.
    keys: Aligned<f32>,
    /// Panels of 32 places in the head: for each key 32 numbers.
    values: Aligned<f32>,
    scores: Matrix,
    mixed: Matrix,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// `output` gets, for each token, the values of its sequence mixed by its attention.
///
/// # Panics
/// When `projected` has another width than three times the heads, or a sequence leaves its rows.
pub(crate) fn attend(
    engine: Engine<'_>,
    attention: Attention,
    projected: &Matrix,
    sequences: &[Range<usize>],
    output: &mut Matrix,
) {
    let Attention { heads, head_size } = attention;
    let width = heads * head_size;
    assert_eq!(projected.width(), 3 * width, "queries, keys and values");
    assert!(sequences.is_sorted_by(|a, b| a.end <= b.start), "sequences follow each other");
    assert!(sequences.last().is_none_or(|last| last.end <= projected.rows()), "sequences lie inside");
    output.reshape(projected.rows(), width);
    let stride = output.stride();
    let memory = Shared::new(output.memory_mut());
    let units = sequences.len() * heads;
    let parts = grid::parts(engine.team, units, projected.rows() * heads / TOKENS_PER_PART);
    engine.team.for_each(parts, |part| {
        SCRATCH.with_borrow_mut(|scratch| {
            for unit in grid::share(units, parts, part) {
                let (sequence, head) = (&sequences[unit / heads], unit % heads);
                let column = head * head_size;
                scratch.copy(projected, sequence.clone(), width + column, 2 * width + column, head_size);
                scratch.mix(engine, projected, sequence.clone(), column, head_size, |row, factor, mixed| {
                    // SAFETY: rows of one sequence and columns of one head belong to one unit, so to one thread.
                    let target = unsafe { memory.slice(row * stride + column, head_size) };
                    scale_row(engine.cpu, target, mixed, factor);
                });
            }
        });
    });
}

impl Scratch {
    /// Copies keys and values of one head into panels.
    fn copy(&mut self, projected: &Matrix, rows: Range<usize>, keys: usize, values: usize, size: usize) {
        let count = rows.len();
        let padded = size.next_multiple_of(PANEL);
        self.keys.grow_to(count.next_multiple_of(PANEL) * size);
        self.values.grow_to(count * padded);
        for (at, row) in rows.enumerate() {
            let row = projected.row(row);
            let panel = &mut self.keys[at / PANEL * PANEL * size + at % PANEL..];
            for (place, &key) in row[keys..keys + size].iter().enumerate() {
                panel[place * PANEL] = key;
            }
            for (panel, part) in row[values..values + size].chunks(PANEL).enumerate() {
                self.values[panel * PANEL * count + at * PANEL..][..part.len()].copy_from_slice(part);
            }
        }
    }

    /// Calls `finish` for every query with its row, one over the sum of its weights, and the weighted sum of values.
    fn mix(
        &mut self,
        engine: Engine<'_>,
        projected: &Matrix,
        rows: Range<usize>,
        queries: usize,
        size: usize,
        finish: impl Fn(usize, f32, &[f32]),
    ) {
        let count = rows.len();
        let max_rows = dense_tiles::max_rows(engine.cpu);
        let blocks = count.div_ceil(max_rows);
        self.scores.reshape(max_rows, count);
        self.mixed.reshape(max_rows, size);
        let (scores_stride, mixed_stride) = (self.scores.stride(), self.mixed.stride());
        for block in 0..blocks {
            let block = grid::share(count, blocks, block);
            let first = rows.start + block.start;
            for panel in 0..count.div_ceil(PANEL) {
                let tile = DenseTile {
                    input: projected.memory()[first * projected.stride() + queries..].as_ptr(),
                    input_stride: projected.stride(),
                    depth: size,
                    panel: self.keys[panel * PANEL * size..][..PANEL * size].as_ptr(),
                    bias: ZEROS.as_ptr(),
                    output: self.scores.memory_mut()[panel * PANEL..].as_mut_ptr(),
                    output_stride: scores_stride,
                };
                // SAFETY: the rows of the block are rows of `projected`, each with `size` numbers at `queries`; the
                // panel is whole; `scores` has `max_rows` rows of whole panels and belongs to this thread.
                unsafe { dense_tiles::compute(engine.cpu, block.len(), tile) };
            }
            let mut factors = [0.0; MAX_BLOCK];
            softmax_rows(engine.cpu, self.scores.memory_mut(), scores_stride, count, &mut factors[..block.len()]);
            for panel in 0..size.div_ceil(PANEL) {
                let tile = DenseTile {
                    input: self.scores.memory().as_ptr(),
                    input_stride: scores_stride,
                    depth: count,
                    panel: self.values[panel * PANEL * count..][..PANEL * count].as_ptr(),
                    bias: ZEROS.as_ptr(),
                    output: self.mixed.memory_mut()[panel * PANEL..].as_mut_ptr(),
                    output_stride: mixed_stride,
                };
                // SAFETY: `scores` has `max_rows` rows of `count` numbers; the panel is whole; `mixed` has `max_rows` rows
                // of whole panels and belongs to this thread.
                unsafe { dense_tiles::compute(engine.cpu, block.len(), tile) };
            }
            for (row, factor) in factors[..block.len()].iter().enumerate() {
                finish(first + row, *factor, self.mixed.row(row));
            }
        }
    }
}

/// No tile has more rows.
const MAX_BLOCK: usize = 16;

#[cfg(test)]
mod tests {
    use super::super::functions::tests::cpus;
    use super::super::team::with_team;
    use super::*;

    fn exact(projected: &Matrix, rows: Range<usize>, token: usize, head: usize, attention: Attention) -> Vec<f64> {
        let Attention { heads, head_size } = attention;
        let part = |row: usize, kind: usize| {
            let from = (kind * heads + head) * head_size;
            projected.row(row)[from..from + head_size].iter().map(|x| f64::from(*x))
        };
        let weights: Vec<f64> =
            rows.clone().map(|key| part(token, 0).zip(part(key, 1)).map(|(a, b)| a * b).sum::<f64>().exp()).collect();
        let mut mixed = vec![0.0; head_size];
        for (weight, row) in weights.iter().zip(rows) {
            mixed.iter_mut().zip(part(row, 2)).for_each(|(sum, value)| *sum += weight * value);
        }
        mixed.into_iter().map(|sum| sum / weights.iter().sum::<f64>()).collect()
    }

    #[test]
    fn every_path_mixes_each_sequence_alone() {
        for (heads, head_size) in [(2, 32), (3, 8), (1, 64), (2, 40)] {
            let attention = Attention { heads, head_size };
            let sequences = [0..1, 1..18, 18..83, 83..85];
            let mut projected = Matrix::new(85, 3 * heads * head_size);
            for row in 0..85 {
                for (column, value) in projected.row_mut(row).iter_mut().enumerate() {
                    *value = ((row * 7919 + column * 104_729) % 2003) as f32 / 2003.0 - 0.5;
                }
            }
            for cpu in cpus() {
                for threads in [1, 3] {
                    let mut output = Matrix::default();
                    with_team(threads, |team| {
                        attend(Engine { cpu, team }, attention, &projected, &sequences, &mut output)
                    });
                    for rows in &sequences {
                        for (token, head) in rows.clone().flat_map(|token| (0..heads).map(move |head| (token, head))) {
                            let exact = exact(&projected, rows.clone(), token, head, attention);
                            for (found, exact) in output.row(token)[head * head_size..].iter().zip(exact) {
                                assert!((f64::from(*found) - exact).abs() < 1e-5, "{cpu:?}: {found} for {exact}");
                            }
                        }
                    }
                }
            }
        }
    }
}
