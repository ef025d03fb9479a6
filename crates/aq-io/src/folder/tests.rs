//! Parts, and resuming them.

use std::collections::VecDeque;
use std::path::Path;

use aq_core::{DType, EncodedRows, EncodedSlab, Encoding, StoredTensor, TensorInfo};

use super::*;
use crate::{CreateOptions, PendingOutput, Sink, SlabStream};

/// Five tensors of 8 weights; two fit a part.
fn tensors() -> Vec<StoredTensor> {
    let named = |i: u64| TensorInfo::new(format!("t{i}"), vec![2, 4], DType::F32).expect("small");
    (0..5).map(|i| StoredTensor::new(named(i), Encoding::Raw)).collect()
}

/// The slabs of tensors `first..end`; asking for more stops the writer.
struct Feed(VecDeque<EncodedSlab>);

fn feed(first: usize, end: usize) -> Feed {
    let slab = |tensor: usize| {
        let rows = EncodedRows { row_count: 8, codes: vec![tensor as u8; 32], ..EncodedRows::default() };
        EncodedSlab { tensor, row_start: 0, rows }
    };
    Feed((first..end).map(slab).collect())
}

impl SlabStream for Feed {
    fn next_slab(&mut self) -> Option<EncodedSlab> {
        self.0.pop_front()
    }

    fn recycle(&mut self, _: EncodedRows) {}
}

fn options(resume: bool, fingerprint: &str) -> CreateOptions {
    CreateOptions { resume, fingerprint: fingerprint.into(), keep_partial: true, ..Default::default() }
}

fn sink(path: &Path, options: &CreateOptions) -> FolderSink {
    FolderSink::create(path, options).expect("created").with_part_weights(16)
}

/// Runs to the end and returns every file of the result but none of the folder's own.
fn complete(path: &Path, mut sink: FolderSink, first: usize) -> Vec<(String, Vec<u8>)> {
    sink.write(&tensors(), &mut feed(first, 5)).expect("written");
    let pending: Box<dyn PendingOutput> =
        Box::new(sink).finish(&[("k".into(), "v".into())]).expect("finished");
    let bytes = pending.bytes();
    pending.commit().expect("committed");
    let read = |name: String| (name.clone(), std::fs::read(path.join(&name)).expect("readable"));
    let files: Vec<_> = crate::member::names(path).expect("readable").into_iter().map(read).collect();
    assert_eq!(bytes, files.iter().map(|f| f.1.len() as u64).sum::<u64>());
    files
}

#[test]
fn parts_hold_whole_tensors_up_to_the_limit() {
    let check = |sizes: &[u64], expected: &[Range<usize>]| {
        let named = |&n: &u64| TensorInfo::new("t", vec![n], DType::U8).expect("small");
        let list: Vec<_> = sizes.iter().map(|n| StoredTensor::new(named(n), Encoding::Raw)).collect();
        assert_eq!(part_ranges(&list, 10), expected);
    };
    check(&[], &[]);
    check(&[0], std::slice::from_ref(&(0..1)));
    check(&[5, 5, 1], &[0..2, 2..3]);
    check(&[99, 1, 0, 9, 1], &[0..1, 1..4, 4..5]);
}

#[test]
fn a_folder_is_read_through_its_manifest() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("out");
    let files = complete(&path, sink(&path, &options(false, "x")), 0);
    let names: Vec<_> = files.iter().map(|f| f.0.as_str()).collect();
    assert_eq!(names, ["manifest.json", "part-00000.parquet", "part-00001.parquet", "part-00002.parquet"]);
    let source = crate::open(&path, Access::Positioned).expect("opened");
    assert_eq!(source.tensors(), tensors());
    assert_eq!(
        (source.format(), source.metadata().get("k").map(String::as_str)),
        (Format::Folder, Some("v"))
    );
    let mut buffer = Vec::new();
    assert_eq!(source.read_slab(3, 0, &mut buffer).expect("readable").codes, [3; 32]);
    verify_folder(&path).expect("intact");
}

