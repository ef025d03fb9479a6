//! Headers that must be refused, each with its reason, and good files that must be read.

use aq_core::DType;
use aq_io::Access;
use proptest::prelude::*;
use serde_json::json;

use crate::support::{contents, entry, f32_file, folder, opened, put, raw_file, refused};

/// Refuses `bytes` and finds every one of `words` in the message.
#[track_caller]
fn check(bytes: &[u8], words: &[&str]) {
    let folder = folder();
    let message = refused(&put(folder.path(), "model.safetensors", bytes));
    for word in words.iter().chain(&["model.safetensors"]) {
        assert!(message.contains(word), "{word:?} is not in {message:?}");
    }
}

#[track_caller]
fn check_header(header: &str, data: usize, words: &[&str]) {
    check(&raw_file(header, &vec![0; data]), words);
}

#[test]
fn framing() {
    check(b"", &["truncated", "header"]);
    check(&[16, 0, 0, 0, 0, 0, 0], &["truncated", "header"]);
    check(&60u64.to_le_bytes(), &["truncated", "header"]);
    check(&raw_file("", &[0; 16]), &["header", "JSON"]);
    for length in [u64::MAX, 1 << 63, 100_000_001] {
        check(&[&length.to_le_bytes()[..], &[b'{'; 50]].concat(), &["header length"]);
    }
    check(&[&3u64.to_le_bytes()[..], b"{}"].concat(), &["truncated", "header"]);
}

