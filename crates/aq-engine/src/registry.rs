//! The strategies a job can choose from.

use aq_core::{BitWidth, GroupSize, QuantStrategy, StrategyId};

use crate::profile::Profile;
use crate::{EngineError, Result};

/// Strategies in a fixed order, found by id.
pub struct Registry {
    strategies: Vec<Box<dyn QuantStrategy>>,
}

impl Default for Registry {
    /// The built-in strategies.
    fn default() -> Self {
        Self { strategies: aq_spatial::strategies() }
    }
}

impl Registry {
    /// Adds a strategy; one of the same id is replaced.
    ///
    /// ```
    /// # fn add(my_strategy: Box<dyn aq_core::QuantStrategy>) {
    /// let mut registry = aq_engine::Registry::default();
    /// registry.register(my_strategy);
    /// # }
    /// ```
    pub fn register(&mut self, strategy: Box<dyn QuantStrategy>) {
        self.strategies.retain(|s| s.id() != strategy.id());
        self.strategies.push(strategy);
    }

    /// The strategy of that id.
    pub fn get(&self, id: &StrategyId) -> Option<&dyn QuantStrategy> {
        self.strategies.iter().find(|s| s.id() == *id).map(AsRef::as_ref)
    }

    /// The id a user means by `name`, in any case.
    ///
    /// # Errors
    /// [`EngineError::Config`] that lists the ids there are.
    pub fn resolve(&self, name: &str) -> Result<StrategyId> {
        let known: Vec<StrategyId> = self.strategies.iter().map(|s| s.id()).collect();
        known.iter().find(|id| id.as_str().eq_ignore_ascii_case(name)).cloned().ok_or_else(|| {
            let names: Vec<&str> = known.iter().map(StrategyId::as_str).collect();
            EngineError::Config(format!("unknown method {name:?}; use one of {}", names.join(", ")))
        })
    }

    /// `wanted` where `method` has codes of that width, else the width nearest to it that it has, the narrower one of two.
    ///
    /// ```
    /// use aq_core::{BitWidth, StrategyId};
    /// let registry = aq_engine::Registry::default();
    /// let width = |method, wanted| registry.nearest_width(&StrategyId::new(method), wanted).get();
    /// let three = BitWidth::new(3)?;
    /// assert_eq!([width("ls", three), width("nf4", three), width("binary", three)], [3, 4, 1]);
    /// # Ok::<(), aq_core::CoreError>(())
    /// ```
    pub fn nearest_width(&self, method: &StrategyId, wanted: BitWidth) -> BitWidth {
        let Some(strategy) = self.get(method) else { return wanted };
        let taken = BitWidth::with_one().filter(|&bits| strategy.takes(bits));
        taken.min_by_key(|bits| bits.get().abs_diff(wanted.get())).unwrap_or(wanted)
    }

    /// Weights that share a scale under `method` where no number is asked for: the profile's, or its own.
    pub(crate) fn default_group(&self, method: &StrategyId, profile: Profile) -> GroupSize {
        let own = self.get(method).and_then(|strategy| strategy.default_group_size());
        own.unwrap_or_else(|| profile.group_size())
    }

    /// Why `method` cannot have codes of `bits` bits, and what to do; `None` where it can or is not known.
    pub(crate) fn refusal(&self, method: &StrategyId, bits: BitWidth) -> Option<String> {
        let strategy = self.get(method)?;
        if strategy.takes(bits) {
            return None;
        }
        Some(match bits {
            BitWidth::ONE => format!(
                "{method} has no codes of 1 bit; use binary (experimental), or entropy at a rate of 1.1, whose results are better at the same size"
            ),
            bits => format!("{method} has no codes of {bits} bits; use {}", self.nearest_width(method, bits)),
        })
    }

    /// The strategy used when none is named: the one that the end-to-end scores of the example models favour (`docs/methods.md`).
    ///
    /// `in_groups` says that a group size was asked for, which `entropy` does not have. Without calibration, from 5 bits on, nothing is
    /// lost with codes that can be used as they lie in the file. Codes of one bit are those of `binary`.
    ///
    /// ```
    /// use aq_core::BitWidth;
    /// let registry = aq_engine::Registry::default();
    /// let default = |bits, is_calibrated, in_groups| -> Result<String, aq_core::CoreError> {
    ///     Ok(registry.default_strategy(BitWidth::new(bits)?, is_calibrated, in_groups).as_str().into())
    /// };
    /// assert_eq!([default(4, false, false)?, default(8, true, false)?], ["entropy", "entropy"]);
    /// assert_eq!([default(8, false, false)?, default(4, false, true)?, default(4, true, true)?], ["ls", "ls", "gptq"]);
    /// # Ok::<(), aq_core::CoreError>(())
    /// ```
    pub fn default_strategy(&self, bits: BitWidth, is_calibrated: bool, in_groups: bool) -> StrategyId {
        if bits == BitWidth::ONE {
            return StrategyId::new("binary");
        }
        StrategyId::new(match (in_groups, is_calibrated) {
            (true, true) => "gptq",
            (true, false) => "ls",
            (false, true) => "entropy",
            (false, false) => {
                if bits.get() <= 4 {
                    "entropy"
                } else {
                    "ls"
                }
            }
        })
    }
}
