//! Matrices by rows, and how their parts are handed to the threads of a team.

use std::marker::PhantomData;
use std::ops::Range;

use super::buffer::{Aligned, LINE_BYTES, Plain};
use super::team::Team;

/// Columns that a tile computes at once. Rows are long enough to write whole tiles.
pub(super) const PANEL: usize = 32;

/// Rows of memory are rounded up to this, because the tile instructions work on as many.
pub(super) const ROW_BLOCK: usize = 16;

/// Elements that are worth a step of their own for each thread; smaller: threads meet more often than they work.
const ELEMENTS_PER_PART: usize = 16 * 1024;

/// Rows of `width` numbers, each row on a cache line of its own.
#[derive(Debug, Default)]
pub(crate) struct Matrix<T: Plain = f32> {
    data: Aligned<T>,
    rows: usize,
    width: usize,
    stride: usize,
}

impl<T: Plain> Matrix<T> {
    #[cfg(test)]
    pub(crate) fn new(rows: usize, width: usize) -> Self {
        let mut matrix = Matrix::default();
        matrix.reshape(rows, width);
        matrix
    }

    /// Gives the matrix another size. Its content is whatever the memory held.
    pub(crate) fn reshape(&mut self, rows: usize, width: usize) {
        let line = LINE_BYTES / size_of::<T>();
        // An odd number of lines: rows with a power of two between them would share the same few places of the cache.
        let lines = width.next_multiple_of(PANEL.max(line)) / line;
        self.stride = (lines | 1) * line;
        self.rows = rows;
        self.width = width;
        self.data.grow_to(rows.next_multiple_of(ROW_BLOCK) * self.stride);
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn width(&self) -> usize {
        self.width
    }

    /// Numbers from one row to the next.
    pub(super) fn stride(&self) -> usize {
        self.stride
    }

    pub(crate) fn row(&self, row: usize) -> &[T] {
        debug_assert!(row < self.rows);
        &self.data[row * self.stride..][..self.width]
    }

    pub(crate) fn row_mut(&mut self, row: usize) -> &mut [T] {
        debug_assert!(row < self.rows);
        &mut self.data[row * self.stride..][..self.width]
    }

    /// All memory, with what lies between the rows and up to a whole number of blocks of rows.
    pub(super) fn memory(&self) -> &[T] {
        &self.data
    }

    pub(super) fn memory_mut(&mut self) -> &mut [T] {
        &mut self.data
    }

    /// Hands the rows out in contiguous shares: `work` gets the number of the first row and a way to the rows.
    pub(crate) fn for_each_share(&mut self, team: &Team, work: impl Fn(Range<usize>, RowsMut<'_, T>) + Sync) {
        let parts = parts(team, self.rows, self.rows * self.width / ELEMENTS_PER_PART);
        let (rows, width, stride) = (self.rows, self.width, self.stride);
        let memory = Shared::new(&mut self.data);
        team.for_each(parts, |part| {
            let share = share(rows, parts, part);
            // SAFETY: shares do not overlap, so no two threads get the same rows; the memory has `rows` rows and stays
            // borrowed until all parts are done.
            let data = unsafe { memory.slice(share.start * stride, share.len() * stride) };
            work(share, RowsMut { data, width, stride });
        });
    }
}

/// Some rows of a matrix that one thread may write.
pub(crate) struct RowsMut<'a, T> {
    data: &'a mut [T],
    width: usize,
    stride: usize,
}

impl<'a, T> RowsMut<'a, T> {
    pub(crate) fn into_rows(self) -> impl Iterator<Item = &'a mut [T]> {
        self.data.chunks_mut(self.stride).map(move |row| &mut row[..self.width])
    }
}

/// A mutable slice whose parts go to different threads.
#[derive(Clone, Copy)]
pub(super) struct Shared<'a, T> {
    start: *mut T,
    len: usize,
    kind: PhantomData<&'a mut [T]>,
}

// SAFETY: it only gives pointers; whoever uses them promises that threads use different elements, which is as good as
// sending each its own.
unsafe impl<T: Send> Send for Shared<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    pub(super) fn new(slice: &'a mut [T]) -> Self {
        Shared { start: slice.as_mut_ptr(), len: slice.len(), kind: PhantomData }
    }

    /// # Panics
    /// When the elements are not all there.
    pub(super) fn pointer(self, from: usize, len: usize) -> *mut T {
        assert!(from <= self.len && len <= self.len - from, "{from} + {len} of {}", self.len);
        // SAFETY: `from` lies within the slice or at its end.
        unsafe { self.start.add(from) }
    }

    /// # Safety
    /// Nobody else reads or writes these elements while the slice lives.
    pub(super) unsafe fn slice(self, from: usize, len: usize) -> &'a mut [T] {
        // SAFETY: `pointer` checked that the elements are there; nobody else uses them, by contract.
        unsafe { std::slice::from_raw_parts_mut(self.pointer(from, len), len) }
    }
}

/// How many parts to make of `units`: enough that a slow thread can leave some to the others, at most `worth`.
pub(super) fn parts(team: &Team, units: usize, worth: usize) -> usize {
    let wanted = if team.threads() == 1 { 1 } else { team.threads() * 4 };
    wanted.min(units).min(worth.max(1)).max(1)
}

/// The units of one of `parts` nearly equal parts.
pub(super) fn share(units: usize, parts: usize, part: usize) -> Range<usize> {
    units * part / parts..units * (part + 1) / parts
}

#[cfg(test)]
mod tests {
    use super::super::team::with_team;
    use super::*;

    #[test]
    fn rows_lie_on_lines_and_hold_what_is_written() {
        let mut matrix = Matrix::<f32>::new(300, 100);
        with_team(3, |team| {
            matrix.for_each_share(team, |share, rows| {
                for (number, row) in share.zip(rows.into_rows()) {
                    assert_eq!(row.as_ptr() as usize % LINE_BYTES, 0);
                    row.fill(number as f32);
                }
            });
        });
        assert!((0..300).all(|number| matrix.row(number) == [number as f32; 100]));
        assert_eq!(Matrix::<u8>::new(1, 384).stride() / 64 % 2, 1);
    }

    #[test]
    fn shares_cover_all_units_once() {
        for (units, parts) in [(0, 1), (7, 3), (12, 8), (5, 5)] {
            let all: Vec<usize> = (0..parts).flat_map(|part| share(units, parts, part)).collect();
            assert_eq!(all, (0..units).collect::<Vec<_>>());
        }
    }
}
