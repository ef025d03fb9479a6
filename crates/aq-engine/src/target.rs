//! Sizes that the output is to have, met by the rate of the layers whose codec has one.

use aq_core::{Decision, Encoding, Plan, Rate, StoredTensor};

use crate::plan::estimate;
use crate::registry::Registry;
use crate::{EngineError, Result, parse_size};

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

    /// How many bytes an output of `bytes` bytes is to grow by, or to lose when that is negative; 0 when it is what was asked for.
    pub(crate) fn left(self, plan: &Plan, bytes: u64) -> i64 {
        let goal = self.bytes(params(plan));
        let slack = (goal as f64 * SLACK) as u64;
        let is_met = bytes <= goal && bytes >= goal - slack;
        if is_met { 0 } else { goal as i64 - bytes as i64 - slack as i64 / 3 }
    }

    /// Gives every layer of variable rate the one rate that fills what the rest of the output leaves.
    ///
    /// `overhead` is what a file has beside its tensors. A goal that needs more than 8 bits is met with 8.
    ///
    /// # Errors
    /// [`EngineError::Config`] when no layer has a variable rate, or 0.5 bits are too many.
    pub(crate) fn set_rates(
        self,
        plan: &mut Plan,
        source: &[StoredTensor],
        registry: &Registry,
        overhead: i64,
    ) -> Result<()> {
        let goal = self.bytes(params(plan));
        let (mut kept, mut weights, mut variable) = (0u64, 0u64, Vec::new());
        for (i, (planned, stored)) in plan.tensors.iter().zip(source).enumerate() {
            let (stored, bytes) = estimate(stored, &planned.decision, registry)?;
            if stored.encoding == Encoding::Entropy {
                weights += planned.info.elements();
                variable.push(i);
            } else {
                kept += bytes;
            }
        }
        if weights == 0 {
            let reason = "no layer is quantized by a method of variable rate; use --method entropy";
            return Err(EngineError::Config(format!("a target size cannot be met: {reason}")));
        }
        let left = goal as f64 - kept as f64 - overhead as f64;
        let rate = Rate::new((left * 8.0 / weights as f64).min(8.0)).map_err(|_| {
            EngineError::Config(format!(
                "a target of {goal} bytes cannot be met: what is kept as it is takes {kept}, which leaves {:.2} bits for \
                 each quantized weight, and 0.5 are needed",
                left.max(0.0) * 8.0 / weights as f64
            ))
        })?;
        for i in variable {
            if let Decision::Quantize(layer) = &mut plan.tensors[i].decision {
                layer.rate = Some(rate);
            }
        }
        Ok(())
    }
}

fn params(plan: &Plan) -> u64 {
    plan.tensors.iter().map(|t| t.info.elements()).sum()
}

/// What a file has beside its tensors, about; the first try tells it exactly.
pub(crate) fn overhead(plan: &Plan) -> i64 {
    4096 + 1024 * plan.tensors.len() as i64
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
        let plan = Plan::default();
        let left = |bytes| Target::Bytes(1000).left(&plan, bytes);
        assert_eq!((left(995), left(1000)), (0, 0));
        assert!(left(900) > 0 && left(1001) < 0);
    }
}
