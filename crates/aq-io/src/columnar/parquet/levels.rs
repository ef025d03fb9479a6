//! Repetition and definition levels of at most 1: the RLE / bit-packed hybrid with one bit a level.

/// Decodes `count` levels from `bytes`. `None` when they are not that many, or the bytes are no such runs.
pub(super) fn decode(mut bytes: &[u8], count: usize) -> Option<Vec<bool>> {
    let mut levels = Vec::new();
    while levels.len() < count {
        let header = varint(&mut bytes)?;
        let left = count - levels.len();
        if header & 1 == 0 {
            let (&value, rest) = bytes.split_first()?;
            bytes = rest;
            let run = usize::try_from(header >> 1).ok()?;
            if value > 1 || run == 0 || run > left {
                return None;
            }
            levels.resize(levels.len() + run, value == 1);
        } else {
            let groups = usize::try_from(header >> 1).ok()?;
            let packed = bytes.get(..groups)?;
            bytes = bytes.get(groups..)?;
            if groups == 0 || groups > left.div_ceil(8) {
                return None;
            }
            let bits = packed.iter().flat_map(|byte| (0..8).map(move |i| byte >> i & 1 == 1));
            levels.extend(bits.take(left));
        }
    }
    Some(levels)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..35).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::decode;

    #[test]
    fn runs_and_packed_groups() {
        assert_eq!(decode(&[3 << 1, 1, 2 << 1, 0], 5), Some(vec![true, true, true, false, false]));
        assert_eq!(decode(&[3, 0b0000_0101], 3), Some(vec![true, false, true]));
        assert_eq!(decode(&[], 0), Some(vec![]));
        for bad in
            [&[6u8, 2][..], &[0, 1], &[12, 1], &[1], &[5, 1, 1], &[0xff, 0xff, 0xff, 0xff, 0xff, 1], &[6]]
        {
            assert_eq!(decode(bad, 5), None, "{bad:?}");
        }
    }
}
