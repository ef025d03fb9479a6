//! Packed layers in a diffusers folder: what is written is read back, part for part.

use std::collections::VecDeque;

use aq_codec::{LowRank, Rotation, Side, pack_zero_points, row_bytes};
use aq_core::{
    AffineEncoding, BitWidth, DType, EncodedRows, EncodedSlab, Encoding, GroupSize, OffsetKind, StoredTensor,
    TensorInfo, slab_count, slab_range,
};
use aq_io::{CreateOptions, IoError, OutputFormat, Source, create, verify_checksums};
use proptest::prelude::*;

use crate::support::{Feed, folder, opened};

/// What a layer has.
#[derive(Debug, Clone)]
struct Made {
    shape: Vec<u64>,
    bits: u8,
    group_size: u32,
    zero_points: bool,
    exponents: bool,
    rotation: Option<Rotation>,
    smoothing: bool,
    rank: usize,
    seed: u64,
}

impl Made {
    fn stored(&self, name: &str) -> StoredTensor {
        let (bits, group_size) =
            (BitWidth::new(self.bits).expect("a width"), GroupSize::new(self.group_size));
        let offset = if self.zero_points { OffsetKind::ZeroPoint } else { OffsetKind::F16 };
        let affine = AffineEncoding { bits, group_size: group_size.expect("a size"), offset };
        let info =
            TensorInfo::new(format!("{name}.weight"), self.shape.clone(), DType::BF16).expect("a shape");
        let transformed = self.rotation.is_some() || self.smoothing || self.rank > 0;
        StoredTensor { info, encoding: Encoding::Affine(affine), transformed }
    }

    /// The slabs, filled with what depends on the seed.
    fn slabs(&self, stored: &StoredTensor, tensor: usize) -> Vec<EncodedSlab> {
        let Encoding::Affine(affine) = stored.encoding else { unreachable!("affine") };
        let (cols, mut state) = (stored.info.cols() as usize, self.seed | 1);
        let mut next = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as u8
        };
        let mut bytes = |n: usize| (0..n).map(|_| next()).collect::<Vec<u8>>();
        let row = row_bytes(&affine, cols);
        let slab = |index: u64| {
            let (row_start, row_count) = slab_range(&stored.info, &stored.encoding, index);
            let n = row_count as usize;
            let mut rows = EncodedRows {
                row_count,
                codes: bytes(n * row.codes),
                scales: bytes(n * row.scales),
                ..EncodedRows::default()
            };
            if self.zero_points {
                let zeros: Vec<u8> = bytes(n * row.scales / 2).iter().map(|z| z >> (8 - self.bits)).collect();
                assert!(pack_zero_points(&affine, cols, &zeros, &mut rows.offsets));
            } else {
                rows.offsets = bytes(n * row.offsets);
            }
            // A slab has them or not, whatever the others have.
            if self.exponents && index.is_multiple_of(2) {
                rows.extra = vec![0; n];
                rows.extra[n - 1] = (-7i8) as u8;
            }
            if index == 0 {
                let smoothing = [0x12, 0x34].repeat(cols);
                let (scales, left, right) = (
                    bytes(4 * self.rank),
                    bytes(self.rank * stored.info.rows() as usize),
                    bytes(self.rank * cols),
                );
                let part = LowRank { scales: &scales, left: &left, right: &right };
                rows.side = Side {
                    rotation: self.rotation,
                    smoothing: self.smoothing.then_some(smoothing.as_slice()),
                    low_rank: (self.rank > 0).then_some(part),
                }
                .bytes();
            }
            EncodedSlab { tensor, row_start, rows }
        };
        (0..slab_count(&stored.info, &stored.encoding)).map(slab).collect()
    }
}

/// Writes the layers between two plain tensors, reads them back and compares all parts.
fn check_round_trip(layers: &[Made], shard_bytes: Option<u64>) {
    let folder = folder();
    let path = folder.path().join("out");
    let plain = |name: &str, n: u64, dtype| {
        StoredTensor::new(TensorInfo::new(name, vec![n], dtype).expect("a shape"), Encoding::Raw)
    };
    let mut tensors = vec![plain("odd", 3, DType::U8)];
    tensors.extend(layers.iter().enumerate().map(|(i, made)| made.stored(&format!("blocks.{i}.fc"))));
    tensors.push(plain("wide", 5, DType::F64));
    let mut slabs: Vec<EncodedSlab> = Feed::new(&tensors[..1], 0).0.into();
    for (i, made) in layers.iter().enumerate() {
        slabs.extend(made.slabs(&tensors[i + 1], i + 1));
    }
    let last = tensors.len() - 1;
    slabs.extend(
        Feed::new(&tensors[last..], 0).0.into_iter().map(|slab| EncodedSlab { tensor: last, ..slab }),
    );

    let options = CreateOptions { shard_bytes, ..CreateOptions::default() };
    let mut sink = create(&path, OutputFormat::Diffusers, &options).expect("a new folder");
    sink.write(&tensors, &mut Feed(slabs.iter().cloned().collect::<VecDeque<_>>())).expect("written");
    let pending = sink.finish(&[]).expect("finished");
    pending.check(&|| false).expect("undamaged");
    pending.commit().expect("committed");
    verify_checksums(&path, &|| false).expect("undamaged");
    for entry in std::fs::read_dir(&path).expect("a folder").flatten() {
        if entry.path().extension().is_some_and(|ending| ending == "safetensors") {
            let bytes = std::fs::read(entry.path()).expect("readable");
            safetensors::SafeTensors::deserialize(&bytes).expect("the reference reader takes it");
        }
    }
    let source = opened(&path);
    assert_eq!(source.tensors().len(), tensors.len());
    for slab in &slabs {
        check_slab(&*source, &tensors[slab.tensor], slab);
    }
}

