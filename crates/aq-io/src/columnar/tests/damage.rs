//! Damaged files: an error or the same content, never a panic and never other content.

use std::fs::OpenOptions;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use aq_core::{DType, EncodedRows, OffsetKind, SlabParts, StoredTensor, slab_count};

use super::{FORMATS, affine, bytes_of, file_of, made, open, raw, read_back, transformed};
use crate::{Access, Format, Result};

fn small() -> Vec<StoredTensor> {
    vec![
        raw("a", &[2, 3], DType::F32),
        raw("s", &[], DType::U8),
        affine("w", &[4, 32], 3, 16, OffsetKind::ZeroPoint),
        affine("v", &[4, 24], 4, 16, OffsetKind::F16),
        transformed("t", &[4, 24], 2),
    ]
}

/// Opens and reads everything. `Ok(true)` when it is what was written.
fn same(format: Format, path: &Path, access: Access, tensors: &[StoredTensor]) -> Result<bool> {
    let source = open(format, path, access)?;
    let mut buffer = Vec::new();
    let mut same = source.tensors() == tensors;
    for (t, tensor) in source.tensors().iter().enumerate() {
        for s in 0..slab_count(&tensor.info, &tensor.encoding) {
            let got = source.read_slab(t, s, &mut buffer)?;
            same &= tensors.get(t).is_some_and(|w| {
                let made = |slab| made(w, t, slab, EncodedRows::default());
                w.encoding == tensor.encoding && got == read_back(w, &made(s), &made(0))
            });
        }
    }
    Ok(same)
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let tensors = small();
    for format in FORMATS {
        let bytes = bytes_of(format, &tensors);
        let (_folder, path) = file_of(&bytes);
        assert!(same(format, &path, Access::Mapped, &tensors).expect("whole"));
        let file = OpenOptions::new().write(true).open(&path).expect("opens");
        for len in (0..bytes.len()).rev() {
            file.set_len(len as u64).expect("cut");
            assert!(same(format, &path, Access::Mapped, &tensors).is_err(), "{format:?} cut at {len}");
        }
    }
}

#[test]
fn no_flipped_byte_changes_values_unnoticed() {
    let tensors = small();
    for format in FORMATS {
        let bytes = bytes_of(format, &tensors);
        let (_folder, path) = file_of(&bytes);
        let mut file = OpenOptions::new().write(true).open(&path).expect("opens");
        let mut put = |at: usize, byte: u8| {
            file.seek(SeekFrom::Start(at as u64)).and_then(|_| file.write_all(&[byte])).expect("written");
        };
        for (at, &byte) in bytes.iter().enumerate() {
            for (flip, access) in [(0x01, Access::Mapped), (0x80, Access::Mapped), (0xff, Access::Positioned)]
            {
                put(at, byte ^ flip);
                // A name, shape or type can change to another valid one: the checksum covers the values.
                if let Ok(false) = same(format, &path, access, &tensors) {
                    let source = open(format, &path, access).expect("opened before");
                    assert_ne!(source.tensors(), tensors, "{format:?}: byte {at} ^ {flip:#x} changed values");
                }
                put(at, byte);
            }
        }
    }
}

/// A right checksum over a wrong length of side data.
#[test]
fn side_data_of_a_wrong_length_is_refused() {
    let tensors = [transformed("t", &[4, 24], 2)];
    let slab = made(&tensors[0], 0, 0, EncodedRows::default());
    for (length, whole) in [(0u32, true), (18, true), (20, true), (u32::MAX, true), (19, false)] {
        for format in FORMATS {
            let mut bytes = bytes_of(format, &tensors);
            let at =
                bytes.windows(19).position(|w| w == slab.rows.side).expect("the side data is in the file")
                    - 4;
            let extra = bytes[at..at + 4 + 19 + slab.rows.extra.len()].to_vec();
            let sum = |extra: &[u8]| super::super::feed::checksum(&SlabParts { extra, ..slab.rows.parts() });
            let old = sum(&extra).to_le_bytes();
            bytes[at..at + 4].copy_from_slice(&length.to_le_bytes());
            let new = sum(&bytes[at..at + extra.len()]).to_le_bytes();
            let hash = bytes.windows(8).position(|w| w == old).expect("the checksum is in the file");
            bytes[hash..hash + 8].copy_from_slice(&new);
            let (_folder, path) = file_of(&bytes);
            let source = open(format, &path, Access::Mapped).expect("opens");
            let read = source.read_slab(0, 0, &mut Vec::new()).map(|_| ()).map_err(|e| e.to_string());
            assert_eq!(read.is_err(), whole, "{format:?} {length}");
            assert!(read.err().is_none_or(|e| e.contains("side data")), "{format:?} {length}");
        }
    }
}

#[test]
fn a_damaged_payload_is_named() {
    let tensors = [raw("a", &[6], DType::U8), affine("model.w", &[2048, 1024], 4, 64, OffsetKind::F16)];
    for format in FORMATS {
        let mut bytes = bytes_of(format, &tensors);
        let codes = made(&tensors[1], 1, 1, EncodedRows::default()).rows.codes;
        let at = bytes.windows(64).position(|w| w == &codes[..64]).expect("the codes are in the file");
        assert!(bytes[at..].starts_with(&codes), "in one piece");
        bytes[at + codes.len() / 2] ^= 4;
        let (_folder, path) = file_of(&bytes);
        for access in [Access::Mapped, Access::Positioned] {
            let source = open(format, &path, access).expect("opens");
            let mut buffer = Vec::new();
            assert!(source.read_slab(1, 0, &mut buffer).is_ok());
            let error = source.read_slab(1, 1, &mut buffer).expect_err("damaged").to_string();
            assert!(
                error.contains("model.w") && error.contains("row 1024") && error.contains("checksum"),
                "{error}"
            );
        }
    }
}

#[test]
fn damaged_raw_bytes_are_noticed_in_part_and_whole() {
    let tensors = [raw("a", &[100], DType::F32)];
    for format in FORMATS {
        let mut bytes = bytes_of(format, &tensors);
        let codes = made(&tensors[0], 0, 0, EncodedRows::default()).rows.codes;
        let at = bytes.windows(64).position(|w| w == &codes[..64]).expect("the codes are in the file");
        bytes[at + 300] ^= 1;
        let (_folder, path) = file_of(&bytes);
        for access in [Access::Mapped, Access::Positioned] {
            let source = open(format, &path, access).expect("opens");
            assert!(source.read_bytes(0, 0, &mut [0; 400]).is_err());
            assert!(source.read_bytes(0, 0, &mut [0; 8]).is_err());
            assert_eq!(source.borrow_bytes(0, 0..8), None);
        }
    }
}
