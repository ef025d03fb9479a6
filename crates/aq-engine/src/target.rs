//! Sizes that the output is to have, met by one rate of the layers whose codec has one, or by exact allocation.

use aq_core::{Decision, Encoding, LayerPlan, Plan, PlannedTensor, Rate, StoredTensor};

use crate::allocation::{Allocator, pinned};
use crate::plan::{ModelPlan, estimate};
use crate::run::Opened;
use crate::{EngineError, Fallback, Progress, Result, parse_size};

/// How large the output may be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Target {
    /// Bits of the whole output for each weight of the model.
    BitsPerWeight(f64),
    /// Bytes of the whole output.
    Bytes(u64),
}

/// The share of the goal that the output may stay below it.
const SLACK: f64 = 0.005;

impl Target {
    /// Reads the options `target_bpw` and `target_size`.
    ///
    /// # Errors
    /// [`EngineError::Usage`] when both are given, [`EngineError::Config`] for a value that is no size.
    pub(crate) fn new(bits_per_weight: Option<f64>, size: Option<&str>) -> Result<Option<Self>> {
        match (bits_per_weight, size) {
            (None, None) => Ok(None),
            (Some(_), Some(_)) => {
                Err(EngineError::Usage("give either --target-bpw or --target-size, not both".into()))
            }
            (Some(bits), None) if bits > 0.0 && bits <= 64.0 => Ok(Some(Self::BitsPerWeight(bits))),
            (Some(bits), None) => {
                Err(EngineError::Config(format!("target-bpw {bits} is not between 0 and 64")))
            }
            (None, Some(size)) => parse_size(size).map(|bytes| Some(Self::Bytes(bytes))),
        }
    }

    /// The target as a setting.
    pub(crate) fn text(self) -> String {
        match self {
            Target::BitsPerWeight(bits) => format!("{bits} bits per weight"),
            Target::Bytes(bytes) => format!("{bytes} bytes"),
        }
    }

    /// Bytes of the output of a model of `params` weights.
    pub(crate) fn bytes(self, params: u64) -> u64 {
        match self {
            Target::BitsPerWeight(bits) => (bits * params as f64 / 8.0) as u64,
            Target::Bytes(bytes) => bytes,
        }
    }
}

/// What decides how large layers are, and the target on the way to being met.
pub(crate) struct Sizing {
    allocator: Option<Allocator>,
    aim: Option<Aim>,
}

impl Sizing {
    /// For a job, or for a plan of it that is only looked at (`shown`). Layers get the smallest plans within a bound on errors where that is the goal.
    ///
    /// # Errors
    /// When layers have to be measured and cannot be read.
    pub(crate) fn new(
        opened: &Opened<'_>,
        plan: &mut ModelPlan,
        shown: bool,
        progress: &mut dyn Progress,
    ) -> Result<Self> {
        let job = opened.job;
        if job.sensitivity.is_some() && job.target.is_none() && job.smallest_within.is_none() && !shown {
            progress.warn("sensitivities have no effect without a target size");
        }
        let allocator = Allocator::for_job(opened, plan, shown, progress)?;
        if let (Some(allocator), Some(bound)) = (&allocator, job.smallest_within) {
            allocator.bound(&mut plan.plan, bound);
        }
        Ok(Self { allocator, aim: job.target.map(|target| Aim::new(target, &plan.plan)) })
    }

    /// With an allocator of the caller's.
    pub(crate) fn with(allocator: Allocator, target: Target, plan: &Plan) -> Self {
        Self { allocator: Some(allocator), aim: Some(Aim::new(target, plan)) }
    }

    /// Gives the layers the sizes that the target asks for, as far as it is known what the file has beside them.
    ///
    /// # Errors
    /// [`EngineError::Config`] when the target cannot be met.
    pub(crate) fn settle(&mut self, opened: &Opened<'_>, plan: &mut Plan) -> Result<()> {
        let Some(aim) = &mut self.aim else { return Ok(()) };
        match &self.allocator {
            Some(allocator) if allocator.decides => aim.allocate(allocator, plan, opened),
            _ => aim.set_rates(plan, opened),
        }
    }

    /// Whether an output of `bytes` bytes is not what was asked for and another try may do better.
    pub(crate) fn misses(&mut self, bytes: u64) -> bool {
        self.aim.as_mut().is_some_and(|aim| aim.misses(bytes))
    }

