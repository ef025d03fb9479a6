//! Logarithms and powers of two in integers, so that a choice by cost is the same on every machine.

/// One bit in the units of all costs.
pub(super) const BIT: u64 = 1 << 16;

/// `log2(1 + i / 4096)` in units of 1 / [`BIT`], rounded down.
static FRACTIONS: [u16; 4096] = fractions();

const fn fractions() -> [u16; 4096] {
    let mut table = [0; 4096];
    let mut i = 0;
    while i < 4096 {
        table[i] = fraction(i as u64);
        i += 1;
    }
    table
}

/// One bit of a logarithm a squaring.
const fn fraction(i: u64) -> u16 {
    let (mut x, mut bits) = ((4096 + i) << 19, 0_u64);
    let mut n = 0;
    while n < 16 {
        x = (x * x) >> 31;
        bits = bits << 1 | x >> 32;
        let carry = x >> 32;
        x >>= carry;
        n += 1;
    }
    bits as u16
}

/// `log2(n)` in units of 1 / [`BIT`], from the highest 13 bits of `n`; 0 for 0.
pub(super) fn log2(n: u64) -> u64 {
    let Some(whole) = n.checked_ilog2() else { return 0 };
    let mantissa = if whole > 12 { n >> (whole - 12) } else { n << (12 - whole) };
    u64::from(whole) * BIT + u64::from(FRACTIONS[(mantissa & 4095) as usize])
}

/// What a symbol of this frequency out of 4096 costs, in units of 1 / [`BIT`] bits.
pub(super) fn cost(frequency: u16) -> u64 {
    12 * BIT - log2(u64::from(frequency))
}

/// `2^(i / 32)` times 2^16, rounded to nearest.
const POWERS: [u32; 32] = [
    65536, 66971, 68438, 69936, 71468, 73032, 74632, 76266, 77936, 79642, 81386, 83169, 84990, 86851, 88752,
    90696, 92682, 94711, 96785, 98905, 101070, 103283, 105545, 107856, 110218, 112631, 115098, 117618,
    120194, 122825, 125515, 128263,
];

/// `2^(level / 32)` times 2^16, for `level` of at most 384.
pub(super) fn power(level: usize) -> u64 {
    u64::from(POWERS[level % 32]) << (level / 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logarithms_are_close() {
        for n in (1..5000).chain([1 << 20, 999_999, u64::MAX]) {
            let exact = (n as f64).log2() * BIT as f64;
            assert!((exact - log2(n) as f64).abs() < 24.0, "{n}");
        }
        assert_eq!((cost(4096), cost(1), cost(2048)), (0, 12 * BIT, BIT));
    }

    #[test]
    fn powers_are_close() {
        for level in 0..=384 {
            let exact = 65536.0 * (level as f64 / 32.0).exp2();
            assert!((power(level) as f64 / exact - 1.0).abs() < 1e-5, "{level}");
        }
    }
}
