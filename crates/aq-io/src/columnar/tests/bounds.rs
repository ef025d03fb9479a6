//! The writers: few slabs in memory, and nothing but the slabs that are due.

use std::io::Write;
use std::path::Path;

use aq_core::{DType, EncodedRows, EncodedSlab, OffsetKind};

use super::{ArrowSink, Made, ParquetSink, affine, raw};
use crate::{IoError, SlabStream};

/// Counts bytes and remembers the largest write.
#[derive(Default)]
struct Counting(u64);

impl Write for Counting {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_large_tensor_keeps_few_slabs_in_memory() {
    let tensors = [affine("w", &[64 << 10, 1024], 2, 64, OffsetKind::F16), raw("b", &[9 << 20], DType::U8)];
    let path = Path::new("w");
    let mut slabs = Made::new(&tensors);
    let mut sink = ParquetSink::new(Counting::default(), path).expect("a schema");
    sink.write(&tensors, &mut slabs).expect("written");
    assert!(sink.finish(&[]).expect("finished").0 > 16 << 20);
    assert!((slabs.out, slabs.most_out <= 3) == (0, true), "{} slabs were out", slabs.most_out);
    assert!(slabs.idle.len() <= 3, "buffers were reused");
    let mut slabs = Made::new(&tensors);
    let mut sink = ArrowSink::new(Counting::default(), path).expect("a head");
    sink.write(&tensors, &mut slabs).expect("written");
    assert!(sink.finish(&[]).expect("finished").0 > 16 << 20);
    assert!((slabs.out, slabs.most_out <= 3) == (0, true), "{} slabs were out", slabs.most_out);
}

#[test]
fn many_small_tensors_keep_few_slabs_in_memory() {
    let tensors: Vec<_> = (0..300).map(|i| raw(&format!("t{i}"), &[3000], DType::F32)).collect();
    let mut slabs = Made::new(&tensors);
    let mut sink = ArrowSink::new(Counting::default(), Path::new("w")).expect("a head");
    sink.write(&tensors, &mut slabs).expect("written");
    assert!((slabs.out, slabs.most_out <= 3) == (0, true), "{} slabs were out", slabs.most_out);
}

#[test]
fn a_stream_that_ends_early_stops_the_writer() {
    let tensors = [raw("a", &[7], DType::U8), affine("w", &[4096, 1024], 4, 64, OffsetKind::F16)];
    for stop_at in 0..5 {
        let mut slabs = Made { stop_at, ..Made::new(&tensors) };
        let mut sink = ParquetSink::new(Vec::new(), Path::new("w")).expect("a schema");
        let result = sink.write(&tensors, &mut slabs);
        assert!(matches!(result, Err(IoError::Stopped { .. })), "{result:?}");
        let mut slabs = Made { stop_at, ..Made::new(&tensors) };
        let mut sink = ArrowSink::new(Vec::new(), Path::new("w")).expect("a head");
        assert!(matches!(sink.write(&tensors, &mut slabs), Err(IoError::Stopped { .. })));
    }
}

/// Changes the second slab.
struct Wrong<'t>(Made<'t>, fn(&mut EncodedSlab));

impl SlabStream for Wrong<'_> {
    fn next_slab(&mut self) -> Option<EncodedSlab> {
        let mut slab = self.0.next_slab()?;
        if slab.tensor == 0 && slab.row_start > 0 {
            self.1(&mut slab);
        }
        Some(slab)
    }

    fn recycle(&mut self, rows: EncodedRows) {
        self.0.recycle(rows);
    }
}

#[test]
fn a_slab_that_is_not_due_is_refused() {
    let tensors = [affine("w", &[2048, 1024], 4, 64, OffsetKind::F16), raw("a", &[7], DType::U8)];
    let changes: [fn(&mut EncodedSlab); 6] = [
        |slab| slab.tensor = 1,
        |slab| slab.row_start += 1,
        |slab| slab.rows.row_count -= 1,
        |slab| slab.rows.codes.push(0),
        |slab| slab.rows.offsets.clear(),
        |slab| slab.rows.extra = vec![0; 3],
    ];
    for change in changes {
        let mut sink = ParquetSink::new(Vec::new(), Path::new("w")).expect("a schema");
        let error = sink.write(&tensors, &mut Wrong(Made::new(&tensors), change)).expect_err("wrong slab");
        assert!(matches!(&error, IoError::Tensor { tensor, .. } if tensor == "w"), "{error}");
        let mut sink = ArrowSink::new(Vec::new(), Path::new("w")).expect("a head");
        assert!(sink.write(&tensors, &mut Wrong(Made::new(&tensors), change)).is_err());
    }
}

/// A disk that is full after some bytes.
struct Full(usize);

impl Write for Full {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 = self.0.checked_sub(bytes.len()).ok_or(std::io::ErrorKind::StorageFull)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_full_disk_is_reported_as_such() {
    let tensors = [raw("a", &[7], DType::U8), affine("w", &[8192, 1024], 4, 64, OffsetKind::F16)];
    for space in [0, 3, 10, 300, 1000, 600_000, 4_300_000] {
        let mut sink = ParquetSink::new(Full(space), Path::new("w")).expect("a schema");
        let result = sink.write(&tensors, &mut Made::new(&tensors)).and_then(|()| sink.finish(&[]).map(drop));
        let full = |e: &IoError| matches!(e, IoError::Os { source, .. } if source.kind() == std::io::ErrorKind::StorageFull);
        assert!(result.as_ref().is_err_and(full), "{space}: {result:?}");
    }
}
