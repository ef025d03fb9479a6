//! What is written is read back: every column, every byte, by both kinds of access.

use aq_core::{DType, EncodedRows, Encoding, OffsetKind, slab_count};

use super::{FORMATS, affine, bytes_of, file_of, made, metadata, mixed, open, raw, read_back};
use crate::{Access, Format};

#[test]
fn every_slab_comes_back() {
    let tensors = mixed();
    for format in FORMATS {
        let bytes = bytes_of(format, &tensors);
        assert!(bytes == bytes_of(format, &tensors), "the same bytes each time");
        let (_folder, path) = file_of(&bytes);
        for access in [Access::Mapped, Access::Positioned] {
            let source = open(format, &path, access).expect("opens");
            assert_eq!(source.tensors(), tensors);
            assert_eq!((source.format(), source.path()), (format, path.as_path()));
            for (key, value) in metadata() {
                assert_eq!(source.metadata().get(&key), Some(&value));
            }
            assert_eq!(source.metadata()["aq.format_version"], "1");
            let mut buffer = Vec::new();
            for (t, tensor) in tensors.iter().enumerate() {
                let mut stored = 0;
                for s in 0..slab_count(&tensor.info, &tensor.encoding) {
                    let expected = made(tensor, t, s, EncodedRows::default());
                    stored += expected.rows.bytes() + tensor.side_head();
                    let first = made(tensor, t, 0, EncodedRows::default());
                    let got = source.read_slab(t, s, &mut buffer).expect("reads");
                    let expected = read_back(tensor, &expected, &first);
                    assert_eq!(got, expected, "{format:?} {} {s}", tensor.info.name());
                }
                assert_eq!(source.stored_bytes(t), stored);
            }
        }
    }
}

#[test]
fn raw_bytes_come_back_at_any_offset() {
    let tensors = [raw("a", &[5], DType::U8), raw("long", &[1_300_000, 2], DType::F32)];
    for format in FORMATS {
        let (_folder, path) = file_of(&bytes_of(format, &tensors));
        let all: Vec<u8> =
            (0..3).flat_map(|s| made(&tensors[1], 1, s, EncodedRows::default()).rows.codes).collect();
        for access in [Access::Mapped, Access::Positioned] {
            let source = open(format, &path, access).expect("opens");
            for (start, len) in
                [(0, all.len()), (3, 10), ((4 << 20) - 5, 11), (all.len() - 1, 1), (all.len(), 0)]
            {
                let mut dst = vec![0; len];
                source.read_bytes(1, start as u64, &mut dst).expect("reads");
                assert_eq!(dst, all[start..start + len]);
                let borrowed = source.borrow_bytes(1, start as u64..(start + len) as u64);
                let in_one_piece = len < 12 && start + len < 4 << 20 || start + 1 >= all.len();
                assert_eq!(
                    borrowed,
                    (access == Access::Mapped && in_one_piece).then_some(&dst[..]).or(if len == 0 {
                        Some(&[])
                    } else {
                        None
                    })
                );
            }
            assert!(source.read_bytes(1, 1, &mut vec![0; all.len()]).is_err(), "past the end");
            assert!(source.read_bytes(9, 0, &mut [0]).is_err(), "no such tensor");
            assert!(source.read_slab(1, 3, &mut Vec::new()).is_err(), "no such slab");
            assert!(source.read_slab(2, 0, &mut Vec::new()).is_err(), "no such tensor");
        }
    }
}

#[test]
fn affine_tensors_have_no_raw_bytes() {
    let tensors = [affine("w", &[4, 64], 4, 32, OffsetKind::F16)];
    let (_folder, path) = file_of(&bytes_of(Format::Parquet, &tensors));
    let source = open(Format::Parquet, &path, Access::Mapped).expect("opens");
    assert!(source.read_bytes(0, 0, &mut [0]).is_err());
    assert_eq!(source.borrow_bytes(0, 0..1), None);
}

#[test]
fn a_mapped_slab_is_borrowed_from_the_map() {
    let tensors = mixed();
    for format in FORMATS {
        let (_folder, path) = file_of(&bytes_of(format, &tensors));
        let source = open(format, &path, Access::Mapped).expect("opens");
        let mut at = Vec::new();
        for (t, tensor) in tensors.iter().enumerate() {
            let mut buffer = Vec::new();
            let parts = source.read_slab(t, 0, &mut buffer).expect("reads");
            if tensor.encoding != Encoding::Raw || !parts.codes.is_empty() {
                at.push(parts.codes.as_ptr() as usize);
            }
            assert!(buffer.is_empty(), "nothing was copied");
        }
        // All lie in one map, whose length is that of the file.
        let (low, high) = (at.iter().min().expect("some"), at.iter().max().expect("some"));
        assert!(high - low < std::fs::metadata(&path).expect("there").len() as usize);
    }
}

#[test]
fn buffers_of_arrow_files_are_aligned_in_the_file() {
    let tensors = mixed();
    let (_folder, path) = file_of(&bytes_of(Format::Arrow, &tensors));
    let source = open(Format::Arrow, &path, Access::Mapped).expect("opens");
    // A map begins at a page, so a buffer's address tells its alignment in the file. A slab alone in its batch begins its buffer.
    let large = tensors.iter().position(|t| t.info.name() == "affine.large").expect("there");
    for slab in 0..3 {
        let mut buffer = Vec::new();
        let parts = source.read_slab(large, slab, &mut buffer).expect("reads");
        for part in [parts.codes, parts.scales, parts.offsets] {
            assert_eq!(part.as_ptr() as usize % 64, 0);
        }
    }
}

#[test]
fn a_file_without_tensors() {
    for format in FORMATS {
        let (_folder, path) = file_of(&bytes_of(format, &[]));
        assert!(open(format, &path, Access::Mapped).expect("opens").tensors().is_empty());
    }
}