#[test]
fn text_that_is_no_header() {
    check(&raw_file(b"{\"\xff\xfe\":1}", b""), &["header", "UTF-8"]);
    for text in
        ["{", "{\"blocks.0.wei", "hello, world", "[1,2,3]", "null", "{}{}", " {}", "{}\0\0\0\0", "{\"a\":1,}"]
    {
        check_header(text, 0, &["header", "JSON"]);
    }
    let deep = format!("{}1{}", "{\"a\":".repeat(1000), "}".repeat(1000));
    check_header(&deep, 0, &["header"]);
    let hidden = format!(r#"{{"a":{{"x":{}1{}}}}}"#, "[".repeat(1000), "]".repeat(1000));
    check_header(&hidden, 0, &["header", "nested"]);
}

#[test]
fn entries() {
    let one = |entry: &str| format!(r#"{{"some.weight":{entry}}}"#);
    let cases: [(&str, &[&str]); 15] = [
        (r#"{"shape":[4],"data_offsets":[0,16]}"#, &["dtype", "missing"]),
        (r#"{"dtype":"F32","data_offsets":[0,16]}"#, &["shape", "missing"]),
        (r#"{"dtype":"F32","shape":[4]}"#, &["data_offsets", "missing"]),
        (r#"{"dtype":"F128","shape":[1],"data_offsets":[0,16]}"#, &["dtype", "F128"]),
        (r#"{"dtype":"f32","shape":[4],"data_offsets":[0,16]}"#, &["dtype", "f32"]),
        (r#"{"dtype":7,"shape":[4],"data_offsets":[0,16]}"#, &["dtype", "7"]),
        (r#"{"dtype":"F32","shape":[4],"data_offsets":[0,8,16]}"#, &["data_offsets"]),
        (r#"{"dtype":"F32","shape":[4],"data_offsets":[16]}"#, &["data_offsets"]),
        (r#"{"dtype":"F32","shape":[-4],"data_offsets":[0,16]}"#, &["shape", "-4"]),
        (r#"{"dtype":"F32","shape":[4.5],"data_offsets":[0,16]}"#, &["shape", "4.5"]),
        (r#"{"dtype":"F32","shape":4,"data_offsets":[0,16]}"#, &["shape"]),
        (r#"{"dtype":"F32","shape":[4],"data_offsets":[-16,0]}"#, &["data_offsets", "-16"]),
        (r#"{"dtype":"F32","dtype":"F32","shape":[4],"data_offsets":[0,16]}"#, &["duplicate", "dtype"]),
        ("5", &["header", "dtype"]),
        ("null", &["header", "dtype"]),
    ];
    for (entry, words) in cases {
        check_header(&one(entry), 16, &[words, &["some.weight"]].concat());
    }
    let ranks = json!({"w": entry("U8", &[1; 65], 0, 1)}).to_string();
    check_header(&ranks, 1, &["shape", "64"]);
}

#[test]
fn names_and_metadata() {
    let (a, b) = (entry("F32", &[4], 0, 16), entry("F32", &[4], 16, 32));
    check_header(&format!(r#"{{"w":{a},"w":{b}}}"#), 32, &["duplicate", "\"w\""]);
    check_header(&format!(r#"{{"w":{a},"\u0077":{b}}}"#), 32, &["duplicate", "\"w\""]);
    check_header(&format!(r#"{{"__metadata__":{{"step":7}},"w":{a}}}"#), 16, &["__metadata__", "string"]);
    check_header(&format!(r#"{{"__metadata__":{{"a":"1","a":"2"}},"w":{a}}}"#), 16, &["duplicate", "\"a\""]);
    check_header(r#"{"__metadata__":{},"__metadata__":{}}"#, 0, &["duplicate", "__metadata__"]);
    let evil = json!({"a\u{1b}[31m\n": entry("F32", &[4], 0, 12)}).to_string();
    check_header(&evil, 12, &["a\\u{1b}[31m\\n", "shape"]);
    let long = json!({"x".repeat(100_000): entry("F32", &[4], 0, 12)}).to_string();
    check_header(&long, 12, &["xxx...", "shape"]);
}

#[test]
fn offsets() {
    let two = |a: (usize, usize), b: (usize, usize)| {
        json!({"a": entry("F32", &[4], a.0, a.1), "b": entry("F32", &[4], b.0, b.1)}).to_string()
    };
    check_header(&two((0, 16), (0, 16)), 16, &["overlap", "offset"]);
    check_header(&two((0, 16), (12, 28)), 28, &["overlap", "offset", "\"b\""]);
    check_header(&two((0, 16), (20, 36)), 36, &["hole", "offset", "\"b\""]);
    check_header(&two((4, 20), (20, 36)), 36, &["hole", "offset", "\"a\""]);
    check_header(&two((0, 16), (16, 32)), 40, &["8 trailing", "offset"]);
    check_header(&two((0, 16), (16, 32)), 30, &["truncated", "offset", "\"b\""]);
    check_header(&two((0, 16), (16, 32)), 0, &["truncated", "offset"]);
    check_header(&two((16, 0), (16, 32)), 32, &["offset", "\"a\""]);
    check_header(&two((0, 16), (1 << 40, (1 << 40) + 16)), 16, &["offset", "range", "\"b\""]);
    check_header("{}", 5, &["5 trailing"]);
    check_header(&json!({"a": entry("F32", &[2, 2], 0, 4)}).to_string(), 4, &["shape", "16", "offset"]);
    for dim in [u64::MAX - 1, (1 << 63) - 1, 1 << 62] {
        check_header(&json!({"a": entry("F32", &[2, dim], 0, 16)}).to_string(), 16, &["shape", "overflow"]);
        check_header(&json!({"a": entry("F32", &[0, 2, dim], 0, 0)}).to_string(), 0, &["shape", "overflow"]);
    }
}

#[test]
fn good_files_are_read_in_the_order_of_their_bytes() {
    let header = json!({
        "__metadata__": {"format": "pt"},
        "z": entry("F32", &[], 10, 14), "empty": entry("F16", &[2, 0], 2, 2), "模型": entry("BF16", &[1, 4], 2, 10),
        "a": entry("BOOL", &[2], 0, 2), "tail": entry("U8", &[0], 14, 14), "extra": {"dtype": "U8", "shape": [0],
        "data_offsets": [14, 14], "note": {"more": [1, 2]}},
    });
    let data: Vec<u8> = (0..14).collect();
    let folder = folder();
    let path = put(folder.path(), "m.safetensors", raw_file(format!("{header}     "), &data));
    for access in [Access::Positioned, Access::Mapped] {
        let source = aq_io::open(&path, access).expect("a good file");
        let read: Vec<_> =
            contents(&*source).into_iter().map(|(t, bytes)| (t.info.name().to_string(), bytes)).collect();
        let expected: [(&str, &[u8]); 6] = [
            ("a", &data[..2]),
            ("empty", &[]),
            ("模型", &data[2..10]),
            ("z", &data[10..]),
            ("tail", &[]),
            ("extra", &[]),
        ];
        assert_eq!(read, expected.map(|(name, bytes)| (name.to_string(), bytes.to_vec())));
        assert_eq!(source.metadata().get("format").map(String::as_str), Some("pt"));
        assert_eq!(source.borrow_bytes(2, 1..3), (access == Access::Mapped).then_some(&data[3..5]));
        assert_eq!(source.borrow_bytes(2, 1..9), None);
        assert!(source.read_bytes(0, 1, &mut [0; 2]).is_err() && source.read_bytes(9, 0, &mut []).is_err());
        assert!(source.read_slab(0, 0, &mut Vec::new()).is_err());
    }
}

#[test]
fn other_endings_and_places() {
    let folder = folder();
    let good = f32_file(&[("w", &[4])]);
    opened(&put(folder.path(), "download", &good));
    opened(&put(folder.path(), ".out.safetensors.aq-partial", &good));
    for name in ["m.bin", "m.pt", "m.ckpt"] {
        assert!(refused(&put(folder.path(), name, &good)).contains("safetensors"));
    }
    assert!(refused(&put(folder.path(), "m.gguf", b"GGUF")).contains("truncated"));
    assert!(refused(&put(folder.path(), "m.txt", b"text")).contains("not a file that can be read"));
    let missing = aq_io::open(&folder.path().join("none"), Access::Mapped);
    assert!(matches!(missing, Err(aq_io::IoError::NotFound { .. })));
}

#[test]
#[cfg(unix)]
fn a_named_pipe_is_refused_without_waiting() {
    let folder = folder();
    let path = folder.path().join("m.safetensors");
    let made = std::process::Command::new("mkfifo").arg(&path).status().expect("mkfifo runs");
    assert!(made.success());
    assert!(refused(&path).contains("not a regular file"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// What the reference writer writes is read back.
    #[test]
    fn round_trip(tensors in proptest::collection::btree_map("[a-z.\"\\\\é]{1,8}",
        (0usize..17, proptest::collection::vec(0u64..5, 0..4)), 0..8))
    {
        let mut views = Vec::new();
        for (name, (dtype, shape)) in &tensors {
            let dtype = DType::ALL[*dtype];
            let reference = serde_json::from_value::<safetensors::Dtype>(json!(dtype.name()));
            let Ok(reference) = reference else { continue };
            let bytes = shape.iter().product::<u64>() as usize * dtype.size();
            let shape: Vec<usize> = shape.iter().map(|&d| d as usize).collect();
            views.push((name.clone(), reference, shape, (0..bytes).map(|i| i as u8).collect::<Vec<u8>>()));
        }
        let written = safetensors::serialize(
            views.iter().map(|(name, dtype, shape, data)| {
                (name, safetensors::tensor::TensorView::new(*dtype, shape.clone(), data).expect("sizes fit"))
            }),
            None,
        ).expect("serializable");
        let folder = folder();
        let source = opened(&put(folder.path(), "m.safetensors", written));
        prop_assert_eq!(source.tensors().len(), views.len());
        for (tensor, bytes) in contents(&*source) {
            let (_, dtype, shape, data) = views.iter().find(|v| v.0 == tensor.info.name()).expect("known");
            prop_assert_eq!(json!(tensor.info.dtype().name()), serde_json::to_value(dtype).expect("a name"));
            prop_assert_eq!(tensor.info.shape().len(), shape.len());
            prop_assert_eq!(&bytes, data);
        }
    }
}
