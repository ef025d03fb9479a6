//! Encoded rows, and how they are cut into slabs.

use crate::{BitWidth, GgmlType, GroupSize, TensorInfo};

/// How the offset of an affine group is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OffsetKind {
    /// An integer zero point, packed at the width of the codes: `w = scale * (code - zero)`.
    ZeroPoint,
    /// An f16 offset: `w = scale * code + offset`.
    F16,
}

/// Parameters of the `affine` codec.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AffineEncoding {
    /// Bits of one code.
    pub bits: BitWidth,
    /// Weights that share a scale.
    pub group_size: GroupSize,
    /// How offsets are stored.
    pub offset: OffsetKind,
}

/// Parameters of the `codebook` codec; the table itself is in every slab.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CodebookEncoding {
    /// Bits of one code, at most 4.
    pub bits: BitWidth,
    /// Weights that share a scale.
    pub group_size: GroupSize,
}

/// The values that a code of the `sign` codec may stand for, times the scale of its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SignLevels {
    /// -1 and 1, eight codes a byte.
    Binary,
    /// -1, 0 and 1, five codes a byte.
    Ternary,
}

impl SignLevels {
    /// Bits of a code that stands alone: 1 or 2.
    ///
    /// ```
    /// use aq_core::{BitWidth, SignLevels};
    /// assert_eq!(SignLevels::Binary.bits(), BitWidth::ONE);
    /// assert_eq!(SignLevels::with_bits(BitWidth::new(2)?), Some(SignLevels::Ternary));
    /// assert_eq!(SignLevels::with_bits(BitWidth::new(3)?), None);
    /// # Ok::<(), aq_core::CoreError>(())
    /// ```
    pub fn bits(self) -> BitWidth {
        match self {
            SignLevels::Binary => BitWidth::ONE,
            SignLevels::Ternary => BitWidth::ALL[0],
        }
    }

    /// Those whose codes have so many bits.
    pub fn with_bits(bits: BitWidth) -> Option<Self> {
        [SignLevels::Binary, SignLevels::Ternary].into_iter().find(|levels| levels.bits() == bits)
    }

    /// Codes in a byte.
    pub fn codes_per_byte(self) -> usize {
        match self {
            SignLevels::Binary => 8,
            SignLevels::Ternary => 5,
        }
    }
}

/// Parameters of the `sign` codec.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SignEncoding {
    /// What a code may stand for.
    pub levels: SignLevels,
    /// Weights that share a scale.
    pub group_size: GroupSize,
}

/// Parameters of the `trellis` codec; which table it is, is in every slab.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TrellisEncoding {
    /// Bits a weight adds to the stream: 2, 3 or 4.
    pub bits: BitWidth,
}

/// How the values of a tensor are stored: one codec with its parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// The source bytes as they are. Its "rows" are single elements.
    Raw,
    /// Group-wise scale and offset.
    Affine(AffineEncoding),
    /// Group-wise scale and a small table of values.
    Codebook(CodebookEncoding),
    /// Group-wise scale and signs, with or without 0.
    Sign(SignEncoding),
    /// A uniform grid without ends, its codes entropy-coded slab by slab.
    Entropy,
    /// A bit stream read through a sliding window into a table.
    Trellis(TrellisEncoding),
    /// Blocks of a type of ggml.
    Ggml(GgmlType),
}

impl Encoding {
    /// Name of the codec in files.
    pub fn codec(&self) -> &'static str {
        match self {
            Encoding::Raw => "raw",
            Encoding::Affine(_) => "affine",
            Encoding::Codebook(_) => "codebook",
            Encoding::Sign(_) => "sign",
            Encoding::Entropy => "entropy",
            Encoding::Trellis(_) => "trellis",
            Encoding::Ggml(kind) => kind.codec(),
        }
    }

    /// Bits of one code and weights that share a scale, where the codec has such numbers.
    pub fn bits_and_group(&self) -> (Option<BitWidth>, Option<GroupSize>) {
        match self {
            Encoding::Raw | Encoding::Entropy => (None, None),
            Encoding::Affine(affine) => (Some(affine.bits), Some(affine.group_size)),
            Encoding::Codebook(codebook) => (Some(codebook.bits), Some(codebook.group_size)),
            Encoding::Sign(sign) => (Some(sign.levels.bits()), Some(sign.group_size)),
            Encoding::Trellis(trellis) => (Some(trellis.bits), None),
            Encoding::Ggml(kind) => (Some(kind.bits()), Some(kind.group_size())),
        }
    }

    /// Whether a slab's bytes are known before its weights are.
    pub fn has_fixed_size(&self) -> bool {
        !matches!(self, Encoding::Entropy)
    }

    /// Rows of the tensor under this encoding: matrix rows, or elements for `raw`.
    pub fn rows(&self, info: &TensorInfo) -> u64 {
        match self {
            Encoding::Raw => info.elements(),
            _ => info.rows(),
        }
    }

    /// Weights of one such row.
    pub fn cols(&self, info: &TensorInfo) -> u64 {
        match self {
            Encoding::Raw => 1,
            _ => info.cols(),
        }
    }
}

/// Weights of one slab, except that a slab holds at least one row.
pub const SLAB_WEIGHTS: u64 = 1 << 20;

/// Rows of an `entropy` slab of long rows: what a slab says about its columns is then small beside their codes.
const ENTROPY_ROWS: u64 = 256;

