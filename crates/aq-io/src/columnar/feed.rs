//! What a sink is given: slabs in order, each checked against its tensor before a byte of it is written.

use std::path::Path;

use aq_core::{EncodedRows, SlabParts, StoredTensor};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::schema::part_lengths;
use super::side::join_side;
use crate::{IoError, Result, SlabStream};

/// Checksum of a slab: of its parts one after the other.
pub(super) fn checksum(parts: &SlabParts<'_>) -> u64 {
    if parts.scales.is_empty() && parts.offsets.is_empty() && parts.extra.is_empty() {
        return xxh3_64(parts.codes);
    }
    let mut hash = Xxh3::new();
    for part in [parts.codes, parts.scales, parts.offsets, parts.extra] {
        hash.update(part);
    }
    hash.digest()
}

/// Pulls the slab of `tensor` that covers `rows` (first row, number of rows).
///
/// # Errors
/// [`IoError::Stopped`] when the stream ended; [`IoError::Tensor`] when it gives another slab, or one of the wrong size.
pub(super) fn pull(
    slabs: &mut dyn SlabStream,
    path: &Path,
    tensors: &[StoredTensor],
    tensor: usize,
    rows: (u64, u64),
) -> Result<EncodedRows> {
    let slab = slabs.next_slab().ok_or_else(|| IoError::Stopped { path: path.into() })?;
    let (stored, got) = (&tensors[tensor], &slab.rows);
    let fault = |reason: String| IoError::tensor(path, stored.info.name(), reason);
    if (slab.tensor, slab.row_start, got.row_count) != (tensor, rows.0, rows.1) {
        return Err(fault(format!(
            "slab out of order: tensor {} rows {}+{} came in place of tensor {tensor} rows {}+{}",
            slab.tensor, slab.row_start, got.row_count, rows.0, rows.1
        )));
    }
    let expected = part_lengths(stored, rows.1).ok_or_else(|| fault("too large".into()))?;
    let lengths = [got.codes.len(), got.scales.len(), got.offsets.len(), got.extra.len()].map(|n| n as u64);
    if !expected.fit(lengths) {
        return Err(fault(format!(
            "slab at row {} has parts of {lengths:?} bytes, expected {expected:?}",
            rows.0
        )));
    }
    join_side(stored, rows, slab.rows)
        .ok_or_else(|| fault(format!("slab at row {} has wrong side data", rows.0)))
}
