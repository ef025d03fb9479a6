//! Small files cut at every length and with every byte changed: refused, or read as the same tensors with other values.

use std::path::Path;

use aq_io::{Access, CreateOptions, OutputFormat};

use crate::support::{Feed, contents, f32_file, folder, put, stored};

/// Opens damaged files in both ways and reads whatever is accepted.
fn survive(path: &Path) -> bool {
    let accepted = [Access::Positioned, Access::Mapped].map(|access| match aq_io::open(path, access) {
        Ok(source) => {
            let _ = contents(&*source);
            true
        }
        Err(error) => {
            let message = error.to_string();
            assert!(!message.contains(char::is_control) && message.len() < 4096, "{message}");
            false
        }
    });
    assert_eq!(accepted[0], accepted[1]);
    accepted[0]
}

#[test]
fn safetensors() {
    let folder = folder();
    let good = f32_file(&[("first", &[2, 3]), ("second", &[5]), ("none", &[0, 4])]);
    let data = good.len() - 44;
    for length in 0..good.len() {
        let path = put(folder.path(), "m.safetensors", &good[..length]);
        assert!(!survive(&path), "accepted when cut at {length}");
    }
    for (position, flip) in (0..good.len()).flat_map(|p| [1u8, 0x20, 0x80, 0xff].map(|f| (p, f))) {
        let mut bytes = good.clone();
        bytes[position] ^= flip;
        let accepted = survive(&put(folder.path(), "m.safetensors", &bytes));
        assert!(accepted || position < data, "values are not looked at here");
    }
}

#[test]
fn manifest() {
    let folder = folder();
    let destination = folder.path().join("out");
    let tensors = [stored("w", &[2, 8], aq_core::DType::F32)];
    let mut sink =
        aq_io::create(&destination, OutputFormat::Folder, &CreateOptions::default()).expect("a new folder");
    sink.write(&tensors, &mut Feed::new(&tensors, 0)).expect("written");
    sink.finish(&[("k".into(), "v".into())]).expect("finished").commit().expect("committed");
    assert!(aq_io::verify_folder(&destination).is_ok());

    let manifest = destination.join("manifest.json");
    let good = std::fs::read(&manifest).expect("readable");
    for length in 0..good.len() - 2 {
        std::fs::write(&manifest, &good[..length]).expect("writable");
        assert!(aq_io::open(&destination, Access::Mapped).is_err(), "accepted when cut at {length}");
    }
    for position in 0..good.len() {
        let mut bytes = good.clone();
        bytes[position] ^= 1;
        std::fs::write(&manifest, &bytes).expect("writable");
        let _ = aq_io::open(&destination, Access::Mapped);
    }
    std::fs::write(&manifest, &good).expect("writable");
    let part = destination.join("part-00000.parquet");
    let mut bytes = std::fs::read(&part).expect("readable");
    bytes[40] ^= 1;
    std::fs::write(&part, &bytes).expect("writable");
    let error = aq_io::verify_folder(&destination).expect_err("damaged").to_string();
    assert!(error.contains("part-00000.parquet") && error.contains("checksum"), "{error}");
    bytes.push(0);
    std::fs::write(&part, &bytes).expect("writable");
    let error = aq_io::open(&destination, Access::Mapped).err().expect("of another size").to_string();
    assert!(error.contains("size"), "{error}");
}
