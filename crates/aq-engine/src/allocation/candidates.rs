//! The plans that a layer may have.

use aq_core::{BitWidth, Encoding, Estimate, GgmlType, GroupSize, LayerPlan, LayerStats, Rate, StoredTensor};

use crate::plan::strategy;
use crate::registry::Registry;
use crate::{Job, Result};

/// A plan that a layer may have.
#[derive(Debug, Clone)]
pub(crate) struct LayerOption {
    pub(crate) plan: LayerPlan,
    pub(crate) bytes: u64,
    /// Relative error of Gaussian weights.
    pub(crate) expected: f64,
    /// Bits of codes, or the rate: what its error falls with.
    pub(crate) width: f64,
    /// Whether its error is measured; else it follows from those of the same kind that are.
    pub(crate) is_measured: bool,
}

/// Rates that are measured.
pub(crate) const MEASURED_RATES: [f64; 6] = [0.5, 1.0, 1.5, 2.0, 3.0, 4.0];
/// Wider codes than this are not measured where there are others: their errors fall by 4 a bit.
const WIDEST_MEASURED: u8 = 4;
/// Group sizes that are tried where none is asked for.
const GROUP_SIZES: [u32; 4] = [32, 64, 128, 256];

/// The plans like `base` of other widths and group sizes, by rising bytes; of those that take the same bytes the first.
///
/// A method of variable rate has rates from 0.5 to 4 bits in steps of an eighth, and to 8 bits in steps of a quarter. Others have their widths, in groups of
/// 32 to 256 or of the size that was asked for.
pub(crate) fn options(
    stored: &StoredTensor,
    base: &LayerPlan,
    job: &Job,
    registry: &Registry,
) -> Result<Vec<LayerOption>> {
    let estimate = |plan: &LayerPlan| -> Result<Estimate> {
        let strategy = strategy(registry, &plan.method)?;
        Ok(aq_spatial::estimate(strategy, &stored.info, &LayerStats::default(), plan))
    };
    let option = |plan: LayerPlan, width: f64, is_measured: bool| {
        estimate(&plan).map(|e| LayerOption {
            plan,
            bytes: e.bytes,
            expected: e.relative_mse,
            width,
            is_measured,
        })
    };
    if GgmlType::from_name(base.method.as_str()).is_some() {
        // Types of ggml have the width that they have.
        return Ok(vec![option(base.clone(), f64::from(base.bits.get()), true)?]);
    }
    let mut all: Vec<LayerOption> = if estimate(base)?.encoding == Encoding::Entropy {
        let one = |rate: Rate| {
            let width = rate.bits_per_weight();
            option(LayerPlan { rate: Some(rate), ..base.clone() }, width, MEASURED_RATES.contains(&width))
        };
        rates().into_iter().map(one).collect::<Result<_>>()?
    } else {
        let takes = |bits: &BitWidth| registry.get(&base.method).is_some_and(|s| s.takes(*bits));
        let sizes = group_sizes(base, job);
        let widths = || BitWidth::with_one().filter(takes);
        let pairs = widths().flat_map(|b| sizes.iter().map(move |&g| (b, g)));
        let narrowest = widths().next();
        let one = |(bits, group_size): (BitWidth, GroupSize)| {
            let plan = LayerPlan { bits, group_size, rate: None, ..base.clone() };
            let is_measured = bits.get() <= WIDEST_MEASURED || Some(bits) == narrowest;
            option(plan, f64::from(bits.get()), is_measured)
        };
        pairs.map(one).collect::<Result<_>>()?
    };
    // The size that the base has stays where sizes make no difference.
    all.sort_by_key(|o| (o.bytes, o.plan.group_size != base.group_size));
    all.dedup_by_key(|o| o.bytes);
    Ok(all)
}

fn rates() -> Vec<Rate> {
    let fine = (4..32).map(|eighths| f64::from(eighths) / 8.0);
    let coarse = (16..=32).map(|quarters| f64::from(quarters) / 4.0);
    fine.chain(coarse).filter_map(|rate| Rate::new(rate).ok()).collect()
}

fn group_sizes(base: &LayerPlan, job: &Job) -> Vec<GroupSize> {
    if job.in_groups {
        return vec![base.group_size];
    }
    let mut sizes: Vec<GroupSize> = GROUP_SIZES.iter().filter_map(|&g| GroupSize::new(g).ok()).collect();
    if !sizes.contains(&base.group_size) {
        sizes.push(base.group_size);
    }
    sizes
}
