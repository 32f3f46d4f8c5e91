//! Whether this processor can run this program.
//!
//! CPU kernels are plain loops that the compiler vectorises for the processor it is told to build for, by default
//! that of the building machine. Elsewhere such a program would die of an illegal instruction, at any point and
//! without a word. So every executable that contains this crate compares, before `main`, the instructions it was
//! built with to those of the processor and the operating system.

/// A level of the x86-64 psABI, of which each contains the ones before it; processors of other architectures have
/// `Baseline` alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// What every processor of the architecture has.
    Baseline,
    /// SSE4.2 and POPCNT (2009).
    V2,
    /// AVX2, FMA and BMI2 (2013).
    V3,
    /// AVX-512 F, BW, CD, DQ and VL (2017).
    V4,
}

impl Level {
    /// The level that the compiler was told to build for.
    pub const BUILT: Level =
        if cfg!(all(target_feature = "avx512f", target_feature = "avx512bw", target_feature = "avx512vl")) {
            Level::V4
        } else if cfg!(all(target_feature = "avx2", target_feature = "fma", target_feature = "bmi2")) {
            Level::V3
        } else if cfg!(all(target_feature = "sse4.2", target_feature = "popcnt")) {
            Level::V2
        } else {
            Level::Baseline
        };

    /// The level of this processor.
    pub fn here() -> Level {
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::is_x86_feature_detected as has;
            if has!("avx512f") && has!("avx512bw") && has!("avx512cd") && has!("avx512dq") && has!("avx512vl")
            {
                return Level::V4;
            }
            if has!("avx2") && has!("fma") && has!("bmi2") {
                return Level::V3;
            }
            if has!("sse4.2") && has!("popcnt") {
                return Level::V2;
            }
        }
        Level::Baseline
    }
}

/// A sentence about what this processor could do and this program does not use, where that is worth another build:
/// the CPU kernels of a build without AVX2 take several times as long as those of one with it.
pub fn unused() -> Option<&'static str> {
    (Level::BUILT < Level::V3 && Level::here() >= Level::V3).then_some(
        "this program was built without AVX2 and FMA, which this processor has: CPU kernels run several times slower than they could. \
         Build it in a clone of the repository (`cargo build --release`, or `cargo install --path bigmac`), where .cargo/config.toml \
         asks for the instructions of the building machine; `cargo install --git` does not read that file. Elsewhere set \
         RUSTFLAGS=\"-C target-cpu=native\"",
    )
}

#[cfg(all(target_arch = "x86_64", unix))]
mod check {
    use std::arch::asm;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// Runs [`check`] before `main`, and before the constructors of everything else that asks for no priority.
    #[used]
    #[cfg_attr(target_vendor = "apple", unsafe(link_section = "__DATA,__mod_init_func"))]
    #[cfg_attr(not(target_vendor = "apple"), unsafe(link_section = ".init_array"))]
    static CHECK: extern "C" fn() = check;

    /// A word of what `cpuid` tells: leaf, subleaf and register.
    #[derive(Clone, Copy)]
    enum Word {
        Leaf1C,
        Leaf7B,
        Leaf7C,
        Leaf7D,
        Leaf7Sub1A,
        Leaf7Sub1D,
        Extended1C,
        /// Not of `cpuid`: registers that the operating system saves, from `xgetbv`.
        SavedByOs,
    }
    use Word::*;

    struct Feature {
        name: &'static str,
        built: bool,
        word: Word,
        mask: u32,
    }

    macro_rules! features {
        ($($word:ident { $($name:tt $bit:literal),* $(,)? })*) => {
            &[$($(Feature { name: $name, built: cfg!(target_feature = $name), word: $word, mask: 1 << $bit }),*),*]
        };
    }

    /// Bits from Intel's and AMD's manuals (CPUID). Names are the compiler's. Left out is what every x86-64
    /// processor has, and what only operating systems use (fxsr, xsave and its kind): a hypervisor may hide that.
    const FEATURES: &[Feature] = features! {
        Leaf1C {
            "sse3" 0, "pclmulqdq" 1, "ssse3" 9, "fma" 12, "cmpxchg16b" 13, "sse4.1" 19, "sse4.2" 20, "movbe" 22, "popcnt" 23, "aes" 25,
            "avx" 28, "f16c" 29, "rdrand" 30,
        }
        Leaf7B {
            "bmi1" 3, "avx2" 5, "bmi2" 8, "avx512f" 16, "avx512dq" 17, "rdseed" 18, "adx" 19, "avx512ifma" 21, "avx512cd" 28, "sha" 29,
            "avx512bw" 30, "avx512vl" 31,
        }
        Leaf7C {
            "avx512vbmi" 1, "avx512vbmi2" 6, "gfni" 8, "vaes" 9, "vpclmulqdq" 10, "avx512vnni" 11, "avx512bitalg" 12,
            "avx512vpopcntdq" 14,
        }
        Leaf7D { "avx512vp2intersect" 8, "avx512fp16" 23 }
        Leaf7Sub1A { "sha512" 0, "sm3" 1, "sm4" 2, "avxvnni" 4, "avx512bf16" 5, "avxifma" 23 }
        Leaf7Sub1D { "avxvnniint8" 4, "avxneconvert" 5, "avxvnniint16" 10 }
        Extended1C { "lzcnt" 5, "sse4a" 6, "tbm" 21 }
    };

    /// The bits of a word that the program was built with.
    const fn built(word: Word) -> u32 {
        let (mut mask, mut i) = (0, 0);
        while i < FEATURES.len() {
            if FEATURES[i].built && FEATURES[i].word as u32 == word as u32 {
                mask |= FEATURES[i].mask;
            }
            i += 1;
        }
        mask
    }

