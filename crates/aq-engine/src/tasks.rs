//! Turns a plan into the tasks of the loop, and the memory limit into its budget.

use aq_core::{Decision, Encoding, Plan, StoredTensor};
use aq_io::Source;

use crate::calibration::Importance;
use crate::memory::{Budget, Need};
use crate::plan::{estimate, strategy};
use crate::registry::Registry;
use crate::slab::{Layer, TensorTask, Work};
use crate::{Job, Result};

/// One task a tensor, in output order.
pub(crate) fn make_tasks<'a>(
    source: &'a dyn Source,
    plan: &'a Plan,
    registry: &'a Registry,
    importance: &'a Importance,
) -> Result<Vec<TensorTask<'a>>> {
    let task = |(index, planned): (usize, &'a aq_core::PlannedTensor)| {
        let original = &source.tensors()[index];
        let (encoding, _) = estimate(original, &planned.decision, registry)?;
        let work = match &planned.decision {
            Decision::Keep { .. } => Work::Copy,
            Decision::Quantize(layer) => {
                let importance = importance.of(planned.info.name());
                Work::Quantize(Layer::new(
                    strategy(registry, &layer.method)?,
                    layer,
                    &planned.info,
                    importance,
                ))
            }
        };
        let stored = StoredTensor { info: original.info.clone(), encoding };
        let slabs = aq_core::slab_count(&stored.info, &stored.encoding);
        Ok(TensorTask { source, index, output_index: index, stored, slabs, work })
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
        Need { worker: need.worker.max(mine.worker), slab: need.slab.max(mine.slab) }
    });
    Budget::new(limit, job.threads, block, need)
}

fn task_need(task: &TensorTask<'_>, block: u64) -> Need {
    let (info, encoding) = (&task.stored.info, &task.stored.encoding);
    let (rows, cols) = (aq_core::slab_range(info, encoding, 0).1, encoding.cols(info));
    let whole = aq_codec::encoded_bytes(info, encoding) as f64;
    let slab = (whole * rows as f64 / encoding.rows(info).max(1) as f64).ceil() as u64;
    let worker = match encoding {
        Encoding::Raw => 1 << 20,
        Encoding::Affine(_) => {
            let row_bytes = cols * info.dtype().size() as u64;
            let weights = block.max(row_bytes) / info.dtype().size() as u64;
            block.max(row_bytes) + weights * 8 + cols * 10
        }
    };
    Need { worker, slab }
}
