//! Compares two models tensor by tensor.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use aq_core::{Encoding, StoredTensor, TensorInfo};
use aq_io::{Access, IoError, Source};
use aq_kernels::metric::Comparison;
use aq_kernels::output::OutputComparison;
use rayon::prelude::*;
use serde_json::{Value, json};

use crate::calibration::Calibration;
use crate::report::{bits_per_weight, finite, slope};
use crate::slab::Measured;
use crate::weights::WeightReader;
use crate::{EngineError, Result, Silent};

/// The error of one tensor.
#[derive(Debug, Clone)]
pub struct TensorComparison {
    /// The tensor as stored in the second model.
    pub stored: StoredTensor,
    /// First against second.
    pub comparison: Comparison,
    /// Outputs of the first against those of the second; all zero without calibration.
    pub output: OutputComparison,
}

impl TensorComparison {
    /// Squared error of the layer's outputs over their squares; `None` without calibration.
    pub fn output_error(&self) -> Option<f64> {
        (self.output.truth > 0.0).then(|| self.output.relative_error())
    }
}

/// The error of a model against another.
#[derive(Debug, Clone)]
pub struct ModelComparison {
    /// Tensors that both have, in the order of the second.
    pub tensors: Vec<TensorComparison>,
    /// Names that only one of them has.
    pub only_in_one: Vec<String>,
    /// Bytes of the second model's files for each of its weights.
    pub bits_per_weight: f64,
}

/// Weights compared at a time: as many as a stream of entropy codes has, so that none is decoded twice.
const CHUNK: u64 = 1 << 17;

/// Calibration rows of a layer that are used.
const INPUTS: u64 = 512;

/// Compares every floating-point tensor of `quantized` with the one of that name in `original`. Both may have any format we read.
/// With `calibration` also what both make of its rows, of at most 512 a layer.
///
/// # Errors
/// When a file cannot be read, a shape differs, or the models share no tensor.
pub fn compare(
    original: &Path,
    quantized: &Path,
    calibration: Option<&Path>,
    cancel: &AtomicBool,
) -> Result<ModelComparison> {
    let (a, b) = (aq_io::open(original, Access::Positioned)?, aq_io::open(quantized, Access::Positioned)?);
    let index: HashMap<&str, usize> =
        a.tensors().iter().enumerate().map(|(i, t)| (t.info.name(), i)).collect();
    let in_b: std::collections::HashSet<&str> = b.tensors().iter().map(|t| t.info.name()).collect();
    let names_a = a.tensors().iter().map(|t| t.info.name()).filter(|n| !in_b.contains(n));
    let names_b = b.tensors().iter().map(|t| t.info.name()).filter(|n| !index.contains_key(n));
    let only_in_one = names_a.chain(names_b).map(str::to_string).collect();
    let pairs: Vec<(usize, usize)> = b
        .tensors()
        .iter()
        .enumerate()
        .filter(|(_, t)| t.info.dtype().is_float())
        .filter_map(|(j, t)| index.get(t.info.name()).map(|&i| (i, j)))
        .collect();
    if pairs.is_empty() {
        let reason = format!("shares no floating-point tensor with {}", original.display());
        return Err(IoError::unsupported(quantized, reason).into());
    }
    let calibration = Calibration::read(calibration, a.tensors(), &mut Silent)?;
    let one = |&(i, j): &(usize, usize)| {
        let stored = b.tensors()[j].clone();
        let samples = calibration.of(stored.info.name()).map(|s| s.spread(INPUTS)).transpose()?;
        let pair = Pair { a: &*a, i, b: &*b, j };
        let Measured { comparison, output, .. } = pair.compare(&samples.unwrap_or_default(), cancel)?;
        Ok(TensorComparison { stored, comparison, output })
    };
    let tensors = pairs.par_iter().map(one).collect::<Result<Vec<_>>>()?;
    let params = b.tensors().iter().map(|t| t.info.elements()).sum();
    Ok(ModelComparison {
        tensors,
        only_in_one,
        bits_per_weight: bits_per_weight(path_bytes(quantized), params),
    })
}

/// Tensor `i` of `a` and tensor `j` of `b`.
pub(crate) struct Pair<'a> {
    pub(crate) a: &'a dyn Source,
    pub(crate) i: usize,
    pub(crate) b: &'a dyn Source,
    pub(crate) j: usize,
}

