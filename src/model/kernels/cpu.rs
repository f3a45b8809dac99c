//! Which instructions this processor has, and the proof of it that kernels are called with.

use std::sync::OnceLock;

#[cfg(target_arch = "x86_64")]
use super::amx;

/// Sets of instructions for which there are kernels, from slow to fast.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum InstructionSet {
    /// What the compiler makes of plain loops, on every processor.
    Portable,
    /// AVX2 with FMA.
    Avx2,
    /// AVX2 and 256-bit products of bytes: desktop processors since 2021, Zen 5.
    AvxVnni,
    /// AVX-512 F, BW, DQ and VL.
    Avx512,
    /// AVX-512 and 512-bit products of bytes: Ice Lake, Zen 4.
    Avx512Vnni,
    /// The above and tiles of bytes: Sapphire Rapids.
    Amx,
}

/// A set of instructions that this processor was seen to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cpu(InstructionSet);

/// Width of the floating-point code to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Vectors {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl InstructionSet {
    pub const ALL: [InstructionSet; 6] = [
        InstructionSet::Portable,
        InstructionSet::Avx2,
        InstructionSet::AvxVnni,
        InstructionSet::Avx512,
        InstructionSet::Avx512Vnni,
        InstructionSet::Amx,
    ];

    #[cfg(target_arch = "x86_64")]
    fn is_detected(self) -> bool {
        let avx2 = || is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        let avx512 = || {
            avx2()
                && is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl")
        };
        let avx512_vnni = || avx512() && is_x86_feature_detected!("avx512vnni");
        match self {
            InstructionSet::Portable => true,
            InstructionSet::Avx2 => avx2(),
            InstructionSet::AvxVnni => avx2() && is_x86_feature_detected!("avxvnni"),
            InstructionSet::Avx512 => avx512(),
            InstructionSet::Avx512Vnni => avx512_vnni(),
            InstructionSet::Amx => avx512_vnni() && amx::is_usable(),
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn is_detected(self) -> bool {
        self == InstructionSet::Portable
    }
}

impl Cpu {
    /// The fastest set that this processor has.
    pub fn best() -> Cpu {
        static BEST: OnceLock<Cpu> = OnceLock::new();
        *BEST.get_or_init(|| {
            let best = InstructionSet::ALL.into_iter().rev().find_map(Cpu::with);
            best.expect("portable code runs everywhere")
        })
    }

    /// None where this processor lacks the instructions.
    pub fn with(set: InstructionSet) -> Option<Cpu> {
        set.is_detected().then_some(Cpu(set))
    }

    pub fn instruction_set(self) -> InstructionSet {
        self.0
    }

    /// Whether it multiplies bytes faster than floating-point numbers; without, int8 only saves memory.
    pub fn has_byte_products(self) -> bool {
        matches!(self.0, InstructionSet::AvxVnni | InstructionSet::Avx512Vnni | InstructionSet::Amx)
    }

    #[cfg(target_arch = "x86_64")]
    pub(super) fn vectors(self) -> Vectors {
        match self.0 {
            InstructionSet::Portable => Vectors::Portable,
            InstructionSet::Avx2 | InstructionSet::AvxVnni => Vectors::Avx2,
            InstructionSet::Avx512 | InstructionSet::Avx512Vnni | InstructionSet::Amx => Vectors::Avx512,
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    pub(super) fn vectors(self) -> Vectors {
        Vectors::Portable
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn portable_code_is_always_available_and_the_best_set_is_one_of_those_detected() {
        assert!(Cpu::with(InstructionSet::Portable).is_some());
        assert_eq!(Cpu::with(Cpu::best().instruction_set()), Some(Cpu::best()));
    }
}
