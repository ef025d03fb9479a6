//! The fallback chain: a tensor that misses the gate gets 4 bits, then 8, and is kept as it is when these miss too.

use aq_core::{BitWidth, Decision, Encoding, GgmlType, LayerPlan, Plan, StoredTensor, StrategyId};

use super::Gate;
use crate::blocks::TensorQuality;
use crate::ggml;
use crate::plan::estimate;
use crate::registry::Registry;
use crate::report::TensorReport;
use crate::{Fallback, Job, Result};

/// The widths of the chain.
const CHAIN: [u8; 3] = [2, 4, 8];

/// Encodes the tensors of these indexes as the plan says, and measures each.
pub(crate) type Measure<'a> = dyn FnMut(&Plan, &[usize]) -> Result<Vec<TensorQuality>> + 'a;

/// Widens the tensors of `reports` that miss `gate` in `plan` until none does, and says so, tensor by tensor.
///
/// # Errors
/// What `measure` says.
pub(crate) fn widen_misses(
    gate: &Gate,
    plan: &mut Plan,
    reports: &[TensorReport],
    chain: &Chain<'_>,
    measure: &mut Measure<'_>,
) -> Result<Vec<Fallback>> {
    let missed = |(index, report): (usize, &TensorReport)| {
        let miss = gate.miss(&report.comparison, &report.output).filter(|_| report.is_quantized())?;
        Some((index, miss))
    };
    let mut missing: Vec<(usize, String)> = reports.iter().enumerate().filter_map(missed).collect();
    let mut rows = Vec::new();
    while !missing.is_empty() {
        for (index, miss) in &missing {
            rows.extend(chain.widen(plan, *index, miss)?.map(|row| (*index, row)));
        }
        let again: Vec<usize> =
            missing.iter().map(|(index, _)| *index).filter(|&i| is_quantized(plan, i)).collect();
        let quality = measure(plan, &again)?;
        let missed =
            |(&index, q): (&usize, &TensorQuality)| Some((index, gate.miss(&q.comparison, &q.output)?));
        missing = again.iter().zip(&quality).filter_map(missed).collect();
    }
    rows.sort_by_key(|(index, _)| *index);
    Ok(rows.into_iter().map(|(_, row)| row).collect())
}

fn is_quantized(plan: &Plan, index: usize) -> bool {
    matches!(plan.tensors[index].decision, Decision::Quantize(_))
}

/// What the next step of a tensor depends on.
pub(crate) struct Chain<'a> {
    pub(crate) job: &'a Job,
    pub(crate) registry: &'a Registry,
    pub(crate) source: &'a [StoredTensor],
}

impl Chain<'_> {
    /// Takes one step with tensor `index` of `plan`, because of `miss`; none when it is kept already.
    fn widen(&self, plan: &mut Plan, index: usize, miss: &str) -> Result<Option<Fallback>> {
        let planned = &mut plan.tensors[index];
        let Decision::Quantize(layer) = &planned.decision else { return Ok(None) };
        let width = self.width(index, &planned.decision, layer)?;
        let next = self.next(index, layer, width);
        let renamed = next.as_ref().is_some_and(|next| next.method != layer.method);
        let name = |layer: &LayerPlan, width: f64| match renamed {
            true => format!("{}, {width} bits", layer.method),
            false => format!("{width} bits"),
        };
        let from = name(layer, width);
        let to = next.as_ref().map_or("kept".into(), |next| name(next, f64::from(next.bits.get())));
        planned.decision = match next {
            Some(next) => Decision::Quantize(next),
            None => Decision::Keep { reason: format!("quality gate: {miss} at {from}") },
        };
        Ok(Some(Fallback { tensor: Some(planned.info.name().into()), from, to, reason: miss.into() }))
    }

    /// Bits of the codes of a tensor, or the rate of a codec that has one.
    fn width(&self, index: usize, decision: &Decision, layer: &LayerPlan) -> Result<f64> {
        let (stored, _) = estimate(&self.source[index], decision, self.registry)?;
        Ok(match stored.encoding {
            Encoding::Entropy => layer.target_rate().bits_per_weight(),
            _ => f64::from(layer.bits.get()),
        })
    }

    /// The plan with the next width of the chain, by the default method where that of `layer` has no such codes, or by the type of ggml of that
    /// width; `None` at its end.
    fn next(&self, index: usize, layer: &LayerPlan, width: f64) -> Option<LayerPlan> {
        let bits = CHAIN.into_iter().find(|&bits| f64::from(bits) > width)?;
        let bits = BitWidth::new(bits).ok()?;
        if GgmlType::from_name(layer.method.as_str()).is_some() {
            let kind = ggml::fitting(ggml::of_bits(bits), self.source[index].info.cols())?;
            let (bits, group_size) = (kind.bits(), kind.group_size());
            return Some(LayerPlan {
                bits,
                group_size,
                method: StrategyId::new(kind.method()),
                ..layer.clone()
            });
        }
        let takes = self.registry.get(&layer.method).is_some_and(|strategy| strategy.takes(bits));
        let method = match takes {
            true => layer.method.clone(),
            false => {
                let calibrated = self.job.calibration.is_some();
                self.registry.default_strategy(bits, calibrated, self.job.in_groups)
            }
        };
        let supported = self.registry.get(&method).is_some_and(|s| s.supports(&self.source[index].info));
        let rate = layer.rate.map(|_| bits.into());
        supported.then(|| LayerPlan { bits, rate, method, ..layer.clone() })
    }
}
