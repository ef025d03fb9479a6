//! Writes a model in another form without quantizing it: dequantized, or in another of our formats.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use aq_core::{DType, EncodedRows, EncodedSlab, Encoding, StoredTensor};
use aq_io::{Access, CreateOptions, OutputFormat, SlabStream, Source};

use crate::gguf;
use crate::slab::copy_slab;
use crate::weights::WeightReader;
use crate::{EngineError, Result, verify};

/// Writes every tensor of `input` as plain numbers to a safetensors file: quantized ones as `dtype`, kept ones as they are.
///
/// `dtype` is F32, F16 or BF16. Returns the bytes written.
///
/// # Errors
/// When a file cannot be read or written, or the destination exists and `force` is false.
pub fn dequantize(
    input: &Path,
    output: &Path,
    dtype: DType,
    force: bool,
    cancel: &AtomicBool,
) -> Result<u64> {
    let source = aq_io::open(input, Access::Positioned)?;
    let plain = |t: &StoredTensor| {
        let info = match t.encoding {
            Encoding::Raw => t.info.clone(),
            _ => t.info.with_dtype(dtype).map_err(|e| EngineError::Config(e.to_string()))?,
        };
        Ok(StoredTensor::new(info, Encoding::Raw))
    };
    let tensors = source.tensors().iter().map(plain).collect::<Result<Vec<_>>>()?;
    let metadata: Vec<(String, String)> = vec![("format".into(), "pt".into())];
    write(&*source, output, OutputFormat::Safetensors, &tensors, &metadata, force, cancel)
}

/// Writes `input` in another of our formats; every encoded slab stays as it is. Returns the bytes written.
///
/// # Errors
/// When a file cannot be read or written, or the destination exists and `force` is false.
pub fn convert(input: &Path, output: &Path, force: bool, cancel: &AtomicBool) -> Result<u64> {
    let format = OutputFormat::from_path(output)?;
    if format == OutputFormat::Safetensors {
        return dequantize(input, output, DType::F32, force, cancel);
    }
    let source = aq_io::open(input, Access::Positioned)?;
    if format == OutputFormat::Gguf {
        let (source, _) = gguf::form(&*source, &[], |_| true)?;
        let tensors = source.tensors().to_vec();
        return write(&source, output, format, &tensors, &gguf::plain_header(&tensors), force, cancel);
    }
    let metadata: Vec<(String, String)> = source
        .metadata()
        .iter()
        .filter(|(k, _)| k.starts_with("aq."))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect();
    let tensors = source.tensors().to_vec();
    write(&*source, output, format, &tensors, &metadata, force, cancel)
}

fn write(
    source: &dyn Source,
    output: &Path,
    format: OutputFormat,
    tensors: &[StoredTensor],
    metadata: &[(String, String)],
    force: bool,
    cancel: &AtomicBool,
) -> Result<u64> {
    let options = CreateOptions { force, header_metadata: metadata.to_vec(), ..CreateOptions::default() };
    let mut sink = aq_io::create(output, format, &options)?;
    let mut slabs =
        Rewritten { source, tensors, cancel, tensor: 0, slab: 0, spare: Vec::new(), failed: None };
    let written = sink.write(tensors, &mut slabs);
    match (slabs.failed, written) {
        (Some(error), _) => return Err(error),
        (None, written) => written?,
    }
    let pending = sink.finish(metadata)?;
    if format != OutputFormat::Safetensors {
        verify::verify_path(pending.path(), tensors, cancel)?;
    }
    let bytes = pending.bytes();
    pending.commit()?;
    Ok(bytes)
}

/// The slabs of a source in the encodings of `tensors`: copied where they agree, else as plain numbers.
struct Rewritten<'a> {
    source: &'a dyn Source,
    tensors: &'a [StoredTensor],
    cancel: &'a AtomicBool,
    tensor: usize,
    slab: u64,
    spare: Vec<EncodedRows>,
    failed: Option<EngineError>,
}

impl Rewritten<'_> {
    fn make(&self, rows: &mut EncodedRows) -> Result<u64> {
        if self.cancel.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(EngineError::Interrupted);
        }
        let target = &self.tensors[self.tensor];
        let (start, count) = aq_core::slab_range(&target.info, &target.encoding, self.slab);
        if *target == self.source.tensors()[self.tensor] {
            copy_slab(self.source, self.tensor, self.slab, &mut Vec::new(), rows)?;
        } else {
            let mut reader = WeightReader::default();
            let weights = reader.read(self.source, self.tensor, start, count as usize)?;
            rows.codes.resize(count as usize * target.info.dtype().size(), 0);
            aq_codec::f32_to_bytes(target.info.dtype(), weights, &mut rows.codes)
                .map_err(|e| EngineError::Internal(e.to_string()))?;
            rows.row_count = count;
        }
        Ok(start)
    }
}

impl SlabStream for Rewritten<'_> {
    fn next_slab(&mut self) -> Option<EncodedSlab> {
        let target = self.tensors.get(self.tensor)?;
        let mut rows = self.spare.pop().unwrap_or_default();
        let row_start = match self.make(&mut rows) {
            Ok(start) => start,
            Err(error) => {
                self.failed = Some(error);
                return None;
            }
        };
        let slab = EncodedSlab { tensor: self.tensor, row_start, rows };
        self.slab += 1;
        if self.slab == aq_core::slab_count(&target.info, &target.encoding) {
            (self.tensor, self.slab) = (self.tensor + 1, 0);
        }
        Some(slab)
    }

    fn recycle(&mut self, mut rows: EncodedRows) {
        rows.clear();
        self.spare.push(rows);
    }
}
