//! Sparse matrices by rows, and the two products that training needs.
//!
//! Both products give each output row to one thread and sum in a fixed order, so results do not depend on the number
//! of threads.

use rayon::prelude::*;

/// Rows that one thread takes at a time: enough work to pay for handing it over.
const ROWS_PER_TASK: usize = 64;

/// A sparse matrix by rows. Columns rise within a row and occur once.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Sparse {
    pub(crate) width: usize,
    /// Where each row begins in `columns` and `values`; one more than there are rows.
    pub(crate) starts: Vec<usize>,
    pub(crate) columns: Vec<u32>,
    pub(crate) values: Vec<f32>,
}

impl Sparse {
    pub(crate) fn new(width: usize) -> Self {
        Sparse { width, starts: vec![0], columns: Vec::new(), values: Vec::new() }
    }

    pub(crate) fn rows(&self) -> usize {
        self.starts.len() - 1
    }

    /// Adds a row from entries in any order; entries of one column are summed.
    pub(crate) fn push(&mut self, entries: &mut [(u32, f32)]) {
        // Stable, so that equal columns are summed in the order of arrival.
        entries.sort_by_key(|&(column, _)| column);
        let begin = self.columns.len();
        for &(column, value) in entries.iter() {
            if self.columns.len() > begin && self.columns.last() == Some(&column) {
                let last = self.values.len() - 1;
                self.values[last] += value;
            } else {
                self.columns.push(column);
                self.values.push(value);
            }
        }
        self.starts.push(self.columns.len());
    }

    pub(crate) fn row(&self, row: usize) -> (&[u32], &[f32]) {
        let range = self.starts[row]..self.starts[row + 1];
        (&self.columns[range.clone()], &self.values[range])
    }

    pub(crate) fn entries(&self, row: usize) -> impl Iterator<Item = (usize, f32)> + '_ {
        let (columns, values) = self.row(row);
        columns.iter().zip(values).map(|(&column, &value)| (column as usize, value))
    }

    pub(crate) fn select(&self, rows: &[usize]) -> Sparse {
        let mut selected = Sparse::new(self.width);
        for &row in rows {
            let (columns, values) = self.row(row);
            selected.columns.extend_from_slice(columns);
            selected.values.extend_from_slice(values);
            selected.starts.push(selected.columns.len());
        }
        selected
    }

    pub(crate) fn transpose(&self) -> Sparse {
        let mut starts = vec![0; self.width + 1];
        for &column in &self.columns {
            starts[column as usize + 1] += 1;
        }
        for column in 0..self.width {
            starts[column + 1] += starts[column];
        }
        let mut next = starts.clone();
        let mut columns = vec![0; self.columns.len()];
        let mut values = vec![0.0; self.values.len()];
        for row in 0..self.rows() {
            for (column, value) in self.entries(row) {
                columns[next[column]] = row as u32;
                values[next[column]] = value;
                next[column] += 1;
            }
        }
        Sparse { width: self.rows(), starts, columns, values }
    }

    /// `self` × `dense`, where `dense` has `self.width` rows of `depth` values; gives `self.rows()` rows of `depth`.
    pub(crate) fn times(&self, dense: &[f32], depth: usize) -> Vec<f32> {
        let mut product = vec![0.0; self.rows() * depth];
        product.par_chunks_mut(depth * ROWS_PER_TASK).enumerate().for_each(|(task, rows)| {
            for (at, sums) in rows.chunks_mut(depth).enumerate() {
                for (column, value) in self.entries(task * ROWS_PER_TASK + at) {
                    add_scaled(sums, &dense[column * depth..(column + 1) * depth], value);
                }
            }
        });
        product
    }
}

/// `sums += row * factor`.
#[inline]
pub(crate) fn add_scaled(sums: &mut [f32], row: &[f32], factor: f32) {
    for (sum, &value) in sums.iter_mut().zip(row) {
        *sum += value * factor;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> Sparse {
        let mut matrix = Sparse::new(3);
        matrix.push(&mut [(2, 1.0), (0, 2.0), (2, 0.5)]);
        matrix.push(&mut []);
        matrix.push(&mut [(1, -1.0)]);
        matrix
    }

    #[test]
    fn rows_are_sorted_and_summed() {
        let matrix = small();
        assert_eq!(matrix.row(0), (&[0, 2][..], &[2.0, 1.5][..]));
        assert_eq!(matrix.row(1), (&[][..], &[][..]));
        assert_eq!(matrix.select(&[2, 0]).row(1), matrix.row(0));
    }

    #[test]
    fn products_are_those_of_the_dense_matrices() {
        let dense = [1.0, 10.0, 2.0, 20.0, 3.0, 30.0];
        assert_eq!(small().times(&dense, 2), [6.5, 65.0, 0.0, 0.0, -2.0, -20.0]);
        assert_eq!(small().transpose().times(&dense, 2), [2.0, 20.0, -3.0, -30.0, 1.5, 15.0]);
    }

    #[test]
    fn transposing_twice_changes_nothing() {
        assert_eq!(small().transpose().transpose(), small());
    }
}