impl Pair<'_> {
    /// Compares the two, row by row as the quantizer does, and what they make of `inputs`.
    pub(crate) fn compare(&self, inputs: &[f32], cancel: &AtomicBool) -> Result<Measured> {
        let cols = self.checked()?.cols().max(1) as usize;
        // Sums are taken slab by slab, as the quantizer takes them, so that both give the same bits.
        let (mut total, mut slab) = (Measured::default(), Measured::default());
        self.each_block(cancel, |w, q, slab_ends| {
            slab.add_rows(cols, w, q, inputs);
            if slab_ends {
                total.merge(&std::mem::take(&mut slab));
            }
        })?;
        Ok(total)
    }

    /// Reads both some rows at a time, never of two slabs; the flag says whether a slab ends.
    pub(crate) fn each_block(
        &self,
        cancel: &AtomicBool,
        mut visit: impl FnMut(&[f32], &[f32], bool),
    ) -> Result<()> {
        let Pair { a, i, b, j } = *self;
        let info = self.checked()?;
        let cols = info.cols().max(1);
        let slab_rows = match b.tensors()[j].encoding {
            Encoding::Raw => info.rows().max(1),
            encoding => aq_core::slab_rows(info, &encoding),
        };
        let (mut read_a, mut read_b) = (WeightReader::default(), WeightReader::default());
        let rows = info.elements() / cols;
        let mut row = 0;
        while row < rows {
            if cancel.load(Ordering::Relaxed) {
                return Err(EngineError::Interrupted);
            }
            let slab_end = (row / slab_rows + 1) * slab_rows;
            let n = (CHUNK / cols).max(1).min(slab_end.min(rows) - row);
            let w = read_a.read(a, i, row * cols, (n * cols) as usize)?;
            let q = read_b.read(b, j, row * cols, (n * cols) as usize)?;
            row += n;
            visit(w, q, row == slab_end || row == rows);
        }
        Ok(())
    }

    /// The second tensor, which has the shape of the first.
    fn checked(&self) -> Result<&TensorInfo> {
        let (x, y) = (&self.a.tensors()[self.i].info, &self.b.tensors()[self.j].info);
        if x.shape() != y.shape() {
            let other = self.a.path().display();
            let reason = format!("has shape {:?}, but {:?} in {other}", y.shape(), x.shape());
            return Err(IoError::tensor(self.b.path(), y.name(), reason).into());
        }
        Ok(y)
    }
}

/// Bytes of a file, or of all files of a folder of ours.
fn path_bytes(path: &Path) -> u64 {
    let Ok(meta) = std::fs::metadata(path) else { return 0 };
    if meta.is_file() {
        return meta.len();
    }
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    entries.filter_map(|e| e.metadata().ok()).filter(std::fs::Metadata::is_file).map(|m| m.len()).sum()
}

impl ModelComparison {
    /// The error over the concatenation of the quantized tensors; of all tensors when none is quantized.
    pub fn global(&self) -> (Comparison, u64) {
        let any = self.tensors.iter().any(|t| t.stored.encoding != Encoding::Raw);
        let counted = self.tensors.iter().filter(|t| !any || t.stored.encoding != Encoding::Raw);
        let (mut all, mut params) = (Comparison::default(), 0);
        for tensor in counted {
            all.merge(&tensor.comparison);
            params += tensor.stored.info.elements();
        }
        (all, params)
    }

    /// The JSON object of `aq compare --json`.
    pub fn json(&self) -> Value {
        let (global, params) = self.global();
        let tensors: Vec<Value> = self
            .tensors
            .iter()
            .map(|t| {
                json!({
                    "name": t.stored.info.name(), "shape": t.stored.info.shape(), "params": t.stored.info.elements(),
                    "codec": t.stored.codec(),
                    "cosine": t.comparison.cosine(), "relative_mse": finite(t.comparison.relative_mse()),
                    "slope": slope(&t.comparison), "max_abs": t.comparison.max_abs, "output_error": t.output_error(),
                    "output_slope": t.output_error().map(|_| t.output.slope()),
                })
            })
            .collect();
        json!({
            "schema": "aq.compare/1",
            "tensors": tensors,
            "global": {"cosine": global.cosine(), "relative_mse": finite(global.relative_mse()),
                       "slope": slope(&global), "params": params, "bits_per_weight": self.bits_per_weight},
            "only_in_one": self.only_in_one,
        })
    }
}
