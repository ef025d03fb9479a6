//! Zero points of `affine` rows: packed as slabs hold them, and one a byte.

use aq_core::AffineEncoding;
use aq_kernels::pack;

/// Appends to `out` the zero points of rows of `cols` weights, one byte a group, from whole rows of packed ones.
///
/// ```
/// use aq_codec::{pack_zero_points, unpack_zero_points};
/// use aq_core::{AffineEncoding, BitWidth, GroupSize, OffsetKind};
/// let (bits, group_size) = (BitWidth::new(4)?, GroupSize::new(16)?);
/// let encoding = AffineEncoding { bits, group_size, offset: OffsetKind::ZeroPoint };
/// let (mut packed, mut zeros) = (Vec::new(), Vec::new());
/// assert!(pack_zero_points(&encoding, 48, &[1, 2, 15, 7, 8, 9], &mut packed));
/// assert_eq!(packed.len(), 4);
/// unpack_zero_points(&encoding, 48, &packed, &mut zeros);
/// assert_eq!(zeros, [1, 2, 15, 7, 8, 9]);
/// assert!(!pack_zero_points(&encoding, 48, &[1, 2, 16], &mut packed));
/// # Ok::<(), aq_core::CoreError>(())
/// ```
pub fn unpack_zero_points(encoding: &AffineEncoding, cols: usize, packed: &[u8], out: &mut Vec<u8>) {
    let groups = encoding.group_size.groups(cols);
    for row in packed.chunks_exact(encoding.bits.packed_len(groups).max(1)) {
        let start = out.len();
        out.resize(start + groups, 0);
        pack::unpack(encoding.bits.get(), row, &mut out[start..]);
    }
}

/// Undoes [`unpack_zero_points`]; `false`, with nothing appended, where one is above the largest code.
pub fn pack_zero_points(encoding: &AffineEncoding, cols: usize, zeros: &[u8], out: &mut Vec<u8>) -> bool {
    let largest = ((1u16 << encoding.bits.get()) - 1) as u8;
    if zeros.iter().any(|&zero| zero > largest) {
        return false;
    }
    let groups = encoding.group_size.groups(cols);
    for row in zeros.chunks_exact(groups.max(1)) {
        let start = out.len();
        out.resize(start + encoding.bits.packed_len(groups), 0);
        pack::pack(encoding.bits.get(), row, &mut out[start..]);
    }
    true
}
