//! The sink of a format that is one file.

use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use aq_core::StoredTensor;
use xxhash_rust::xxh3::Xxh3;

use super::CreateOptions;
use super::atomic_file::AtomicFile;
use super::early_sync::EarlySync;
use super::region::{Region, check_regions};
use crate::columnar::{ArrowSink, ParquetSink};
use crate::gguf::GgufSink;
use crate::safetensors::SafetensorsSink;
use crate::{IoError, PendingOutput, Result, Sink, SlabStream};

/// What formats write to. Small writes are gathered; those of [`GATHERED`] bytes or more, as the codes of most slabs are, pass through.
pub(crate) type Out = BufWriter<OutFile>;

/// Bytes that are gathered.
const GATHERED: usize = 256 << 10;

/// A file being written, with the number of the bytes it took and, where it is wanted, their hash.
pub(crate) struct OutFile {
    file: File,
    early: EarlySync,
    hash: Option<Xxh3>,
    bytes: u64,
}

/// A file that was written; not yet synced.
pub(crate) struct Written {
    /// The file.
    pub(crate) file: File,
    /// Hash of its bytes; that of nothing when none was wanted.
    pub(crate) hash: Xxh3,
    /// Number of its bytes.
    pub(crate) bytes: u64,
}

/// A buffered writer to `file`, which hashes what passes when `hashed`.
pub(crate) fn out(file: File, hashed: bool) -> Out {
    let early = EarlySync::new(&file);
    BufWriter::with_capacity(GATHERED, OutFile { file, early, hash: hashed.then(Xxh3::new), bytes: 0 })
}

/// Writes what is still gathered.
///
/// # Errors
/// What the operating system says, also about bytes written earlier.
pub(crate) fn close(out: Out) -> std::io::Result<Written> {
    let (written, early) = hand_over(out)?;
    early.finish()?;
    Ok(written)
}

/// Writes what is still gathered; its sync goes on in the background.
fn hand_over(out: Out) -> std::io::Result<(Written, EarlySync)> {
    let OutFile { file, mut early, hash, bytes } =
        out.into_inner().map_err(std::io::IntoInnerError::into_error)?;
    early.wrote_all();
    Ok((Written { file, hash: hash.unwrap_or_default(), bytes }, early))
}

impl Write for OutFile {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let n = self.file.write(bytes)?;
        if let Some(hash) = &mut self.hash {
            hash.update(bytes.get(..n).unwrap_or(bytes));
        }
        self.early.wrote(n as u64);
        self.bytes += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

/// Only for files that are not hashed: a hash goes front to back.
impl Seek for OutFile {
    fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
        self.file.seek(to)
    }
}

/// A format of one file.
pub(crate) trait FileWriter {
    /// See [`Sink::write`].
    fn write(&mut self, tensors: &[StoredTensor], slabs: &mut dyn SlabStream) -> Result<()>;

    /// What was written where, of formats that have no checksums.
    fn regions(&self) -> Vec<Region> {
        Vec::new()
    }

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
file_writer!(ParquetSink, ArrowSink, GgufSink);

impl FileWriter for SafetensorsSink<Out> {
    fn write(&mut self, tensors: &[StoredTensor], slabs: &mut dyn SlabStream) -> Result<()> {
        SafetensorsSink::write(self, tensors, slabs)
    }

    fn regions(&self) -> Vec<Region> {
        SafetensorsSink::regions(self)
    }

    fn finish(self, metadata: &[(String, String)]) -> Result<Out> {
        SafetensorsSink::finish(self, metadata)
    }
}

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
    let format = start(out(file.handle()?, false))?;
    Ok(Box::new(FileSink { format, file, destination: path.into() }))
}

impl<F: FileWriter> Sink for FileSink<F> {
    fn write(&mut self, tensors: &[StoredTensor], slabs: &mut dyn SlabStream) -> Result<()> {
        self.format.write(tensors, slabs)
    }

    fn finish(self: Box<Self>, metadata: &[(String, String)]) -> Result<Box<dyn PendingOutput>> {
        let Self { format, file, destination } = *self;
        let regions = format.regions();
        pending(format.finish(metadata)?, regions, file, destination)
    }
}

/// The result that `out` wrote to `file`.
pub(super) fn pending(
    out: Out,
    regions: Vec<Region>,
    file: AtomicFile,
    destination: PathBuf,
) -> Result<Box<dyn PendingOutput>> {
    let (written, early) = hand_over(out).map_err(IoError::os(&destination))?;
    Ok(Box::new(PendingFile { file, early, destination, bytes: written.bytes, regions }))
}

/// A complete file beside its destination, on its way to the disk.
struct PendingFile {
    // Before the file: it stops when it is dropped, and the file is removed.
    early: EarlySync,
    file: AtomicFile,
    destination: PathBuf,
    bytes: u64,
    regions: Vec<Region>,
}

impl PendingOutput for PendingFile {
    fn path(&self) -> &Path {
        self.file.path()
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn check(&self, stopped: &dyn Fn() -> bool) -> Result<()> {
        check_regions(self.file.path(), &self.regions, stopped)
    }

    fn commit(self: Box<Self>) -> Result<PathBuf> {
        let Self { early, file, destination, .. } = *self;
        early.finish().map_err(IoError::os(&destination))?;
        file.commit()
    }
}