    /// The row of the report about a target that was not met; `widened` says that some tensors were given more bits after all.
    pub(crate) fn fallback(self, bytes: u64, widened: bool) -> Option<Fallback> {
        self.aim.and_then(|aim| aim.fallback(bytes, widened))
    }

    /// Bytes that the layers of the allocator may take, after [`Sizing::settle`].
    pub(crate) fn budget(&self) -> u64 {
        self.aim.as_ref().map_or(u64::MAX, |aim| aim.budget)
    }

    /// How much better than the plan any other of its size may be, in parts of its error; 0 where it is proven to be the best.
    pub(crate) fn gap(&self) -> Option<f64> {
        self.aim.as_ref()?.gap
    }

    pub(crate) fn allocator(&self) -> Option<&Allocator> {
        self.allocator.as_ref()
    }
}

/// A target on the way to being met: each try tells how far it was off.
struct Aim {
    goal: u64,
    /// What a file has beside its tensors, about; the first try tells it exactly.
    overhead: i64,
    /// Bytes that the layers whose size is open may take together.
    budget: u64,
    /// What the tensors are about to take as they are decided on.
    planned: u64,
    /// How far the allocation may be from the best.
    gap: Option<f64>,
    /// The decisions of the last try.
    last: Option<Vec<LayerPlan>>,
    /// Whether these are the largest that there are.
    at_most: bool,
    tries: u32,
}

/// What a file has beside its tensors, about, and beside each of them and twice its name.
const FILE_BYTES: usize = 2048;
const TENSOR_BYTES: usize = 256;
/// How often a model is written until its size is the one that was asked for.
const TRIES: u32 = 4;

fn nothing_is_open() -> EngineError {
    EngineError::Config("a target size cannot be met: no layer has a size that is open".into())
}

/// A tensor of the source in the type that it gets.
fn as_planned(planned: &PlannedTensor, stored: &StoredTensor) -> StoredTensor {
    StoredTensor { info: planned.info.clone(), ..stored.clone() }
}

impl Aim {
    fn new(target: Target, plan: &Plan) -> Self {
        let params = plan.tensors.iter().map(|t| t.info.elements()).sum();
        let names: usize = plan.tensors.iter().map(|t| t.info.name().len()).sum();
        let overhead = (FILE_BYTES + TENSOR_BYTES * plan.tensors.len() + 2 * names) as i64;
        Self {
            goal: target.bytes(params),
            overhead,
            budget: 0,
            planned: 0,
            gap: None,
            last: None,
            at_most: false,
            tries: 0,
        }
    }

    /// Gives every layer of variable rate the one rate that fills what the rest of the output leaves; 8 bits where that is more. Layers
    /// that a rule has a size for keep it.
    ///
    /// # Errors
    /// [`EngineError::Config`] when no layer has a variable rate, or 0.5 bits are too many.
    fn set_rates(&mut self, plan: &mut Plan, opened: &Opened<'_>) -> Result<()> {
        let (mut kept, mut weights, mut variable) = (0u64, 0u64, Vec::new());
        let pinned = pinned(opened.job, plan);
        for (i, (planned, stored)) in plan.tensors.iter().zip(opened.source.tensors()).enumerate() {
            let (stored, bytes) = estimate(&as_planned(planned, stored), &planned.decision, opened.registry)?;
            if stored.encoding == Encoding::Entropy && !pinned[i] {
                weights += planned.info.elements();
                variable.push(i);
            } else {
                kept += bytes;
            }
        }
        let rate = self.rate(kept, weights)?;
        for i in variable {
            if let Decision::Quantize(layer) = &mut plan.tensors[i].decision {
                layer.rate = Some(rate);
            }
        }
        self.planned = kept + (rate.bits_per_weight() * weights as f64 / 8.0) as u64;
        self.tried(plan, rate.bits_per_weight() >= 8.0);
        Ok(())
    }

    fn rate(&mut self, kept: u64, weights: u64) -> Result<Rate> {
        if weights == 0 {
            return Err(nothing_is_open());
        }
        let goal = self.goal;
        let left = (goal as f64 - kept as f64 - self.overhead as f64) * 8.0 / weights as f64;
        Rate::new(left.min(8.0)).map_err(|_| {
            EngineError::Config(format!(
                "a target of {goal} bytes cannot be met: what is kept as it is takes {kept}, which leaves {:.2} bits for \
                 each quantized weight, and 0.5 are needed",
                left.max(0.0)
            ))
        })
    }

