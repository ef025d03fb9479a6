//! The Parquet writer: one row group per tensor or per run of small tensors, one page per slab of codes.
//!
//! parquet2 pulls the pages of a column from an iterator that must be `Send + Sync`; slabs come from a stream that is
//! neither. So the calling thread pulls slabs and a second one, for the time of a row group, runs the file writer.

use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};

use aq_core::StoredTensor;
use arrow2::array::{Array, ListArray, PrimitiveArray, Utf8Array};
use arrow2::io::parquet::write::{
    CompressionOptions, Encoding, KeyValue, Version, WriteOptions, array_to_columns, to_parquet_schema,
};
use arrow2::offset::OffsetsBuffer;
use parquet2::error::Error;
use parquet2::page::CompressedPage;
use parquet2::write::{Compressor, DynIter, DynStreamingIterator, FileWriter};

use super::pages::{Arriving, Spool, plain_page, put_value};
use crate::columnar::feed::{checksum, pull};
use crate::columnar::schema::{
    ARROW_SCHEMA_KEY, CODES, COLUMNS, CREATED_BY, arrow_schema, encoded_schema, groups, key_values, numbers,
    slabs_of,
};
use crate::{IoError, Result, SlabStream};

pub(super) type Column = std::result::Result<DynStreamingIterator<'static, CompressedPage, Error>, Error>;

/// A Parquet file being written to `W`.
pub(crate) struct ParquetSink<W: Write + Send> {
    path: PathBuf,
    file: FileWriter<Kept<W>>,
    fault: Fault,
}

impl<W: Write + Send> ParquetSink<W> {
    /// Nothing is written yet. Small writes are many, so `writer` should gather them. `path` names the file in errors; its folder takes the temporary files.
    ///
    /// # Errors
    /// Never for the schema of this format.
    pub(crate) fn new(writer: W, path: &Path) -> Result<Self> {
        let schema = to_parquet_schema(&arrow_schema())
            .map_err(|e| IoError::unsupported(path, format!("schema: {e}")))?;
        let fault = Fault::default();
        let kept = Kept { inner: writer, fault: fault.clone() };
        let options = parquet2::write::WriteOptions { write_statistics: false, version: Version::V1 };
        let file = FileWriter::new(kept, schema, options, Some(CREATED_BY.into()));
        Ok(Self { path: path.into(), file, fault })
    }

    /// Writes `tensors`, pulling their slabs in order.
    ///
    /// # Errors
    /// See [`crate::Sink::write`]; also when a slab is not the one that is due.
    pub(crate) fn write(&mut self, tensors: &[StoredTensor], slabs: &mut dyn SlabStream) -> Result<()> {
        groups(tensors).into_iter().try_for_each(|group| self.write_group(tensors, group, slabs))
    }

    /// Writes the footer and gives the writer back, flushed.
    ///
    /// # Errors
    /// What the operating system says.
    pub(crate) fn finish(mut self, metadata: &[(String, String)]) -> Result<W> {
        let mut pairs = key_values(metadata);
        pairs.push((ARROW_SCHEMA_KEY.into(), encoded_schema(&arrow_schema())));
        let pairs = pairs.into_iter().map(|(key, value)| KeyValue { key, value: Some(value) }).collect();
        self.file.end(Some(pairs)).map_err(|e| self.fault.explain(&self.path, &e))?;
        Ok(self.file.into_inner().inner)
    }

    fn write_group(
        &mut self,
        tensors: &[StoredTensor],
        group: Range<usize>,
        slabs: &mut dyn SlabStream,
    ) -> Result<()> {
        let Self { path, file, fault } = self;
        let mut columns = described(tensors, group.clone(), file).map_err(|e| fault.explain(path, &e))?;
        let (senders, arriving): (Vec<_>, Vec<_>) = (CODES..COLUMNS.len()).map(|_| sync_channel(1)).unzip();
        columns.extend(
            arriving
                .into_iter()
                .map(|pages: Receiver<_>| Ok(DynStreamingIterator::new(Arriving::new(pages))) as Column),
        );
        let leaves: Vec<_> = file.schema().columns().iter().map(|c| c.descriptor.clone()).collect();
        std::thread::scope(|scope| {
            let writing = scope.spawn(|| file.write(DynIter::new(columns.into_iter())));
            let fed = feed(path, tensors, group, slabs, senders, &leaves[CODES..]);
            // A stopped feed leaves the group short, and a failed writer ends the feed: the feed's own error comes first.
            let written = writing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            fed.and(written.map_err(|e| fault.explain(path, &e)))
        })
    }
}

