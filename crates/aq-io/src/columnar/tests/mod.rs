//! Both formats, written and read back, whole and damaged.

mod bounds;
mod damage;
mod foreign;
mod round_trip;
mod statistics;

use std::path::{Path, PathBuf};

use aq_core::{
    AffineEncoding, BitWidth, DType, EncodedRows, EncodedSlab, Encoding, GroupSize, OffsetKind, SlabParts,
    StoredTensor, TensorInfo, slab_count, slab_range,
};

use super::schema::part_lengths;
use super::{ArrowSink, ParquetSink, open_arrow, open_parquet};
use crate::{Access, Format, Result, SlabStream, Source};

/// Slabs of made-up bytes, and a count of those that are out.
pub(super) struct Made<'t> {
    tensors: &'t [StoredTensor],
    next: (usize, u64),
    /// Ends before this slab, counted over all tensors.
    stop_at: u64,
    out: u64,
    most_out: u64,
    /// Buffers that came back.
    idle: Vec<EncodedRows>,
}

impl<'t> Made<'t> {
    pub(super) fn new(tensors: &'t [StoredTensor]) -> Self {
        Self { tensors, next: (0, 0), stop_at: u64::MAX, out: 0, most_out: 0, idle: Vec::new() }
    }
}

impl SlabStream for Made<'_> {
    fn next_slab(&mut self) -> Option<EncodedSlab> {
        let (tensor, slab) = self.next;
        let stored = self.tensors.get(tensor)?;
        self.stop_at = self.stop_at.checked_sub(1)?;
        let last = slab + 1 == slab_count(&stored.info, &stored.encoding);
        self.next = if last { (tensor + 1, 0) } else { (tensor, slab + 1) };
        self.out += 1;
        self.most_out = self.most_out.max(self.out);
        Some(made(stored, tensor, slab, self.idle.pop().unwrap_or_default()))
    }

    fn recycle(&mut self, rows: EncodedRows) {
        self.out -= 1;
        self.idle.push(rows);
    }
}

/// The slab that [`Made`] gives.
pub(super) fn made(stored: &StoredTensor, tensor: usize, slab: u64, mut rows: EncodedRows) -> EncodedSlab {
    let (row_start, row_count) = slab_range(&stored.info, &stored.encoding, slab);
    let [codes, scales, offsets, extra] = part_lengths(stored, row_count).expect("small").limits();
    let extra = if (tensor as u64 + slab).is_multiple_of(2) { extra } else { 0 };
    rows.clear();
    let mut state = ((tensor as u64) << 32 | slab).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut fill = |part: &mut Vec<u8>, len: u64| {
        part.extend((0..len).map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 24) as u8
        }));
    };
    fill(&mut rows.codes, codes);
    fill(&mut rows.scales, scales);
    fill(&mut rows.offsets, offsets);
    fill(&mut rows.extra, extra);
    fill(&mut rows.side, if stored.transformed && slab == 0 { 19 } else { 0 });
    rows.row_count = row_count;
    EncodedSlab { tensor, row_start, rows }
}

/// The parts that a reader gives of the slab `of` made, where `first` is the first slab of its tensor.
pub(super) fn read_back<'a>(
    stored: &StoredTensor,
    of: &'a EncodedSlab,
    first: &'a EncodedSlab,
) -> SlabParts<'a> {
    let row_start = if stored.transformed { of.row_start } else { 0 };
    SlabParts { side: &first.rows.side, row_start, ..of.rows.parts() }
}

pub(super) fn transformed(name: &str, shape: &[u64], bits: u8) -> StoredTensor {
    StoredTensor { transformed: true, ..affine(name, shape, bits, 16, OffsetKind::F16) }
}

pub(super) fn raw(name: &str, shape: &[u64], dtype: DType) -> StoredTensor {
    let info = TensorInfo::new(name, shape.to_vec(), dtype).expect("small");
    StoredTensor::new(info, Encoding::Raw)
}

pub(super) fn affine(name: &str, shape: &[u64], bits: u8, group: u32, offset: OffsetKind) -> StoredTensor {
    let info = TensorInfo::new(name, shape.to_vec(), DType::BF16).expect("small");
    let (bits, group_size) = (BitWidth::new(bits).expect("a width"), GroupSize::new(group).expect("a size"));
    StoredTensor::new(info, Encoding::Affine(AffineEncoding { bits, group_size, offset }))
}

/// Every type and width, without elements, scalar, of several slabs, sharing a row group and not.
pub(super) fn mixed() -> Vec<StoredTensor> {
    let mut all = vec![raw("scalar", &[], DType::F32), raw("empty", &[0, 7], DType::F16)];
    all.extend(DType::ALL.into_iter().map(|d| raw(&format!("raw.{d}"), &[3, 5], d)));
    all.push(raw("raw.long", &[3, 700, 700], DType::F32));
    for (i, bits) in BitWidth::ALL.into_iter().enumerate() {
        for offset in [OffsetKind::F16, OffsetKind::ZeroPoint] {
            let group = [0, 16, 64, 128, 1024, 32][i];
            let name = format!("affine.{bits}.{offset:?}");
            all.push(affine(&name, &[40, 300], bits.get(), group, offset));
            all.push(affine(&format!("{name}.odd"), &[3, 7, 9], bits.get(), group, offset));
        }
    }
    all.push(affine("affine.none", &[0, 64], 4, 32, OffsetKind::F16));
    all.push(affine("affine.large", &[2500, 1000], 4, 64, OffsetKind::ZeroPoint));
    all.push(transformed("turned", &[40, 300], 3));
    all.push(transformed("turned.large", &[2500, 1000], 2));
    all.push(raw("näme \u{1F600}", &[2], DType::U8));
    all
}

pub(super) const FORMATS: [Format; 2] = [Format::Parquet, Format::Arrow];

pub(super) fn metadata() -> Vec<(String, String)> {
    [("aq.model", "m"), ("aq.plan", "{\"tensors\":[]}")].map(|(k, v)| (k.into(), v.into())).to_vec()
}

/// Writes made-up slabs of `tensors`.
pub(super) fn bytes_of(format: Format, tensors: &[StoredTensor]) -> Vec<u8> {
    let mut slabs = Made::new(tensors);
    let path = std::env::temp_dir().join("model");
    let bytes = match format {
        Format::Parquet => {
            let mut sink = ParquetSink::new(Vec::new(), &path).expect("a schema");
            sink.write(tensors, &mut slabs).expect("written");
            sink.finish(&metadata()).expect("finished")
        }
        _ => {
            let mut sink = ArrowSink::new(Vec::new(), &path).expect("a head");
            sink.write(tensors, &mut slabs).expect("written");
            sink.finish(&metadata()).expect("finished")
        }
    };
    assert_eq!((slabs.out, slabs.next), (0, (tensors.len(), 0)), "every slab was taken and given back");
    bytes
}

pub(super) fn open(format: Format, path: &Path, access: Access) -> Result<Box<dyn Source>> {
    match format {
        Format::Parquet => open_parquet(path, access),
        _ => open_arrow(path, access),
    }
}

/// A file that holds `bytes`; the folder must live as long as the file is used.
pub(super) fn file_of(bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model");
    std::fs::write(&path, bytes).expect("written");
    (folder, path)
}
