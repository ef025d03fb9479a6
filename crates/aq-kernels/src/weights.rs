//! Weights of the three floating-point types that models come in.

use half::{bf16, f16};
use pulp::cast;

use crate::isa::Isa;
use crate::lanes::LANES;

/// A run of weights of one type.
#[derive(Debug, Clone, Copy)]
pub enum Weights<'a> {
    /// Single precision.
    F32(&'a [f32]),
    /// Half precision.
    F16(&'a [f16]),
    /// The upper half of single precision.
    BF16(&'a [bf16]),
}

impl Weights<'_> {
    /// How many weights there are.
    pub fn len(&self) -> usize {
        match self {
            Weights::F32(x) => x.len(),
            Weights::F16(x) => x.len(),
            Weights::BF16(x) => x.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A run of weights to write.
#[derive(Debug)]
pub enum WeightsMut<'a> {
    /// Single precision.
    F32(&'a mut [f32]),
    /// Half precision.
    F16(&'a mut [f16]),
    /// The upper half of single precision.
    BF16(&'a mut [bf16]),
}

impl WeightsMut<'_> {
    /// How many weights there are.
    pub fn len(&self) -> usize {
        match self {
            WeightsMut::F32(x) => x.len(),
            WeightsMut::F16(x) => x.len(),
            WeightsMut::BF16(x) => x.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A type of weight as kernels read and write it, 16 at a time.
pub(crate) trait Weight: Copy {
    const ZERO: Self;
    /// Whether it takes 16 bits.
    const HALF: bool;
    fn load<I: Isa>(isa: I, x: &[Self; LANES]) -> I::F;
    fn store<I: Isa>(isa: I, v: I::F, out: &mut [Self; LANES]);
    /// The weights `table[(byte >> SHIFT) & 31]`.
    #[inline(always)]
    fn look_up<const SHIFT: u32, I: Isa>(_: I, table: &[Self; 32], bytes: &[u8; 32], out: &mut [Self; 32]) {
        for (out, byte) in out.iter_mut().zip(bytes) {
            *out = table[usize::from(byte >> SHIFT & 31)];
        }
    }
}

macro_rules! weight {
    ($type:ty, $zero:expr, $half:literal, $load:ident, $store:ident $(, $look_up:ident)?) => {
        impl Weight for $type {
            const ZERO: Self = $zero;
            const HALF: bool = $half;

            #[inline(always)]
            fn load<I: Isa>(isa: I, x: &[Self; LANES]) -> I::F {
                isa.$load(x)
            }

            #[inline(always)]
            fn store<I: Isa>(isa: I, v: I::F, out: &mut [Self; LANES]) {
                isa.$store(v, out);
            }
            $(
                #[inline(always)]
                fn look_up<const SHIFT: u32, I: Isa>(
                    isa: I,
                    table: &[Self; 32],
                    bytes: &[u8; 32],
                    out: &mut [Self; 32],
                ) {
                    let mut words = [0; 32];
                    isa.$look_up::<SHIFT>(&cast(*table), bytes, &mut words);
                    *out = cast(words);
                }
            )?
        }
    };
}

weight!(f32, 0.0, false, load, store);
weight!(f16, f16::ZERO, true, load_f16, store_f16, look_up_words);
weight!(bf16, bf16::ZERO, true, load_bf16, store_bf16, look_up_words);

/// The first 16 weights, or all there are followed by zeros.
#[inline(always)]
pub(crate) fn load_padded<I: Isa, T: Weight>(isa: I, x: &[T]) -> I::F {
    let mut lanes = [T::ZERO; LANES];
    lanes[..x.len()].copy_from_slice(x);
    T::load(isa, &lanes)
}
