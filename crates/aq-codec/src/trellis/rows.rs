//! Rows on their way into a slab.

use aq_core::{EncodedRows, TensorInfo, TrellisEncoding};
use aq_kernels::pack::packed_len;
use aq_kernels::trellis::{SEQUENCE, pack};
use half::f16;

use super::{Fit, Trellis};

/// Bytes of the parts of `rows` rows in one slab: codes, scales, offsets, extra; `None` when they pass 64 bits or the bits
/// are not those of a trellis.
pub(crate) fn lengths(info: &TensorInfo, encoding: TrellisEncoding, rows: u64) -> Option<[u64; 4]> {
    let cols = usize::try_from(info.cols()).ok()?;
    let bits = encoding.bits.get();
    let codes = (2..=4).contains(&bits).then(|| packed_len(bits, cols) as u64)?;
    let scales = 2 * cols.div_ceil(SEQUENCE) as u64;
    Some([codes.checked_mul(rows)?, scales.checked_mul(rows)?, 1, rows])
}

/// One row before it is packed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sequences<'a> {
    /// One state a weight, those of each sequence on a circular stream of its own.
    pub states: &'a [u8],
    /// The table and scale of each sequence; the scale is stored as the nearest f16.
    pub fits: &'a [Fit],
    /// Power of two that the decoded weights are multiplied by.
    pub exponent: i8,
}

/// Packs `row` and appends it to `out`. Allocates only when the buffers of `out` have to grow.
///
/// # Panics
/// When there is not one fit a sequence.
///
/// # Examples
/// ```
/// use aq_codec::trellis::{Sequences, Trellis, encode_sequence, push_row};
/// use aq_codec::{ReadScratch, decode};
/// use aq_core::*;
/// let bits = BitWidth::new(4)?;
/// let trellis = Trellis::new(bits, 8).expect("there is one");
/// let (weights, mut states) = ([0.5_f32, -0.25, 1.0, -1.0], [0; 4]);
/// let fit = encode_sequence(trellis, &weights, None, &mut states);
/// let mut out = EncodedRows::default();
/// push_row(trellis, Sequences { states: &states, fits: &[fit], exponent: 0 }, &mut out);
///
/// let (info, encoding) = (TensorInfo::new("w", vec![1, 4], DType::F32)?, Encoding::Trellis(TrellisEncoding { bits }));
/// let mut decoded = [0.0; 4];
/// decode(&encoding, &info, out.parts(), 1, 0, &mut ReadScratch::default(), &mut decoded)?;
/// assert!(weights.iter().zip(decoded).all(|(w, d)| (w - d).abs() < 0.2));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn push_row(trellis: Trellis, row: Sequences<'_>, out: &mut EncodedRows) {
    assert_eq!(row.fits.len(), row.states.len().div_ceil(SEQUENCE), "one fit a sequence");
    for states in row.states.chunks(SEQUENCE) {
        let start = out.codes.len();
        out.codes.resize(start + packed_len(trellis.bits(), states.len()), 0);
        pack(trellis.bits(), states, &mut out.codes[start..]);
    }
    let signed = |fit: &Fit| if fit.table == 0 { fit.scale } else { -fit.scale };
    out.scales.extend(row.fits.iter().flat_map(|fit| f16::from_f32(signed(fit)).to_le_bytes()));
    if out.offsets.is_empty() {
        out.offsets.push(trellis.state_bits());
    }
    out.extra.push(row.exponent as u8);
    out.row_count += 1;
}
