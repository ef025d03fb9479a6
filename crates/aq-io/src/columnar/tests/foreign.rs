//! Files as other programs write them: compressed, with version 2 pages, cut in another way, and ones that lie.

use aq_core::slab_count;
use arrow2::array::{Array, BinaryArray, ListArray, PrimitiveArray, Utf8Array};
use arrow2::io::parquet::write::{
    CompressionOptions, Encoding, Version, WriteOptions, array_to_columns, to_parquet_schema,
};
use arrow2::offset::OffsetsBuffer;
use parquet2::error::Error;
use parquet2::write::{Compressor, DynIter, DynStreamingIterator, FileWriter};
use xxhash_rust::xxh3::xxh3_64;

use super::{file_of, open};
use crate::columnar::schema::arrow_schema;
use crate::{Access, Format, Source};

/// A row of a `raw` tensor of bytes.
#[derive(Clone)]
struct Line {
    name: String,
    start: i64,
    count: i64,
    shape: Vec<i64>,
    dtype: &'static str,
    codec: &'static str,
    codes: Vec<u8>,
}

/// Makes a line wrong.
type Change = fn(&mut Line);

fn line(name: &str, codes: &[u8]) -> Line {
    let n = codes.len() as i64;
    Line {
        name: name.into(),
        start: 0,
        count: n,
        shape: vec![n],
        dtype: "U8",
        codec: "raw",
        codes: codes.into(),
    }
}

/// One row group, every column in as few pages as arrow2 makes of it.
fn write(lines: &[Line], compression: CompressionOptions, version: Version) -> Vec<u8> {
    let texts =
        |f: fn(&Line) -> &str| Utf8Array::<i32>::from_trusted_len_values_iter(lines.iter().map(f)).boxed();
    let long =
        |f: fn(&Line) -> i64| PrimitiveArray::from_vec(lines.iter().map(f).collect::<Vec<i64>>()).boxed();
    let mut ends = vec![0];
    ends.extend(lines.iter().scan(0, |end, l| {
        *end += l.shape.len() as i32;
        Some(*end)
    }));
    let shape = ListArray::<i32>::new(
        arrow_schema().fields[3].data_type.clone(),
        OffsetsBuffer::try_from(ends).expect("rising"),
        PrimitiveArray::from_vec(lines.iter().flat_map(|l| l.shape.clone()).collect::<Vec<i64>>()).boxed(),
        None,
    );
    let none = BinaryArray::<i32>::from_trusted_len_values_iter(lines.iter().map(|_| [])).boxed();
    let columns: Vec<Box<dyn Array>> = vec![
        texts(|l| &l.name),
        long(|l| l.start),
        long(|l| l.count),
        shape.boxed(),
        texts(|l| l.dtype),
        texts(|l| l.codec),
        PrimitiveArray::from_vec(vec![8u8; lines.len()]).boxed(),
        PrimitiveArray::from_vec(vec![0i32; lines.len()]).boxed(),
        BinaryArray::<i64>::from_trusted_len_values_iter(lines.iter().map(|l| l.codes.as_slice())).boxed(),
        none.clone(),
        none.clone(),
        none,
        PrimitiveArray::from_vec(lines.iter().map(|l| xxh3_64(&l.codes)).collect::<Vec<u64>>()).boxed(),
    ];
    let schema = to_parquet_schema(&arrow_schema()).expect("a schema");
    let options = WriteOptions { write_statistics: false, version, compression, data_pagesize_limit: None };
    let pages = columns.into_iter().zip(schema.fields()).map(|(array, field)| {
        let pages =
            array_to_columns(array, field.clone(), options, &[Encoding::Plain]).expect("pages").remove(0);
        let pages = pages.map(|p| p.map_err(|e| Error::InvalidParameter(e.to_string())));
        Ok::<_, Error>(DynStreamingIterator::new(Compressor::new(pages, compression, vec![])))
    });
    let pages: Vec<_> = pages.collect();
    let options = parquet2::write::WriteOptions { write_statistics: false, version };
    let mut file = FileWriter::new(Vec::new(), schema, options, None);
    file.write(DynIter::new(pages.into_iter())).expect("written");
    file.end(None).expect("finished");
    file.into_inner()
}

