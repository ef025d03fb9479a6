//! Entry points of the fuzz targets: bytes in, nothing out, never a panic.

use std::path::Path;

use aq_codec::ReadScratch;
use aq_core::{SlabParts, StoredTensor};

use crate::{Access, Source, StatisticsFile, index, safetensors};

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

/// A whole file of calibration statistics: opened, and everything read.
pub fn statistics_file(bytes: &[u8]) {
    let file = tempfile::NamedTempFile::new().and_then(|file| {
        std::fs::write(file.path(), bytes)?;
        Ok(file)
    });
    let Ok(file) = file else { return };
    let Ok(statistics) = StatisticsFile::open(file.path()) else { return };
    for layer in statistics.layers() {
        let _ = statistics.hessian(layer);
        for bucket in &layer.buckets {
            let mut samples = vec![0; bucket.samples as usize * layer.cols * 2];
            let _ = statistics.read_samples(bucket, 0, &mut samples);
            let _ = (statistics.absmax(bucket), statistics.mean_square(bucket));
        }
    }
}

/// A whole Arrow IPC file: opened, and every slab read.
pub fn arrow_file(bytes: &[u8]) {
    read_all(bytes, ".arrow");
}

/// A whole GGUF file: opened, and every slab of its quantized tensors read.
pub fn gguf_file(bytes: &[u8]) {
    read_all(bytes, ".gguf");
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

/// Decodes a slab that is not large.
fn decode(tensor: &StoredTensor, slab: u64, parts: SlabParts<'_>) {
    let StoredTensor { info, encoding, .. } = tensor;
    let (_, rows) = aq_core::slab_range(info, encoding, slab);
    let weights = rows.saturating_mul(encoding.cols(info));
    if weights <= 1 << 16 && aq_codec::check(encoding, info, parts, rows).is_ok() {
        let mut out = vec![0.0; weights as usize];
        let _ = aq_codec::decode(encoding, info, parts, rows, 0, &mut ReadScratch::default(), &mut out);
    }
}

fn read_slabs(source: &dyn Source) {
    let mut buffer = Vec::new();
    for (index, tensor) in source.tensors().iter().enumerate() {
        for slab in 0..aq_core::slab_count(&tensor.info, &tensor.encoding) {
            let Ok(parts) = source.read_slab(index, slab, &mut buffer) else { break };
            decode(tensor, slab, parts);
        }
    }
}
