//! The sink of a format that is one file.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use aq_core::StoredTensor;
use xxhash_rust::xxh3::Xxh3;

use super::CreateOptions;
use super::atomic_file::AtomicFile;
use crate::columnar::{ArrowSink, ParquetSink};
use crate::safetensors::SafetensorsSink;
use crate::{IoError, PendingOutput, Result, Sink, SlabStream};

/// What formats write to. Small writes are gathered; those of a MiB or more pass through.
pub(crate) type Out = BufWriter<OutFile>;

/// A file being written, with the hash and number of the bytes it took.
pub(crate) struct OutFile {
    /// The file.
    pub(crate) file: File,
    /// Hash of the bytes so far.
    pub(crate) hash: Xxh3,
    /// Number of bytes so far.
    pub(crate) bytes: u64,
}

/// A buffered writer to `file`.
pub(crate) fn out(file: File) -> Out {
    BufWriter::with_capacity(1 << 20, OutFile { file, hash: Xxh3::new(), bytes: 0 })
}

impl Write for OutFile {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let n = self.file.write(bytes)?;
        self.hash.update(bytes.get(..n).unwrap_or(bytes));
        self.bytes += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

/// A format that is written front to back.
pub(crate) trait FileWriter {
    /// See [`Sink::write`].
    fn write(&mut self, tensors: &[StoredTensor], slabs: &mut dyn SlabStream) -> Result<()>;

    /// Writes what comes last and gives the file back.
    fn finish(self, metadata: &[(String, String)]) -> Result<Out>;
}

macro_rules! file_writer {
    ($($sink:ident),*) => {$(
        impl FileWriter for $sink<Out> {
            fn write(&mut self, tensors: &[StoredTensor], slabs: &mut dyn SlabStream) -> Result<()> {
                $sink::write(self, tensors, slabs)
            }

            fn finish(self, metadata: &[(String, String)]) -> Result<Out> {
                $sink::finish(self, metadata)
            }
        }
    )*};
}
file_writer!(ParquetSink, ArrowSink, SafetensorsSink);

/// A format and the file it goes to.
struct FileSink<F> {
    format: F,
    file: AtomicFile,
    destination: PathBuf,
}

/// Takes the temporary file of `path` and begins the format that `start` makes.
pub(super) fn create<F: FileWriter + 'static>(
    path: &Path,
    options: &CreateOptions,
    start: impl FnOnce(Out) -> Result<F>,
) -> Result<Box<dyn Sink>> {
    let file = AtomicFile::create(path, options.force)?;
    let format = start(out(file.handle()?))?;
    Ok(Box::new(FileSink { format, file, destination: path.into() }))
}

impl<F: FileWriter> Sink for FileSink<F> {
    fn write(&mut self, tensors: &[StoredTensor], slabs: &mut dyn SlabStream) -> Result<()> {
        self.format.write(tensors, slabs)
    }

    fn finish(self: Box<Self>, metadata: &[(String, String)]) -> Result<Box<dyn PendingOutput>> {
        let Self { format, file, destination } = *self;
        let out = format.finish(metadata)?.into_inner();
        let bytes = out.map_err(|e| IoError::os(&destination)(e.into_error()))?.bytes;
        Ok(Box::new(PendingFile { file, bytes }))
    }
}

/// A complete file beside its destination.
struct PendingFile {
    file: AtomicFile,
    bytes: u64,
}

impl PendingOutput for PendingFile {
    fn path(&self) -> &Path {
        self.file.path()
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn commit(self: Box<Self>) -> Result<PathBuf> {
        self.file.commit()
    }
}
