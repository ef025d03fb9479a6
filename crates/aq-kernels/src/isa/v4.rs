//! Sixteen lanes as one vector of 512 bits.

use std::arch::x86_64::{__m128i, __m256, __m256i, __m512, __m512d, __m512i};

use half::{bf16, f16};
use pulp::cast;

use super::{Isa, V4};
use crate::lanes::LANES;

/// Round to nearest, ties to even, no exceptions.
const NEAREST: i32 = 8;
/// Compare whether one is less, no exceptions.
const LESS: i32 = 17;

impl Isa for V4 {
    type F = __m512;
    type I = __m512i;
    type D = [__m512d; 2];
    const ARRAYS: bool = false;
    const TABLES: bool = true;
    const WORDS: bool = true;
    const WIDE_TABLES: bool = true;

    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> __m512 {
        cast(*x)
    }

    #[inline(always)]
    fn load_f16(self, x: &[f16; LANES]) -> __m512 {
        self.avx512f._mm512_cvtph_ps(cast(*x))
    }

    #[inline(always)]
    fn load_bf16(self, x: &[bf16; LANES]) -> __m512 {
        let wide = self.avx512f._mm512_cvtepu16_epi32(cast(*x));
        cast(self.avx512f._mm512_slli_epi32::<16>(wide))
    }

    #[inline(always)]
    fn store(self, v: __m512, out: &mut [f32; LANES]) {
        *out = cast(v);
    }

    #[inline(always)]
    fn store_f16(self, v: __m512, out: &mut [f16; LANES]) {
        *out = cast::<__m256i, _>(self.avx512f._mm512_cvtps_ph::<NEAREST>(v));
    }

    #[inline(always)]
    fn store_bf16(self, v: __m512, out: &mut [bf16; LANES]) {
        let bits: __m512i = cast(v);
        let odd = self.and(self.shr::<16>(bits), 1);
        let bias = self.avx512f._mm512_add_epi32(odd, self.avx512f._mm512_set1_epi32(0x7fff));
        let rounded = self.shr::<16>(self.avx512f._mm512_add_epi32(bits, bias));
        *out = cast::<__m256i, _>(self.avx512f._mm512_cvtepi32_epi16(rounded));
    }

