//! Entry points of the fuzz targets: bytes in, nothing out, never a panic.

use aq_core::SlabParts;

use crate::entropy::{DecodeScratch, check_parts, decode_rows};

/// The most weights that a case decodes.
const MOST_WEIGHTS: usize = 1 << 18;

/// A slab of the codec `entropy`. The first bytes are the numbers of columns and of rows, then the lengths of `scales` and
/// `offsets`, 16 bits each; the parts follow, `codes` last.
pub fn entropy_slab(bytes: &[u8]) {
    let Some((head, rest)) = bytes.split_first_chunk::<8>() else { return };
    let number = |i: usize| usize::from(u16::from_le_bytes([head[i], head[i + 1]]));
    let (cols, rows) = (number(0), number(2));
    let (scales, rest) = rest.split_at(number(4).min(rest.len()));
    let (offsets, codes) = rest.split_at(number(6).min(rest.len()));
    let parts = SlabParts { codes, scales, offsets, ..SlabParts::default() };
    let checked = check_parts(parts, cols, rows as u64);
    if cols * rows > MOST_WEIGHTS {
        return;
    }
    let (mut scratch, mut out) = (DecodeScratch::default(), vec![0.0; cols * rows]);
    let done = decode_rows(parts, cols, rows as u64, 0, rows, &mut scratch, &mut out);
    assert!(checked.is_ok() || out.is_empty() || done.is_err(), "decoding checks what a check does");
    let last = rows.saturating_sub(1);
    let again = decode_rows(parts, cols, rows as u64, last, 1, &mut scratch, &mut vec![0.0; cols]);
    assert!(done.is_err() || rows == 0 || again.is_ok(), "a row decodes when all rows do");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_input_is_no_slab() {
        entropy_slab(&[]);
        entropy_slab(&[1, 0, 1, 0, 11, 0, 0, 0]);
        entropy_slab(&[0; 64]);
        entropy_slab(&[0xff; 900]);
    }
}
