//! The innermost loops of int8 products: a few rows times one panel of 32 columns, with the sums in registers.

use std::ops::Range;

use super::cpu::{Cpu, InstructionSet};
use super::dense_tiles::for_rows;
use super::grid::{self, PANEL};
use super::quantised::{QUAD, Step};

#[cfg(target_arch = "x86_64")]
use self::x86::{avx_vnni, avx2, avx512_vnni};
#[cfg(target_arch = "x86_64")]
use super::amx;

/// One tile of output: `output[r][c] = bias[c] + steps[r].scale scales[c] (Σₖ input[r][k] panel[k][c] − steps[r].zero
/// sums[c])`, for 32 columns.
#[derive(Debug, Clone, Copy)]
pub(super) struct QuantisedTile {
    /// Rows of `depth` bytes.
    pub(super) input: *const u8,
    pub(super) input_stride: usize,
    /// A multiple of 64.
    pub(super) depth: usize,
    /// `depth` / 4 × 32 × 4 bytes, on a cache line.
    pub(super) panel: *const i8,
    /// One for each row.
    pub(super) steps: *const Step,
    /// 32 numbers, as `sums` and `bias`.
    pub(super) scales: *const f32,
    pub(super) sums: *const i32,
    pub(super) bias: *const f32,
    /// Rows of 32 numbers.
    pub(super) output: *mut f32,
    pub(super) output_stride: usize,
}

/// A thread's work on tiles; while it lasts, the processor's tile registers are set up.
#[derive(Debug)]
pub(super) struct Session {
    cpu: Cpu,
    #[cfg(target_arch = "x86_64")]
    registers: Option<amx::Registers>,
}

impl Session {
    pub(super) fn begin(cpu: Cpu) -> Session {
        Session {
            cpu,
            #[cfg(target_arch = "x86_64")]
            registers: amx::Registers::configure(cpu),
        }
    }

    fn max_rows(&self) -> usize {
        match self.cpu.instruction_set() {
            InstructionSet::Portable => 4,
            InstructionSet::Avx2 | InstructionSet::Avx512 => 3,
            InstructionSet::AvxVnni => 6,
            InstructionSet::Avx512Vnni => 14,
            InstructionSet::Amx => 32,
        }
    }

    /// The rows of each tile.
    pub(super) fn blocks(&self, rows: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        let max_rows = self.max_rows();
        let tiles = self.cpu.instruction_set() == InstructionSet::Amx;
        let blocks = rows.div_ceil(max_rows);
        (0..blocks).map(move |block| match tiles {
            // Tile instructions read whole blocks of rows, so these begin where memory is padded to.
            true => block * max_rows..rows.min((block + 1) * max_rows),
            false => grid::share(rows, blocks, block),
        })
    }

    /// # Safety
    /// The pointers of `tile` are valid for what its fields say, with `rows` rows from `blocks`; where tile registers are
    /// used, the input is readable up to a multiple of 16 rows. Nobody else uses the output meanwhile.
    #[inline]
    pub(super) unsafe fn compute(&self, rows: usize, tile: QuantisedTile) {
        // SAFETY: the pointers are valid by contract; a `Cpu` names only instructions that the processor has.
        unsafe {
            match self.cpu.instruction_set() {
                InstructionSet::Portable => for_rows!(rows, [1 2 3 4], portable(tile)),
                #[cfg(target_arch = "x86_64")]
                InstructionSet::Avx2 | InstructionSet::Avx512 => for_rows!(rows, [1 2 3], avx2(tile)),
                #[cfg(target_arch = "x86_64")]
                InstructionSet::AvxVnni => for_rows!(rows, [1 2 3 4 5 6], avx_vnni(tile)),
                #[cfg(target_arch = "x86_64")]
                InstructionSet::Avx512Vnni => {
                    for_rows!(rows, [1 2 3 4 5 6 7 8 9 10 11 12 13 14], avx512_vnni(tile))
                }
                #[cfg(target_arch = "x86_64")]
                InstructionSet::Amx => {
                    self.registers.as_ref().expect("set up for this processor").compute(rows, tile);
                }
                #[cfg(not(target_arch = "x86_64"))]
                set => unreachable!("{set:?} on another architecture"),
            }
        }
    }
}