#[test]
fn a_run_that_stopped_is_resumed_to_the_same_bytes() {
    let folder = tempfile::tempdir().expect("a folder");
    let whole = folder.path().join("whole");
    let expected = complete(&whole, sink(&whole, &options(false, "x")), 0);

    let path = folder.path().join("out");
    let partial = folder.path().join(".out.aq-partial");
    for (written, kept) in [(1, 0), (2, 2), (3, 2), (4, 4)] {
        let mut first = sink(&path, &options(false, "x"));
        assert_eq!(first.resume(&tensors()).expect("asked").tensors, 0);
        assert!(matches!(first.write(&tensors(), &mut feed(0, written)), Err(IoError::Stopped { .. })));
        drop(first);
        assert_eq!(partial.is_dir(), kept > 0, "kept only when a part is complete");
        let mut second = sink(&path, &options(true, "x"));
        assert_eq!(second.resume(&tensors()).expect("asked").tensors, kept);
        assert_eq!(complete(&path, second, kept), expected);
        assert!(!partial.exists());
        std::fs::remove_dir_all(&path).expect("removed");
    }
}

#[test]
fn only_intact_parts_of_the_same_run_are_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("out");
    let partial = folder.path().join(".out.aq-partial");
    let resumed = |fingerprint: &str, change: &dyn Fn()| {
        let mut first = sink(&path, &options(false, "x"));
        assert!(first.write(&tensors(), &mut feed(0, 4)).is_err());
        drop(first);
        change();
        let mut second = sink(&path, &options(true, fingerprint));
        second.resume(&tensors()).expect("asked").tensors
    };
    let flip = |name: &str| {
        let mut bytes = std::fs::read(partial.join(name)).expect("readable");
        bytes[50] ^= 1;
        std::fs::write(partial.join(name), bytes).expect("writable");
    };
    let add = |text: &str| {
        let mut journal = std::fs::read_to_string(partial.join("journal.jsonl")).expect("readable");
        journal.push_str(text);
        std::fs::write(partial.join("journal.jsonl"), journal).expect("writable");
    };
    assert_eq!(resumed("x", &|| ()), 4);
    assert_eq!(resumed("other", &|| ()), 0);
    assert_eq!(resumed("x", &|| flip("part-00001.parquet")), 2);
    assert_eq!(resumed("x", &|| flip("part-00000.parquet")), 0);
    assert_eq!(
        resumed("x", &|| std::fs::remove_file(partial.join("part-00001.parquet")).expect("removed")),
        2
    );
    assert_eq!(resumed("x", &|| std::fs::remove_file(partial.join("journal.jsonl")).expect("removed")), 0);
    assert_eq!(resumed("x", &|| add("{\"finger")), 4);
    assert_eq!(resumed("x", &|| flip("journal.jsonl")), 0);
    // Without `resume` the state of the earlier run is gone.
    drop(sink(&path, &options(false, "x")));
    assert!(!partial.exists());
}

#[test]
fn nothing_is_kept_unless_asked() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("out");
    let options = CreateOptions { keep_partial: false, ..options(false, "x") };
    let mut first = sink(&path, &options);
    assert!(first.write(&tensors(), &mut feed(0, 4)).is_err());
    drop(first);
    assert!(std::fs::read_dir(folder.path()).expect("readable").next().is_none());
}

#[test]
fn manifests_are_checked() {
    let check = |text: &str, word: &str| {
        let error = check_manifest(text.as_bytes(), Path::new("m")).expect_err("refused").to_string();
        assert!(error.contains(word), "{word:?} is not in {error:?}");
    };
    let part = r#"{"file":"p","bytes":1,"xxh3":"0","tensors":1}"#;
    let head = |version: u32| {
        format!(r#"{{"schema":"aq.manifest/1","format_version":{version},"metadata":{{}},"parts""#)
    };
    check("{}", "missing field");
    check(&format!("{}:[{part},{part}]}}", head(1)), "duplicate part");
    check(&format!("{}:[{part}]}}", head(2)), "not supported");
    check(&format!("{}:[{{}}]}}", head(1)), "missing field");
}
