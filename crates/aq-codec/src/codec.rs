//! One way into every codec, for readers.

use aq_core::{Encoding, OffsetKind, RowData, SlabParts, TensorInfo, slab_count, slab_rows};
use aq_kernels::float16::{widen_bf16, widen_f16};
use aq_kernels::metric::{self, Comparison};

use crate::affine_read::{exact, span};
use crate::codebook;
use crate::{
    CodecError, ReadScratch, Side, bytes_to_f32, check_parts, compare_rows, decode_rows, entropy, ggml,
    row_bytes, sign, table_bytes, trellis,
};

/// Lengths that the parts of a slab may have: codes, scales, offsets, extra.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartLengths {
    /// Exactly these, save that `extra` may also be empty.
    Exact([u64; 4]),
    /// At most these.
    AtMost([u64; 4]),
}

impl PartLengths {
    /// The most bytes each part may have.
    pub fn limits(self) -> [u64; 4] {
        match self {
            PartLengths::Exact(limits) | PartLengths::AtMost(limits) => limits,
        }
    }

    /// Whether parts of these lengths can be the slab's.
    ///
    /// ```
    /// use aq_codec::PartLengths;
    /// assert!(PartLengths::Exact([8, 2, 2, 1]).fit([8, 2, 2, 0]));
    /// assert!(!PartLengths::Exact([8, 2, 2, 1]).fit([7, 2, 2, 0]));
    /// assert!(PartLengths::AtMost([8, 2, 2, 1]).fit([7, 2, 2, 0]));
    /// ```
    pub fn fit(self, lengths: [u64; 4]) -> bool {
        match self {
            PartLengths::Exact(exact) => lengths[..3] == exact[..3] && [0, exact[3]].contains(&lengths[3]),
            PartLengths::AtMost(most) => lengths.iter().zip(most).all(|(&got, most)| got <= most),
        }
    }
}

/// Lengths of the parts of `rows` rows of the tensor, in one slab; `None` when they pass 64 bits.
pub fn part_lengths(info: &TensorInfo, encoding: &Encoding, rows: u64) -> Option<PartLengths> {
    let [codes, scales, offsets, extra] = match encoding {
        Encoding::Raw => [info.dtype().size() as u64, 0, 0, 0],
        Encoding::Affine(affine) => {
            let cols = usize::try_from(info.cols()).ok()?;
            let groups = affine.group_size.groups(cols);
            let offsets = match affine.offset {
                OffsetKind::F16 => groups.checked_mul(2)?,
                OffsetKind::ZeroPoint => affine.bits.packed_len(groups),
            };
            [affine.bits.packed_len(cols) as u64, groups.checked_mul(2)? as u64, offsets as u64, 1]
        }
        Encoding::Entropy => {
            let most = entropy::most_bytes(usize::try_from(info.cols()).ok()?, rows)?;
            return Some(PartLengths::AtMost(most));
        }
        Encoding::Trellis(encoding) => {
            return trellis::lengths(info, *encoding, rows).map(PartLengths::Exact);
        }
        Encoding::Ggml(kind) => [kind.row_bytes(info.cols())?, 0, 0, 0],
        Encoding::Sign(sign) => {
            let (codes, scales) = sign::row_bytes(sign, usize::try_from(info.cols()).ok()?);
            [codes as u64, scales as u64, 0, 1]
        }
        Encoding::Codebook(codebook) => {
            let cols = usize::try_from(info.cols()).ok()?;
            let scales = codebook.group_size.groups(cols).checked_mul(2)? as u64;
            let codes = (codebook.bits.packed_len(cols) as u64).checked_mul(rows)?;
            return Some(PartLengths::Exact([codes, scales.checked_mul(rows)?, table_bytes(codebook), rows]));
        }
    };
    let all = [codes.checked_mul(rows)?, scales.checked_mul(rows)?, offsets.checked_mul(rows)?, extra * rows];
    Some(PartLengths::Exact(all))
}

