//! A folder of native Parquet parts with a manifest: the output that can be resumed.

mod journal;
mod sink;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{BufReader, Read};
use std::ops::Range;
use std::path::Path;

use aq_core::StoredTensor;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

pub(crate) use sink::FolderSink;

use crate::columnar::open_parquet;
use crate::joined::Joined;
use crate::json::{self, UniqueMap, duplicate};
use crate::member::resolve;
use crate::output::files;
use crate::{Access, Format, IoError, Result, Source};

/// Name of the manifest, written after everything else.
pub(crate) const MANIFEST: &str = "manifest.json";

/// What a manifest's `schema` says.
const SCHEMA: &str = "aq.manifest/1";

/// The version of the format that is written and read.
const FORMAT_VERSION: u32 = 1;

/// Weights of a part, unless one tensor has more.
const PART_WEIGHTS: u64 = 64 << 20;

/// The manifest of a folder.
#[derive(Debug, Deserialize)]
struct Manifest {
    schema: String,
    format_version: u32,
    metadata: UniqueMap<String>,
    parts: Vec<Part>,
}

/// A finished part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Part {
    file: String,
    bytes: u64,
    /// xxh3-64 of the file, 16 hexadecimal digits.
    xxh3: String,
    tensors: usize,
}

impl Part {
    /// The record of a file of `bytes` bytes with that hash.
    fn new(file: String, bytes: u64, hash: &Xxh3, tensors: usize) -> Self {
        Self { file, bytes, xxh3: format!("{:016x}", hash.digest()), tensors }
    }

    /// Whether the file at `path` is the one recorded.
    fn matches(&self, path: &Path) -> Result<bool> {
        let file = File::open(path).map_err(IoError::os(path))?;
        if file.metadata().map_err(IoError::os(path))?.len() != self.bytes {
            return Ok(false);
        }
        let mut reader = BufReader::with_capacity(1 << 20, file);
        let (mut hash, mut buffer) = (Xxh3::new(), vec![0; 1 << 18]);
        loop {
            match reader.read(&mut buffer).map_err(IoError::os(path))? {
                0 => return Ok(Part::new(String::new(), self.bytes, &hash, 0).xxh3 == self.xxh3),
                n => hash.update(buffer.get(..n).unwrap_or_default()),
            }
        }
    }
}

/// Which tensors go into which part of about `limit` weights.
fn part_ranges(tensors: &[StoredTensor], limit: u64) -> Vec<Range<usize>> {
    files(tensors, limit, |tensor| tensor.info.elements())
}

/// Whether a folder has a manifest of ours, of whatever version.
pub(crate) fn is_ours(folder: &Path) -> bool {
    let start = File::open(folder.join(MANIFEST)).and_then(|file| {
        let mut start = String::new();
        file.take(4096).read_to_string(&mut start).map(|_| start)
    });
    start.is_ok_and(|s| s.contains("\"aq.manifest/"))
}

/// Opens a folder by its manifest.
pub(crate) fn open(folder: &Path, access: Access) -> Result<Box<dyn Source>> {
    let (path, manifest) = read_manifest(folder)?;
    let mut sources = Vec::new();
    for part in &manifest.parts {
        let file = resolve(folder, &part.file, &path)?;
        let bytes = file.metadata().map_err(IoError::os(&file))?.len();
        if bytes != part.bytes {
            let fact = format!("the size is {bytes} bytes, the manifest says {} (truncated?)", part.bytes);
            return Err(IoError::malformed(&file, fact));
        }
        let source = open_parquet(&file, access)?;
        if source.tensors().len() != part.tensors {
            let fact =
                format!("holds {} tensors, the manifest says {}", source.tensors().len(), part.tensors);
            return Err(IoError::malformed(&file, fact));
        }
        sources.push(source);
    }
    let metadata = manifest.metadata.0.into_iter().collect();
    Ok(Box::new(Joined::new(folder, Format::Folder, sources, metadata)?))
}

/// Compares every part of a folder with the hash that the manifest records.
///
/// # Errors
/// Names the first part that differs.
pub fn verify_folder(folder: &Path) -> Result<()> {
    let (path, manifest) = read_manifest(folder)?;
    for part in &manifest.parts {
        let file = resolve(folder, &part.file, &path)?;
        if !part.matches(&file)? {
            return Err(IoError::malformed(
                &file,
                "damaged: its size or checksum is not that of the manifest",
            ));
        }
    }
    Ok(())
}

fn read_manifest(folder: &Path) -> Result<(std::path::PathBuf, Manifest)> {
    let path = resolve(folder, MANIFEST, folder)?;
    let manifest = parse_manifest(&json::read_bytes(&path, "manifest")?, &path)?;
    Ok((path, manifest))
}

fn parse_manifest(bytes: &[u8], path: &Path) -> Result<Manifest> {
    let manifest: Manifest = json::parse(bytes, path, "manifest")?;
    if manifest.schema != SCHEMA || manifest.format_version != FORMAT_VERSION {
        let fact =
            format!("schema {:?} version {} is not supported", manifest.schema, manifest.format_version);
        return Err(IoError::unsupported(path, fact));
    }
    match duplicate(manifest.parts.iter().map(|p| p.file.as_str())) {
        Some(file) => Err(IoError::malformed(path, format!("duplicate part {file:?}"))),
        None => Ok(manifest),
    }
}

/// Parses a manifest for its errors only.
pub(crate) fn check_manifest(bytes: &[u8], path: &Path) -> Result<()> {
    parse_manifest(bytes, path).map(|_| ())
}
