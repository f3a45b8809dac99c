//! Exponential function and activations, as loops that the compiler turns into vectors of any width.
//!
//! Each function has one body. It is compiled once for each width, and chosen by the `Cpu` that it is called with.
//! `FUSED` says that the processor multiplies and adds in one instruction; without one, `f32::mul_add` is a slow call.

use std::marker::PhantomData;

use super::grid::PANEL;
use super::{Activation, Cpu};

/// 1.5 × 2²³: adding it rounds to an integer, which then stands in the lowest bits.
pub(super) const ROUNDER: f32 = 12_582_912.0;

/// Whether plain code has fused multiplication and addition.
pub(super) const PORTABLE_FUSED: bool = cfg!(target_arch = "aarch64");

/// Defines functions that run `$body::<FUSED>` compiled for the vectors of a `Cpu`.
macro_rules! for_all_vectors {
    ($($(#[$doc:meta])* $visible:vis fn $name:ident($($argument:ident: $kind:ty),* $(,)?) = $body:ident;)*) => {$(
        $(#[$doc])*
        $visible fn $name(cpu: $crate::model::kernels::Cpu, $($argument: $kind),*) {
            #[cfg(target_arch = "x86_64")]
            {
                use $crate::model::kernels::cpu::Vectors;

                #[target_feature(enable = "avx2,fma")]
                fn avx2($($argument: $kind),*) {
                    $body::<true>($($argument),*)
                }
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
                fn avx512($($argument: $kind),*) {
                    $body::<true>($($argument),*)
                }
                match cpu.vectors() {
                    // SAFETY: a `Cpu` names only instructions that the processor has.
                    Vectors::Avx512 => return unsafe { avx512($($argument),*) },
                    // SAFETY: as above.
                    Vectors::Avx2 => return unsafe { avx2($($argument),*) },
                    Vectors::Portable => {}
                }
            }
            #[cfg(not(target_arch = "x86_64"))]
            let _ = cpu;
            $body::<{ $crate::model::kernels::functions::PORTABLE_FUSED }>($($argument),*)
        }
    )*};
}
pub(super) use for_all_vectors;

for_all_vectors! {
    fn gelu(tile: OutputTile<'_>) = gelu_body;
    fn gelu_tanh(tile: OutputTile<'_>) = gelu_tanh_body;
    fn relu(tile: OutputTile<'_>) = relu_body;
}

/// Rows of 32 numbers somewhere in a matrix; what lies between them may be another thread's.
#[derive(Debug)]
pub(super) struct OutputTile<'a> {
    start: *mut f32,
    rows: usize,
    stride: usize,
    kind: PhantomData<&'a mut [f32]>,
}

impl OutputTile<'_> {
    /// # Safety
    /// `rows` rows of 32 numbers begin at `start` and every `stride` after it, and are nobody else's while this lives.
    pub(super) unsafe fn new(start: *mut f32, rows: usize, stride: usize) -> Self {
        debug_assert!(stride >= PANEL);
        OutputTile { start, rows, stride, kind: PhantomData }
    }

    #[inline(always)]
    fn change_each(self, function: impl Fn(f32) -> f32) {
        for row in 0..self.rows {
            // SAFETY: 32 numbers begin there, ours alone, by the contract of `new`.
            let values = unsafe { &mut *self.start.add(row * self.stride).cast::<[f32; PANEL]>() };
            for value in values {
                *value = function(*value);
            }
        }
    }
}

pub(super) fn activate(cpu: Cpu, activation: Activation, tile: OutputTile<'_>) {
    match activation {
        Activation::None => {}
        Activation::Gelu => gelu(cpu, tile),
        Activation::GeluTanh => gelu_tanh(cpu, tile),
        Activation::Relu => relu(cpu, tile),
    }
}

#[inline(always)]
fn gelu_body<const FUSED: bool>(tile: OutputTile<'_>) {
    tile.change_each(|value| {
        let half = 0.5 * value;
        multiply_add::<FUSED>(half, erf::<FUSED>(value * std::f32::consts::FRAC_1_SQRT_2), half)
    });
}

#[inline(always)]
fn gelu_tanh_body<const FUSED: bool>(tile: OutputTile<'_>) {
    // x / (1 + exp(-2 √(2/π) (x + 0.044715 x³))), as (1 + tanh y) / 2 is the logistic function of 2 y.
    const LINEAR: f32 = -2.0 * 0.797_884_6;
    const CUBIC: f32 = LINEAR * 0.044_715;
    tile.change_each(|value| {
        let exponent = value * multiply_add::<FUSED>(value * value, CUBIC, LINEAR);
        value / (1.0 + exp::<FUSED>(exponent))
    });
}

#[inline(always)]
fn relu_body<const FUSED: bool>(tile: OutputTile<'_>) {
    tile.change_each(|value| at_least(value, 0.0));
}

/// a b + c
#[inline(always)]
pub(super) fn multiply_add<const FUSED: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FUSED { a.mul_add(b, c) } else { a * b + c }
}

/// One instruction, unlike `f32::max`, which has rules for NaN.
#[inline(always)]
pub(super) fn at_least(value: f32, bound: f32) -> f32 {
    if value > bound { value } else { bound }
}

#[inline(always)]
pub(super) fn at_most(value: f32, bound: f32) -> f32 {
    if value < bound { value } else { bound }
}

/// e^x within 2 units of the last place; the result stays finite and normal.
#[inline(always)]
pub(super) fn exp<const FUSED: bool>(x: f32) -> f32 {
    // ln 2 in two parts; the first has so few digits that a multiple of it is exact.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let x = at_most(at_least(x, -87.0), 88.0);
    let rounded = multiply_add::<FUSED>(x, std::f32::consts::LOG2_E, ROUNDER);
    let whole = rounded - ROUNDER;
    let rest = multiply_add::<FUSED>(whole, -LN2_LOW, multiply_add::<FUSED>(whole, -LN2_HIGH, x));
    // Coefficients of Cephes' expf.
    let mut sum = 1.987_569_1e-4;
    for coefficient in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        sum = multiply_add::<FUSED>(sum, rest, coefficient);
    }
    let fraction = multiply_add::<FUSED>(sum * rest, rest, rest) + 1.0;
    let power = f32::from_bits(rounded.to_bits().wrapping_sub(ROUNDER.to_bits()).wrapping_add(127) << 23);
    fraction * power
}

/// Error function within 3e-7.
#[inline(always)]
pub(super) fn erf<const FUSED: bool>(x: f32) -> f32 {
    // Quotient of polynomials, minimax on [-4, 4]; beyond, erf is 1 in f32.
    const ABOVE: [f32; 6] =
        [2.770_681_4e-8, -2.101_024e-6, -5.692_506_4e-5, -7.349_906_4e-4, -2.954_6e-3, -1.609_603_3e-2];
    const BELOW: [f32; 4] = [-2.133_740_6e-4, -1.682_827e-3, -7.373_329e-3, -1.426_473_9e-2];
    let x = at_most(at_least(x, -4.0), 4.0);
    let square = x * x;
    let mut above = -2.726_142_3e-10;
    for coefficient in ABOVE {
        above = multiply_add::<FUSED>(above, square, coefficient);
    }
    let mut below = -1.456_607_2e-5;
    for coefficient in BELOW {
        below = multiply_add::<FUSED>(below, square, coefficient);
    }
    x * above / below
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::InstructionSet;
    use super::*;

    pub(in super::super) fn cpus() -> impl Iterator<Item = Cpu> {
        InstructionSet::ALL.into_iter().filter_map(Cpu::with)
    }

    /// By its Taylor series, or the continued fraction of its complement.
    fn exact_erf(x: f64) -> f64 {
        if x.abs() > 3.0 {
            let mut fraction = 0.0;
            for level in (1..200).rev() {
                fraction = f64::from(level) / 2.0 / (x.abs() + fraction);
            }
            let rest = (-x * x).exp() / std::f64::consts::PI.sqrt() / (x.abs() + fraction);
            return x.signum() * (1.0 - rest);
        }
        let (mut term, mut sum) = (x, x);
        for n in 1..100 {
            term *= -x * x / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        sum * std::f64::consts::FRAC_2_SQRT_PI
    }

    fn tile(values: &mut [f32]) -> OutputTile<'_> {
        assert_eq!(values.len() % PANEL, 0);
        // SAFETY: whole rows of a slice that is borrowed as long as the tile lives.
        unsafe { OutputTile::new(values.as_mut_ptr(), values.len() / PANEL, PANEL) }
    }

    fn inputs() -> Vec<f32> {
        (-10_000..10_032).map(|step| step as f32 / 1000.0).collect()
    }

    #[test]
    fn activations_are_close_to_exact_values_on_every_path() {
        for cpu in cpus() {
            let mut found = inputs();
            activate(cpu, Activation::Gelu, tile(&mut found));
            for (x, found) in inputs().into_iter().zip(found) {
                let x = f64::from(x);
                let exact = x * 0.5 * (1.0 + exact_erf(x / std::f64::consts::SQRT_2));
                assert!((f64::from(found) - exact).abs() < 3e-7 * x.abs().max(1.0), "{cpu:?} {x}: {found} for {exact}");
            }
            let mut found = inputs();
            activate(cpu, Activation::GeluTanh, tile(&mut found));
            for (x, found) in inputs().into_iter().zip(found) {
                let x = f64::from(x);
                let exact = 0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh());
                assert!((f64::from(found) - exact).abs() < 2e-6 * x.abs().max(1.0), "{cpu:?} {x}: {found} for {exact}");
            }
            let mut found = [-1.0, 0.0, 2.5].repeat(32);
            activate(cpu, Activation::Relu, tile(&mut found));
            assert_eq!(found, [0.0, 0.0, 2.5].repeat(32));
        }
    }

    #[test]
    fn the_exponential_is_exact_to_rounding_and_never_leaves_the_finite_numbers() {
        for x in inputs() {
            let exact = f64::from(x).exp();
            for found in [exp::<true>(x), exp::<false>(x)] {
                assert!((f64::from(found) - exact).abs() < 2.5e-7 * exact, "{x}: {found} for {exact}");
            }
        }
        assert!(exp::<true>(f32::NEG_INFINITY) < 1e-37 && exp::<true>(1e30).is_finite());
    }
}
