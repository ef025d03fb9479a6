//! One matrix in memory, quantized as a layer of a model would be.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use aq_core::{
    DType, Decision, EncodedRows, Encoding, LayerInputs, LayerPlan, LayerStats, SlabParts, SmoothingPlan,
    StoredTensor, TensorInfo, slab_count, slab_range,
};
use aq_io::{Format, IoError, Source};
use aq_spatial::Transformed;
use rayon::prelude::*;

use crate::plan::{estimate, strategy};
use crate::slab::{Layer, SlabWorker, TensorTask, Work};
use crate::weights::TensorWeights;
use crate::{EngineError, Job, JobOptions, Registry, Result};

/// What the tensor is called where a name is needed.
const NAME: &str = "array";

/// Quantizes a row-major array of that shape, given as little-endian elements of `dtype`, with the bits, group size, method and transforms of `options`, whatever its size: no
/// rule keeps it. The result is a model of one tensor, `array`.
///
/// # Errors
/// [`EngineError::Config`] for options, a type or a shape that make no sense, [`EngineError::Tensor`] for values that are not finite,
/// [`EngineError::Strategy`] when the method does not take the shape, [`EngineError::Interrupted`] once `cancel` is set.
///
/// ```
/// use aq_engine::aq_core::DType;
/// let weights: Vec<f32> = (0..4096).map(|i| (i % 61) as f32 - 30.0).collect();
/// let bytes: Vec<u8> = weights.iter().flat_map(|w| w.to_le_bytes()).collect();
/// let options = aq_engine::JobOptions { bits: Some(8), ..Default::default() };
/// let model = aq_engine::quantize_array(&bytes, DType::F32, &[64, 64], options, &false.into())?;
/// let mut back = vec![0.0; 4096];
/// aq_engine::read_weights(&*model, 0, &mut back)?;
/// assert!(weights.iter().zip(&back).all(|(a, b)| (a - b).abs() < 0.2));
/// # Ok::<(), aq_engine::EngineError>(())
/// ```
pub fn quantize_array(
    bytes: &[u8],
    dtype: DType,
    shape: &[u64],
    options: JobOptions,
    cancel: &AtomicBool,
) -> Result<Box<dyn Source>> {
    let registry = Registry::default();
    let job = Job::new(options, &registry)?;
    let info =
        TensorInfo::new(NAME, shape.to_vec(), dtype).map_err(|e| EngineError::Config(e.to_string()))?;
    let is_whole = info.bytes() == bytes.len() as u64 && info.cols() <= aq_core::MAX_ROW_WEIGHTS;
    if !is_whole || !dtype.is_float() {
        let bytes = bytes.len();
        let fact =
            format!("{bytes} bytes of {dtype} do not make an array of shape {shape:?} that can be quantized");
        return Err(EngineError::Config(fact));
    }
    let plan = layer_plan(&job, &registry);
    let source = Memory {
        stored: StoredTensor::new(info, Encoding::Raw),
        values: Values::Raw(bytes),
        none: BTreeMap::new(),
    };
    let (stored, slabs) = encode(&source, &plan, &job, &registry, cancel)?;
    Ok(Box::new(Memory { stored, values: Values::Slabs(slabs), none: BTreeMap::new() }))
}

fn layer_plan(job: &Job, registry: &Registry) -> LayerPlan {
    LayerPlan {
        method: job.method.clone().unwrap_or_else(|| registry.default_strategy(job.bits, false, true)),
        bits: job.bits,
        group_size: job.group_size,
        gain: job.gain,
        rate: job.rate,
        rotation: job.rotation.then_some(job.seed),
        low_rank: job.low_rank,
        smoothing: SmoothingPlan::Off,
        act_bits: None,
        act_shift: false,
        time_groups: None,
    }
}

