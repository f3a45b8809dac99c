//! What is done to whole rows: normalisation of a layer, softmax, and quantisation.

use super::Engine;
use super::functions::{ROUNDER, at_least, at_most, exp, for_all_vectors, multiply_add};
use super::grid::{Matrix, Shared};
use super::quantised::{QuantisedRows, Step};

/// Sums are kept in this many lanes, so that vectors of any width can add to them.
const LANES: usize = 32;

/// A row whose values differ by less counts as constant: their quotients would leave the finite numbers.
const SMALLEST_RANGE: f32 = 1e-30;

/// Layer normalisation: gain, shift and the number that keeps the root from zero.
#[derive(Debug)]
pub(crate) struct Norm {
    pub(crate) gain: Vec<f32>,
    pub(crate) shift: Vec<f32>,
    pub(crate) epsilon: f32,
}

/// `values = norm(values)`, row by row.
pub(crate) fn normalise(engine: Engine<'_>, values: &mut Matrix, norm: &Norm) {
    values.for_each_share(engine.team, |_, rows| {
        rows.into_rows().for_each(|row| normalise_row(engine.cpu, row, norm));
    });
}

/// `values = norm(values + added)`, row by row.
pub(crate) fn add_normalise(engine: Engine<'_>, values: &mut Matrix, added: &Matrix, norm: &Norm) {
    assert_eq!((values.rows(), values.width()), (added.rows(), added.width()), "shape of what is added");
    values.for_each_share(engine.team, |share, rows| {
        for (number, row) in share.zip(rows.into_rows()) {
            add_normalise_row(engine.cpu, row, added.row(number), norm);
        }
    });
}

/// Rounds every row to bytes, with a scale and zero point of its own.
pub(crate) fn quantise(engine: Engine<'_>, values: &Matrix, quantised: &mut QuantisedRows) {
    quantised.reshape(values.rows(), values.width());
    let steps = Shared::new(&mut quantised.steps);
    quantised.bytes.for_each_share(engine.team, |share, rows| {
        // SAFETY: shares do not overlap, so no two threads write the same steps.
        let steps = unsafe { steps.slice(share.start, share.len()) };
        for ((number, row), step) in share.zip(rows.into_rows()).zip(steps) {
            quantise_row(engine.cpu, values.row(number), row, step);
        }
    });
}

for_all_vectors! {
    fn add_normalise_row(values: &mut [f32], added: &[f32], norm: &Norm) = add_normalise_row_body;
    fn normalise_row(values: &mut [f32], norm: &Norm) = normalise_row_body;
    fn quantise_row(values: &[f32], bytes: &mut [u8], step: &mut Step) = quantise_row_body;
    /// Turns the `count` scores of each row into e^(score − largest score) and leaves one over their sum in
    /// `inverse_sums`. What follows in a row, up to a multiple of 32, is overwritten.
    pub(super) fn softmax_rows(
        scores: &mut [f32],
        stride: usize,
        count: usize,
        inverse_sums: &mut [f32],
    ) = softmax_rows_body;
    /// `target = source × factor`.
    pub(super) fn scale_row(target: &mut [f32], source: &[f32], factor: f32) = scale_row_body;
}

#[inline(always)]
fn add_normalise_row_body<const FUSED: bool>(values: &mut [f32], added: &[f32], norm: &Norm) {
    for (value, added) in values.iter_mut().zip(added) {
        *value += added;
    }
    normalise_row_body::<FUSED>(values, norm);
}

#[inline(always)]
fn scale_row_body<const FUSED: bool>(target: &mut [f32], source: &[f32], factor: f32) {
    for (target, source) in target.iter_mut().zip(source) {
        *target = source * factor;
    }
}

/// Combines all values from `start` on, lane by lane, then the lanes. `neutral` changes nothing that it is combined with.
#[inline(always)]
fn fold(
    values: &[f32],
    start: f32,
    neutral: f32,
    combine: impl Fn(f32, f32) -> f32,
    join: impl Fn(f32, f32) -> f32,
) -> f32 {
    let mut lanes = [start; LANES];
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane = combine(*lane, *value);
        }
    }
    if !rest.is_empty() {
        // Whole vectors to the end: lanes that are reached by a number not known beforehand leave the registers.
        let mut last = [neutral; LANES];
        last[..rest.len()].copy_from_slice(rest);
        for (lane, value) in lanes.iter_mut().zip(&last) {
            *lane = combine(*lane, *value);
        }
    }
    join_lanes(lanes, join)
}

#[inline(always)]
fn join_lanes(lanes: [f32; LANES], join: impl Fn(f32, f32) -> f32) -> f32 {
    let sixteen: [f32; 16] = std::array::from_fn(|lane| join(lanes[lane], lanes[lane + 16]));
    let eight: [f32; 8] = std::array::from_fn(|lane| join(sixteen[lane], sixteen[lane + 8]));
    let four: [f32; 4] = std::array::from_fn(|lane| join(eight[lane], eight[lane + 4]));
    join(join(four[0], four[2]), join(four[1], four[3]))
}

#[inline(always)]
fn sum(a: f32, b: f32) -> f32 {
    a + b
}

#[inline(always)]
fn normalise_row_body<const FUSED: bool>(values: &mut [f32], norm: &Norm) {
    let count = values.len() as f32;
    let mean = fold(values, 0.0, 0.0, sum, sum) / count;
    let square = |total, value: f32| multiply_add::<FUSED>(value - mean, value - mean, total);
    let variance = fold(values, 0.0, mean, square, sum) / count;
    let factor = 1.0 / (variance + norm.epsilon).sqrt();
    for ((value, gain), shift) in values.iter_mut().zip(&norm.gain).zip(&norm.shift) {
        *value = multiply_add::<FUSED>((*value - mean) * factor, *gain, *shift);
    }
}

