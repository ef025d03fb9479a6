//! Writes a model in another form without quantizing it: dequantized, or in another of our formats.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use aq_core::{DType, EncodedRows, EncodedSlab, StoredTensor};
use aq_io::{Access, CreateOptions, ModelConfig, OutputFormat, SlabStream, Source};
use aq_timeaware::Activations;

use crate::gguf;
use crate::slab::copy_slab;
use crate::weights::WeightReader;
use crate::{EngineError, Result, destination, metadata, packed, parse_size};

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
    let options = ConvertOptions { dtype: Some(dtype), force, ..ConvertOptions::default() };
    write_plain(&*source, input, output, &options, cancel)
}

/// How a model is converted.
#[derive(Debug, Clone, Default)]
pub struct ConvertOptions {
    /// Format of the output; `None` for the one that its ending asks for.
    pub format: Option<OutputFormat>,
    /// Element type of tensors that are dequantized: F32, F16 or BF16; `None` for the one they had before they were quantized.
    pub dtype: Option<DType>,
    /// The most bytes of a safetensors file in a folder; `None` for 10 GB.
    pub shard_bytes: Option<u64>,
    /// The original model, for the `config.json` that a diffusers folder needs; `None` for the one of the input.
    pub model: Option<PathBuf>,
    /// Replace an existing output.
    pub force: bool,
}

impl ConvertOptions {
    /// Reads the options `format`, `dtype` and `shard_size` as a user gives them.
    ///
    /// # Errors
    /// [`EngineError::Config`] that names what is malformed.
    pub fn parse(format: Option<&str>, dtype: Option<&str>, shard_size: Option<&str>) -> Result<Self> {
        Ok(Self {
            format: format.map(destination::format).transpose()?,
            dtype: dtype.map(destination::dtype).transpose()?,
            shard_bytes: shard_size.map(parse_size).transpose()?,
            ..Self::default()
        })
    }
}

/// Writes `input` in another format that we write. Encoded slabs stay as they are, but in plain safetensors, which holds weights dequantized. Returns
/// the bytes written.
///
/// # Errors
/// When a file cannot be read or written, the format cannot hold a tensor, or the destination exists and `force` is false.
pub fn convert(input: &Path, output: &Path, options: &ConvertOptions, cancel: &AtomicBool) -> Result<u64> {
    let format = options.format.map_or_else(|| OutputFormat::from_path(output), Ok)?;
    let source = aq_io::open(input, Access::Positioned)?;
    if format == OutputFormat::Gguf {
        let (source, _) = gguf::form(&*source, &[], |_| true)?;
        let tensors = source.tensors().to_vec();
        let metadata = gguf::plain_header(&tensors);
        let output = Output { given: input, path: output, format, tensors: &tensors, metadata: &metadata };
        return write(&source, &output, options, cancel);
    }
    if format.is_plain() {
        return write_plain(&*source, input, output, options, cancel);
    }
    if format == OutputFormat::Diffusers {
        let tensors = packed::tensors(&*source, options)?;
        let metadata = packed::header(&*source);
        let output = Output { given: input, path: output, format, tensors: &tensors, metadata: &metadata };
        return write(&*source, &output, options, cancel);
    }
    let metadata: Vec<(String, String)> = source
        .metadata()
        .iter()
        .filter(|(k, _)| k.starts_with("aq."))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect();
    let tensors = source.tensors().to_vec();
    let output = Output { given: input, path: output, format, tensors: &tensors, metadata: &metadata };
    write(&*source, &output, options, cancel)
}

/// Writes every tensor of `source` as plain numbers.
fn write_plain(
    source: &dyn Source,
    given: &Path,
    path: &Path,
    options: &ConvertOptions,
    cancel: &AtomicBool,
) -> Result<u64> {
    let plain = |t: &StoredTensor| destination::plain(t, options.dtype);
    let tensors = source.tensors().iter().map(plain).collect::<Result<Vec<_>>>()?;
    let metadata = [("format".into(), "pt".into()), metadata::tool()];
    let output =
        Output { given, path, format: OutputFormat::Safetensors, tensors: &tensors, metadata: &metadata };
    write(source, &output, options, cancel)
}

/// What is to be written where.
struct Output<'a> {
    /// What is converted, as it was given.
    given: &'a Path,
    path: &'a Path,
    format: OutputFormat,
    tensors: &'a [StoredTensor],
    metadata: &'a [(String, String)],
}

fn write(
    source: &dyn Source,
    output: &Output<'_>,
    options: &ConvertOptions,
    cancel: &AtomicBool,
) -> Result<u64> {
    let Output { given, path, format, tensors, metadata } = *output;
    let original = options.model.as_deref().unwrap_or(given);
    let needed = format == OutputFormat::Diffusers;
    let options = CreateOptions {
        force: options.force,
        header_metadata: metadata.to_vec(),
        stem: Some(destination::stem(format, given)),
        shard_bytes: options.shard_bytes,
        config: needed.then(|| ModelConfig::read(original)).transpose()?,
        ..CreateOptions::default()
    };
    let mut sink = aq_io::create(path, format, &options)?;
    let mut slabs =
        Rewritten { source, tensors, cancel, tensor: 0, slab: 0, spare: Vec::new(), failed: None };
    let written = sink.write(tensors, &mut slabs);
    match (slabs.failed, written) {
        (Some(error), _) => return Err(error),
        (None, written) => written?,
    }
    let activations = source.metadata().get_key_value(Activations::KEY).filter(|_| needed);
    let of_end: Vec<_> =
        metadata.iter().cloned().chain(activations.map(|(k, v)| (k.clone(), v.clone()))).collect();
    let mut pending = sink.finish(&of_end)?;
    destination::verify_pending(&*pending, format, tensors, cancel)?;
    let bytes = pending.bytes();
    destination::add_config(&mut *pending, format, given)?;
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
