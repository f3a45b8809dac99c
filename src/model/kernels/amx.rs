//! Products of bytes by the tile instructions (AMX): 16 × 16 sums over 64 inputs in one instruction.
//!
//! The standard library offers them to nightly compilers only, so they are written as assembly. The compiler itself never
//! uses tile registers, so what is in them survives between two pieces of assembly.

#[cfg(target_arch = "x86_64")]
pub(super) use x86::{Registers, is_usable};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::asm;
    use std::arch::x86_64::{__cpuid, __cpuid_count, _mm512_load_si512, _xgetbv};
    use std::marker::PhantomData;
    use std::mem::MaybeUninit;
    use std::sync::OnceLock;

    use super::super::cpu::{Cpu, InstructionSet};
    use super::super::grid::PANEL;
    use super::super::quantised_tiles::{QuantisedTile, x86::store16};

    /// Rows of a tile register; each has 64 bytes.
    const TILE_ROWS: usize = 16;

    /// Whether processor and operating system let this process use tiles of bytes.
    pub(in super::super) fn is_usable() -> bool {
        static USABLE: OnceLock<bool> = OnceLock::new();
        *USABLE.get_or_init(|| has_instructions() && is_permitted())
    }

    fn has_instructions() -> bool {
        const OSXSAVE: u32 = 1 << 27;
        const AMX_TILE_AND_INT8: u32 = 0b11 << 24;
        /// Tile configuration and data among what the operating system saves.
        const TILE_STATE: u64 = 0b11 << 17;

        #[target_feature(enable = "xsave")]
        fn saved_state() -> u64 {
            // SAFETY: only called when the operating system uses XSAVE.
            unsafe { _xgetbv(0) }
        }
        if !is_x86_feature_detected!("xsave") || __cpuid(1).ecx & OSXSAVE == 0 || __cpuid(0).eax < 7 {
            return false;
        }
        // SAFETY: the processor has XSAVE.
        let saved = unsafe { saved_state() };
        __cpuid_count(7, 0).edx & AMX_TILE_AND_INT8 == AMX_TILE_AND_INT8 && saved & TILE_STATE == TILE_STATE
    }

    /// Linux lets a process use tiles after it has asked to (Documentation/arch/x86/xstate.rst). Threads started later
    /// inherit the permission, and those that run already get it.
    #[cfg(target_os = "linux")]
    fn is_permitted() -> bool {
        const ARCH_PRCTL: usize = 158;
        const ARCH_REQ_XCOMP_PERM: usize = 0x1023;
        const TILE_DATA: usize = 18;
        let result: isize;
        // SAFETY: the call takes two integers and changes no memory of this process; `syscall` overwrites rcx and r11.
        unsafe {
            asm!(
                "syscall",
                inlateout("rax") ARCH_PRCTL => result,
                in("rdi") ARCH_REQ_XCOMP_PERM,
                in("rsi") TILE_DATA,
                lateout("rcx") _,
                lateout("r11") _,
                options(nostack),
            );
        }
        result == 0
    }

    #[cfg(not(target_os = "linux"))]
    fn is_permitted() -> bool {
        false
    }

    /// What `ldtilecfg` reads (Intel SDM, volume 1, 18.2).
    #[repr(C, align(64))]
    struct Configuration {
        palette: u8,
        start_row: u8,
        reserved: [u8; 14],
        row_bytes: [u16; 16],
        rows: [u8; 16],
    }

    static CONFIGURATION: Configuration = Configuration {
        palette: 1,
        start_row: 0,
        reserved: [0; 14],
        row_bytes: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
        rows: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
    };

    /// This thread's tile registers, set up as 16 rows of 64 bytes each. Given back when dropped: the operating system
    /// saves what is in them when the thread is interrupted.
    #[derive(Debug)]
    pub(in super::super) struct Registers {
        /// Another thread's registers are not set up.
        not_send: PhantomData<*const ()>,
    }

    impl Registers {
        /// None where the processor has none or is not to use them.
        pub(in super::super) fn configure(cpu: Cpu) -> Option<Registers> {
            if cpu.instruction_set() != InstructionSet::Amx {
                return None;
            }
            // SAFETY: a `Cpu` names only instructions that the processor has and the process may use; the configuration
            // is a valid one.
            unsafe { asm!("ldtilecfg [{}]", in(reg) &CONFIGURATION, options(nostack, readonly, preserves_flags)) };
            Some(Registers { not_send: PhantomData })
        }

        /// # Safety
        /// As `Session::compute`; `rows` is at most 32, and the input is readable up to the next multiple of 16 rows.
        pub(in super::super) unsafe fn compute(&self, rows: usize, tile: QuantisedTile) {
            #[repr(C, align(64))]
            struct Totals([[i32; PANEL]; 2 * TILE_ROWS]);

            let mut totals = MaybeUninit::<Totals>::uninit();
            let target = totals.as_mut_ptr().cast::<i32>();
            // SAFETY: the registers are set up, as this exists; input and panel are readable by contract; `totals` has
            // room for 32 × 32 sums, and as many rows as `store` reads are written. Having registers means having
            // AVX-512.
            unsafe {
                if rows > TILE_ROWS {
                    multiply_32(tile, target);
                } else {
                    multiply_16(tile, target);
                }
                store(rows, tile, target);
            }
        }
    }

    impl Drop for Registers {
        fn drop(&mut self) {
            // SAFETY: they were set up by this thread, so the instruction exists.
            unsafe { asm!("tilerelease", options(nostack, nomem, preserves_flags)) };
        }
    }

    /// # Safety
    /// The registers are set up; 32 rows of input and the panel are readable; `totals` has room for 32 × 32 sums.
    #[inline]
    unsafe fn multiply_32(tile: QuantisedTile, totals: *mut i32) {
        // SAFETY: by contract; each turn reads 64 bytes of each of 32 rows and 16 × 128 bytes of the panel.
        unsafe {
            asm!(
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                "2:",
                "tileloadd tmm6, [{panel} + {panel_stride}]",
                "tileloadd tmm4, [{upper} + {input_stride}]",
                "tileloadd tmm7, [{panel} + {panel_stride} + 64]",
                "tileloadd tmm5, [{lower} + {input_stride}]",
                "tdpbusd tmm0, tmm4, tmm6",
                "tdpbusd tmm1, tmm4, tmm7",
                "tdpbusd tmm2, tmm5, tmm6",
                "tdpbusd tmm3, tmm5, tmm7",
                "add {upper}, 64",
                "add {lower}, 64",
                "add {panel}, 2048",
                "dec {turns}",
                "jnz 2b",
                "tilestored [{totals} + {panel_stride}], tmm0",
                "tilestored [{totals} + {panel_stride} + 64], tmm1",
                "tilestored [{totals} + {panel_stride} + 2048], tmm2",
                "tilestored [{totals} + {panel_stride} + 2112], tmm3",
                upper = inout(reg) tile.input => _,
                lower = inout(reg) tile.input.add(TILE_ROWS * tile.input_stride) => _,
                panel = inout(reg) tile.panel => _,
                turns = inout(reg) tile.depth / 64 => _,
                input_stride = in(reg) tile.input_stride,
                panel_stride = in(reg) 128usize,
                totals = in(reg) totals,
                options(nostack),
            );
        }
    }

    /// # Safety
    /// The registers are set up; 16 rows of input and the panel are readable; `totals` has room for 16 × 32 sums.
    #[inline]
    unsafe fn multiply_16(tile: QuantisedTile, totals: *mut i32) {
        // SAFETY: by contract; each turn reads 64 bytes of each of 16 rows and 16 × 128 bytes of the panel.
        unsafe {
            asm!(
                "tilezero tmm0",
                "tilezero tmm1",
                "2:",
                "tileloadd tmm4, [{upper} + {input_stride}]",
                "tileloadd tmm6, [{panel} + {panel_stride}]",
                "tileloadd tmm7, [{panel} + {panel_stride} + 64]",
                "tdpbusd tmm0, tmm4, tmm6",
                "tdpbusd tmm1, tmm4, tmm7",
                "add {upper}, 64",
                "add {panel}, 2048",
                "dec {turns}",
                "jnz 2b",
                "tilestored [{totals} + {panel_stride}], tmm0",
                "tilestored [{totals} + {panel_stride} + 64], tmm1",
                upper = inout(reg) tile.input => _,
                panel = inout(reg) tile.panel => _,
                turns = inout(reg) tile.depth / 64 => _,
                input_stride = in(reg) tile.input_stride,
                panel_stride = in(reg) 128usize,
                totals = in(reg) totals,
                options(nostack),
            );
        }
    }

    /// # Safety
    /// As `Session::compute`; `totals` has `rows` rows of 32 sums on a cache line; the processor has AVX-512 F.
    #[target_feature(enable = "avx512f")]
    unsafe fn store(rows: usize, tile: QuantisedTile, totals: *const i32) {
        for row in 0..rows {
            // SAFETY: the row is inside the tile, and its sums are there by contract.
            unsafe {
                let totals = totals.add(row * PANEL);
                store16(&tile, row, 0, _mm512_load_si512(totals.cast()));
                store16(&tile, row, 16, _mm512_load_si512(totals.add(16).cast()));
            }
        }
    }
}
