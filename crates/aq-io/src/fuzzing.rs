//! Entry points of the fuzz targets: bytes in, nothing out, never a panic.

use std::path::Path;

use crate::{Access, Source, index, safetensors};

const NAME: &str = "fuzz";

/// The header parser, with the rest of `bytes` as the data.
pub fn safetensors_header(bytes: &[u8]) {
    let Some((length, rest)) = bytes.split_first_chunk::<8>() else { return };
    let length = usize::try_from(u64::from_le_bytes(*length)).unwrap_or(usize::MAX);
    if let Some((header, data)) = rest.split_at_checked(length)
        && let Ok(header) = safetensors::parse_header(header, data.len() as u64, Path::new(NAME))
    {
        let covered: u64 = header.tensors.iter().map(|t| t.bytes()).sum();
        assert_eq!(covered, data.len() as u64, "an accepted header covers the data");
    }
}

/// The parsers of a shard index and of a manifest.
pub fn index_json(bytes: &[u8]) {
    let _ = index::parse_index(bytes, Path::new(NAME));
    let _ = crate::folder::check_manifest(bytes, Path::new(NAME));
}

/// A whole Parquet file: opened, and every slab read.
pub fn parquet_file(bytes: &[u8]) {
    read_all(bytes, ".parquet");
}

/// A whole Arrow IPC file: opened, and every slab read.
pub fn arrow_file(bytes: &[u8]) {
    read_all(bytes, ".arrow");
}

fn read_all(bytes: &[u8], ending: &str) {
    let file = tempfile::Builder::new().suffix(ending).tempfile().and_then(|file| {
        std::fs::write(file.path(), bytes)?;
        Ok(file)
    });
    let Ok(file) = file else { return };
    for access in [Access::Positioned, Access::Mapped] {
        if let Ok(source) = crate::open(file.path(), access) {
            read_slabs(source.as_ref());
        }
    }
}

fn read_slabs(source: &dyn Source) {
    let mut buffer = Vec::new();
    for (index, tensor) in source.tensors().iter().enumerate() {
        for slab in 0..aq_core::slab_count(&tensor.info, &tensor.encoding) {
            if source.read_slab(index, slab, &mut buffer).is_err() {
                break;
            }
        }
    }
}