/// Sends the pages of the last five columns: codes as slabs come, then what was put aside meanwhile.
fn feed(
    path: &Path,
    tensors: &[StoredTensor],
    group: Range<usize>,
    slabs: &mut dyn SlabStream,
    senders: Vec<SyncSender<CompressedPage>>,
    leaves: &[parquet2::metadata::Descriptor],
) -> Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut spools: [Spool; 4] = std::array::from_fn(|_| Spool::new(folder));
    let mut senders = senders.into_iter().zip(leaves);
    if let Some((codes, leaf)) = senders.next() {
        for (tensor, _, range) in slabs_of(tensors, group) {
            let rows = pull(slabs, path, tensors, tensor, range)?;
            let mut page = Vec::with_capacity(rows.codes.len() + 4);
            put_value(&mut page, &rows.codes);
            let hash = checksum(&rows.parts()).to_le_bytes();
            let put_aside = || {
                let [scales, offsets, extra, hashes] = &mut spools;
                scales.push(|page| put_value(page, &rows.scales))?;
                offsets.push(|page| put_value(page, &rows.offsets))?;
                extra.push(|page| put_value(page, &rows.extra))?;
                hashes.push(|page| page.extend_from_slice(&hash))
            };
            std::io::Result::map_err({ put_aside }(), IoError::os(path))?;
            slabs.recycle(rows);
            if codes.send(plain_page(page, 1, leaf)).is_err() {
                return Ok(());
            }
        }
    }
    for ((sender, leaf), spool) in senders.zip(spools) {
        spool.drain(path, leaf, |page| sender.send(page).is_ok())?;
    }
    Ok(())
}

/// The columns before `codes`, which follow from the tensors alone.
fn described<W: Write>(
    tensors: &[StoredTensor],
    group: Range<usize>,
    file: &FileWriter<W>,
) -> std::result::Result<Vec<Column>, Error> {
    encode(arrays(tensors, group), file)
}

/// Arrays as PLAIN columns of one page each, in the order of the file's schema.
pub(super) fn encode<W: Write>(
    arrays: Vec<Box<dyn Array>>,
    file: &FileWriter<W>,
) -> std::result::Result<Vec<Column>, Error> {
    let options = WriteOptions {
        write_statistics: false,
        version: Version::V1,
        compression: CompressionOptions::Uncompressed,
        data_pagesize_limit: Some(usize::MAX / 4),
    };
    let encode = |(array, field): (Box<dyn Array>, &parquet2::schema::types::ParquetType)| {
        let fault = |e: arrow2::error::Error| Error::InvalidParameter(e.to_string());
        let mut pages = array_to_columns(array, field.clone(), options, &[Encoding::Plain]).map_err(fault)?;
        let pages = pages.pop().ok_or_else(|| Error::InvalidParameter("no column".into()))?;
        let pages = Compressor::new(pages.map(move |p| p.map_err(fault)), options.compression, Vec::new());
        Ok(Ok(DynStreamingIterator::new(pages)) as Column)
    };
    arrays.into_iter().zip(file.schema().fields()).map(encode).collect()
}

/// The same as Arrow arrays.
fn arrays(tensors: &[StoredTensor], group: Range<usize>) -> Vec<Box<dyn Array>> {
    let rows: Vec<_> = slabs_of(tensors, group).map(|(t, _, range)| (&tensors[t], range)).collect();
    let text = |value: fn(&StoredTensor) -> &str| {
        Utf8Array::<i32>::from_trusted_len_values_iter(rows.iter().map(|(t, _)| value(t))).boxed()
    };
    let start = PrimitiveArray::from_vec(rows.iter().map(|(_, r)| r.0 as i64).collect());
    let count = PrimitiveArray::from_vec(rows.iter().map(|(_, r)| r.1 as i64).collect());
    let dims: Vec<i64> = rows.iter().flat_map(|(t, _)| t.info.shape().iter().map(|&d| d as i64)).collect();
    let mut ends = vec![0i32];
    ends.extend(rows.iter().scan(0, |end, (t, _)| {
        *end += t.info.shape().len() as i32;
        Some(*end)
    }));
    let shape = ListArray::<i32>::new(
        arrow_schema().fields[3].data_type.clone(),
        OffsetsBuffer::try_from(ends).unwrap_or_default(),
        PrimitiveArray::from_vec(dims).boxed(),
        None,
    );
    let bits = PrimitiveArray::from_vec(rows.iter().map(|(t, _)| numbers(t).0).collect());
    let group_size = PrimitiveArray::from_vec(rows.iter().map(|(t, _)| numbers(t).1).collect());
    vec![
        text(|t| t.info.name()),
        start.boxed(),
        count.boxed(),
        shape.boxed(),
        text(|t| t.info.dtype().name()),
        text(|t| t.codec()),
        bits.boxed(),
        group_size.boxed(),
    ]
}

/// The error of the operating system, which parquet2 turns into text.
#[derive(Clone, Default)]
pub(super) struct Fault(Arc<Mutex<Option<std::io::Error>>>);

impl Fault {
    pub(super) fn explain(&self, path: &Path, error: &Error) -> IoError {
        let mut kept = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        match kept.take() {
            Some(source) => IoError::os(path)(source),
            None => IoError::unsupported(path, format!("cannot be written as Parquet: {error}")),
        }
    }
}

/// A writer that keeps its error.
pub(super) struct Kept<W> {
    pub(super) inner: W,
    pub(super) fault: Fault,
}

impl<W> Kept<W> {
    fn keep<T>(&self, result: std::io::Result<T>) -> std::io::Result<T> {
        result.map_err(|e| {
            let kind = e.kind();
            if kind == std::io::ErrorKind::Interrupted {
                return e;
            }
            *self.fault.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(e);
            kind.into()
        })
    }
}

impl<W: Write> Write for Kept<W> {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        let result = self.inner.write(buf);
        self.keep(result)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        let result = self.inner.flush();
        self.keep(result)
    }
}
