//! The innermost loops of f32 products: a few rows times one panel of 32 columns, with the sums in registers.

use super::cpu::{Cpu, Vectors};
use super::functions::{PORTABLE_FUSED, multiply_add};
use super::grid::PANEL;

/// One tile of output: `output[r][c] = bias[c] + Σₖ input[r][k] panel[k][c]`, for 32 columns.
#[derive(Debug, Clone, Copy)]
pub(super) struct DenseTile {
    /// Rows of `depth` numbers.
    pub(super) input: *const f32,
    pub(super) input_stride: usize,
    pub(super) depth: usize,
    /// `depth` × 32 numbers, on a cache line.
    pub(super) panel: *const f32,
    /// 32 numbers.
    pub(super) bias: *const f32,
    /// Rows of 32 numbers.
    pub(super) output: *mut f32,
    pub(super) output_stride: usize,
}

/// Rows that a tile has at most. More do not fit the registers; fewer load every panel more often.
pub(super) fn max_rows(cpu: Cpu) -> usize {
    match cpu.vectors() {
        Vectors::Portable => 4,
        #[cfg(target_arch = "x86_64")]
        Vectors::Avx2 => 6,
        #[cfg(target_arch = "x86_64")]
        Vectors::Avx512 => 14,
    }
}

/// Instantiates a tile for every number of rows.
macro_rules! for_rows {
    ($rows:expr, [$($count:literal)*], $compute:ident($tile:expr)) => {
        match $rows {
            $($count => $compute::<$count>($tile),)*
            rows => unreachable!("a tile of {rows} rows"),
        }
    };
}
pub(super) use for_rows;

/// # Safety
/// The pointers of `tile` are valid for what its fields say, with `rows` rows; nobody else uses the output meanwhile.
#[inline]
pub(super) unsafe fn compute(cpu: Cpu, rows: usize, tile: DenseTile) {
    // SAFETY: the pointers are valid by contract; a `Cpu` names only instructions that the processor has.
    unsafe {
        match cpu.vectors() {
            Vectors::Portable => for_rows!(rows, [1 2 3 4], portable(tile)),
            #[cfg(target_arch = "x86_64")]
            Vectors::Avx2 => for_rows!(rows, [1 2 3 4 5 6], avx2(tile)),
            #[cfg(target_arch = "x86_64")]
            Vectors::Avx512 => for_rows!(rows, [1 2 3 4 5 6 7 8 9 10 11 12 13 14], avx512(tile)),
        }
    }
}

/// # Safety
/// As `compute`.
unsafe fn portable<const ROWS: usize>(tile: DenseTile) {
    const HALF: usize = PANEL / 2;
    for half in [0, HALF] {
        // SAFETY: 32 biases, `depth` × 32 numbers of panel, and `ROWS` rows of input and output are there by contract.
        unsafe {
            let bias = tile.bias.add(half).cast::<[f32; HALF]>().read();
            let mut sums = [bias; ROWS];
            for k in 0..tile.depth {
                let column: &[f32; HALF] = &*tile.panel.add(k * PANEL + half).cast();
                for (row, sums) in sums.iter_mut().enumerate() {
                    let value = *tile.input.add(row * tile.input_stride + k);
                    for (sum, weight) in sums.iter_mut().zip(column) {
                        *sum = multiply_add::<PORTABLE_FUSED>(value, *weight, *sum);
                    }
                }
            }
            for (row, sums) in sums.into_iter().enumerate() {
                tile.output.add(row * tile.output_stride + half).cast::<[f32; HALF]>().write(sums);
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
/// # Safety
/// As `compute`; the processor has AVX2 and FMA.
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2<const ROWS: usize>(tile: DenseTile) {
    use std::arch::x86_64::*;

    const HALF: usize = PANEL / 2;
    for half in [0, HALF] {
        // SAFETY: as in `portable`.
        unsafe {
            let bias = [_mm256_loadu_ps(tile.bias.add(half)), _mm256_loadu_ps(tile.bias.add(half + 8))];
            let mut sums = [bias; ROWS];
            for k in 0..tile.depth {
                let column = tile.panel.add(k * PANEL + half);
                let weights = [_mm256_load_ps(column), _mm256_load_ps(column.add(8))];
                for (row, sums) in sums.iter_mut().enumerate() {
                    let value = _mm256_broadcast_ss(&*tile.input.add(row * tile.input_stride + k));
                    sums[0] = _mm256_fmadd_ps(value, weights[0], sums[0]);
                    sums[1] = _mm256_fmadd_ps(value, weights[1], sums[1]);
                }
            }
            for (row, sums) in sums.into_iter().enumerate() {
                let output = tile.output.add(row * tile.output_stride + half);
                _mm256_storeu_ps(output, sums[0]);
                _mm256_storeu_ps(output.add(8), sums[1]);
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
/// # Safety
/// As `compute`; the processor has AVX-512 F.
#[target_feature(enable = "avx512f")]
unsafe fn avx512<const ROWS: usize>(tile: DenseTile) {
    use std::arch::x86_64::*;

    /// How far ahead of use weights are called into the cache. Shorter: they come late; longer: they are gone again.
    const AHEAD: usize = 24 * PANEL;
    // SAFETY: 32 biases, `depth` × 32 numbers of panel on a cache line, and `ROWS` rows of input and output are there by
    // contract. A prefetch may name any address; `wrapping_add` computes one without claiming that it is inside.
    unsafe {
        let bias = [_mm512_loadu_ps(tile.bias), _mm512_loadu_ps(tile.bias.add(16))];
        let mut sums = [bias; ROWS];
        for k in 0..tile.depth {
            let column = tile.panel.add(k * PANEL);
            let weights = [_mm512_load_ps(column), _mm512_load_ps(column.add(16))];
            _mm_prefetch::<_MM_HINT_T0>(column.wrapping_add(AHEAD).cast());
            _mm_prefetch::<_MM_HINT_T0>(column.wrapping_add(AHEAD + 16).cast());
            for (row, sums) in sums.iter_mut().enumerate() {
                let value = _mm512_set1_ps(*tile.input.add(row * tile.input_stride + k));
                sums[0] = _mm512_fmadd_ps(value, weights[0], sums[0]);
                sums[1] = _mm512_fmadd_ps(value, weights[1], sums[1]);
            }
        }
        for (row, sums) in sums.into_iter().enumerate() {
            let output = tile.output.add(row * tile.output_stride);
            _mm512_storeu_ps(output, sums[0]);
            _mm512_storeu_ps(output.add(16), sums[1]);
        }
    }
}