    /// XMM and YMM registers; for AVX-512 the opmask and ZMM registers as well.
    const SAVED: u32 = if cfg!(target_feature = "avx512f") {
        0xe6
    } else if cfg!(target_feature = "avx") {
        0x06
    } else {
        0
    };

    /// By word, what the program was built with and this machine does not have.
    static MISSING: [AtomicU32; SavedByOs as usize + 1] =
        [const { AtomicU32::new(0) }; SavedByOs as usize + 1];

    // Everything from here on is itself compiled for the processor that may be missing. So no arrays are copied, no
    // bits are shifted by a variable and nothing is negated in Rust: of that compilers make vector and BMI
    // instructions.

    /// `required` without the bits of a register that `cpuid` fills.
    macro_rules! missing {
        ($leaf:expr, $sub:expr, $register:literal, $required:expr) => {{
            let missing: u32;
            // SAFETY: `cpuid` only writes the four registers named here; rbx, which cannot be named, is restored. A
            // leaf that the processor does not know reads as zeros, or as what the caller has checked beforehand.
            unsafe {
                asm!(
                    "mov {rbx}, rbx", "cpuid", concat!("mov {missing:e}, ", $register), "mov rbx, {rbx}",
                    "not {missing:e}", "and {missing:e}, {required:e}",
                    rbx = out(reg) _, missing = out(reg) missing, required = in(reg) $required,
                    inout("eax") $leaf => _, inout("ecx") $sub => _, out("edx") _,
                    options(nomem, nostack),
                );
            }
            missing
        }};
    }

    /// Bit 27 of leaf 1's ecx: the operating system lets programs read which registers it saves.
    const OSXSAVE: u32 = 1 << 27;

    extern "C" fn check() {
        let mut any = 0;
        macro_rules! compare {
            ($word:ident, $leaf:literal, $sub:literal, $register:literal, $known:expr) => {
                let required = const { built($word) };
                if required != 0 {
                    let missing = if $known { missing!($leaf, $sub, $register, required) } else { required };
                    MISSING[$word as usize].store(missing, Ordering::Relaxed);
                    any |= missing;
                }
            };
        }
        let (last, last_extended) = (last_leaf(0), last_leaf(0x8000_0000));
        compare!(Leaf1C, 1u32, 0u32, "ecx", true);
        compare!(Leaf7B, 7u32, 0u32, "ebx", last >= 7);
        compare!(Leaf7C, 7u32, 0u32, "ecx", last >= 7);
        compare!(Leaf7D, 7u32, 0u32, "edx", last >= 7);
        compare!(Leaf7Sub1A, 7u32, 1u32, "eax", last >= 7);
        compare!(Leaf7Sub1D, 7u32, 1u32, "edx", last >= 7);
        compare!(Extended1C, 0x8000_0001u32, 0u32, "ecx", last_extended >= 0x8000_0001);
        if SAVED != 0 {
            let missing = if missing!(1u32, 0u32, "ecx", OSXSAVE) == 0 { not_saved() } else { SAVED };
            MISSING[SavedByOs as usize].store(missing, Ordering::Relaxed);
            any |= missing;
        }
        if any != 0 {
            refuse();
        }
    }

    /// The last leaf that `cpuid` knows, of the basic ones or of the extended ones.
    fn last_leaf(first: u32) -> u32 {
        let last: u32;
        // SAFETY: as in `missing!`; every x86-64 processor has both leaves.
        unsafe {
            asm!(
                "mov {rbx}, rbx", "cpuid", "mov rbx, {rbx}",
                rbx = out(reg) _, inout("eax") first => last, inout("ecx") 0 => _, out("edx") _,
                options(nomem, nostack),
            );
        }
        last
    }

    /// The registers among `SAVED` that the operating system does not save.
    fn not_saved() -> u32 {
        let missing: u32;
        // SAFETY: the caller has seen OSXSAVE, so the instruction is there; it writes eax and edx.
        unsafe {
            asm!(
                "xgetbv", "not eax", "and eax, {saved:e}",
                saved = in(reg) SAVED, in("ecx") 0, out("eax") missing, out("edx") _,
                options(nomem, nostack),
            );
        }
        missing
    }

    /// Says what is missing and how to build, and ends the process.
    #[cold]
    fn refuse() -> ! {
        write("error: this program was built for a processor with");
        let mut comma = " ";
        for feature in FEATURES {
            if feature.built && MISSING[feature.word as usize].load(Ordering::Relaxed) & feature.mask != 0 {
                write(comma);
                write(feature.name);
                comma = ", ";
            }
        }
        // Where the processor has no AVX, there is nothing to save.
        if comma == " " {
            write(" vector registers that its operating system saves");
        }
        write(
            ", which this machine does not have. Build it here with `cargo build --release`; for a fleet of machines with \
             RUSTFLAGS=\"-C target-cpu=x86-64-v3\" (or -v2 for processors older than 2013) before that command\n",
        );
        // SAFETY: ends the process at once; nothing has been opened or written that would have to be closed.
        unsafe { libc::_exit(1) }
    }

    /// Writes to standard error. What cannot be written is lost with the process.
    fn write(text: &str) {
        // SAFETY: the pointer and the length are those of `text`.
        let _ = unsafe { libc::write(2, text.as_ptr().cast(), text.len()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_runs_was_built_for_no_more_than_this_processor_has() {
        assert!(Level::BUILT <= Level::here());
        assert_eq!(unused().is_some(), Level::BUILT < Level::V3 && Level::here() >= Level::V3);
    }
}
