//! Sixteen lanes as arrays, which compilers vectorize well enough for NEON.

use half::{bf16, f16};

use super::Isa;
use crate::float16::{Convert, NarrowBf16, NarrowF16, WidenBf16, WidenF16};
use crate::lanes::{LANES, fold_with, round_code};

#[inline(always)]
fn map<A: Copy, B>(a: [A; LANES], f: impl Fn(A) -> B) -> [B; LANES] {
    std::array::from_fn(|i| f(a[i]))
}

#[inline(always)]
fn zip<A: Copy, B: Copy, C>(a: [A; LANES], b: [B; LANES], f: impl Fn(A, B) -> C) -> [C; LANES] {
    std::array::from_fn(|i| f(a[i], b[i]))
}

macro_rules! plain {
    ($token:ty) => {
        impl Isa for $token {
            type F = [f32; LANES];
            type I = [u32; LANES];
            type D = [f64; LANES];
            const ARRAYS: bool = true;
            const TABLES: bool = false;
            const WORDS: bool = false;
            const WIDE_TABLES: bool = false;

            #[inline(always)]
            fn load(self, x: &[f32; LANES]) -> Self::F {
                *x
            }
            #[inline(always)]
            fn load_f16(self, x: &[f16; LANES]) -> Self::F {
                map(*x, WidenF16::convert)
            }
            #[inline(always)]
            fn load_bf16(self, x: &[bf16; LANES]) -> Self::F {
                map(*x, WidenBf16::convert)
            }
            #[inline(always)]
            fn store(self, v: Self::F, out: &mut [f32; LANES]) {
                *out = v;
            }
            #[inline(always)]
            fn store_f16(self, v: Self::F, out: &mut [f16; LANES]) {
                *out = map(v, NarrowF16::convert);
            }
            #[inline(always)]
            fn store_bf16(self, v: Self::F, out: &mut [bf16; LANES]) {
                *out = map(v, NarrowBf16::convert);
            }
            #[inline(always)]
            fn splat(self, v: f32) -> Self::F {
                [v; LANES]
            }
            #[inline(always)]
            fn min(self, a: Self::F, b: Self::F) -> Self::F {
                zip(a, b, |a, b| if a < b { a } else { b })
            }
            #[inline(always)]
            fn max(self, a: Self::F, b: Self::F) -> Self::F {
                zip(a, b, |a, b| if a > b { a } else { b })
            }
            #[inline(always)]
            fn add(self, a: Self::F, b: Self::F) -> Self::F {
                zip(a, b, |a, b| a + b)
            }
            #[inline(always)]
            fn sub(self, a: Self::F, b: Self::F) -> Self::F {
                zip(a, b, |a, b| a - b)
            }
            #[inline(always)]
            fn mul(self, a: Self::F, b: Self::F) -> Self::F {
                zip(a, b, |a, b| a * b)
            }
            #[inline(always)]
            fn swap<const H: usize>(self, v: Self::F) -> Self::F {
                std::array::from_fn(|i| v[i ^ H])
            }
            #[inline(always)]
            fn smallest(self, v: Self::F) -> f32 {
                fold_with(v, |a, b| if b < a { b } else { a })
            }
            #[inline(always)]
            fn largest(self, v: Self::F) -> f32 {
                fold_with(v, |a, b| if b > a { b } else { a })
            }
            #[inline(always)]
            fn less(self, a: Self::F, b: Self::F) -> u16 {
                zip(a, b, |a, b| a < b).iter().rev().fold(0, |mask, &bit| mask << 1 | u16::from(bit))
            }
            #[inline(always)]
            fn repeat<const K: u32>(self, v: Self::F, i: usize) -> Self::F {
                std::array::from_fn(|l| v[(LANES * i + l) >> K & 15])
            }
            #[inline(always)]
            fn round(self, v: Self::F) -> Self::I {
                map(v, |v| u32::from(round_code(v)))
            }
            #[inline(always)]
            fn float(self, v: Self::I) -> Self::F {
                map(v, |v| v as i32 as f32)
            }
            #[inline(always)]
            fn or(self, a: Self::I, b: Self::I) -> Self::I {
                zip(a, b, |a, b| a | b)
            }
            #[inline(always)]
            fn and(self, a: Self::I, mask: u32) -> Self::I {
                map(a, |a| a & mask)
            }
            #[inline(always)]
            fn shl<const N: u32>(self, a: Self::I) -> Self::I {
                map(a, |a| a << N)
            }
            #[inline(always)]
            fn shr<const N: u32>(self, a: Self::I) -> Self::I {
                map(a, |a| a >> N)
            }
            #[inline(always)]
            fn widen(self, bytes: &[u8; LANES]) -> Self::I {
                map(*bytes, u32::from)
            }
            #[inline(always)]
            fn narrow(self, v: Self::I, out: &mut [u8; LANES]) {
                *out = map(v, |v| v as u8);
            }
            #[inline(always)]
            fn look_up(self, table: Self::F, v: Self::I) -> Self::F {
                map(v, |v| table[v as usize & 15])
            }
            #[inline(always)]
            fn load_wide(self, x: &[f64; LANES]) -> Self::D {
                *x
            }
            #[inline(always)]
            fn store_wide(self, v: Self::D, out: &mut [f64; LANES]) {
                *out = v;
            }
            #[inline(always)]
            fn wide(self, v: Self::F) -> Self::D {
                map(v, f64::from)
            }
            #[inline(always)]
            fn add_wide(self, a: Self::D, b: Self::D) -> Self::D {
                zip(a, b, |a, b| a + b)
            }
            #[inline(always)]
            fn sub_wide(self, a: Self::D, b: Self::D) -> Self::D {
                zip(a, b, |a, b| a - b)
            }
            #[inline(always)]
            fn mul_wide(self, a: Self::D, b: Self::D) -> Self::D {
                zip(a, b, |a, b| a * b)
            }
            #[inline(always)]
            fn add_product(self, a: Self::D, b: Self::D, sum: Self::D) -> Self::D {
                std::array::from_fn(|i| a[i] * b[i] + sum[i])
            }
        }
    };
}

plain!(pulp::Scalar);
#[cfg(target_arch = "aarch64")]
plain!(super::Neon);
