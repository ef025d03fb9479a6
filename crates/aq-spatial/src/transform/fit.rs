//! Finds the low-rank part of a layer: from the errors of its codes, then once more with codes for what the part leaves.

use aq_codec::{ReadScratch, decode, seal};
use aq_core::{
    EncodedRows, LayerPlan, LayerWeights, LowRankPlan, QuantStrategy, RowData, Rows, Scratch, SlabParts,
    StepDown, StrategyError, TensorInfo, slab_count, slab_range,
};

use super::Transformed;
use super::low_rank::{Merit, Part, input_weights, largest_rank};
use super::subspace::WeightedError;

/// The most weights of a layer that gets a low-rank part: the errors of all of them are in memory, 4 bytes each.
pub const MAX_LOW_RANK_WEIGHTS: u64 = 1 << 25;

/// The low-rank part that is stored, or none where the plan leaves it open and it does not pay. What is to be subtracted before
/// quantizing is left in the layer; the stored part is fitted to the codes made then.
///
/// # Errors
/// When the layer cannot be read or quantized.
pub(super) fn low_rank(
    layer: &Transformed<'_>,
    strategy: &dyn QuantStrategy,
    plan: &LayerPlan,
    steps: &mut Vec<StepDown>,
) -> Result<Option<Part>, StrategyError> {
    let rank = rank(layer.inputs.info, plan.low_rank);
    let (Some(weights), true) = (layer.inputs.weights, rank > 0) else {
        steps.push(step("none", "its shape or size is not one for it".into()));
        return Ok(None);
    };
    let fit = |rank: usize| -> Result<(Part, Merit), StrategyError> {
        let error = errors(layer, weights, strategy, plan)?;
        let seen = layer.seen()?.stats;
        let inputs = input_weights(seen.inputs, seen.importance);
        let error = WeightedError { error: &error, cols: layer.cols(), inputs };
        let part = Part::fit(&error, rank, plan.rotation.unwrap_or(0))?;
        let merit = part.best_rank(&error, layer.inputs.info)?;
        Ok((part, merit))
    };
    let (first, merit) = fit(rank)?;
    if plan.low_rank == LowRankPlan::Auto {
        steps.push(decision(&merit));
    }
    if merit.before == 0.0 || plan.low_rank == LowRankPlan::Auto && !merit.pays() {
        return Ok(None);
    }
    let rank = if plan.low_rank == LowRankPlan::Auto { merit.rank } else { rank };
    layer.subtracted.get_or_init(|| first.truncated(rank, layer.cols()));
    Ok(Some(fit(rank)?.0))
}

/// The rank to fit; 0 for layers that get no part.
pub(super) fn rank(info: &TensorInfo, plan: LowRankPlan) -> usize {
    if info.elements() <= MAX_LOW_RANK_WEIGHTS { largest_rank(plan, info) } else { 0 }
}

fn step(to: &str, reason: String) -> StepDown {
    StepDown { from: "low-rank part".into(), to: to.into(), reason }
}

fn decision(merit: &Merit) -> StepDown {
    let Merit { rank, before, after, bits_per_weight } = merit;
    let reason = format!(
        "rank {rank} leaves {:.3} of the error for {bits_per_weight:.3} bits a weight, more bits of code would leave {:.3}",
        after / before.max(f64::MIN_POSITIVE),
        merit.of_more_bits()
    );
    step(if merit.pays() { "stored" } else { "none" }, reason)
}

/// The errors of the codes of every row: transformed weights less decoded ones, nothing subtracted.
fn errors(
    layer: &Transformed<'_>,
    weights: &dyn LayerWeights,
    strategy: &dyn QuantStrategy,
    plan: &LayerPlan,
) -> Result<Vec<f32>, StrategyError> {
    let (info, cols) = (layer.inputs.info, layer.cols());
    let seen = layer.seen()?;
    let quantizer = strategy.prepare(&seen, plan)?;
    let encoding = strategy.estimate(info, &seen.stats, plan).encoding;
    let mut errors = vec![0.0; info.elements() as usize];
    let (mut scratch, mut read, mut encoded) =
        (Scratch::default(), ReadScratch::default(), EncodedRows::default());
    let (mut row, mut decoded) = (Vec::new(), Vec::new());
    for slab in 0..slab_count(info, &encoding) {
        let (start, count) = slab_range(info, &encoding, slab);
        let slab = &mut errors[start as usize * cols..][..count as usize * cols];
        encoded.clear();
        for (first_row, out) in (start..).zip(slab.chunks_exact_mut(cols)) {
            weights.read_row(first_row, &mut row)?;
            layer.forward(&mut row)?;
            out.copy_from_slice(&row);
            layer.subtract(first_row, &mut row);
            let rows = Rows { data: RowData::F32(&row), cols, first_row };
            quantizer.quantize_rows(rows, &mut scratch, &mut encoded)?;
        }
        quantizer.end_slab(&mut scratch, &mut encoded)?;
        seal(&mut encoded);
        decoded.resize(slab.len(), 0.0);
        let parts = SlabParts { row_start: start, ..encoded.parts() };
        decode(&encoding, info, parts, count, 0, &mut read, &mut decoded)
            .map_err(|e| layer.fault(&e.to_string()))?;
        slab.iter_mut().zip(&decoded).for_each(|(w, q)| *w -= q);
    }
    Ok(errors)
}
