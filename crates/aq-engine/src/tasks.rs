//! Turns a plan into the tasks of the loop, and the memory limit into its budget.

use aq_core::{Decision, Encoding, InputRows, LayerInputs, LayerStats, Plan, PlannedTensor};
use aq_io::Source;

use aq_spatial::Transformed;

use crate::calibration::{Calibration, LayerSamples};
use crate::memory::{Budget, Need};
use crate::plan::{estimate, strategy};
use crate::registry::Registry;
use crate::slab::{Layer, TensorTask, Work};
use crate::weights::TensorWeights;
use crate::{Job, Result};

/// What strategies see of each tensor that is quantized; `weights` are those of the tensors of the source.
pub(crate) fn make_layers<'a>(
    plan: &'a Plan,
    calibration: &'a Calibration,
    weights: &'a [TensorWeights<'a>],
) -> Vec<Option<Transformed<'a>>> {
    let layer = |(planned, weights): (&'a aq_core::PlannedTensor, &'a TensorWeights<'a>)| {
        let Decision::Quantize(plan) = &planned.decision else { return None };
        Some(Transformed::new(layer_inputs(planned, calibration, weights), plan))
    };
    plan.tensors.iter().zip(weights).map(layer).collect()
}

/// What strategies see of a tensor.
pub(crate) fn layer_inputs<'a>(
    planned: &PlannedTensor,
    calibration: &'a Calibration,
    weights: &'a TensorWeights<'a>,
) -> LayerInputs<'a> {
    let samples = calibration.of(planned.info.name());
    let stats = LayerStats {
        importance: samples.map(LayerSamples::importance),
        absmax: samples.map(LayerSamples::absmax),
        inputs: samples.map(|s| s as &dyn InputRows),
    };
    LayerInputs { info: weights.info(), stats, weights: Some(weights) }
}

/// One task a tensor, in output order; `layers` are those of [`make_layers`].
pub(crate) fn make_tasks<'a>(
    source: &'a dyn Source,
    plan: &'a Plan,
    registry: &'a Registry,
    calibration: &'a Calibration,
    layers: &'a [Option<Transformed<'a>>],
) -> Result<Vec<TensorTask<'a>>> {
    let task = |(index, planned): (usize, &'a aq_core::PlannedTensor)| {
        let original = &source.tensors()[index];
        let (stored, _) = estimate(original, &planned.decision, registry)?;
        let work = match (&planned.decision, &layers[index]) {
            (Decision::Quantize(plan), Some(layer)) => {
                let samples = calibration.of(planned.info.name());
                Work::Quantize(Layer::new(strategy(registry, &plan.method)?, plan, layer, samples))
            }
            _ => Work::Copy,
        };
        let slabs = aq_core::slab_count(&stored.info, &stored.encoding);
        Ok(TensorTask { source, index, output_index: index, stored, plain: None, slabs, work })
    };
    plan.tensors.iter().enumerate().map(task).collect()
}

/// Splits the memory limit among workers and slabs in flight.
///
/// # Errors
/// [`crate::EngineError::Memory`] when the largest slab does not fit.
pub(crate) fn plan_budget(tasks: &[TensorTask<'_>], job: &Job, limit: u64) -> Result<Budget> {
    let block = job.block_bytes.min((limit / 64).max(64 << 10));
    let need = tasks.iter().fold(Need::default(), |need, task| {
        let mine = task_need(task, block);
        Need {
            worker: need.worker.max(mine.worker),
            slab: need.slab.max(mine.slab),
            shared: need.shared.max(mine.shared),
        }
    });
    Budget::new(limit, job.threads, block, need)
}

fn task_need(task: &TensorTask<'_>, block: u64) -> Need {
    let (info, encoding) = (&task.stored.info, &task.stored.encoding);
    let (rows, cols) = (aq_core::slab_range(info, encoding, 0).1, encoding.cols(info));
    let lengths = aq_codec::part_lengths(info, encoding, rows);
    let plain = task.plain.map_or(0, |dtype| rows * cols * dtype.size() as u64);
    let slab = match encoding.has_fixed_size() {
        true => lengths.map_or(u64::MAX, |l| l.limits().iter().fold(0, |sum: u64, n| sum.saturating_add(*n))),
        false => rows.saturating_mul(2 * cols + 4),
    };
    let slab = slab.max(plain);
    let worker = match encoding {
        Encoding::Raw => 1 << 20,
        _ => {
            // Codes of a slab wait for its end, two bytes each, and are then worked on as four.
            let whole_slab = if encoding.has_fixed_size() { 0 } else { rows * cols * 6 };
            let row_bytes = cols * info.dtype().size() as u64;
            let weights = block.max(row_bytes) / info.dtype().size() as u64;
            let rotated = if task.stored.transformed { weights * 4 } else { 0 };
            block.max(row_bytes) + weights * 8 + rotated + cols * 10 + whole_slab + plain
        }
    };
    Need { worker, slab, shared: shared_need(task) }
}

/// What the rows of a layer share, and the errors of all weights where a low-rank part is made from them.
fn shared_need(task: &TensorTask<'_>) -> u64 {
    let Work::Quantize(layer) = &task.work else { return 0 };
    let errors = match layer.plan.low_rank.is_off() {
        true => 0,
        false => task.stored.info.elements().min(aq_spatial::MAX_LOW_RANK_WEIGHTS) * 4,
    };
    layer.shared_bytes().saturating_add(errors)
}
