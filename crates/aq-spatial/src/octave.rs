//! Logarithms to base 2 in small parts of an octave, with the same bits on every machine.

/// `log2(x)` in units of `1 / 2^fineness`, rounded to the nearest unit, half up.
///
/// `x` is positive and finite. Each bit comes from one squaring in `f64`: no function of a mathematics library, whose last bits
/// differ between machines, is asked. `fineness` is at most 16.
pub(crate) fn log2(x: f64, fineness: u32) -> i32 {
    let (mut mantissa, whole) = split(x);
    let mut parts = whole;
    // One bit more than is kept, to round.
    for _ in 0..=fineness {
        mantissa *= mantissa;
        let bit = i32::from(mantissa >= 2.0);
        parts = 2 * parts + bit;
        if bit == 1 {
            mantissa *= 0.5;
        }
    }
    (parts + 1).div_euclid(2)
}

/// `x` as `mantissa * 2^exponent` with a mantissa in `[1, 2)`.
fn split(x: f64) -> (f64, i32) {
    let (x, lift) = if x < f64::MIN_POSITIVE { (x * 2f64.powi(64), -64) } else { (x, 0) };
    let bits = x.to_bits();
    let exponent = (bits >> 52 & 0x7ff) as i32 - 1023;
    (f64::from_bits(bits & !(0x7ff << 52) | 1023 << 52), exponent + lift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_have_their_logarithm() {
        for fineness in [3, 5, 10] {
            for parts in -1000..1000 {
                let x = aq_codec::entropy::power(parts, fineness as u8);
                assert_eq!(log2(f64::from(x), fineness), parts, "{parts} / 2^{fineness}");
            }
        }
    }

    #[test]
    fn the_nearest_part_is_taken() {
        assert_eq!(
            (log2(1.0, 2), log2(1.09, 2), log2(1.0906, 2), log2(0.92, 2), log2(0.9, 2)),
            (0, 0, 1, 0, -1)
        );
        assert_eq!(log2(f64::MIN_POSITIVE / 4.0, 0), -1024);
        assert_eq!(log2(f64::MAX, 0), 1024);
    }
}