fn plain(lines: &[Line]) -> Vec<u8> {
    write(lines, CompressionOptions::Uncompressed, Version::V1)
}

fn read_all(source: &dyn Source, tensor: usize) -> Vec<u8> {
    let stored = &source.tensors()[tensor];
    let mut buffer = Vec::new();
    let slabs = 0..slab_count(&stored.info, &stored.encoding);
    slabs.flat_map(|s| source.read_slab(tensor, s, &mut buffer).expect("reads").codes.to_vec()).collect()
}

#[test]
fn compressed_and_version_2_pages_are_read() {
    let large: Vec<u8> = (0..3_000_000u32).map(|i| (i >> 7) as u8).collect();
    let mut scalar = line("scalar", &[9]);
    scalar.shape.clear();
    let lines =
        [scalar, line("a", b"abc"), line("none", b""), line("large", &large), line("z", &[1; 70_000])];
    for compression in [
        CompressionOptions::Uncompressed,
        CompressionOptions::Zstd(None),
        CompressionOptions::Gzip(None),
        CompressionOptions::Snappy,
    ] {
        for version in [Version::V1, Version::V2] {
            let (_folder, path) = file_of(&write(&lines, compression, version));
            for access in [Access::Mapped, Access::Positioned] {
                let source = open(Format::Parquet, &path, access).expect("opens");
                assert_eq!(source.tensors().len(), lines.len());
                for (t, line) in lines.iter().enumerate() {
                    assert!(
                        read_all(source.as_ref(), t) == line.codes,
                        "{compression:?} {version:?} {}",
                        line.name
                    );
                }
                // The large tensor lies in one row though it has three slabs.
                let mut middle = [0; 100];
                source.read_bytes(3, (1 << 20) - 50, &mut middle).expect("reads");
                assert_eq!(middle[..], large[(1 << 20) - 50..][..100]);
            }
        }
    }
}

#[test]
fn rows_that_contradict_each_other_are_refused() {
    let good = [line("a", b"abcd"), line("b", b"xy")];
    let (_folder, path) = file_of(&plain(&good));
    open(Format::Parquet, &path, Access::Mapped).expect("opens");
    let changes: [(Change, &str); 10] = [
        (|l| l.start = 1, "rows 1+4"),
        (|l| l.count = 3, "bytes"),
        (|l| l.count = -1, "negative"),
        (|l| l.count = i64::MAX, "outside"),
        (|l| l.shape = vec![-4], "negative"),
        (|l| l.shape = vec![1 << 40, 1 << 40], "too many"),
        (|l| l.shape = vec![5], "4 of its 5 rows"),
        (|l| l.dtype = "F33", "F33"),
        (|l| l.codec = "zip", "zip"),
        (|l| l.name = "b".into(), "duplicate"),
    ];
    for (change, word) in changes {
        let mut lines = good.clone();
        change(&mut lines[0]);
        let (_folder, path) = file_of(&plain(&lines));
        let error = open(Format::Parquet, &path, Access::Mapped).err().expect("refused").to_string();
        assert!(error.contains(word), "{word}: {error}");
    }
}

#[test]
fn a_page_larger_than_its_shapes_allow_is_not_unpacked() {
    let mut bomb = line("a", &vec![0; 50 << 20]);
    (bomb.shape, bomb.count) = (vec![4], 4);
    for compression in
        [CompressionOptions::Zstd(None), CompressionOptions::Gzip(None), CompressionOptions::Snappy]
    {
        let (_folder, path) = file_of(&write(&[bomb.clone()], compression, Version::V1));
        let error = open(Format::Parquet, &path, Access::Mapped).err().expect("refused").to_string();
        assert!(error.contains("column codes") && error.contains("the shapes allow 8"), "{error}");
    }
}
