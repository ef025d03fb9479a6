//! Sixteen lanes as two vectors of 256 bits.

use std::arch::x86_64::{__m128, __m128i, __m256, __m256d, __m256i, _MM_HINT_T0, _mm_prefetch};

use half::{bf16, f16};
use pulp::cast;

use super::{Isa, V3};
use crate::lanes::{LANES, fold_with};

/// Compare whether one is less, no exceptions.
const LESS: i32 = 17;

/// Bytes that memory is asked for at a time.
const CACHE_LINE: usize = 64;

/// Both halves of an operation.
macro_rules! both {
    ($simd:ident.$set:ident.$op:ident($a:expr $(, $b:expr)*)) => {{
        let simd = $simd;
        [simd.$set.$op(pick!($a, 0) $(, pick!($b, 0))*), simd.$set.$op(pick!($a, 1) $(, pick!($b, 1))*)]
    }};
}
macro_rules! pick {
    ($a:expr, $i:tt) => {
        $a[$i]
    };
}

/// All quarters of an operation.
macro_rules! quarters {
    ($simd:ident.$set:ident.$op:ident($($a:expr),*)) => {
        [
            $simd.$set.$op($(pick!($a, 0)),*),
            $simd.$set.$op($(pick!($a, 1)),*),
            $simd.$set.$op($(pick!($a, 2)),*),
            $simd.$set.$op($(pick!($a, 3)),*),
        ]
    };
}

/// The same vector in both halves.
#[inline(always)]
fn twice<T: Copy>(v: T) -> [T; 2] {
    [v; 2]
}

impl Isa for V3 {
    type F = [__m256; 2];
    type I = [__m256i; 2];
    type D = [__m256d; 4];
    const ARRAYS: bool = false;
    const TABLES: bool = true;
    const WORDS: bool = false;
    const WIDE_TABLES: bool = false;

    /// On Zen 3, encoding weights that come from memory takes .57 ns a weight with it and .89 without (4 bits, `f32`).
    #[inline(always)]
    #[expect(unsafe_code, reason = "a hint by address")]
    fn prefetch<T>(self, x: &[T]) {
        for line in (0..size_of_val(x)).step_by(CACHE_LINE) {
            // SAFETY: this is a hint: it reads nothing and faults nowhere, and the address lies in `x`.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(x.as_ptr().cast::<i8>().add(line)) };
        }
    }

    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> Self::F {
        cast(*x)
    }

    #[inline(always)]
    fn load_f16(self, x: &[f16; LANES]) -> Self::F {
        let halves: [__m128i; 2] = cast(*x);
        [self.wide_f16(halves[0]), self.wide_f16(halves[1])]
    }

    #[inline(always)]
    fn load_bf16(self, x: &[bf16; LANES]) -> Self::F {
        let halves: [__m128i; 2] = cast(*x);
        let wide = both!(self.avx2._mm256_cvtepu16_epi32(halves));
        cast([self.avx2._mm256_slli_epi32::<16>(wide[0]), self.avx2._mm256_slli_epi32::<16>(wide[1])])
    }

    #[inline(always)]
    fn store(self, v: Self::F, out: &mut [f32; LANES]) {
        *out = cast(v);
    }

    #[inline(always)]
    fn store_f16(self, v: Self::F, out: &mut [f16; LANES]) {
        let narrow = [self.narrow_f16(v[0]), self.narrow_f16(v[1])];
        *out = cast(self.words(narrow));
    }

    #[inline(always)]
    fn store_bf16(self, v: Self::F, out: &mut [bf16; LANES]) {
        let narrow = [self.narrow_bf16(v[0]), self.narrow_bf16(v[1])];
        *out = cast(self.words(narrow));
    }

    #[inline(always)]
    fn splat(self, v: f32) -> Self::F {
        twice(self.avx._mm256_set1_ps(v))
    }

