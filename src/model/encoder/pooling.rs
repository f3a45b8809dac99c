//! The rows of a text's tokens to one row.

use std::ops::Range;

use super::settings::Pooling;
use crate::model::kernels::Matrix;

/// Shorter rows are left as they are: their direction is rounding.
const SMALLEST_LENGTH: f32 = 1e-12;

/// Writes the pooled row of the tokens `rows` to `target`. No tokens give zeros.
pub(super) fn pool(states: &Matrix, rows: Range<usize>, pooling: Pooling, target: &mut [f32]) {
    target.fill(0.0);
    let Some(first) = rows.clone().next() else { return };
    match pooling {
        Pooling::Cls => target.copy_from_slice(states.row(first)),
        Pooling::Mean => {
            let share = 1.0 / rows.len() as f32;
            for row in rows {
                target.iter_mut().zip(states.row(row)).for_each(|(sum, value)| *sum += value);
            }
            target.iter_mut().for_each(|sum| *sum *= share);
        }
        Pooling::Max => {
            target.copy_from_slice(states.row(first));
            for row in rows {
                target.iter_mut().zip(states.row(row)).for_each(|(largest, value)| *largest = largest.max(*value));
            }
        }
    }
}

/// Scales a row to length 1.
pub(super) fn to_unit_length(row: &mut [f32]) {
    let length = row.iter().map(|value| value * value).sum::<f32>().sqrt();
    if length > SMALLEST_LENGTH {
        row.iter_mut().for_each(|value| *value /= length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_of_pooling_sees_only_the_tokens_of_its_text() {
        let mut states = Matrix::new(4, 2);
        for (row, values) in [[9.0, 9.0], [1.0, -2.0], [3.0, -4.0], [9.0, 9.0]].iter().enumerate() {
            states.row_mut(row).copy_from_slice(values);
        }
        let mut target = [7.0; 2];
        for (pooling, expected) in
            [(Pooling::Mean, [2.0, -3.0]), (Pooling::Cls, [1.0, -2.0]), (Pooling::Max, [3.0, -2.0])]
        {
            pool(&states, 1..3, pooling, &mut target);
            assert_eq!(target, expected);
        }
        pool(&states, 1..1, Pooling::Mean, &mut target);
        to_unit_length(&mut target);
        assert_eq!(target, [0.0; 2]);
        let mut row = [3.0, 4.0];
        to_unit_length(&mut row);
        assert_eq!(row, [0.6, 0.8]);
    }
}
