//! Side data of a tensor: what is done to its decoded weights.
//!
//! ```text
//! W ~= (decode(codes) + L1 L2) R^-1 diag(s)^-1
//! ```
//!
//! It is a run of sections, each `[tag u8][length u32][bytes]`, little-endian, with rising tags, each at most once:
//!
//! ```text
//! 1  rotation R:        block u32, seed u64; or block u32 alone, a regular one     (12 or 4 bytes; see `Rotation`)
//! 2  smoothing s:       one f16 a column, positive and finite                      (2 cols bytes)
//! 3  low rank L1 L2:    rank u16, one f32 a component, L1 as rows x rank signed
//!                       bytes, L2 as rank x cols signed bytes                      (see `LowRank`)
//! ```

use aq_core::TensorInfo;
use half::f16;

use crate::low_rank::section_bytes;
use crate::{CodecError, LowRank, MAX_RANK, ReadScratch, Rotation};

const ROTATION: u8 = 1;
const SMOOTHING: u8 = 2;
const LOW_RANK: u8 = 3;

/// Tag and length of a section.
const HEAD: u64 = 5;

/// The sections of side data, checked against a tensor.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Side<'a> {
    /// The rotation of the input axis.
    pub rotation: Option<Rotation>,
    /// One little-endian f16 a column that decoded weights are divided by.
    pub smoothing: Option<&'a [u8]>,
    /// What is added before the rotation is undone.
    pub low_rank: Option<LowRank<'a>>,
}

impl<'a> Side<'a> {
    /// Reads side data; none at all is a tensor without transforms.
    ///
    /// # Errors
    /// [`CodecError::Side`] when it is malformed or does not fit the tensor.
    ///
    /// ```
    /// use aq_codec::{Rotation, Side};
    /// use aq_core::{DType, TensorInfo};
    /// let info = TensorInfo::new("w", vec![2, 64], DType::F32)?;
    /// let side = Side { rotation: Rotation::new(64, 1), ..Side::default() };
    /// assert_eq!(Side::parse(&side.bytes(), &info)?, side);
    /// assert!(Side::parse(&side.bytes()[1..], &info).is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn parse(bytes: &'a [u8], info: &TensorInfo) -> Result<Self, CodecError> {
        let (mut side, mut rest, mut last) = (Side::default(), bytes, 0);
        while !rest.is_empty() {
            let (tag, section, after) = split(rest).ok_or(CodecError::Side("a section is cut off"))?;
            if tag <= last {
                return Err(CodecError::Side("sections are out of order"));
            }
            (rest, last) = (after, tag);
            side.take(tag, section, info)?;
        }
        Ok(side)
    }

    fn take(&mut self, tag: u8, section: &'a [u8], info: &TensorInfo) -> Result<(), CodecError> {
        match tag {
            ROTATION => {
                let rotation = parse_rotation(section, info.cols());
                self.rotation = Some(rotation.ok_or(CodecError::Side("the rotation does not fit"))?);
            }
            SMOOTHING => {
                let fits = section.len() as u64 == info.cols().saturating_mul(2);
                let good =
                    |&b: &[u8; 2]| f16::from_le_bytes(b) > f16::ZERO && f16::from_le_bytes(b).is_finite();
                if !fits || !section.as_chunks::<2>().0.iter().all(good) {
                    return Err(CodecError::Side("the smoothing does not fit"));
                }
                self.smoothing = Some(section);
            }
            LOW_RANK => {
                let low_rank = LowRank::parse(section, info.rows(), info.cols());
                self.low_rank = Some(low_rank.ok_or(CodecError::Side("the low-rank part does not fit"))?);
            }
            _ => return Err(CodecError::Side("a section has an unknown tag")),
        }
        Ok(())
    }

    /// The side data as stored.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        if let Some(rotation) = self.rotation {
            let block = (rotation.block() as u32).to_le_bytes();
            let seed = rotation.seed().map(u64::to_le_bytes);
            push(ROTATION, &[&block, seed.as_ref().map_or(&[], |seed| seed)], &mut out);
        }
        if let Some(smoothing) = self.smoothing {
            push(SMOOTHING, &[smoothing], &mut out);
        }
        if let Some(LowRank { scales, left, right }) = self.low_rank {
            let rank = (scales.len() as u16 / 4).to_le_bytes();
            push(LOW_RANK, &[&rank, scales, left, right], &mut out);
        }
        out
    }

    /// Turns decoded rows from row `first` of the tensor on into weights.
    pub(crate) fn undo(&self, first: usize, cols: usize, scratch: &mut ReadScratch, rows: &mut [f32]) {
        if let Some(low_rank) = self.low_rank {
            rows.chunks_exact_mut(cols.max(1)).enumerate().for_each(|(i, row)| low_rank.add(first + i, row));
        }
        if let Some(rotation) = self.rotation {
            rotation.signs(cols, &mut scratch.columns);
            rotation.backward(&scratch.columns, rows);
        }
        if let Some(smoothing) = self.smoothing {
            scratch.columns.clear();
            let values = smoothing.as_chunks::<2>().0.iter().map(|&b| f16::from_le_bytes(b).to_f32());
            scratch.columns.extend(values);
            for row in rows.chunks_exact_mut(cols.max(1)) {
                row.iter_mut().zip(&scratch.columns).for_each(|(w, s)| *w /= s);
            }
        }
    }
}

/// The most bytes that side data of a tensor can have.
///
/// ```
/// use aq_core::{DType, TensorInfo};
/// let info = TensorInfo::new("w", vec![100, 10], DType::F32)?;
/// assert_eq!(aq_codec::side_limit(&info), 17 + 25 + 5 + 2 + 64 * (4 + 110));
/// # Ok::<(), aq_core::CoreError>(())
/// ```
pub fn side_limit(info: &TensorInfo) -> u64 {
    let smoothing = info.cols().saturating_mul(2).saturating_add(HEAD);
    let low_rank = section_bytes(MAX_RANK, info.rows(), info.cols()).unwrap_or(u64::MAX).saturating_add(HEAD);
    smoothing.saturating_add(low_rank).saturating_add(HEAD + 12)
}

/// Tag, bytes and what follows of the first section.
fn split(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, a, b, c, d], rest) = bytes.split_first_chunk::<5>()?;
    let length = usize::try_from(u32::from_le_bytes([a, b, c, d])).ok()?;
    let (section, after) = rest.split_at_checked(length)?;
    Some((tag, section, after))
}

fn parse_rotation(section: &[u8], cols: u64) -> Option<Rotation> {
    let (block, seed) = section.split_first_chunk::<4>()?;
    let (block, cols) = (usize::try_from(u32::from_le_bytes(*block)).ok()?, usize::try_from(cols).ok()?);
    match seed {
        [] => Rotation::regular(block, cols),
        seed => Rotation::with_block(block, cols, u64::from_le_bytes(seed.try_into().ok()?)),
    }
}

fn push(tag: u8, pieces: &[&[u8]], out: &mut Vec<u8>) {
    out.push(tag);
    let length: usize = pieces.iter().map(|p| p.len()).sum();
    out.extend((length as u32).to_le_bytes());
    pieces.iter().for_each(|piece| out.extend_from_slice(piece));
}
