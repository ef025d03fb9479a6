//! Writing safetensors.

use aq_core::{AffineEncoding, BitWidth, DType, Encoding, GroupSize, OffsetKind};
use aq_io::{CreateOptions, IoError, OutputFormat, create};

use crate::support::{Feed, byte, contents, folder, listing, opened, stored};

#[test]
fn written_tensors_are_read_back() {
    let folder = folder();
    let path = folder.path().join("out.safetensors");
    let tensors = [
        stored("z.large", &[3, 700_000], DType::F32), // three slabs
        stored("scalar", &[], DType::BF16),
        stored("empty", &[2, 0], DType::F16),
        stored("a \"quoted\" 模型", &[17], DType::I8),
    ];
    let options = CreateOptions { header_metadata: vec![("step".into(), "7".into())], ..Default::default() };
    let mut sink = create(&path, OutputFormat::Safetensors, &options).expect("a new file");
    sink.write(&tensors, &mut Feed::new(&tensors, 0)).expect("written");
    let pending = sink.finish(&[]).expect("finished");
    assert_eq!(pending.bytes(), std::fs::metadata(pending.path()).expect("there").len());
    opened(pending.path());
    assert_eq!(pending.commit().expect("committed"), path);

    let source = opened(&path);
    let read = contents(&*source);
    assert_eq!(read.iter().map(|(t, _)| t.clone()).collect::<Vec<_>>(), tensors);
    for (index, (_, bytes)) in read.iter().enumerate() {
        assert!(bytes.iter().enumerate().all(|(i, &b)| b == byte(index, i as u64)));
    }
    assert_eq!(source.metadata().get("format").map(String::as_str), Some("pt"));
    assert_eq!(source.metadata().get("step").map(String::as_str), Some("7"));

    let bytes = std::fs::read(&path).expect("readable");
    let reference = safetensors::SafeTensors::deserialize(&bytes).expect("the reference reader takes it");
    assert_eq!(reference.len(), tensors.len());
    assert_eq!(u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes")) % 8, 0);
    assert_eq!(listing(folder.path()), ["out.safetensors"]);
}

#[test]
fn what_the_format_cannot_hold_is_refused() {
    let folder = folder();
    let path = folder.path().join("out.safetensors");
    let (mut quantized, good) = (stored("w", &[4, 64], DType::F32), stored("w", &[4], DType::F32));
    let (bits, offset) = (BitWidth::new(4).expect("a width"), OffsetKind::F16);
    quantized.encoding = Encoding::Affine(AffineEncoding { bits, group_size: GroupSize::ROW, offset });
    for tensors in
        [vec![quantized], vec![good.clone(), good.clone()], vec![stored("__metadata__", &[1], DType::U8)]]
    {
        let mut sink =
            create(&path, OutputFormat::Safetensors, &CreateOptions::default()).expect("a new file");
        assert!(matches!(sink.write(&tensors, &mut Feed::new(&[], 0)), Err(IoError::Tensor { .. })));
    }
    let mut sink = create(&path, OutputFormat::Safetensors, &CreateOptions::default()).expect("a new file");
    let other = stored("w", &[5], DType::F32);
    let wrong = sink.write(std::slice::from_ref(&good), &mut Feed::new(&[other], 0));
    assert!(matches!(wrong, Err(IoError::Tensor { .. })));
    drop(sink);
    assert!(listing(folder.path()).is_empty());
}

#[test]
fn wide_elements_come_first_and_none_is_lost() {
    let folder = folder();
    let path = folder.path().join("out.safetensors");
    let tensors =
        [stored("odd", &[7], DType::F16), stored("bytes", &[3], DType::U8), stored("w", &[2], DType::F64)];
    let mut sink = create(&path, OutputFormat::Safetensors, &CreateOptions::default()).expect("a new file");
    sink.write(&tensors, &mut Feed::new(&tensors, 0)).expect("written");
    let pending = sink.finish(&[]).expect("finished");
    pending.check(&|| false).expect("undamaged");
    pending.commit().expect("committed");
    let read = contents(&*opened(&path));
    assert_eq!(read.iter().map(|(t, _)| t.info.name()).collect::<Vec<_>>(), ["w", "odd", "bytes"]);
    for (tensor, bytes) in &read {
        let index = tensors.iter().position(|t| t == tensor).expect("one of them");
        assert!(bytes.iter().enumerate().all(|(i, &b)| b == byte(index, i as u64)));
    }
}

#[test]
fn a_folder_has_shards_and_damage_is_found() {
    let folder = folder();
    let path = folder.path().join("out");
    let tensors =
        [stored("a", &[100], DType::F32), stored("b", &[50], DType::F16), stored("c", &[10], DType::F32)];
    let options = CreateOptions {
        stem: Some("m".into()),
        shard_bytes: Some(450),
        header_metadata: vec![(aq_io::TOOL.into(), "test".into())],
        ..CreateOptions::default()
    };
    let mut sink = create(&path, OutputFormat::Safetensors, &options).expect("a new folder");
    sink.write(&tensors, &mut Feed::new(&tensors, 0)).expect("written");
    let pending = sink.finish(&[]).expect("finished");
    assert!(pending.is_folder());
    pending.check(&|| false).expect("undamaged");
    let names = ["m-00001-of-00002.safetensors", "m-00002-of-00002.safetensors", "m.safetensors.index.json"];
    assert_eq!(listing(pending.path()), names);
    for (tensor, bytes) in contents(&*opened(pending.path())) {
        let index = tensors.iter().position(|t| *t == tensor).expect("one of them");
        assert!(bytes.iter().enumerate().all(|(i, &b)| b == byte(index, i as u64)));
    }
    let second = pending.path().join(names[1]);
    let mut damaged = std::fs::read(&second).expect("readable");
    *damaged.last_mut().expect("not empty") ^= 1;
    std::fs::write(&second, damaged).expect("writable");
    let error = pending.check(&|| false).expect_err("damaged").to_string();
    assert!(error.contains("tensor \"b\""), "{error}");
    drop(pending);
    assert!(listing(folder.path()).is_empty());
    // A folder of ours may be replaced.
    let mut sink = create(&path, OutputFormat::Safetensors, &options).expect("a new folder");
    sink.write(&tensors, &mut Feed::new(&tensors, 0)).expect("written");
    sink.finish(&[]).expect("finished").commit().expect("committed");
    let forced = CreateOptions { force: true, ..options };
    assert!(create(&path, OutputFormat::Safetensors, &forced).is_ok());
}
