//! Writing GGUF, reading it back, and reading what no program wrote.

use aq_core::{DType, EncodedRows, EncodedSlab, Encoding, GgmlType, StoredTensor, slab_count, slab_range};
use aq_io::{Access, CreateOptions, Format, IoError, OutputFormat, create, read_back};

use crate::support::{Feed, byte, folder, opened, put, stored};

fn blocks(name: &str, shape: &[u64], kind: GgmlType) -> StoredTensor {
    StoredTensor { encoding: Encoding::Ggml(kind), ..stored(name, shape, DType::BF16) }
}

/// Every slab of `tensors`; byte `i` of a tensor is that of a [`Feed`].
fn feed(tensors: &[StoredTensor]) -> Feed {
    let mut slabs = Feed::new(&[], 0);
    for (tensor, t) in tensors.iter().enumerate() {
        let row = match t.encoding {
            Encoding::Ggml(kind) => kind.row_bytes(t.info.cols()).expect("whole blocks"),
            _ => t.info.dtype().size() as u64,
        };
        for slab in 0..slab_count(&t.info, &t.encoding) {
            let (row_start, row_count) = slab_range(&t.info, &t.encoding, slab);
            let codes = (row_start * row..(row_start + row_count) * row).map(|i| byte(tensor, i)).collect();
            let rows = EncodedRows { row_count, codes, ..EncodedRows::default() };
            slabs.0.push_back(EncodedSlab { tensor, row_start, rows });
        }
    }
    slabs
}

fn write(tensors: &[StoredTensor], metadata: &[(&str, &str)]) -> Result<Vec<u8>, IoError> {
    let folder = folder();
    let path = folder.path().join("out.gguf");
    let header_metadata = metadata.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    let mut sink =
        create(&path, OutputFormat::Gguf, &CreateOptions { header_metadata, ..CreateOptions::default() })?;
    sink.write(tensors, &mut feed(tensors))?;
    sink.finish(&[])?.commit()?;
    Ok(std::fs::read(&path).expect("readable"))
}

fn some() -> Vec<StoredTensor> {
    vec![
        blocks("long", &[3, 400_128], GgmlType::Q5_K), // two slabs
        stored("scalar", &[], DType::F32),
        stored("odd", &[3, 5], DType::F16),
        blocks("kernel", &[4, 32, 3, 3], GgmlType::Q4_0),
        stored("volume", &[2, 3, 2, 2, 2], DType::F32),
        blocks("模型", &[256], GgmlType::Q6_K),
    ]
}

#[test]
fn written_tensors_are_read_back() {
    let tensors = some();
    let bytes =
        write(&tensors, &[("general.architecture", "dit"), ("general.file_type", "16")]).expect("written");
    let folder = folder();
    let path = put(folder.path(), "x.gguf", &bytes);
    for access in [Access::Positioned, Access::Mapped] {
        let source = aq_io::open(&path, access).expect("good");
        let expected: Vec<_> = tensors.iter().map(|t| read_back(Format::Gguf, t)).collect();
        assert_eq!((source.format(), source.tensors()), (Format::Gguf, &expected[..]));
        for (index, tensor) in expected.iter().enumerate() {
            let (mut at, mut buffer) = (0, Vec::new());
            for slab in 0..slab_count(&tensor.info, &tensor.encoding) {
                let codes = source.read_slab(index, slab, &mut buffer).expect("readable").codes;
                assert!(codes.iter().enumerate().all(|(i, &b)| b == byte(index, at + i as u64)));
                at += codes.len() as u64;
            }
            assert_eq!(at, source.stored_bytes(index));
        }
        assert_eq!(source.metadata().get("general.file_type").map(String::as_str), Some("16"));
        assert_eq!(source.metadata()["comfy.gguf.orig_shape.kernel"], "[4, 32, 3, 3]");
        let plain = source.read_bytes(0, 0, &mut [0; 4]).expect_err("blocks are no elements");
        assert!(plain.to_string().contains("\"long\""), "{plain}");
    }
}

#[test]
fn five_dimensions_stay_where_programs_read_them() {
    let tensors = [stored("patch_embedding.weight", &[2, 3, 1, 2, 2], DType::F32)];
    let wan = write(&tensors, &[("general.architecture", "wan")]).expect("written");
    let other = write(&tensors, &[("general.architecture", "dit")]).expect("written");
    let rank = |bytes: &[u8]| {
        let name = b"patch_embedding.weight";
        let at = bytes.windows(name.len()).rposition(|w| w == name).expect("it is there") + name.len();
        bytes[at]
    };
    assert_eq!((rank(&wan), rank(&other)), (5, 4));
    let folder = folder();
    for (name, bytes) in [("wan.gguf", wan), ("other.gguf", other)] {
        assert_eq!(opened(&put(folder.path(), name, bytes)).tensors(), tensors);
    }
}

#[test]
fn what_the_format_cannot_hold_is_refused() {
    let good = stored("w", &[4], DType::F32);
    let transformed = StoredTensor { transformed: true, ..blocks("w", &[1, 32], GgmlType::Q8_0) };
    for tensors in [
        vec![good.clone(), good],
        vec![stored("w", &[4], DType::U64)],
        vec![stored(&"n".repeat(128), &[4], DType::F32)],
        vec![transformed],
        vec![StoredTensor { encoding: Encoding::Entropy, ..stored("w", &[4, 4], DType::F32) }],
    ] {
        let error = write(&tensors, &[]).expect_err("refused");
        assert!(matches!(error, IoError::Tensor { .. }), "{error}");
    }
}

/// Whatever is cut off or changed, the file is refused or read to its end: there is no panic and no huge allocation.
#[test]
fn damaged_files_are_refused_or_read() {
    let tensors: Vec<_> = some().into_iter().skip(1).collect();
    let bytes = write(&tensors, &[("general.architecture", "dit")]).expect("written");
    let folder = folder();
    let header = bytes.len()
        - tensors.iter().map(|t| aq_codec::encoded_bytes(&t.info, &t.encoding)).sum::<u64>() as usize;
    for length in (0..bytes.len()).step_by(7) {
        let path = put(folder.path(), "cut.gguf", &bytes[..length]);
        // The padding behind the last tensor may be missing.
        assert!(aq_io::open(&path, Access::Positioned).is_err() || bytes.len() - length < 32, "{length}");
    }
    for at in 0..header.min(bytes.len()) {
        for change in [0x01, 0xff] {
            let mut damaged = bytes.clone();
            damaged[at] ^= change;
            aq_io::fuzzing::gguf_file(&damaged);
        }
    }
}
