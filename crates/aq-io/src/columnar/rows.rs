//! What was read: every row is checked on its own, then against the rows before it.

use std::collections::HashSet;
use std::path::Path;

use aq_core::{
    AffineEncoding, BitWidth, CodebookEncoding, DType, Encoding, GgmlType, GroupSize, MAX_ROW_WEIGHTS,
    OffsetKind, SignEncoding, SignLevels, StoredTensor, TensorInfo, TrellisEncoding, slab_range,
};

use super::side::{fit, limits};
use super::table::{Part, Slab};
use crate::{IoError, Result};

/// The small columns of one row, as they lie in the file.
#[derive(Debug, Default)]
pub(super) struct Row {
    pub(super) tensor: String,
    pub(super) row_start: i64,
    pub(super) row_count: i64,
    pub(super) shape: Vec<i64>,
    pub(super) src_dtype: String,
    pub(super) codec: String,
    pub(super) bits: i64,
    pub(super) group_size: i64,
    pub(super) xxh3: u64,
}

/// A row that is right in itself.
#[derive(Debug)]
pub(super) struct CheckedRow {
    /// Offsets are taken as f16 until their length is known.
    stored: StoredTensor,
    start: u64,
    count: u64,
    xxh3: u64,
    /// The most bytes that codes, scales, offsets and extra can have.
    pub(super) limits: [u64; 4],
}

impl Row {
    /// Checks each value, and that their products fit.
    ///
    /// # Errors
    /// [`IoError::Tensor`] with the value.
    pub(super) fn check(self, path: &Path) -> Result<CheckedRow> {
        let name = self.tensor.clone();
        let fault = |reason: String| IoError::tensor(path, &name, reason);
        let dtype = DType::from_name(&self.src_dtype)
            .ok_or_else(|| fault(format!("unknown element type {:?} in column src_dtype", self.src_dtype)))?;
        let shape: Option<Vec<u64>> = self.shape.iter().map(|&d| u64::try_from(d).ok()).collect();
        let shape = shape.ok_or_else(|| fault(format!("negative dimension in shape {:?}", self.shape)))?;
        let info = TensorInfo::new(self.tensor, shape, dtype)
            .map_err(|e| IoError::malformed(path, e.to_string()))?;
        let (codec, transformed) = StoredTensor::split_codec(&self.codec);
        let encoding = encoding(codec, self.bits, self.group_size, dtype);
        let encoding = encoding.filter(|e| !(transformed && *e == Encoding::Raw)).ok_or_else(|| {
            let (codec, bits, group_size) = (&self.codec, self.bits, self.group_size);
            fault(format!("unknown codec {codec:?} with bits {bits}, group size {group_size}"))
        })?;
        if encoding != Encoding::Raw && info.cols() > MAX_ROW_WEIGHTS {
            return Err(fault(format!("rows of {} weights are too long", info.cols())));
        }
        let range = (u64::try_from(self.row_start), u64::try_from(self.row_count));
        let (Ok(start), Ok(count)) = range else {
            return Err(fault(format!("negative rows: {} from {}", self.row_count, self.row_start)));
        };
        let rows = encoding.rows(&info);
        if start.checked_add(count).is_none_or(|end| end > rows) {
            return Err(fault(format!("rows {start}+{count} are outside its {rows} rows")));
        }
        let stored = StoredTensor { info, encoding, transformed };
        // The offset kinds differ in length; f16 is the longer one for every width.
        let limits = limits(&stored, start, count).ok_or_else(|| fault("sizes overflow".into()))?;
        Ok(CheckedRow { stored, start, count, xxh3: self.xxh3, limits })
    }
}

