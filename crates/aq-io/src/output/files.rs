//! Which tensors go into which file of several.

use std::ops::Range;

use aq_core::StoredTensor;

/// Consecutive whole tensors, a new file where the next one would pass `limit`; each counts its `size`. A function of the tensors only.
pub(crate) fn files(
    tensors: &[StoredTensor],
    limit: u64,
    size: impl Fn(&StoredTensor) -> u64,
) -> Vec<Range<usize>> {
    let (mut ranges, mut start, mut total) = (Vec::new(), 0, 0u64);
    for (index, tensor) in tensors.iter().enumerate() {
        let more = size(tensor);
        if index > start && total.saturating_add(more) > limit {
            ranges.push(start..index);
            (start, total) = (index, 0);
        }
        total = total.saturating_add(more);
    }
    if start < tensors.len() {
        ranges.push(start..tensors.len());
    }
    ranges
}