    /// Gives the layers of `allocator` the plans of the least sum of errors in what the rest of the output leaves.
    ///
    /// # Errors
    /// [`EngineError::Config`] when even the smallest plans take more.
    fn allocate(&mut self, allocator: &Allocator, plan: &mut Plan, opened: &Opened<'_>) -> Result<()> {
        if allocator.layers().is_empty() {
            return Err(nothing_is_open());
        }
        let mut kept = 0;
        for (i, (planned, stored)) in plan.tensors.iter().zip(opened.source.tensors()).enumerate() {
            if !allocator.holds(i) {
                kept += estimate(&as_planned(planned, stored), &planned.decision, opened.registry)?.1;
            }
        }
        let goal = self.goal;
        self.budget = (goal as i64 - kept as i64 - self.overhead).max(0) as u64;
        if self.tries == 0 {
            // What the file has beside its tensors is not known yet.
            self.budget = self.budget.max(allocator.least_bytes());
        }
        let found = allocator.allocate(plan, self.budget).map_err(|error| {
            EngineError::Config(format!(
                "a target of {goal} bytes cannot be met: what is kept as it is takes {kept}, and of the layers {error}"
            ))
        })?;
        (self.gap, self.planned) = (Some(found.gap()), kept + found.bytes);
        self.tried(plan, self.budget >= allocator.most_bytes());
        Ok(())
    }

    /// Counts a try. The same decisions again would give the same file.
    fn tried(&mut self, plan: &Plan, at_most: bool) {
        let decisions = plan.tensors.iter().filter_map(|t| match &t.decision {
            Decision::Quantize(layer) => Some(layer.clone()),
            Decision::Keep { .. } => None,
        });
        let now = Some(decisions.collect());
        self.tries = if self.last == now { TRIES } else { self.tries + 1 };
        (self.last, self.at_most) = (now, at_most);
    }

    fn misses(&mut self, bytes: u64) -> bool {
        let at_most = self.at_most && bytes <= self.goal;
        if self.is_met(bytes) || at_most || self.tries >= TRIES {
            return false;
        }
        self.overhead = bytes as i64 - self.planned as i64 + self.slack() as i64 / 3;
        true
    }

    fn fallback(self, bytes: u64, widened: bool) -> Option<Fallback> {
        let reason = match widened {
            true => "tensors that missed the quality gate take more",
            false if self.at_most && bytes < self.goal => "the widest codes of each layer take less",
            false => "no rate came closer",
        };
        (!self.is_met(bytes)).then(|| Fallback {
            tensor: None,
            from: format!("{} bytes", self.goal),
            to: format!("{bytes} bytes"),
            reason: reason.into(),
        })
    }

    fn is_met(&self, bytes: u64) -> bool {
        bytes <= self.goal && bytes >= self.goal - self.slack()
    }

    fn slack(&self) -> u64 {
        (self.goal as f64 * SLACK) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read_and_met_from_below() {
        assert_eq!(Target::new(Some(2.5), None).expect("good"), Some(Target::BitsPerWeight(2.5)));
        assert_eq!(Target::new(None, Some("1MiB")).expect("good"), Some(Target::Bytes(1 << 20)));
        assert!(Target::new(Some(2.0), Some("1MB")).is_err());
        assert!(Target::new(Some(f64::NAN), None).is_err());
        let mut aim = Aim::new(Target::Bytes(1000), &Plan::default());
        assert_eq!([995, 1000, 900, 1001].map(|bytes| aim.is_met(bytes)), [true, true, false, false]);
        aim.planned = 900;
        assert!(!aim.misses(995) && aim.misses(1001));
        assert_eq!(aim.overhead, 101 + 1, "what the file had beside its tensors, and a third of the slack");
        aim.tried(&Plan::default(), false);
        assert!(aim.misses(1001));
        aim.tried(&Plan::default(), false);
        assert!(!aim.misses(1001), "the same decisions would give the same file");
        assert!(aim.fallback(1001, false).is_some_and(|row| row.to == "1001 bytes"));
    }
}