/// Bytes of all parts of the tensor when every row exponent is 0 (otherwise one more a row in the slabs concerned).
/// Under a codec of variable size it is the most that they can be.
///
/// ```
/// use aq_codec::encoded_bytes;
/// use aq_core::{AffineEncoding, BitWidth, DType, Encoding, GroupSize, OffsetKind, TensorInfo};
/// let info = TensorInfo::new("w", vec![1024, 4096], DType::F16)?;
/// let encoding = Encoding::Affine(AffineEncoding {
///     bits: BitWidth::new(2)?,
///     group_size: GroupSize::new(128)?,
///     offset: OffsetKind::F16,
/// });
/// let bits_per_weight = encoded_bytes(&info, &encoding) as f64 * 8.0 / info.elements() as f64;
/// assert_eq!(bits_per_weight, 2.25);
/// # Ok::<(), aq_core::CoreError>(())
/// ```
pub fn encoded_bytes(info: &TensorInfo, encoding: &Encoding) -> u64 {
    match encoding {
        Encoding::Raw => info.bytes(),
        Encoding::Affine(affine) => match usize::try_from(info.cols()) {
            Ok(cols) => info.rows().saturating_mul(row_bytes(affine, cols).total() as u64),
            Err(_) => u64::MAX,
        },
        Encoding::Trellis(trellis) => {
            trellis::lengths(info, *trellis, info.rows()).map_or(u64::MAX, |[codes, scales, offsets, _]| {
                codes.saturating_add(scales).saturating_add(offsets * slab_count(info, encoding))
            })
        }
        Encoding::Ggml(kind) => {
            kind.row_bytes(info.cols()).map_or(u64::MAX, |row| row.saturating_mul(info.rows()))
        }
        Encoding::Sign(sign) => match usize::try_from(info.cols()) {
            Ok(cols) => {
                let (codes, scales) = sign::row_bytes(sign, cols);
                info.rows().saturating_mul((codes as u64).saturating_add(scales as u64))
            }
            Err(_) => u64::MAX,
        },
        Encoding::Codebook(codebook) => {
            let exact = part_lengths(info, encoding, info.rows()).map_or([u64::MAX; 4], PartLengths::limits);
            let tables = table_bytes(codebook).saturating_mul(aq_core::slab_count(info, encoding));
            exact[0].saturating_add(exact[1]).saturating_add(tables)
        }
        Encoding::Entropy => part_lengths(info, encoding, info.rows()).map_or(u64::MAX, |lengths| {
            lengths.limits().iter().fold(0, |sum: u64, n| sum.saturating_add(*n))
        }),
    }
}

/// Checks that the parts are exactly `row_count` rows of the tensor and its side data fits it.
///
/// # Errors
/// [`CodecError::Side`] for side data, [`CodecError::PartLength`] for the first part that is not,
/// [`CodecError::TooLarge`] when no length could be right, [`CodecError::Damaged`] when the header of entropy-coded rows
/// cannot be read.
pub fn check(
    encoding: &Encoding,
    info: &TensorInfo,
    parts: SlabParts<'_>,
    row_count: u64,
) -> Result<(), CodecError> {
    side_of(encoding, info, parts)?;
    match encoding {
        Encoding::Affine(affine) => check_parts(affine, row_len(info, 0, row_count)?, parts, row_count),
        Encoding::Codebook(codebook) => {
            codebook::check_parts(codebook, row_len(info, 0, row_count)?, parts, row_count)
        }
        Encoding::Raw => {
            exact("codes", parts.codes, info.dtype().size() as u64, row_count)?;
            let unused = [("scales", parts.scales), ("offsets", parts.offsets), ("extra", parts.extra)];
            unused.into_iter().try_for_each(|(part, bytes)| exact(part, bytes, 0, row_count))
        }
        Encoding::Sign(sign) => sign::check_parts(sign, row_len(info, 0, row_count)?, parts, row_count),
        Encoding::Entropy => entropy::check_parts(parts, row_len(info, 0, row_count)?, row_count),
        Encoding::Trellis(encoding) => trellis::check_rows(*encoding, info, parts, row_count),
        Encoding::Ggml(kind) => ggml::check_rows(*kind, info, parts, row_count),
    }
}

