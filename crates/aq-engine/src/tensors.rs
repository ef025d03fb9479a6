//! Single tensors of a model, for programs that use them.

use std::path::Path;

use aq_core::{slab_count, slab_range};
use aq_io::{Access, Source};
use rayon::prelude::*;

use crate::Result;
use crate::weights::WeightReader;

/// Opens any file or folder we read, mapped into memory where that is possible: what is not asked for is not read.
///
/// # Errors
/// When it cannot be read.
///
/// ```
/// # let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/models/digits-dit");
/// let model = aq_engine::open(&root.join("model.safetensors"))?;
/// let mut bias = [0.0; 128];
/// let index = model.tensors().iter().position(|t| t.info.name() == "blocks.0.attn.proj.bias").expect("it has one");
/// aq_engine::read_weights(&*model, index, &mut bias)?;
/// assert!(bias.iter().any(|&b| b != 0.0));
/// # Ok::<(), aq_engine::EngineError>(())
/// ```
pub fn open(path: &Path) -> Result<Box<dyn Source>> {
    Ok(aq_io::open(path, Access::Mapped)?)
}

/// Weights decoded at a time: as many as a stream of entropy codes has.
const CHUNK: u64 = 1 << 17;

/// Decodes all of tensor `index` of `source` into `out`, which has one element for each of its weights. Wider numbers are rounded to
/// the nearest `f32`. Slabs are decoded in parallel.
///
/// # Errors
/// When the file cannot be read or is damaged there, or its elements have no conversion.
///
/// # Panics
/// When `out` has another length, or there is no such tensor.
pub fn read_weights(source: &dyn Source, index: usize, out: &mut [f32]) -> Result<()> {
    let stored = &source.tensors()[index];
    let (info, encoding) = (&stored.info, &stored.encoding);
    assert_eq!(out.len() as u64, info.elements(), "one element for each weight");
    let cols = encoding.cols(info).max(1);
    let mut rest = out;
    let mut slabs = Vec::new();
    for slab in 0..slab_count(info, encoding) {
        let (start, rows) = slab_range(info, encoding, slab);
        let (out, after) = std::mem::take(&mut rest).split_at_mut((rows * cols) as usize);
        slabs.push((start * cols, out));
        rest = after;
    }
    let step = (CHUNK / cols).max(1) * cols;
    slabs.into_par_iter().try_for_each_init(WeightReader::default, |reader, (start, out)| {
        for (i, out) in out.chunks_mut(step as usize).enumerate() {
            let start = start + i as u64 * step;
            out.copy_from_slice(reader.read(source, index, start, out.len())?);
        }
        Ok(())
    })
}
