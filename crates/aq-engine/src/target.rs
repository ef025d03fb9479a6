//! Sizes that the output is to have, met by the rate of the layers whose codec has one.

use aq_core::{Decision, Encoding, Plan, Rate, StoredTensor};

use crate::plan::estimate;
use crate::registry::Registry;
use crate::{EngineError, Fallback, Result, parse_size};

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

/// A target on the way to being met: each try tells how far its rate was off.
pub(crate) struct Aim {
    goal: u64,
    /// What a file has beside its tensors, about; the first try tells it exactly.
    overhead: i64,
    rate: Option<Rate>,
    tries: u32,
}

/// How often a model is written until its size is the one that was asked for.
const TRIES: u32 = 4;

impl Aim {
    pub(crate) fn new(target: Target, plan: &Plan) -> Self {
        let params = plan.tensors.iter().map(|t| t.info.elements()).sum();
        let overhead = 4096 + 1024 * plan.tensors.len() as i64;
        Self { goal: target.bytes(params), overhead, rate: None, tries: 0 }
    }

    /// Gives every layer of variable rate the one rate that fills what the rest of the output leaves; 8 bits where that is more.
    ///
    /// # Errors
    /// [`EngineError::Config`] when no layer has a variable rate, or 0.5 bits are too many.
    pub(crate) fn set_rates(
        &mut self,
        plan: &mut Plan,
        source: &[StoredTensor],
        registry: &Registry,
    ) -> Result<()> {
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
        let rate = self.rate(kept, weights)?;
        for i in variable {
            if let Decision::Quantize(layer) = &mut plan.tensors[i].decision {
                layer.rate = Some(rate);
            }
        }
        // The same rate again would give the same file.
        self.tries = if self.rate == Some(rate) { TRIES } else { self.tries + 1 };
        self.rate = Some(rate);
        Ok(())
    }

    fn rate(&self, kept: u64, weights: u64) -> Result<Rate> {
        if weights == 0 {
            let reason = "no layer is quantized by a method of variable rate; use --method entropy";
            return Err(EngineError::Config(format!("a target size cannot be met: {reason}")));
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

    /// Whether an output of `bytes` bytes is not what was asked for and another try may do better.
    pub(crate) fn misses(&mut self, bytes: u64) -> bool {
        let at_most = self.rate.is_some_and(|rate| rate.bits_per_weight() >= 8.0) && bytes <= self.goal;
        if self.is_met(bytes) || at_most || self.tries >= TRIES {
            return false;
        }
        self.overhead += bytes as i64 - self.goal as i64 + self.slack() as i64 / 3;
        true
    }

    /// The row of the report about a target that was not met; `widened` says that some tensors were given more bits after all.
    pub(crate) fn fallback(self, bytes: u64, widened: bool) -> Option<Fallback> {
        let reason = match widened {
            true => "tensors that missed the quality gate take more",
            false if bytes < self.goal => "8 bits for each weight take less",
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
        let before = aim.overhead;
        assert!(!aim.misses(995) && aim.misses(1001));
        assert!(aim.overhead > before);
        assert!(aim.fallback(1001, false).is_some_and(|row| row.to == "1001 bytes"));
    }
}
