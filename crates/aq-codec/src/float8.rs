//! The 8-bit floating-point types.

use half::f16;

/// Value of an E4M3 byte, the variant without infinities: NaN is `S.1111.111`, the largest value 448.
///
/// Its fields fit those of an f16 of the same sign, with an exponent bias 8 smaller, subnormal values included.
pub(crate) fn e4m3(byte: u8) -> f32 {
    if byte & 0x7f == 0x7f {
        return f32::NAN;
    }
    let byte = u16::from(byte);
    f16::from_bits((byte & 0x80) << 8 | (byte & 0x7f) << 7).to_f32() * 256.0
}

/// Value of an E5M2 byte: the upper half of an f16.
pub(crate) fn e5m2(byte: u8) -> f32 {
    f16::from_bits(u16::from(byte) << 8).to_f32()
}

/// Value of an E8M0 byte, `2^(byte - 127)`; NaN is `0xff`.
pub(crate) fn e8m0(byte: u8) -> f32 {
    match byte {
        0 => f32::MIN_POSITIVE / 2.0,
        0xff => f32::NAN,
        byte => f32::from_bits(u32::from(byte) << 23),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn e4m3_follows_its_definition() {
        for byte in 0..=255u8 {
            let (sign, exponent, mantissa) = (byte >> 7, i32::from(byte >> 3 & 15), f32::from(byte & 7));
            let magnitude = match (exponent, byte & 7) {
                (15, 7) => f32::NAN,
                (0, _) => mantissa / 8.0 * 2f32.powi(-6),
                _ => (1.0 + mantissa / 8.0) * 2f32.powi(exponent - 7),
            };
            let expected = if sign == 1 { -magnitude } else { magnitude };
            let got = e4m3(byte);
            assert!(got.to_bits() == expected.to_bits() || got.is_nan() && expected.is_nan(), "{byte:#x}");
        }
        assert_eq!((e4m3(0x7e), e4m3(0x01)), (448.0, 2f32.powi(-9)));
    }

    #[test]
    fn e5m2_and_e8m0_have_their_known_values() {
        assert_eq!((e5m2(0x3c), e5m2(0xbd), e5m2(0x7b), e5m2(0x01)), (1.0, -1.25, 57344.0, 2f32.powi(-16)));
        assert!(e5m2(0x7c).is_infinite() && e5m2(0x7f).is_nan());
        assert_eq!((e8m0(127), e8m0(0), e8m0(254)), (1.0, 2f32.powi(-126) / 2.0, 2f32.powi(127)));
        assert!(e8m0(255).is_nan());
    }
}
