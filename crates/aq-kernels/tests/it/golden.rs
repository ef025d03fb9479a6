//! Fixed results that every architecture has to reproduce.

use aq_kernels::encode::{GridsMut, encode_min_max};
use aq_kernels::product::{Matrix, MatrixOffsets, TokenI8, matvec_f32, matvec_i8, quantize_token};
use aq_kernels::{Weights, affine, hadamard, metric, pack, search};

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
        assert_eq!((hash(packed_bytes), hash(scales)), (4522257718461142467, 1916167258488173249), "{level}");
    });
}

#[test]
fn fused_kernels_give_the_same_bytes_everywhere() {
    let mut random = Random(5);
    let x: Vec<f32> = (0..128 * 24).map(|_| random.normal()).collect();
    at_every_level(|level| {
        let (mut bytes, mut numbers) = (Vec::new(), Vec::new());
        let mut token = x[..1024].to_vec();
        hadamard::transform(&mut token, 512);
        let (mut values, mut sums) = (vec![0; 1024], vec![0; 8]);
        let scale = quantize_token(&token, 128, &mut values, &mut sums);
        for bits in [2, 3, 4, 5, 6, 8] {
            let mut packed = vec![0; pack::packed_len(bits, x.len())];
            let (mut scales, mut zeros) = ([0.0; 24], [0.0; 24]);
            let grids = GridsMut { scales: &mut scales, zeros: &mut zeros };
            encode_min_max(bits, 128, Weights::F32(&x), grids, &mut packed);
            if matches!(bits, 2 | 4 | 8) {
                let (scales, zeros) = (scales.map(half::f16::from_f32), zeros.map(|z| z as u8));
                let offsets = MatrixOffsets::Zero(&zeros);
                let matrix =
                    Matrix { bits, group: 128, cols: 1024, packed: &packed, scales: &scales, offsets };
                let [mut whole, mut float] = [[0.0; 3]; 2];
                matvec_i8(&matrix, TokenI8 { values: &values, sums: &sums, scale }, &mut whole);
                matvec_f32(&matrix, &token, &mut float);
                numbers.extend([whole, float].as_flattened().iter().flat_map(|v| v.to_le_bytes()));
            }
            numbers.extend(scales.into_iter().chain(zeros).flat_map(f32::to_le_bytes));
            bytes.extend(packed);
        }
        assert_eq!((hash(bytes), hash(numbers)), (9429672771049548681, 3701509703275563683), "{level}");
    });
}
