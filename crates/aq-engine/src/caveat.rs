//! What users should know of the methods that a plan uses.

use aq_core::{Decision, Plan, StrategyId};

use serde_json::{Value, json};

use crate::Progress;
use crate::registry::Registry;

/// Something to know before relying on a method.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caveat {
    /// The method.
    pub method: StrategyId,
    /// What it says of itself.
    pub text: &'static str,
}

/// The caveats of the methods in `plan`, each once, by name.
pub(crate) fn all(plan: &Plan, registry: &Registry) -> Vec<Caveat> {
    let methods = plan.tensors.iter().filter_map(|tensor| match &tensor.decision {
        Decision::Quantize(layer) => Some(&layer.method),
        Decision::Keep { .. } => None,
    });
    let methods: std::collections::BTreeSet<&StrategyId> = methods.collect();
    let caveat =
        |method: &StrategyId| Some(Caveat { method: method.clone(), text: registry.get(method)?.caveat()? });
    methods.into_iter().filter_map(caveat).collect()
}

/// Them as rows of a report.
pub(crate) fn json(caveats: &[Caveat]) -> Value {
    caveats.iter().map(|caveat| json!({"method": caveat.method, "text": caveat.text})).collect()
}

/// Tells them as warnings.
pub(crate) fn tell(plan: &Plan, registry: &Registry, progress: &mut dyn Progress) {
    for Caveat { method, text } in all(plan, registry) {
        progress.warn(&format!("{method} is {text}"));
    }
}