    #[inline(always)]
    fn min(self, a: Self::F, b: Self::F) -> Self::F {
        both!(self.avx._mm256_min_ps(a, b))
    }

    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        both!(self.avx._mm256_max_ps(a, b))
    }

    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        both!(self.avx._mm256_add_ps(a, b))
    }

    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        both!(self.avx._mm256_sub_ps(a, b))
    }

    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        both!(self.avx._mm256_mul_ps(a, b))
    }

    #[inline(always)]
    fn swap<const H: usize>(self, v: Self::F) -> Self::F {
        match H {
            1 => [self.avx._mm256_permute_ps::<0xb1>(v[0]), self.avx._mm256_permute_ps::<0xb1>(v[1])],
            2 => [self.avx._mm256_permute_ps::<0x4e>(v[0]), self.avx._mm256_permute_ps::<0x4e>(v[1])],
            4 => [
                self.avx._mm256_permute2f128_ps::<1>(v[0], v[0]),
                self.avx._mm256_permute2f128_ps::<1>(v[1], v[1]),
            ],
            _ => [v[1], v[0]],
        }
    }

    #[inline(always)]
    fn smallest(self, v: Self::F) -> f32 {
        fold_with(cast::<_, [f32; LANES]>(v), |a, b| if b < a { b } else { a })
    }

    #[inline(always)]
    fn largest(self, v: Self::F) -> f32 {
        fold_with(cast::<_, [f32; LANES]>(v), |a, b| if b > a { b } else { a })
    }

    #[inline(always)]
    fn less(self, a: Self::F, b: Self::F) -> u16 {
        let less = |i: usize| {
            let mask = self.avx._mm256_cmp_ps::<LESS>(a[i], b[i]);
            self.avx._mm256_movemask_ps(mask) as u16
        };
        less(0) | less(1) << 8
    }

    #[inline(always)]
    fn repeat<const K: u32>(self, v: Self::F, i: usize) -> Self::F {
        let half = |first: usize| {
            let lanes: [u32; 8] = std::array::from_fn(|l| ((first + l) >> K & 7) as u32);
            self.avx2._mm256_permutevar8x32_ps(v[first >> (K + 3) & 1], cast(lanes))
        };
        [half(LANES * i), half(LANES * i + 8)]
    }

    #[inline(always)]
    fn round(self, v: Self::F) -> Self::I {
        both!(self.avx._mm256_cvtps_epi32(v))
    }

    #[inline(always)]
    fn float(self, v: Self::I) -> Self::F {
        both!(self.avx._mm256_cvtepi32_ps(v))
    }

    #[inline(always)]
    fn or(self, a: Self::I, b: Self::I) -> Self::I {
        both!(self.avx2._mm256_or_si256(a, b))
    }

    #[inline(always)]
    fn and(self, a: Self::I, mask: u32) -> Self::I {
        let mask = self.avx._mm256_set1_epi32(mask as i32);
        [self.avx2._mm256_and_si256(a[0], mask), self.avx2._mm256_and_si256(a[1], mask)]
    }

    #[inline(always)]
    fn shl<const N: u32>(self, a: Self::I) -> Self::I {
        let n = self.sse2._mm_cvtsi32_si128(N as i32);
        [self.avx2._mm256_sll_epi32(a[0], n), self.avx2._mm256_sll_epi32(a[1], n)]
    }

    #[inline(always)]
    fn shr<const N: u32>(self, a: Self::I) -> Self::I {
        let n = self.sse2._mm_cvtsi32_si128(N as i32);
        [self.avx2._mm256_srl_epi32(a[0], n), self.avx2._mm256_srl_epi32(a[1], n)]
    }

    #[inline(always)]
    fn widen(self, bytes: &[u8; LANES]) -> Self::I {
        let low: __m128i = cast(*bytes);
        let halves = [low, self.sse2._mm_srli_si128::<8>(low)];
        both!(self.avx2._mm256_cvtepu8_epi32(halves))
    }

    #[inline(always)]
    fn narrow(self, v: Self::I, out: &mut [u8; LANES]) {
        let [low, high]: [__m128i; 2] = cast(self.words(v));
        *out = cast(self.sse2._mm_packus_epi16(low, high));
    }

    #[inline(always)]
    fn look_up(self, table: Self::F, v: Self::I) -> Self::F {
        [self.look_up_half(table, v[0]), self.look_up_half(table, v[1])]
    }

    #[inline(always)]
    fn load_wide(self, x: &[f64; LANES]) -> Self::D {
        cast(*x)
    }

    #[inline(always)]
    fn store_wide(self, v: Self::D, out: &mut [f64; LANES]) {
        *out = cast(v);
    }

    #[inline(always)]
    fn wide(self, v: Self::F) -> Self::D {
        // A cast of the array would make LLVM keep sums in halves of registers and join them in every step.
        let quarters = [self.low(v[0]), self.high(v[0]), self.low(v[1]), self.high(v[1])];
        quarters!(self.avx._mm256_cvtps_pd(quarters))
    }

    #[inline(always)]
    fn add_wide(self, a: Self::D, b: Self::D) -> Self::D {
        quarters!(self.avx._mm256_add_pd(a, b))
    }

    #[inline(always)]
    fn sub_wide(self, a: Self::D, b: Self::D) -> Self::D {
        quarters!(self.avx._mm256_sub_pd(a, b))
    }

    #[inline(always)]
    fn mul_wide(self, a: Self::D, b: Self::D) -> Self::D {
        quarters!(self.avx._mm256_mul_pd(a, b))
    }

    #[inline(always)]
    fn add_product(self, a: Self::D, b: Self::D, sum: Self::D) -> Self::D {
        quarters!(self.fma._mm256_fmadd_pd(a, b, sum))
    }
}