/// # Safety
/// As `Session::compute`.
unsafe fn portable<const ROWS: usize>(tile: QuantisedTile) {
    // SAFETY: `depth` / 4 × 32 × 4 bytes of panel, what belongs to 32 columns, and `ROWS` rows are there by contract.
    unsafe {
        let mut totals = [[0i32; PANEL]; ROWS];
        for quad in 0..tile.depth / QUAD {
            let weights: &[[i8; QUAD]; PANEL] = &*tile.panel.add(quad * PANEL * QUAD).cast();
            for (row, totals) in totals.iter_mut().enumerate() {
                let bytes = tile.input.add(row * tile.input_stride + quad * QUAD).cast::<[u8; QUAD]>().read();
                for (total, weights) in totals.iter_mut().zip(weights) {
                    for (byte, weight) in bytes.into_iter().zip(weights) {
                        *total += i32::from(byte) * i32::from(*weight);
                    }
                }
            }
        }
        for (row, totals) in totals.into_iter().enumerate() {
            let step = &*tile.steps.add(row);
            for (column, total) in totals.into_iter().enumerate() {
                let corrected = (total - step.zero * *tile.sums.add(column)) as f32;
                let value = corrected * (step.scale * *tile.scales.add(column)) + *tile.bias.add(column);
                tile.output.add(row * tile.output_stride + column).write(value);
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) mod x86 {
    use std::arch::x86_64::*;

    use super::{PANEL, QUAD, QuantisedTile};

    const HALF: usize = PANEL / 2;

    /// Scales 8 sums and stores them.
    ///
    /// # Safety
    /// As `Session::compute`, with `row` and `column` to `column + 7` inside the tile; the processor has AVX2 and FMA.
    #[target_feature(enable = "avx2,fma")]
    #[inline]
    unsafe fn store8(tile: &QuantisedTile, row: usize, column: usize, totals: __m256i) {
        // SAFETY: rows and columns are there by contract.
        unsafe {
            let step = &*tile.steps.add(row);
            let sums = _mm256_loadu_si256(tile.sums.add(column).cast());
            let corrected = _mm256_sub_epi32(totals, _mm256_mullo_epi32(_mm256_set1_epi32(step.zero), sums));
            let scale = _mm256_mul_ps(_mm256_set1_ps(step.scale), _mm256_loadu_ps(tile.scales.add(column)));
            let bias = _mm256_loadu_ps(tile.bias.add(column));
            let values = _mm256_fmadd_ps(_mm256_cvtepi32_ps(corrected), scale, bias);
            _mm256_storeu_ps(tile.output.add(row * tile.output_stride + column), values);
        }
    }

    /// Bytes are widened to 16 bits: the product of bytes that AVX2 has would lose what exceeds 16 bits.
    ///
    /// # Safety
    /// As `Session::compute`; the processor has AVX2 and FMA.
    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn avx2<const ROWS: usize>(tile: QuantisedTile) {
        for half in [0, HALF] {
            // SAFETY: `depth` / 4 × 32 × 4 bytes of panel and `ROWS` rows are there by contract.
            unsafe {
                // Each vector holds two sums for each of four columns.
                let mut totals = [[_mm256_setzero_si256(); 4]; ROWS];
                for quad in 0..tile.depth / QUAD {
                    let panel = tile.panel.add((quad * PANEL + half) * QUAD);
                    let mut weights = [_mm256_setzero_si256(); 4];
                    for (at, weights) in weights.iter_mut().enumerate() {
                        *weights = _mm256_cvtepi8_epi16(_mm_load_si128(panel.add(at * 16).cast()));
                    }
                    for (row, totals) in totals.iter_mut().enumerate() {
                        let bytes =
                            tile.input.add(row * tile.input_stride + quad * QUAD).cast::<i32>().read_unaligned();
                        let bytes = _mm256_broadcastq_epi64(_mm_cvtepu8_epi16(_mm_cvtsi32_si128(bytes)));
                        for (total, weights) in totals.iter_mut().zip(weights) {
                            *total = _mm256_add_epi32(*total, _mm256_madd_epi16(bytes, weights));
                        }
                    }
                }
                for (row, totals) in totals.into_iter().enumerate() {
                    for pair in [0, 1] {
                        let sums = _mm256_hadd_epi32(totals[pair * 2], totals[pair * 2 + 1]);
                        // `hadd` works on halves of 128 bits; this puts the columns back into order.
                        let sums = _mm256_permute4x64_epi64::<0b11_01_10_00>(sums);
                        store8(&tile, row, half + pair * 8, sums);
                    }
                }
            }
        }
    }

    /// # Safety
    /// As `Session::compute`; the processor has AVX2, FMA and AVX-VNNI.
    #[target_feature(enable = "avx2,fma,avxvnni")]
    pub(super) unsafe fn avx_vnni<const ROWS: usize>(tile: QuantisedTile) {
        for half in [0, HALF] {
            // SAFETY: `depth` / 4 × 32 × 4 bytes of panel and `ROWS` rows are there by contract.
            unsafe {
                let mut totals = [[_mm256_setzero_si256(); 2]; ROWS];
                for quad in 0..tile.depth / QUAD {
                    let panel = tile.panel.add((quad * PANEL + half) * QUAD);
                    let weights = [_mm256_load_si256(panel.cast()), _mm256_load_si256(panel.add(32).cast())];
                    for (row, totals) in totals.iter_mut().enumerate() {
                        let bytes =
                            tile.input.add(row * tile.input_stride + quad * QUAD).cast::<i32>().read_unaligned();
                        let bytes = _mm256_set1_epi32(bytes);
                        totals[0] = _mm256_dpbusd_avx_epi32(totals[0], bytes, weights[0]);
                        totals[1] = _mm256_dpbusd_avx_epi32(totals[1], bytes, weights[1]);
                    }
                }
                for (row, totals) in totals.into_iter().enumerate() {
                    store8(&tile, row, half, totals[0]);
                    store8(&tile, row, half + 8, totals[1]);
                }
            }
        }
    }

    /// Scales 16 sums and stores them.
    ///
    /// # Safety
    /// As `Session::compute`, with `row` and `column` to `column + 15` inside the tile; the processor has AVX-512 F.
    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(in super::super) unsafe fn store16(tile: &QuantisedTile, row: usize, column: usize, totals: __m512i) {
        // SAFETY: rows and columns are there by contract.
        unsafe {
            let step = &*tile.steps.add(row);
            let sums = _mm512_loadu_si512(tile.sums.add(column).cast());
            let corrected = _mm512_sub_epi32(totals, _mm512_mullo_epi32(_mm512_set1_epi32(step.zero), sums));
            let scale = _mm512_mul_ps(_mm512_set1_ps(step.scale), _mm512_loadu_ps(tile.scales.add(column)));
            let bias = _mm512_loadu_ps(tile.bias.add(column));
            let values = _mm512_fmadd_ps(_mm512_cvtepi32_ps(corrected), scale, bias);
            _mm512_storeu_ps(tile.output.add(row * tile.output_stride + column), values);
        }
    }

    /// # Safety
    /// As `Session::compute`; the processor has AVX-512 F and VNNI.
    #[target_feature(enable = "avx512f,avx512vnni")]
    pub(super) unsafe fn avx512_vnni<const ROWS: usize>(tile: QuantisedTile) {
        /// How far ahead of use weights are called into the cache. Shorter: they come late; longer: they are gone again.
        const AHEAD: usize = 24 * PANEL * QUAD;
        // SAFETY: `depth` / 4 × 32 × 4 bytes of panel and `ROWS` rows are there by contract. A prefetch may name any
        // address; `wrapping_add` computes one without claiming that it is inside.
        unsafe {
            let mut totals = [[_mm512_setzero_si512(); 2]; ROWS];
            for quad in 0..tile.depth / QUAD {
                let panel = tile.panel.add(quad * PANEL * QUAD);
                let weights = [_mm512_load_si512(panel.cast()), _mm512_load_si512(panel.add(64).cast())];
                _mm_prefetch::<_MM_HINT_T0>(panel.wrapping_add(AHEAD));
                _mm_prefetch::<_MM_HINT_T0>(panel.wrapping_add(AHEAD + 64));
                for (row, totals) in totals.iter_mut().enumerate() {
                    let bytes = tile.input.add(row * tile.input_stride + quad * QUAD).cast::<i32>().read_unaligned();
                    let bytes = _mm512_set1_epi32(bytes);
                    totals[0] = _mm512_dpbusd_epi32(totals[0], bytes, weights[0]);
                    totals[1] = _mm512_dpbusd_epi32(totals[1], bytes, weights[1]);
                }
            }
            for (row, totals) in totals.into_iter().enumerate() {
                store16(&tile, row, 0, totals[0]);
                store16(&tile, row, 16, totals[1]);
            }
        }
    }
}