fn check_slab(source: &dyn Source, stored: &StoredTensor, slab: &EncodedSlab) {
    let index = source.tensors().iter().position(|t| t == stored).expect("read as it was written");
    if stored.encoding == Encoding::Raw {
        let mut bytes = vec![0; stored.info.bytes() as usize];
        source.read_bytes(index, 0, &mut bytes).expect("readable");
        return assert_eq!(bytes, slab.rows.codes);
    }
    let number = slab.row_start / aq_core::slab_rows(&stored.info, &stored.encoding);
    let mut buffer = Vec::new();
    let parts = source.read_slab(index, number, &mut buffer).expect("readable");
    let rows = &slab.rows;
    assert_eq!((parts.codes, parts.scales), (rows.codes.as_slice(), rows.scales.as_slice()));
    assert_eq!((parts.offsets, parts.extra), (rows.offsets.as_slice(), rows.extra.as_slice()));
    if slab.row_start == 0 {
        assert_eq!(parts.side, rows.side);
    }
}

fn made() -> impl Strategy<Value = Made> {
    let shape = prop_oneof![
        (1..9u64, 1..70u64).prop_map(|(rows, cols)| vec![rows, cols]),
        (1..9u64, 1..5u64).prop_map(|(rows, channels)| vec![rows, channels * 16, 1, 1]),
        (1..9u64, 1..4u64).prop_map(|(rows, channels)| vec![rows, channels, 3, 3]),
    ];
    let bits = prop::sample::select(vec![2u8, 3, 4, 5, 6, 8]);
    let group_size = prop::sample::select(vec![0u32, 16, 32]);
    let flags = (any::<bool>(), any::<bool>(), any::<bool>());
    (shape, bits, group_size, flags, 0..3u8, 0..4usize, any::<u64>()).prop_map(
        |(shape, bits, group_size, (zero_points, exponents, smoothing), turned, rank, seed)| {
            let cols = shape[1..].iter().product::<u64>() as usize;
            let rotation = match turned {
                0 => None,
                1 => Rotation::new(cols, seed),
                _ => Rotation::regular(16, cols),
            };
            Made { shape, bits, group_size, zero_points, exponents, rotation, smoothing, rank, seed }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn layers_are_read_as_they_were_written(layers in prop::collection::vec(made(), 0..4), small in any::<bool>()) {
        check_round_trip(&layers, small.then_some(200));
    }
}

fn plain_layer(shape: Vec<u64>) -> Made {
    Made {
        shape,
        bits: 4,
        group_size: 16,
        zero_points: false,
        exponents: false,
        rotation: None,
        smoothing: false,
        rank: 0,
        seed: 5,
    }
}

#[test]
fn exponents_of_some_slabs_are_those_of_all() {
    let long = Made { group_size: 0, bits: 2, exponents: true, rank: 2, ..plain_layer(vec![3, 700_001]) };
    check_round_trip(&[long.clone(), Made { zero_points: true, smoothing: true, ..long }], None);
}

#[test]
fn what_is_no_such_folder_is_refused() {
    let folder = folder();
    let path = folder.path().join("out");
    let made = plain_layer(vec![4, 64]);
    let tensors = [made.stored("fc")];
    let mut sink = create(&path, OutputFormat::Diffusers, &CreateOptions::default()).expect("a new folder");
    sink.write(&tensors, &mut Feed(made.slabs(&tensors[0], 0).into())).expect("written");
    sink.finish(&[]).expect("finished").commit().expect("committed");
    let (config, weights) = (path.join("config.json"), path.join("model.safetensors"));
    let text = std::fs::read_to_string(&config).expect("readable");
    let refused = |from: &str, to: &str| {
        assert!(text.contains(from), "{text}");
        std::fs::write(&config, text.replace(from, to)).expect("writable");
        aq_io::open(&path, aq_io::Access::Positioned).err().expect("refused")
    };
    for (from, to, fact) in [
        ("\"fc\": {", "\"other\": {}, \"fc\": {", "other.packed.codes"),
        ("\"bits\": 4", "\"bits\": 7", "cannot be packed"),
        ("\"bits\": 4", "\"bits\": 1", "cannot be packed"),
        ("\"bits\": 4", "\"bits\": 8", "fc.packed.codes"),
        ("\"shape\"", "\"exponents\": true, \"shape\"", "fc.packed.exponents"),
        ("\"shape\"", "\"colour\": 7, \"shape\"", "colour"),
        ("64\n", "65\n", "fc.packed.codes"),
        ("\"layers\": {", "\"layers\": 3, \"x\": {", "does not describe"),
    ] {
        let error = refused(from, to);
        assert!(matches!(error, IoError::Tensor { .. } | IoError::Malformed { .. }), "{error}");
        assert!(error.to_string().contains(fact), "{error}");
    }
    assert!(matches!(refused("\"version\": 1", "\"version\": 2"), IoError::Unsupported { .. }));
    // Without a word about packed layers the tensors are what they are.
    refused_not(&path, &config, "{}");
    std::fs::write(&config, &text).expect("writable");
    let mut damaged = std::fs::read(&weights).expect("readable");
    *damaged.last_mut().expect("not empty") ^= 1;
    std::fs::write(&weights, damaged).expect("writable");
    let error = verify_checksums(&path, &|| false).expect_err("damaged");
    assert!(error.to_string().contains("fc.packed.codes"), "{error}");
}

fn refused_not(path: &std::path::Path, config: &std::path::Path, text: &str) {
    std::fs::write(config, text).expect("writable");
    let source = opened(path);
    assert!(source.tensors().iter().any(|t| t.info.name() == "fc.packed.codes"));
}
