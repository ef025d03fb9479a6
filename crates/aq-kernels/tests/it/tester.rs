//! Inputs and the loop over levels that all tests share.

use aq_kernels::{Level, levels, with_level};

/// Bits to compare by, so that NaN equals itself and negative zero differs from zero.
pub(crate) trait Bits {
    /// The value as bits.
    fn bits(&self) -> u64;
}

macro_rules! bits {
    ($($type:ty: $x:ident => $bits:expr),* $(,)?) => {
        $(impl Bits for $type {
            fn bits(&self) -> u64 {
                let $x = self;
                u64::from($bits)
            }
        })*
    };
}

bits! {
    u8: x => *x,
    f32: x => x.to_bits(),
    f64: x => x.to_bits(),
    half::f16: x => x.to_bits(),
    half::bf16: x => x.to_bits(),
}

/// Compares bit by bit and names the first element that differs.
#[track_caller]
pub(crate) fn assert_same<T: Bits + std::fmt::Debug>(got: &[T], want: &[T], what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    if let Some(i) = got.iter().zip(want).position(|(g, w)| g.bits() != w.bits()) {
        panic!("{what}: element {i} of {} is {:?}, not {:?}", got.len(), got[i], want[i]);
    }
}

/// Runs `check` at each level of this machine.
pub(crate) fn at_every_level(check: impl Fn(Level)) {
    for level in levels() {
        with_level(level, || check(level));
    }
}

/// Runs `check(x, what)` at each level, with every kind of values, each length in 0..=130 and some larger ones, and
/// slices that start 0 to 16 elements into their buffer.
#[track_caller]
pub(crate) fn check_all(check: impl Fn(&[f32], &str)) {
    let lengths = || (0..=130).chain([255, 256, 1000, 1024, 1025, 3000]);
    for (kind, values) in kinds() {
        at_every_level(|level| {
            for (n, length) in lengths().enumerate() {
                let start = n % 17;
                check(&values[start..start + length], &format!("{level}, {kind}, {length} from {start}"));
            }
            for start in 0..=16 {
                for length in [1, 15, 16, 17, 31, 64, 100, 128, 129] {
                    check(&values[start..start + length], &format!("{level}, {kind}, {length} from {start}"));
                }
            }
        });
    }
}

/// Finite values of every kind that weights come in: 3100 each.
pub(crate) fn kinds() -> Vec<(&'static str, Vec<f32>)> {
    let make = |f: &mut dyn FnMut(usize) -> f32| (0..3100).map(f).collect::<Vec<f32>>();
    let mut random = Random(1);
    vec![
        ("normal", make(&mut |_| random.normal())),
        ("ties", make(&mut |i| (i * 7 % 41) as f32 * 0.5 - 3.0)),
        ("equal", make(&mut |_| 0.75)),
        ("zeros", make(&mut |i| if i % 3 == 0 { -0.0 } else { 0.0 })),
        ("positive", make(&mut |_| 3.0 + random.normal().abs())),
        ("negative", make(&mut |_| -3.0 - random.normal().abs())),
        ("outlier", make(&mut |i| if i % 100 == 63 { 1e4 } else { random.normal() })),
        ("subnormal", make(&mut |i| f32::from_bits(i as u32 * 2477) * if i % 2 == 0 { -1.0 } else { 1.0 })),
        ("huge", make(&mut |_| (random.normal() * 0.2).clamp(-1.0, 1.0) * f32::MAX)),
        ("tiny", make(&mut |_| random.normal() * 1e-30)),
    ]
}

/// A small generator with a fixed seed (splitmix64).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// 64 random bits.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A value in 0..1, exact in `f32`.
    pub(crate) fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 24) as f32
    }

    /// About normal with mean 0 and variance 1: a sum of 12, so no library function decides its bits.
    pub(crate) fn normal(&mut self) -> f32 {
        (0..12).fold(-6.0, |sum, _| sum + self.unit())
    }
}