/// Most weights of an `entropy` slab of more than one row.
const ENTROPY_SLAB_WEIGHTS: u64 = 8 << 20;

/// The longest row that is quantized, in weights; tensors of longer rows are kept.
pub const MAX_ROW_WEIGHTS: u64 = 1 << 22;

/// Rows of a full slab: a function of shape and codec only, at least 1, at most 4 MiB of codes.
///
/// A slab is the unit of the file and of the work: [`SLAB_WEIGHTS`] weights, or one row when a row is longer. Under
/// `entropy` it has at least 256 rows, unless that makes more than 8 Mi weights.
///
/// ```
/// use aq_core::{DType, Encoding, TensorInfo, slab_rows};
/// let info = TensorInfo::new("w", vec![4096, 1000], DType::F32)?;
/// assert_eq!(slab_rows(&info, &Encoding::Raw), 1 << 20);
/// # Ok::<(), aq_core::CoreError>(())
/// ```
pub fn slab_rows(info: &TensorInfo, encoding: &Encoding) -> u64 {
    match encoding {
        Encoding::Raw => ((4 << 20) / info.dtype().size() as u64).min(SLAB_WEIGHTS),
        Encoding::Entropy => {
            let cols = info.cols().max(1);
            (SLAB_WEIGHTS / cols).max(ENTROPY_ROWS.min(ENTROPY_SLAB_WEIGHTS / cols)).max(1)
        }
        _ => (SLAB_WEIGHTS / info.cols().max(1)).max(1),
    }
}

/// Slabs of the tensor; a tensor without elements has one empty slab.
pub fn slab_count(info: &TensorInfo, encoding: &Encoding) -> u64 {
    encoding.rows(info).div_ceil(slab_rows(info, encoding)).max(1)
}

/// First row and number of rows of slab `index`.
pub fn slab_range(info: &TensorInfo, encoding: &Encoding, index: u64) -> (u64, u64) {
    let (rows, step) = (encoding.rows(info), slab_rows(info, encoding));
    let start = (index * step).min(rows);
    (start, step.min(rows - start))
}

/// Rows of one tensor in their encoded form, appended row by row; a reusable buffer.
///
/// What the parts hold is up to the codec; `docs/format.md` has all of them. For `affine`: `codes` holds `packed_len(cols)` bytes a row; `scales` one little-endian f16 a group; `offsets` one f16 a
/// group or the row's packed zero points; `extra` one signed byte a row, the power of two its scales and offsets
/// are multiplied by. For `raw` only `codes` is used.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EncodedRows {
    /// Rows appended so far.
    pub row_count: u64,
    /// Packed codes, or source bytes for `raw`.
    pub codes: Vec<u8>,
    /// Scales.
    pub scales: Vec<u8>,
    /// Offsets or zero points.
    pub offsets: Vec<u8>,
    /// What else the codec needs.
    pub extra: Vec<u8>,
    /// Side data of the tensor, in its first slab only; empty elsewhere.
    pub side: Vec<u8>,
}

impl EncodedRows {
    /// Empties the buffers and keeps their memory.
    pub fn clear(&mut self) {
        self.row_count = 0;
        for buffer in [&mut self.codes, &mut self.scales, &mut self.offsets, &mut self.extra, &mut self.side]
        {
            buffer.clear();
        }
    }

    /// Bytes of all parts.
    pub fn bytes(&self) -> u64 {
        [&self.codes, &self.scales, &self.offsets, &self.extra, &self.side]
            .iter()
            .map(|part| part.len() as u64)
            .sum()
    }

    /// The parts, borrowed, without side data.
    pub fn parts(&self) -> SlabParts<'_> {
        let Self { codes, scales, offsets, extra, .. } = self;
        SlabParts { codes, scales, offsets, extra, ..SlabParts::default() }
    }
}

/// The stored parts of a slab, borrowed from a buffer or a memory map. See [`EncodedRows`] for what they hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SlabParts<'a> {
    /// Packed codes, or source bytes for `raw`.
    pub codes: &'a [u8],
    /// Scales.
    pub scales: &'a [u8],
    /// Offsets or zero points.
    pub offsets: &'a [u8],
    /// What else the codec needs; empty when every row's value is 0.
    pub extra: &'a [u8],
    /// Side data of the tensor; the same in every slab.
    pub side: &'a [u8],
    /// First row of the slab in the tensor; of account with side data only.
    pub row_start: u64,
}

/// One finished slab on its way to a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedSlab {
    /// Index of its tensor in the output.
    pub tensor: usize,
    /// First row.
    pub row_start: u64,
    /// Its rows.
    pub rows: EncodedRows,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DType;

    #[test]
    fn slabs_cover_every_row_once() {
        let affine = Encoding::Affine(AffineEncoding {
            bits: BitWidth::ALL[0],
            group_size: GroupSize::ROW,
            offset: OffsetKind::F16,
        });
        for shape in [vec![], vec![0], vec![7], vec![3, 1 << 21], vec![5000, 1152], vec![2, 0], vec![9 << 20]]
        {
            let info = TensorInfo::new("t", shape, DType::F64).expect("a small shape");
            for encoding in [Encoding::Raw, affine, Encoding::Entropy] {
                let mut next = 0;
                for i in 0..slab_count(&info, &encoding) {
                    let (start, count) = slab_range(&info, &encoding, i);
                    assert_eq!(start, next);
                    next += count;
                }
                assert_eq!(next, encoding.rows(&info));
            }
        }
    }
}
