//! Sixteen lanes of one instruction set, for kernels that plain loops do not bring to the limit of the machine.
//!
//! Compilers turn plain loops over floats into good vectors, but not the narrowing of 32-bit lanes to bytes, nor half
//! precision: the fused encoding at 4 bits as plain loops reads 7 GB/s where these operations reach 22 (AVX-512, in cache).
//! Every operation gives the same bits on every instruction set.

use half::{bf16, f16};
#[cfg(target_arch = "aarch64")]
use pulp::aarch64::Neon;
#[cfg(target_arch = "x86_64")]
use pulp::x86::{V3, V4};
use pulp::{NullaryFnOnce, Scalar};

use crate::dispatch::{Token, token};
use crate::lanes::{LANES, fold};

/// A kernel written over [`Isa`]. `call` and all it calls must be `#[inline(always)]`.
pub(crate) trait Kernel {
    type Output;
    fn call<I: Isa>(self, isa: I) -> Self::Output;
}

/// Runs a kernel at the level in use.
#[inline]
pub(crate) fn run<K: Kernel>(kernel: K) -> K::Output {
    match token() {
        Token::Scalar => kernel.call(Scalar::new()),
        #[cfg(target_arch = "aarch64")]
        Token::Neon(neon) => neon.vectorize(Call { isa: neon, kernel }),
        #[cfg(target_arch = "x86_64")]
        Token::Avx2(v3) => v3.vectorize(Call { isa: v3, kernel }),
        #[cfg(target_arch = "x86_64")]
        Token::Avx512(v4) => v4.vectorize(Call { isa: v4, kernel }),
    }
}

struct Call<I, K> {
    isa: I,
    kernel: K,
}

impl<I: Isa, K: Kernel> NullaryFnOnce for Call<I, K> {
    type Output = K::Output;

    #[inline(always)]
    fn call(self) -> K::Output {
        self.kernel.call(self.isa)
    }
}

/// Operations on 16 floats `F`, 16 integers of 32 bits `I` or 16 floats of 64 bits `D`.
pub(crate) trait Isa: Copy {
    type F: Copy;
    type I: Copy;
    type D: Copy;
    /// Whether lanes are arrays: plain loops over any number of weights do better than operations on 16.
    const ARRAYS: bool;
    /// Whether a look-up is faster than arithmetic.
    const TABLES: bool;
    /// Whether 16-bit weights are faster looked up than rounded.
    const WORDS: bool;
    /// Whether widened floats are faster looked up than widened.
    const WIDE_TABLES: bool;

    /// Asks for values that are read soon, where the machine itself does not look far enough ahead.
    #[inline(always)]
    fn prefetch<T>(self, _: &[T]) {}
    fn load(self, x: &[f32; LANES]) -> Self::F;
    /// Exact for what is finite; a NaN stays one.
    fn load_f16(self, x: &[f16; LANES]) -> Self::F;
    /// Exact for what is finite; a NaN stays one.
    fn load_bf16(self, x: &[bf16; LANES]) -> Self::F;
    fn store(self, v: Self::F, out: &mut [f32; LANES]);
    /// Rounds to nearest, ties to even. NaN is outside the contract.
    fn store_f16(self, v: Self::F, out: &mut [f16; LANES]);
    /// Rounds to nearest, ties to even. NaN is outside the contract.
    fn store_bf16(self, v: Self::F, out: &mut [bf16; LANES]);
    fn splat(self, v: f32) -> Self::F;

    /// `if a < b { a } else { b }`: `b` when one of them is NaN.
    fn min(self, a: Self::F, b: Self::F) -> Self::F;
    /// `if a > b { a } else { b }`: `b` when one of them is NaN.
    fn max(self, a: Self::F, b: Self::F) -> Self::F;
    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    /// Lane `i ^ H` in lane `i`, for `H` of 1, 2, 4 or 8.
    fn swap<const H: usize>(self, v: Self::F) -> Self::F;
    /// The smallest lane; none is NaN.
    fn smallest(self, v: Self::F) -> f32;
    /// The largest lane; none is NaN.
    fn largest(self, v: Self::F) -> f32;

    /// Bit `i` says whether `a < b` in lane `i`; not when one of them is NaN.
    fn less(self, a: Self::F, b: Self::F) -> u16;
    /// Lane `(16 i + l) >> K` in lane `l`: each lane `2^K` times, of which this is vector `i` of `2^K`.
    fn repeat<const K: u32>(self, v: Self::F, i: usize) -> Self::F;

    /// Rounds lanes in `0..=255` to nearest, ties to even.
    fn round(self, v: Self::F) -> Self::I;
    /// Integers below 2^24 as floats.
    fn float(self, v: Self::I) -> Self::F;
    fn or(self, a: Self::I, b: Self::I) -> Self::I;
    fn and(self, a: Self::I, mask: u32) -> Self::I;
    fn shl<const N: u32>(self, a: Self::I) -> Self::I;
    fn shr<const N: u32>(self, a: Self::I) -> Self::I;
    fn widen(self, bytes: &[u8; LANES]) -> Self::I;
    /// Lanes in `0..=255` as bytes.
    fn narrow(self, v: Self::I, out: &mut [u8; LANES]);
    /// The floats `table[lane & 15]`.
    fn look_up(self, table: Self::F, v: Self::I) -> Self::F;
    /// The words `table[(byte >> SHIFT) & 31]`.
    #[inline(always)]
    fn look_up_words<const SHIFT: u32>(self, table: &[u16; 32], bytes: &[u8; 32], out: &mut [u16; 32]) {
        for (out, byte) in out.iter_mut().zip(bytes) {
            *out = table[usize::from(byte >> SHIFT & 31)];
        }
    }

    fn load_wide(self, x: &[f64; LANES]) -> Self::D;
    fn store_wide(self, v: Self::D, out: &mut [f64; LANES]);
    /// Exact.
    fn wide(self, v: Self::F) -> Self::D;
    fn add_wide(self, a: Self::D, b: Self::D) -> Self::D;
    fn sub_wide(self, a: Self::D, b: Self::D) -> Self::D;
    fn mul_wide(self, a: Self::D, b: Self::D) -> Self::D;
    /// `a * b + sum` for `a` and `b` that single precision holds. Their product is exact, so rounding it on the way or not gives
    /// the same bits.
    fn add_product(self, a: Self::D, b: Self::D, sum: Self::D) -> Self::D;
    /// The floats `table[(byte >> SHIFT) & 15]`.
    #[inline(always)]
    fn look_up_wide<const SHIFT: u32>(self, table: Self::D, bytes: &[u8; LANES]) -> Self::D {
        let mut floats = [0.0; LANES];
        self.store_wide(table, &mut floats);
        self.load_wide(&bytes.map(|byte| floats[usize::from(byte >> SHIFT & 15)]))
    }
    /// All lanes added up in the order of [`fold`].
    #[inline(always)]
    fn fold_wide(self, v: Self::D) -> f64 {
        let mut lanes = [0.0; LANES];
        self.store_wide(v, &mut lanes);
        fold(lanes)
    }
}

mod plain;
#[cfg(target_arch = "x86_64")]
mod v3;
#[cfg(target_arch = "x86_64")]
mod v4;
