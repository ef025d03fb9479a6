//! One safetensors file, read.

mod checksums;
mod comfy;
mod header;
mod layered;
mod layout;
mod packed;
mod shards;
mod sink;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use aq_core::{Encoding, SlabParts, StoredTensor};

pub use checksums::verify_checksums;
pub(crate) use header::{Header, parse_header};
pub(crate) use layout::Form;
pub use packed::{ModelConfig, plain_config};
pub(crate) use shards::ShardsSink;
pub(crate) use sink::SafetensorsSink;

use crate::file_bytes::FileBytes;
use crate::{Access, Format, IoError, Result, Source};

/// Bytes of the length that every file begins with.
const LENGTH_BYTES: u64 = 8;

/// The largest header that is read; the limit of the reference reader.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// An open file whose header was checked.
struct SafetensorsSource {
    file: FileBytes,
    tensors: Vec<StoredTensor>,
    /// Where the bytes of each tensor begin in the file.
    starts: Vec<u64>,
    metadata: BTreeMap<String, String>,
}

/// Opens one safetensors file. Layers of signed bytes, and packed ones that a configuration beside it describes, are seen as encoded tensors.
pub(crate) fn open(path: &Path, access: Access) -> Result<Box<dyn Source>> {
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    packed::recognise(comfy::recognise(open_shard(path, access)?)?, folder, false)
}

/// The tensors of all files of `folder`, with those of each layer as one.
pub(crate) fn recognise(files: Box<dyn Source>, folder: &Path) -> Result<Box<dyn Source>> {
    packed::recognise(comfy::recognise(files)?, folder, true)
}

/// Opens one safetensors file as it lies and checks all of its header. Tensors come in the order of their bytes.
pub(crate) fn open_shard(path: &Path, access: Access) -> Result<Box<dyn Source>> {
    let file = FileBytes::open(path, access)?;
    let (header, data_start) = read_header(&file)?;
    let mut starts = Vec::with_capacity(header.tensors.len());
    let mut tensors = Vec::with_capacity(header.tensors.len());
    let mut next = data_start;
    for info in header.tensors {
        // The offsets are contiguous, so a sum of sizes is where the next tensor begins.
        starts.push(next);
        next += info.bytes();
        tensors.push(StoredTensor::new(info, Encoding::Raw));
    }
    Ok(Box::new(SafetensorsSource { file, tensors, starts, metadata: header.metadata }))
}

/// What our files say in their metadata, which comes first in the header.
pub const TOOL: &str = "aq.tool";

/// Whether a folder holds a safetensors file that we wrote.
pub(crate) fn is_ours(folder: &Path) -> bool {
    let starts_so = |path: &Path| {
        let file = FileBytes::open(path, Access::Positioned).ok()?;
        let mut start = vec![0; file.len().min(4096) as usize];
        file.read_exact_at(0, &mut start).ok()?;
        let start = String::from_utf8_lossy(&start);
        Some([TOOL, packed::LAYOUT_KEY].iter().any(|key| start.contains(&format!("\"{key}\""))))
    };
    let names = crate::member::names(folder).unwrap_or_default();
    let mut weights = names.iter().filter(|name| name.ends_with(".safetensors"));
    weights.any(|name| starts_so(&folder.join(name)).unwrap_or(false))
}

/// Reads and checks the header; returns it and where the data begins.
fn read_header(file: &FileBytes) -> Result<(Header, u64)> {
    let (path, len) = (file.path(), file.len());
    if len < LENGTH_BYTES {
        let fact = format!("truncated: {len} bytes are too few for the length of a safetensors header");
        return Err(IoError::malformed(path, fact));
    }
    let mut length = [0; LENGTH_BYTES as usize];
    file.read_exact_at(0, &mut length)?;
    let header_len = u64::from_le_bytes(length);
    if header_len > MAX_HEADER_BYTES {
        let fact = format!(
            "header length {header_len} is over the limit of {MAX_HEADER_BYTES}: not a safetensors file?"
        );
        return Err(IoError::malformed(path, fact));
    }
    let rest = len - LENGTH_BYTES;
    if header_len > rest {
        let fact = format!("truncated: the header length is {header_len} and {rest} bytes follow");
        return Err(IoError::malformed(path, fact));
    }
    let data_start = LENGTH_BYTES + header_len;
    let header = match file.borrow(LENGTH_BYTES..data_start) {
        Some(bytes) => parse_header(bytes, len - data_start, path)?,
        None => {
            let mut bytes = vec![0; header_len as usize];
            file.read_exact_at(LENGTH_BYTES, &mut bytes)?;
            parse_header(&bytes, len - data_start, path)?
        }
    };
    Ok((header, data_start))
}

impl SafetensorsSource {
    /// The range of the file that holds `range` of tensor `index`.
    fn place(&self, index: usize, range: Range<u64>) -> Option<Range<u64>> {
        let (start, bytes) = (*self.starts.get(index)?, self.tensors.get(index)?.info.bytes());
        (range.start <= range.end && range.end <= bytes).then(|| start + range.start..start + range.end)
    }

    fn name(&self, index: usize) -> &str {
        self.tensors.get(index).map_or("?", |t| t.info.name())
    }
}

impl Source for SafetensorsSource {
    fn path(&self) -> &Path {
        self.file.path()
    }

    fn format(&self) -> Format {
        Format::Safetensors
    }

    fn tensors(&self) -> &[StoredTensor] {
        &self.tensors
    }

    fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    fn stored_bytes(&self, index: usize) -> u64 {
        self.tensors.get(index).map_or(0, |t| t.info.bytes())
    }

    fn read_bytes(&self, index: usize, start: u64, dst: &mut [u8]) -> Result<()> {
        let range = start.checked_add(dst.len() as u64).and_then(|end| self.place(index, start..end));
        let Some(range) = range else {
            let fact = format!("{} bytes at {start} are outside of it", dst.len());
            return Err(IoError::tensor(self.path(), self.name(index), fact));
        };
        self.file.read_exact_at(range.start, dst)
    }

    fn borrow_bytes(&self, index: usize, range: Range<u64>) -> Option<&[u8]> {
        self.file.borrow(self.place(index, range)?)
    }

    fn read_slab<'a>(&'a self, index: usize, _: u64, _: &'a mut Vec<u8>) -> Result<SlabParts<'a>> {
        Err(IoError::tensor(self.path(), self.name(index), "safetensors files have no slabs"))
    }
}