    #[inline(always)]
    fn splat(self, v: f32) -> __m512 {
        self.avx512f._mm512_set1_ps(v)
    }

    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        self.avx512f._mm512_min_ps(a, b)
    }

    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        self.avx512f._mm512_max_ps(a, b)
    }

    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        self.avx512f._mm512_add_ps(a, b)
    }

    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        self.avx512f._mm512_sub_ps(a, b)
    }

    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        self.avx512f._mm512_mul_ps(a, b)
    }

    #[inline(always)]
    fn swap<const H: usize>(self, v: __m512) -> __m512 {
        match H {
            1 => self.avx512f._mm512_permute_ps::<0xb1>(v),
            2 => self.avx512f._mm512_permute_ps::<0x4e>(v),
            4 => self.avx512f._mm512_shuffle_f32x4::<0xb1>(v, v),
            _ => self.avx512f._mm512_shuffle_f32x4::<0x4e>(v, v),
        }
    }

    #[inline(always)]
    fn smallest(self, v: __m512) -> f32 {
        self.avx512f._mm512_reduce_min_ps(v)
    }

    #[inline(always)]
    fn largest(self, v: __m512) -> f32 {
        self.avx512f._mm512_reduce_max_ps(v)
    }

    #[inline(always)]
    fn less(self, a: __m512, b: __m512) -> u16 {
        self.avx512f._mm512_cmp_ps_mask::<LESS>(a, b)
    }

    #[inline(always)]
    fn repeat<const K: u32>(self, v: __m512, i: usize) -> __m512 {
        let lanes: [u32; LANES] = std::array::from_fn(|l| ((LANES * i + l) >> K & 15) as u32);
        self.avx512f._mm512_permutexvar_ps(cast(lanes), v)
    }

    #[inline(always)]
    fn round(self, v: __m512) -> __m512i {
        self.avx512f._mm512_cvtps_epi32(v)
    }

    #[inline(always)]
    fn float(self, v: __m512i) -> __m512 {
        self.avx512f._mm512_cvtepi32_ps(v)
    }

    #[inline(always)]
    fn or(self, a: __m512i, b: __m512i) -> __m512i {
        self.avx512f._mm512_or_si512(a, b)
    }

    #[inline(always)]
    fn and(self, a: __m512i, mask: u32) -> __m512i {
        self.avx512f._mm512_and_si512(a, self.avx512f._mm512_set1_epi32(mask as i32))
    }

    #[inline(always)]
    fn shl<const N: u32>(self, a: __m512i) -> __m512i {
        self.avx512f._mm512_slli_epi32::<N>(a)
    }

    #[inline(always)]
    fn shr<const N: u32>(self, a: __m512i) -> __m512i {
        self.avx512f._mm512_srli_epi32::<N>(a)
    }

    #[inline(always)]
    fn widen(self, bytes: &[u8; LANES]) -> __m512i {
        self.avx512f._mm512_cvtepu8_epi32(cast(*bytes))
    }

    #[inline(always)]
    fn narrow(self, v: __m512i, out: &mut [u8; LANES]) {
        *out = cast::<__m128i, _>(self.avx512f._mm512_cvtepi32_epi8(v));
    }

    #[inline(always)]
    fn look_up(self, table: __m512, v: __m512i) -> __m512 {
        self.avx512f._mm512_permutexvar_ps(v, table)
    }

    #[inline(always)]
    fn look_up_words<const SHIFT: u32>(self, table: &[u16; 32], bytes: &[u8; 32], out: &mut [u16; 32]) {
        let words = self.avx512bw._mm512_cvtepu8_epi16(cast(*bytes));
        let words = self.avx512bw._mm512_srli_epi16::<SHIFT>(words);
        *out = cast(self.avx512bw._mm512_permutexvar_epi16(words, cast(*table)));
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
    fn wide(self, v: __m512) -> Self::D {
        let halves: [__m256; 2] = cast(v);
        [self.avx512f._mm512_cvtps_pd(halves[0]), self.avx512f._mm512_cvtps_pd(halves[1])]
    }

    #[inline(always)]
    fn add_wide(self, a: Self::D, b: Self::D) -> Self::D {
        [self.avx512f._mm512_add_pd(a[0], b[0]), self.avx512f._mm512_add_pd(a[1], b[1])]
    }

    #[inline(always)]
    fn sub_wide(self, a: Self::D, b: Self::D) -> Self::D {
        [self.avx512f._mm512_sub_pd(a[0], b[0]), self.avx512f._mm512_sub_pd(a[1], b[1])]
    }

    #[inline(always)]
    fn mul_wide(self, a: Self::D, b: Self::D) -> Self::D {
        [self.avx512f._mm512_mul_pd(a[0], b[0]), self.avx512f._mm512_mul_pd(a[1], b[1])]
    }

    #[inline(always)]
    fn add_product(self, a: Self::D, b: Self::D, sum: Self::D) -> Self::D {
        [self.avx512f._mm512_fmadd_pd(a[0], b[0], sum[0]), self.avx512f._mm512_fmadd_pd(a[1], b[1], sum[1])]
    }

    #[inline(always)]
    fn look_up_wide<const SHIFT: u32>(self, table: Self::D, bytes: &[u8; LANES]) -> Self::D {
        let low: __m128i = cast(*bytes);
        let [low, high] = [low, self.sse2._mm_srli_si128::<8>(low)];
        let low = self.avx512f._mm512_srli_epi64::<SHIFT>(self.avx512f._mm512_cvtepu8_epi64(low));
        let high = self.avx512f._mm512_srli_epi64::<SHIFT>(self.avx512f._mm512_cvtepu8_epi64(high));
        [
            self.avx512f._mm512_permutex2var_pd(table[0], low, table[1]),
            self.avx512f._mm512_permutex2var_pd(table[0], high, table[1]),
        ]
    }
}
