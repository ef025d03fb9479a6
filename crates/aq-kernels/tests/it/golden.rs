//! Fixed results that every architecture has to reproduce.

use aq_kernels::{affine, metric, pack, search};

use crate::tester::{Random, at_every_level};

/// FNV-1a, 64 bits.
fn hash(bytes: impl IntoIterator<Item = u8>) -> u64 {
    bytes.into_iter().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}

#[test]
fn packed_bytes_of_eleven_codes() {
    let codes: [u8; 11] = [1, 2, 3, 0, 3, 2, 1, 0, 3, 1, 2];
    at_every_level(|level| {
        let packed = |bits, codes: &[u8]| {
            let mut out = vec![0; pack::packed_len(bits, codes.len())];
            pack::pack(bits, codes, &mut out);
            out
        };
        assert_eq!(packed(2, &codes), [0b01_11_11_01, 0b00_10_00_10, 0b10_01_11], "{level}");
        assert_eq!(packed(3, &codes[..9]), [0b01_11_11_01, 0b00_10_00_10, 0, 0b011], "{level}");
        assert_eq!(packed(4, &codes), [0x31, 0x22, 0x13, 0x00, 0x13, 0x02], "{level}");
        assert_eq!(packed(5, &codes.map(|c| c + 16))[..5], [0x31, 0x22, 0x13, 0x00, 0xff], "{level}");
        assert_eq!(packed(6, &codes.map(|c| c + 32))[..6], [0x31, 0x22, 0x13, 0x00, 0xaa, 0xaa], "{level}");
        assert_eq!(packed(8, &codes), codes, "{level}");
    });
}

#[test]
fn a_seeded_tensor_gives_the_same_codes_and_sums_everywhere() {
    let mut random = Random(4);
    let x: Vec<f32> = (0..128 * 24 + 37).map(|_| random.normal()).collect();
    let h: Vec<f32> = x.iter().map(|_| random.unit()).collect();
    at_every_level(|level| {
        let (mut packed_bytes, mut scales) = (Vec::new(), Vec::new());
        for (n, (x, h)) in x.chunks(128).zip(h.chunks(128)).enumerate() {
            let bits = [2, 3, 4, 5, 6, 8][n % 6];
            let top = ((1u16 << bits) - 1) as u8;
            let (scale, offset) = search::ls_search(x, (n % 2 == 0).then_some(h), top);
            let mut codes = vec![0; x.len()];
            affine::quantize(x, 1.0 / scale, offset, top, &mut codes);
            let mut packed = vec![0; pack::packed_len(bits, x.len())];
            pack::pack(bits, &codes, &mut packed);
            let mut back = vec![0.0; x.len()];
            affine::dequantize_offset(&codes, scale, offset, &mut back);
            packed_bytes.extend(packed);
            scales.extend([scale, offset].into_iter().chain(back).flat_map(f32::to_le_bytes));
            scales.extend(
                metric::squared_error(x, &codes.iter().map(|&c| f32::from(c)).collect::<Vec<_>>())
                    .to_le_bytes(),
            );
        }
        assert_eq!(packed_bytes.len(), 1802, "{level}");
        assert_eq!(
            (hash(packed_bytes), hash(scales)),
            (3442376669563959883, 1114770626839393860),
            "{level}"
        );
    });
}