/// Encodes the only tensor of `source`, slab by slab.
fn encode(
    source: &dyn Source,
    plan: &LayerPlan,
    job: &Job,
    registry: &Registry,
    cancel: &AtomicBool,
) -> Result<(StoredTensor, Vec<EncodedRows>)> {
    let weights = TensorWeights::new(source, 0);
    let method = strategy(registry, &plan.method)?;
    if let Some(reason) = registry.refusal(&plan.method, plan.bits) {
        return Err(EngineError::Config(reason));
    }
    if !method.supports(weights.info()) {
        let shape = weights.info().shape();
        return Err(EngineError::Config(format!("{} does not take shape {shape:?}", plan.method)));
    }
    let (stored, _) = estimate(&source.tensors()[0], &Decision::Quantize(plan.clone()), registry)?;
    let inputs = LayerInputs { info: weights.info(), stats: LayerStats::default(), weights: Some(&weights) };
    let layer = Transformed::new(inputs, plan);
    let work = Work::Quantize(Layer::new(method, plan, &layer, None));
    let count = slab_count(&stored.info, &stored.encoding);
    let task = TensorTask {
        source,
        index: 0,
        output_index: 0,
        stored: stored.clone(),
        plain: None,
        slabs: count,
        work,
    };
    let slab = |worker: &mut SlabWorker, slab| {
        worker.encode(&task, slab, EncodedRows::default(), cancel).map(|encoded| encoded.rows)
    };
    let slabs: Result<Vec<_>> =
        (0..count).into_par_iter().map_init(|| SlabWorker::new(job.block_bytes), slab).collect();
    Ok((stored, slabs?))
}

/// A model of one tensor in memory.
struct Memory<'a> {
    stored: StoredTensor,
    values: Values<'a>,
    none: BTreeMap<String, String>,
}

enum Values<'a> {
    Raw(&'a [u8]),
    Slabs(Vec<EncodedRows>),
}

impl Memory<'_> {
    fn refuse(&self) -> IoError {
        IoError::tensor(self.path(), NAME, "it has no such bytes")
    }
}

impl Source for Memory<'_> {
    fn path(&self) -> &Path {
        Path::new(NAME)
    }

    fn format(&self) -> Format {
        Format::Arrow
    }

    fn tensors(&self) -> &[StoredTensor] {
        std::slice::from_ref(&self.stored)
    }

    fn metadata(&self) -> &BTreeMap<String, String> {
        &self.none
    }

    fn stored_bytes(&self, _index: usize) -> u64 {
        match &self.values {
            Values::Raw(_) => self.stored.info.bytes(),
            Values::Slabs(slabs) => slabs.iter().map(|rows| rows.bytes() + self.stored.side_head()).sum(),
        }
    }

    fn read_bytes(&self, index: usize, start: u64, dst: &mut [u8]) -> aq_io::Result<()> {
        let bytes = self.borrow_bytes(index, start..start + dst.len() as u64).ok_or_else(|| self.refuse())?;
        dst.copy_from_slice(bytes);
        Ok(())
    }

    fn borrow_bytes(&self, _index: usize, range: Range<u64>) -> Option<&[u8]> {
        match &self.values {
            Values::Raw(bytes) => {
                bytes.get(usize::try_from(range.start).ok()?..usize::try_from(range.end).ok()?)
            }
            Values::Slabs(_) => None,
        }
    }

    fn read_slab<'b>(
        &'b self,
        _index: usize,
        slab: u64,
        _buffer: &'b mut Vec<u8>,
    ) -> aq_io::Result<SlabParts<'b>> {
        let Values::Slabs(slabs) = &self.values else { return Err(self.refuse()) };
        let rows =
            usize::try_from(slab).ok().and_then(|slab| slabs.get(slab)).ok_or_else(|| self.refuse())?;
        let (row_start, _) = slab_range(&self.stored.info, &self.stored.encoding, slab);
        let side = slabs.first().map_or(&[][..], |first| &first.side);
        Ok(SlabParts { side, row_start, ..rows.parts() })
    }
}
