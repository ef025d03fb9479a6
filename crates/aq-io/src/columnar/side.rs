//! Side data in the column `extra`: a length and so many bytes in front of what the codec needs, in every slab of a transformed tensor.

use std::sync::OnceLock;

use aq_core::{EncodedRows, SlabParts, StoredTensor};

use super::schema::part_lengths;
use crate::Result;

/// The most bytes that the columns of `rows` rows from row `start` on can have. `None` when they pass 64 bits.
pub(super) fn limits(tensor: &StoredTensor, start: u64, rows: u64) -> Option<[u64; 4]> {
    let mut limits = part_lengths(tensor, rows)?.limits();
    limits[3] = limits[3].checked_add(tensor.side_head())?.checked_add(side_limit(tensor, start))?;
    Some(limits)
}

/// Whether columns of these lengths can hold `rows` rows from row `start` on. How much of the first slab's `extra` is side data
/// its bytes say.
pub(super) fn fit(tensor: &StoredTensor, start: u64, rows: u64, lengths: [u64; 4]) -> bool {
    let Some(due) = part_lengths(tensor, rows) else { return false };
    let [codes, scales, offsets, extra] = lengths;
    let Some(extra) = extra.checked_sub(tensor.side_head()) else { return false };
    match side_limit(tensor, start) {
        0 => due.fit([codes, scales, offsets, extra]),
        most => due.fit([codes, scales, offsets, 0]) && extra <= most.saturating_add(due.limits()[3]),
    }
}

/// The most side data of a slab: only the first one has any.
fn side_limit(tensor: &StoredTensor, start: u64) -> u64 {
    if tensor.transformed && start == 0 { aq_codec::side_limit(&tensor.info) } else { 0 }
}

/// Splits the column `extra` of a slab with side data into the side data and what the codec needs.
///
/// `None` when the length in front is not that of such a slab.
pub(super) fn split_extra<'a>(
    tensor: &StoredTensor,
    start: u64,
    rows: u64,
    parts: &SlabParts<'a>,
) -> Option<(&'a [u8], &'a [u8])> {
    let (length, rest) = parts.extra.split_first_chunk::<4>()?;
    let length = u32::from_le_bytes(*length);
    let (side, extra) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    let lengths = [parts.codes, parts.scales, parts.offsets, extra].map(|part| part.len() as u64);
    let good = u64::from(length) <= side_limit(tensor, start) && part_lengths(tensor, rows)?.fit(lengths);
    good.then_some((side, extra))
}

/// Puts side data in front of `extra`, as it is stored. `None` where there is some that the tensor cannot have.
pub(super) fn join_side(
    stored: &StoredTensor,
    (start, count): (u64, u64),
    mut rows: EncodedRows,
) -> Option<EncodedRows> {
    if !stored.transformed {
        return rows.side.is_empty().then_some(rows);
    }
    let length = u32::try_from(rows.side.len()).ok()?.to_le_bytes();
    rows.extra.splice(..0, length.into_iter().chain(rows.side.drain(..)));
    split_extra(stored, start, count, &rows.parts())?;
    Some(rows)
}

/// Side data of the tensors of a file, each read once.
pub(super) struct Sides(Vec<OnceLock<Box<[u8]>>>);

impl Sides {
    pub(super) fn new(tensors: usize) -> Self {
        Self(std::iter::repeat_with(OnceLock::new).take(tensors).collect())
    }

    /// The side data of tensor `index`, by `read` when it is not known yet.
    ///
    /// # Errors
    /// Those of `read`.
    pub(super) fn get(&self, index: usize, read: impl FnOnce() -> Result<Box<[u8]>>) -> Result<&[u8]> {
        if let Some(side) = self.0[index].get() {
            return Ok(side);
        }
        // Should another thread be first, it read the same bytes.
        let side = read()?;
        Ok(self.0[index].get_or_init(|| side))
    }
}
