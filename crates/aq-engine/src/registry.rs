//! The strategies a job can choose from.

use aq_core::{QuantStrategy, StrategyId};

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

    /// The strategy used when none is named: the one the end-to-end scores of the example models favour (`docs/methods.md`),
    /// and without calibration the best of those whose codes can be used as they lie in the file.
    pub fn default_strategy(&self, is_calibrated: bool) -> StrategyId {
        StrategyId::new(if is_calibrated { "entropy" } else { "ls" })
    }
}
