//! Memory on cache-line boundaries, where no vector load crosses two lines.

use std::fmt;
use std::ops::{Deref, DerefMut};

/// Bytes of a cache line and of the widest vector.
pub(crate) const LINE_BYTES: usize = 64;

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; LINE_BYTES]);

/// Numbers that any pattern of bits is a valid value of.
///
/// # Safety
/// The type has no invalid patterns, no padding, and its size divides `LINE_BYTES`.
pub(crate) unsafe trait Plain: Copy + Default + Send + Sync + 'static {}
// SAFETY: a primitive number of 4 bytes.
unsafe impl Plain for f32 {}
// SAFETY: a primitive number of 4 bytes.
unsafe impl Plain for i32 {}
// SAFETY: a primitive number of 1 byte.
unsafe impl Plain for i8 {}
// SAFETY: a primitive number of 1 byte.
unsafe impl Plain for u8 {}

/// A slice that begins on a cache line.
pub(crate) struct Aligned<T> {
    lines: Vec<Line>,
    len: usize,
    kind: std::marker::PhantomData<T>,
}

impl<T: Plain> Aligned<T> {
    pub(crate) fn zeroed(len: usize) -> Self {
        let mut buffer = Aligned { lines: Vec::new(), len: 0, kind: std::marker::PhantomData };
        buffer.grow_to(len);
        buffer
    }

    /// At least `len` numbers from now on. What is in them is left from before.
    pub(crate) fn grow_to(&mut self, len: usize) {
        if len > self.len {
            let lines = (len * size_of::<T>()).div_ceil(LINE_BYTES);
            self.lines.resize(lines, Line([0; LINE_BYTES]));
            self.len = len;
        }
    }
}

impl<T: Plain> Default for Aligned<T> {
    fn default() -> Self {
        Aligned::zeroed(0)
    }
}

impl<T: Plain> Deref for Aligned<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: `lines` holds at least `len` numbers of `T`, initialised, on a boundary of 64 bytes; any bits are a
        // valid `T` by the contract of `Plain`.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }
}

impl<T: Plain> DerefMut for Aligned<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`; the borrow of `self` is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }
}

impl<T> fmt::Debug for Aligned<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Aligned").field("len", &self.len).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn begins_on_a_line_and_keeps_its_content_when_growing() {
        let mut buffer = Aligned::<f32>::zeroed(3);
        buffer[2] = 7.0;
        buffer.grow_to(1000);
        assert_eq!((buffer.len(), buffer[2], buffer[999]), (1000, 7.0, 0.0));
        assert_eq!(buffer.as_ptr() as usize % LINE_BYTES, 0);
        assert!(Aligned::<u8>::zeroed(0).is_empty());
    }
}