#[inline(always)]
fn softmax_rows_body<const FUSED: bool>(scores: &mut [f32], stride: usize, count: usize, inverse_sums: &mut [f32]) {
    for (row, inverse_sum) in scores.chunks_mut(stride).zip(inverse_sums) {
        let padded = count.next_multiple_of(LANES);
        // So small that nothing is added to the sum.
        row[count..padded].fill(f32::MIN);
        let (chunks, _) = row[..padded].as_chunks_mut::<LANES>();
        let mut lanes = [f32::MIN; LANES];
        for chunk in &*chunks {
            for (lane, score) in lanes.iter_mut().zip(chunk) {
                *lane = at_least(*lane, *score);
            }
        }
        let largest = join_lanes(lanes, at_least);
        let mut lanes = [0.0; LANES];
        for chunk in chunks {
            for (lane, score) in lanes.iter_mut().zip(chunk) {
                *score = exp::<FUSED>(*score - largest);
                *lane += *score;
            }
        }
        *inverse_sum = 1.0 / join_lanes(lanes, sum);
    }
}

#[inline(always)]
fn quantise_row_body<const FUSED: bool>(values: &[f32], bytes: &mut [u8], step: &mut Step) {
    // Zero itself must be a multiple of the scale, so the range includes it.
    let smallest = fold(values, 0.0, 0.0, at_most, at_most);
    let largest = fold(values, 0.0, 0.0, at_least, at_least);
    let range = at_least(largest - smallest, SMALLEST_RANGE);
    let inverse = 255.0 / range;
    let zero = -smallest * inverse + ROUNDER - ROUNDER;
    // Multiplied and added apart on every processor: all paths must give the same bytes.
    for (byte, value) in bytes.iter_mut().zip(values) {
        let rounded = at_most(at_least(*value * inverse + zero, 0.0), 255.0) + ROUNDER;
        *byte = rounded.to_bits() as u8;
    }
    *step = Step { scale: range / 255.0, zero: zero as i32 };
}

#[cfg(test)]
mod tests {
    use super::super::Team;
    use super::super::functions::tests::cpus;
    use super::*;

    fn values(count: usize) -> Vec<f32> {
        (0..count).map(|at| ((at * 37 % 101) as f32 - 40.0) / 13.0).collect()
    }

    #[test]
    fn normalised_rows_have_the_gain_and_shift_of_the_layer() {
        for cpu in cpus() {
            for width in [1, 31, 32, 100, 384] {
                let norm = Norm { gain: vec![2.0; width], shift: vec![1.0; width], epsilon: 1e-12 };
                let mut matrix = Matrix::new(3, width);
                let mut added = Matrix::new(3, width);
                for row in 0..3 {
                    matrix.row_mut(row).copy_from_slice(&values(width));
                    added.row_mut(row).fill(row as f32);
                }
                add_normalise(Engine { cpu, team: &Team::solo() }, &mut matrix, &added, &norm);
                let exact: Vec<f64> = values(width).into_iter().map(f64::from).collect();
                let mean = exact.iter().sum::<f64>() / width as f64;
                let deviation = (exact.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / width as f64).sqrt();
                for row in 0..3 {
                    for (found, x) in matrix.row(row).iter().zip(&exact) {
                        let exact = if width > 1 { (x - mean) / deviation * 2.0 + 1.0 } else { 1.0 };
                        assert!((f64::from(*found) - exact).abs() < 1e-5, "{cpu:?} {width}: {found} for {exact}");
                    }
                }
            }
        }
    }

    #[test]
    fn softmax_sums_to_one() {
        for cpu in cpus() {
            for count in [1, 5, 16, 33, 200] {
                let mut scores = Matrix::new(2, count);
                (0..2).for_each(|row| scores.row_mut(row).copy_from_slice(&values(count)));
                let mut inverse = [0.0; 2];
                let stride = scores.stride();
                softmax_rows(cpu, scores.memory_mut(), stride, count, &mut inverse);
                let total: f64 = values(count).into_iter().map(|x| f64::from(x).exp()).sum();
                for (row, inverse) in inverse.into_iter().enumerate() {
                    for (found, x) in scores.row(row).iter().zip(values(count)) {
                        assert!((f64::from(found * inverse) - f64::from(x).exp() / total).abs() < 1e-6);
                    }
                }
            }
        }
    }

    #[test]
    fn all_paths_round_to_the_same_bytes() {
        for width in [1, 33, 384] {
            for factor in [0.0, 1e-30, 1.0, -3.0, 1e30] {
                let mut matrix = Matrix::new(1, width);
                values(width).iter().zip(matrix.row_mut(0)).for_each(|(from, to)| *to = from * factor);
                let mut results = Vec::new();
                for cpu in cpus() {
                    let mut quantised = QuantisedRows::default();
                    quantise(Engine { cpu, team: &Team::solo() }, &matrix, &mut quantised);
                    let (bytes, step) = quantised.row(0);
                    for (byte, value) in bytes.iter().zip(matrix.row(0)) {
                        let back = (i32::from(*byte) - step.zero) as f32 * step.scale;
                        assert!((back - value).abs() <= step.scale * 0.501, "{cpu:?} {factor}: {back} for {value}");
                    }
                    results.push((bytes.to_vec(), step));
                }
                assert!(results.iter().all(|result| *result == results[0]));
            }
        }
    }
}