/// The encoding that the columns name; affine offsets are taken as f16.
fn encoding(codec: &str, bits: i64, group_size: i64, dtype: DType) -> Option<Encoding> {
    if codec == "raw" {
        return (bits == dtype.size() as i64 * 8 && group_size == 0).then_some(Encoding::Raw);
    }
    if codec == "entropy" {
        return (bits == 0 && group_size == 0).then_some(Encoding::Entropy);
    }
    let bits = BitWidth::new(u8::try_from(bits).ok()?).ok()?;
    let group_size = GroupSize::new(u32::try_from(group_size).ok()?).ok()?;
    if codec == "sign" {
        return SignLevels::with_bits(bits).map(|levels| Encoding::Sign(SignEncoding { levels, group_size }));
    }
    if !BitWidth::ALL.contains(&bits) {
        return None;
    }
    if let Some(kind) = GgmlType::from_codec(codec) {
        return ((bits, group_size) == (kind.bits(), kind.group_size())).then_some(Encoding::Ggml(kind));
    }
    match codec {
        "affine" => Some(Encoding::Affine(AffineEncoding { bits, group_size, offset: OffsetKind::F16 })),
        "codebook" if bits.get() <= 4 => Some(Encoding::Codebook(CodebookEncoding { bits, group_size })),
        "trellis" if bits.get() <= 4 && group_size == GroupSize::ROW => {
            Some(Encoding::Trellis(TrellisEncoding { bits }))
        }
        _ => None,
    }
}

/// Puts rows together to tensors.
pub(super) struct Rows<'p> {
    path: &'p Path,
    names: HashSet<String>,
    pub(super) tensors: Vec<StoredTensor>,
    /// Index of the first slab of each tensor.
    pub(super) first: Vec<usize>,
    pub(super) slabs: Vec<Slab>,
    /// Rows of the last tensor that are there.
    seen: u64,
}

impl<'p> Rows<'p> {
    pub(super) fn new(path: &'p Path) -> Self {
        Self {
            path,
            names: HashSet::new(),
            tensors: Vec::new(),
            first: Vec::new(),
            slabs: Vec::new(),
            seen: 0,
        }
    }

    /// Adds the next row of the file, whose parts lie at `parts`.
    ///
    /// # Errors
    /// When it does not go on where the row before ended, or a part has the wrong length.
    pub(super) fn push(&mut self, mut row: CheckedRow, parts: [Part; 4]) -> Result<()> {
        let name = row.stored.info.name().to_owned();
        let fault = |reason: String| IoError::tensor(self.path, &name, reason);
        let lengths = parts.map(|p| p.len);
        let fits = |stored: &StoredTensor| fit(stored, row.start, row.count, lengths);
        if !fits(&row.stored) {
            if let Encoding::Affine(affine) = &mut row.stored.encoding {
                affine.offset = OffsetKind::ZeroPoint;
            }
            if !fits(&row.stored) {
                return Err(fault(format!(
                    "row {}: columns codes, scales, offsets, extra have {lengths:?} bytes, but its shape {:?} asks for {:?}",
                    row.start,
                    row.stored.info.shape(),
                    row.limits
                )));
            }
        }
        match self.tensors.last() {
            Some(last) if last.info.name() == name && self.seen < last.encoding.rows(&last.info) => {
                if *last != row.stored {
                    return Err(fault(format!(
                        "row {} has another shape or encoding than the rows before",
                        row.start
                    )));
                }
            }
            _ => {
                self.end_tensor()?;
                if !self.names.insert(name.clone()) {
                    return Err(fault("duplicate tensor name".into()));
                }
                self.tensors.push(row.stored.clone());
                self.first.push(self.slabs.len());
                self.seen = 0;
            }
        }
        let index = (self.slabs.len() - self.first.last().copied().unwrap_or(0)) as u64;
        let range = (row.start, row.count);
        let cut = match row.stored.encoding {
            Encoding::Raw => row.start == self.seen && (row.count > 0 || row.stored.info.elements() == 0),
            _ => range == slab_range(&row.stored.info, &row.stored.encoding, index),
        };
        if !cut {
            return Err(fault(format!(
                "rows {}+{} are not the next slab after row {}",
                range.0, range.1, self.seen
            )));
        }
        self.seen += row.count;
        self.slabs.push(Slab { start: row.start, rows: row.count, parts, xxh3: row.xxh3 });
        Ok(())
    }

    /// Checks that the last tensor is complete.
    ///
    /// # Errors
    /// When rows are missing.
    pub(super) fn end_tensor(&self) -> Result<()> {
        match self.tensors.last() {
            Some(last) if self.seen != last.encoding.rows(&last.info) => Err(IoError::tensor(
                self.path,
                last.info.name(),
                format!("has {} of its {} rows", self.seen, last.encoding.rows(&last.info)),
            )),
            _ => Ok(()),
        }
    }
}