/// Parts of the operations above, on one half.
trait Half: Copy {
    fn low(self, v: __m256) -> __m128;
    fn high(self, v: __m256) -> __m128;
    /// Lanes in `0..=65535` as words, in order.
    fn words(self, v: [__m256i; 2]) -> __m256i;
    fn set(self, bits: i32) -> __m256i;
    fn wide_f16(self, v: __m128i) -> __m256;
    fn narrow_f16(self, v: __m256) -> __m256i;
    fn narrow_bf16(self, v: __m256) -> __m256i;
    fn look_up_half(self, table: [__m256; 2], v: __m256i) -> __m256;
}

impl Half for V3 {
    #[inline(always)]
    fn low(self, v: __m256) -> __m128 {
        self.avx._mm256_castps256_ps128(v)
    }

    #[inline(always)]
    fn high(self, v: __m256) -> __m128 {
        self.avx._mm256_extractf128_ps::<1>(v)
    }

    #[inline(always)]
    fn words(self, v: [__m256i; 2]) -> __m256i {
        self.avx2._mm256_permute4x64_epi64::<0b11_01_10_00>(self.avx2._mm256_packus_epi32(v[0], v[1]))
    }

    #[inline(always)]
    fn set(self, bits: i32) -> __m256i {
        self.avx._mm256_set1_epi32(bits)
    }

    #[inline(always)]
    fn wide_f16(self, v: __m128i) -> __m256 {
        let v = self.avx2._mm256_cvtepu16_epi32(v);
        let magnitude = self.avx2._mm256_slli_epi32::<13>(self.avx2._mm256_and_si256(v, self.set(0x7fff)));
        let sign = self.avx2._mm256_slli_epi32::<16>(self.avx2._mm256_and_si256(v, self.set(0x8000)));
        // The product moves the exponent by 112 and makes subnormal fractions normal, exactly.
        let value =
            self.avx._mm256_mul_ps(cast(magnitude), self.avx._mm256_set1_ps(f32::from_bits(239 << 23)));
        let special = self.avx2._mm256_cmpgt_epi32(magnitude, self.set(0x0f7f_ffff));
        let special = self.avx2._mm256_and_si256(special, self.set(0x7f80_0000));
        cast(self.avx2._mm256_or_si256(cast(value), self.avx2._mm256_or_si256(sign, special)))
    }

    #[inline(always)]
    fn narrow_f16(self, v: __m256) -> __m256i {
        let bits: __m256i = cast(v);
        let sign = self.avx2._mm256_srli_epi32::<16>(self.avx2._mm256_and_si256(bits, self.set(i32::MIN)));
        let magnitude = self.avx2._mm256_and_si256(bits, self.set(i32::MAX));
        let odd = self.avx2._mm256_and_si256(self.avx2._mm256_srli_epi32::<13>(magnitude), self.set(1));
        let bias = self.avx2._mm256_add_epi32(odd, self.set(0xfff - (112 << 23)));
        let normal = self.avx2._mm256_srli_epi32::<13>(self.avx2._mm256_add_epi32(magnitude, bias));
        // Beside 0.5 the last bit of an f32 is 2^-24, the unit of subnormal halves: the sum rounds as wanted.
        let sum = self.avx._mm256_add_ps(cast(magnitude), self.avx._mm256_set1_ps(0.5));
        let subnormal = self.avx2._mm256_sub_epi32(cast(sum), self.set(0x3f00_0000));
        let small = self.avx2._mm256_cmpgt_epi32(self.set(113 << 23), magnitude);
        let large = self.avx2._mm256_cmpgt_epi32(magnitude, self.set((143 << 23) - 1));
        let finite = self.avx2._mm256_blendv_epi8(normal, subnormal, small);
        self.avx2._mm256_or_si256(sign, self.avx2._mm256_blendv_epi8(finite, self.set(0x7c00), large))
    }

    #[inline(always)]
    fn narrow_bf16(self, v: __m256) -> __m256i {
        let bits: __m256i = cast(v);
        let odd = self.avx2._mm256_and_si256(self.avx2._mm256_srli_epi32::<16>(bits), self.set(1));
        let bias = self.avx2._mm256_add_epi32(odd, self.set(0x7fff));
        self.avx2._mm256_srli_epi32::<16>(self.avx2._mm256_add_epi32(bits, bias))
    }

    #[inline(always)]
    fn look_up_half(self, table: [__m256; 2], v: __m256i) -> __m256 {
        let low = self.avx2._mm256_permutevar8x32_ps(table[0], v);
        let high = self.avx2._mm256_permutevar8x32_ps(table[1], v);
        self.avx._mm256_blendv_ps(low, high, cast(self.avx2._mm256_slli_epi32::<28>(v)))
    }
}