/// Decodes `row_count` rows from row `first_row` of a slab on into `out`, `row_count * cols` values.
///
/// For `raw` a row is one element, so any run of elements can be had. `scratch` is a reusable buffer.
///
/// # Errors
/// [`CodecError::PartLength`] when a part ends before the last row, [`CodecError::OutputLength`] when `out` does not
/// hold exactly the rows, [`CodecError::TooLarge`] when their bytes cannot be counted, [`CodecError::ElementType`]
/// when raw elements have no conversion, [`CodecError::Damaged`] for parts of entropy-coded rows or signs that no encoder wrote,
/// [`CodecError::Side`] for side data that does not fit.
///
/// # Examples
/// ```
/// use aq_codec::{ReadScratch, decode};
/// use aq_core::{DType, Encoding, SlabParts, TensorInfo};
/// let info = TensorInfo::new("bias", vec![4], DType::U8)?;
/// let parts = SlabParts { codes: &[5, 6, 7, 8], ..SlabParts::default() };
/// let mut values = [0.0; 2];
/// decode(&Encoding::Raw, &info, parts, 2, 1, &mut ReadScratch::default(), &mut values)?;
/// assert_eq!(values, [6.0, 7.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn decode(
    encoding: &Encoding,
    info: &TensorInfo,
    parts: SlabParts<'_>,
    row_count: u64,
    first_row: u64,
    scratch: &mut ReadScratch,
    out: &mut [f32],
) -> Result<(), CodecError> {
    let too_large = CodecError::TooLarge { first: first_row, count: row_count };
    let (Ok(first), Ok(count)) = (usize::try_from(first_row), usize::try_from(row_count)) else {
        return Err(too_large);
    };
    let side = side_of(encoding, info, parts)?;
    match encoding {
        Encoding::Affine(affine) => {
            let cols = row_len(info, first_row, row_count)?;
            decode_rows(affine, cols, parts, first, count, scratch, out)
        }
        Encoding::Codebook(codebook) => {
            let cols = row_len(info, first_row, row_count)?;
            codebook::decode_rows(codebook, cols, parts, (first, count), scratch, out)
        }
        Encoding::Raw => {
            let bytes = span("codes", parts.codes, info.dtype().size(), (first, count))?;
            bytes_to_f32(info.dtype(), bytes, out)
        }
        Encoding::Entropy => {
            let cols = row_len(info, first_row, row_count)?;
            let most = slab_rows(info, encoding);
            entropy::decode_rows(parts, cols, most, first, count, &mut scratch.entropy, out)
        }
        Encoding::Sign(sign) => {
            let cols = row_len(info, first_row, row_count)?;
            sign::decode_rows(sign, cols, parts, (first, count), scratch, out)
        }
        Encoding::Trellis(encoding) => {
            let cols = row_len(info, first_row, row_count)?;
            trellis::decode_rows(*encoding, cols, parts, (first, count), out)
        }
        Encoding::Ggml(kind) => {
            let cols = row_len(info, first_row, row_count)?;
            ggml::decode_rows(*kind, cols, parts, (first, count), out)
        }
    }?;
    if parts.side.is_empty() {
        return Ok(());
    }
    let start =
        parts.row_start.checked_add(first_row).filter(|start| start.saturating_add(row_count) <= info.rows());
    let start = start.and_then(|start| usize::try_from(start).ok()).ok_or(too_large)?;
    side.undo(start, row_len(info, first_row, row_count)?, scratch, out);
    Ok(())
}

/// Compares `row_count` encoded rows from row `first_row` of a slab on with the weights they were made of and merges each row
/// into `total`. Elements that are kept as they are add nothing.
///
/// # Errors
/// As [`decode`], where `weights` stands for `out`.
#[allow(clippy::too_many_arguments, reason = "which rows of what, against what, into what")]
pub fn compare(
    encoding: &Encoding,
    info: &TensorInfo,
    parts: SlabParts<'_>,
    row_count: u64,
    first_row: u64,
    weights: RowData<'_>,
    scratch: &mut ReadScratch,
    total: &mut Comparison,
) -> Result<(), CodecError> {
    let (Ok(first), Ok(count)) = (usize::try_from(first_row), usize::try_from(row_count)) else {
        return Err(CodecError::TooLarge { first: first_row, count: row_count });
    };
    match encoding {
        Encoding::Affine(affine) if parts.side.is_empty() => {
            let cols = row_len(info, first_row, row_count)?;
            compare_rows(affine, cols, parts, first, count, weights, scratch, total)
        }
        Encoding::Raw => Ok(()),
        _ => {
            let cols = row_len(info, first_row, row_count)?;
            let mut decoded = scratch.take_decoded(weights.len());
            let done = decode(encoding, info, parts, row_count, first_row, scratch, &mut decoded);
            if done.is_ok() {
                compare_decoded(cols, weights, &decoded, scratch, total);
            }
            scratch.keep_decoded(decoded);
            done
        }
    }
}

/// Compares decoded rows with their weights, row by row.
fn compare_decoded(
    cols: usize,
    weights: RowData<'_>,
    decoded: &[f32],
    scratch: &mut ReadScratch,
    total: &mut Comparison,
) {
    for (i, decoded) in decoded.chunks_exact(cols.max(1)).enumerate() {
        let range = i * cols..(i + 1) * cols;
        let widened = scratch.widened(cols);
        let weights = match weights {
            RowData::F32(x) => &x[range],
            RowData::F16(x) => {
                widen_f16(&x[range], widened);
                widened
            }
            RowData::BF16(x) => {
                widen_bf16(&x[range], widened);
                widened
            }
        };
        total.merge(&metric::compare(weights, decoded));
    }
}

/// The side data of a slab, which tensors that are kept have none of.
fn side_of<'a>(encoding: &Encoding, info: &TensorInfo, parts: SlabParts<'a>) -> Result<Side<'a>, CodecError> {
    match encoding {
        Encoding::Raw if !parts.side.is_empty() => Err(CodecError::Side("a raw tensor has none")),
        _ => Side::parse(parts.side, info),
    }
}

fn row_len(info: &TensorInfo, first: u64, count: u64) -> Result<usize, CodecError> {
    usize::try_from(info.cols()).map_err(|_| CodecError::TooLarge { first, count })
}
