//! What a runtime needs to quantize the inputs of layers, as it is stored with a model.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::quantizer::Range;
use crate::shift::Shift;

/// Where the range of an input comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// From each token while the model runs.
    Token,
    /// One stored range.
    Static,
    /// A stored range for each group of times.
    Groups,
}

impl Mode {
    /// Its name in files and reports.
    pub fn name(self) -> &'static str {
        match self {
            Mode::Token => "token",
            Mode::Static => "static",
            Mode::Groups => "groups",
        }
    }
}

/// How the inputs of one layer are quantized; [`crate::Quantizer`] has the formula.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ActivationPlan {
    /// Bits of a code, 2 to 8.
    pub bits: u8,
    /// Where ranges come from.
    pub mode: Mode,
    /// Input channels that share a range in [`Mode::Token`]; 0 for the whole token.
    #[serde(default)]
    pub group_size: u32,
    /// Rising times; group `g` holds `boundaries[g - 1] <= t < boundaries[g]`. Empty for one group.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub boundaries: Vec<f64>,
    /// Lower end of the range of each group, at most 0; empty in [`Mode::Token`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub low: Vec<f32>,
    /// Upper end of the range of each group, at least 0; empty in [`Mode::Token`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub high: Vec<f32>,
    /// Factor on the ranges of tokens in each group; empty for 1, and in the other modes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub clip: Vec<f32>,
    /// What is taken off channels before they are rounded: one for all groups, or one for each; empty for nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shift: Vec<Shift>,
}

impl ActivationPlan {
    /// Ranges of each token, times `clip`.
    pub fn token(bits: u8, group_size: u32, clip: f32) -> Self {
        let clip = if clip == 1.0 { Vec::new() } else { vec![clip] };
        let (boundaries, low, high, shift) = Default::default();
        Self { bits, mode: Mode::Token, group_size, boundaries, low, high, clip, shift }
    }

    /// A stored range for each group of times; `ranges` has one more than there are boundaries.
    pub fn ranges(bits: u8, boundaries: Vec<f64>, ranges: &[Range]) -> Self {
        let mode = if boundaries.is_empty() { Mode::Static } else { Mode::Groups };
        let ends = |end: fn(&Range) -> f32| ranges.iter().map(end).collect();
        let (low, high) = (ends(|r| r.low), ends(|r| r.high));
        Self { bits, mode, group_size: 0, boundaries, low, high, clip: Vec::new(), shift: Vec::new() }
    }

    /// The same with channels shifted: all alike for one shift, by group where there is one more than there are `boundaries`. Ranges
    /// are those of shifted inputs.
    pub(crate) fn shifted(mut self, boundaries: Vec<f64>, shift: Vec<Shift>) -> Self {
        if shift.len() > 1 {
            if let [clip] = self.clip[..] {
                self.clip = vec![clip; shift.len()];
            }
            self.boundaries = boundaries;
        }
        Self { shift, ..self }
    }

    /// The group that holds time `t`.
    ///
    /// ```
    /// use aq_timeaware::{ActivationPlan, Range};
    /// let range = Range { low: -1.0, high: 1.0 };
    /// let plan = ActivationPlan::ranges(8, vec![250.0, 500.0], &[range; 3]);
    /// assert_eq!([0.0, 249.9, 250.0, 700.0].map(|t| plan.group_of(t)), [0, 0, 1, 2]);
    /// ```
    pub fn group_of(&self, t: f64) -> usize {
        self.boundaries.partition_point(|&boundary| boundary <= t)
    }

    /// Number of groups of times.
    pub fn groups(&self) -> usize {
        self.boundaries.len() + 1
    }

    /// The stored range of group `group`; `None` in [`Mode::Token`].
    pub fn range(&self, group: usize) -> Option<Range> {
        Some(Range { low: *self.low.get(group)?, high: *self.high.get(group)? })
    }

    /// What is taken off the channels in group `group`; `None` for nothing.
    pub fn shift(&self, group: usize) -> Option<&Shift> {
        self.shift.get(group).or(self.shift.first())
    }

    /// What is wrong with it, if anything is.
    fn fault(&self) -> Option<String> {
        let Self { bits, mode, group_size, boundaries, low, high, clip, .. } = self;
        let stored = if *mode == Mode::Token { 0 } else { self.groups() };
        let range = |i: usize| low[i] <= 0.0 && high[i] >= 0.0 && (high[i] - low[i]).is_finite();
        let rising = boundaries.iter().all(|b| b.is_finite()) && boundaries.is_sorted_by(|a, b| a < b);
        let clips = if *mode == Mode::Token { clip.len() == self.groups() } else { false };
        if !(2..=8).contains(bits) {
            Some(format!("{bits} bits are not between 2 and 8"))
        } else if !rising {
            Some("its boundaries do not rise".into())
        } else if *mode == Mode::Static && !boundaries.is_empty() {
            Some("a static range has boundaries".into())
        } else if *mode != Mode::Token && *group_size != 0 {
            Some("only ranges of tokens have a group size".into())
        } else if (low.len(), high.len()) != (stored, stored) {
            Some(format!("{} lower and {} upper ends in place of {stored}", low.len(), high.len()))
        } else if !(0..stored).all(range) {
            Some("a range does not hold 0 or is not finite".into())
        } else if !(clip.is_empty() || clips) {
            Some(format!("{} clip factors do not fit its mode and groups", clip.len()))
        } else if !clip.iter().all(|&c| c > 0.0 && c.is_finite()) {
            Some("a clip factor is not above 0".into())
        } else {
            self.shift_fault()
        }
    }

    fn shift_fault(&self) -> Option<String> {
        let Self { shift, .. } = self;
        let channels = shift.first().map_or(0, |first| first.codes.len());
        if shift.len() > 1 && shift.len() != self.groups() {
            Some(format!("{} shifts do not fit {} groups", shift.len(), self.groups()))
        } else if !shift.iter().all(|s| s.scale >= 0.0 && (s.scale * 127.0).is_finite()) {
            Some("the scale of a shift is below 0 or too large".into())
        } else if shift.iter().any(|s| s.codes.len() != channels) {
            Some("its shifts have different numbers of channels".into())
        } else {
            None
        }
    }
}

/// Activation quantization of a model: the JSON under `aq.activations` in a file's metadata.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Activations {
    /// What times are: `t`, `sigma` or `mask_ratio`.
    pub time: String,
    /// By layer: the name of a weight without `.weight`.
    pub layers: BTreeMap<String, ActivationPlan>,
}

/// What is wrong with stored activation quantization.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ActivationError {
    /// The whole of it.
    #[error("aq.activations: {0}")]
    Whole(String),
    /// One layer.
    #[error("aq.activations: layer {layer:?}: {fact}")]
    Layer {
        /// Its name.
        layer: String,
        /// The fact.
        fact: String,
    },
}

/// Name and version of the stored form.
const SCHEMA: &str = "aq.activations/1";

impl Activations {
    /// The key in a file's metadata.
    pub const KEY: &str = "aq.activations";

    /// The stored form.
    pub fn to_json(&self) -> String {
        serde_json::json!({"schema": SCHEMA, "time": self.time, "layers": self.layers}).to_string()
    }

    /// Reads the stored form; unknown keys are ignored.
    ///
    /// # Errors
    /// When it is no JSON of this schema, or the numbers of a layer contradict each other; the layer is named.
    ///
    /// ```
    /// use aq_timeaware::Activations;
    /// let text = r#"{"schema":"aq.activations/1","time":"t","layers":{"fc":{"bits":8,"mode":"token"}}}"#;
    /// assert_eq!(Activations::parse(text)?.layers["fc"].bits, 8);
    /// let error = Activations::parse(&text.replace('8', "9")).expect_err("9 bits");
    /// assert_eq!(error.to_string(), "aq.activations: layer \"fc\": 9 bits are not between 2 and 8");
    /// # Ok::<(), aq_timeaware::ActivationError>(())
    /// ```
    pub fn parse(text: &str) -> Result<Self, ActivationError> {
        let whole = |fact: &str| ActivationError::Whole(fact.to_string());
        let value: Value = serde_json::from_str(text).map_err(|e| whole(&e.to_string()))?;
        if value["schema"] != SCHEMA {
            return Err(whole(&format!("schema {} is not {SCHEMA:?}", value["schema"])));
        }
        let time = value["time"].as_str().ok_or_else(|| whole("time is no text"))?.to_string();
        let layers = value["layers"].as_object().ok_or_else(|| whole("layers is no object"))?;
        let layers = layers.iter().map(|(name, plan)| Ok((name.clone(), layer(name, plan)?)));
        Ok(Self { time, layers: layers.collect::<Result<_, ActivationError>>()? })
    }
}

fn layer(name: &str, value: &Value) -> Result<ActivationPlan, ActivationError> {
    let fault = |fact: String| ActivationError::Layer { layer: name.to_string(), fact };
    let plan = ActivationPlan::deserialize(value).map_err(|e| fault(e.to_string()))?;
    plan.fault().map_or(Ok(plan), |fact| Err(fault(fact)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stored(layer: &str) -> Result<Activations, ActivationError> {
        Activations::parse(&format!(
            r#"{{"schema":"aq.activations/1","time":"sigma","layers":{{"a.b":{layer}}}}}"#
        ))
    }

    #[test]
    fn what_is_written_is_read() {
        let range = |low: f32, high: f32| Range { low, high };
        let plans = [
            ("a", ActivationPlan::token(4, 128, 0.95)),
            ("b", ActivationPlan::token(8, 0, 1.0)),
            (
                "c",
                ActivationPlan::ranges(
                    6,
                    vec![0.1, 250.25],
                    &[range(-0.1, 1e-7), range(0.0, 3.3), range(-7.7, 0.0)],
                ),
            ),
            ("d", ActivationPlan::ranges(8, vec![], &[range(-1.5, 2.5)])),
            ("e", ActivationPlan::token(8, 0, 0.9).shifted(vec![5.0], vec![Shift::nearest(&[1.0, -3.0]); 2])),
            (
                "f",
                ActivationPlan::ranges(8, vec![], &[range(0.0, 2.5)])
                    .shifted(vec![], vec![Shift::nearest(&[1.0])]),
            ),
        ];
        let layers = plans.into_iter().map(|(name, plan)| (name.to_string(), plan)).collect();
        let all = Activations { time: "mask_ratio".into(), layers };
        assert_eq!(Activations::parse(&all.to_json()), Ok(all));
    }

    #[test]
    fn contradictions_name_layer_and_fact() {
        for (layer, fact) in [
            (r#"{"bits":8,"mode":"static","low":[-1],"high":[]}"#, "1 lower and 0 upper ends in place of 1"),
            (r#"{"bits":8,"mode":"groups","boundaries":[2,2],"low":[0,0,0],"high":[1,1,1]}"#, "do not rise"),
            (r#"{"bits":8,"mode":"groups","boundaries":[2],"low":[0],"high":[1]}"#, "in place of 2"),
            (r#"{"bits":8,"mode":"static","boundaries":[2],"low":[0,0],"high":[1,1]}"#, "has boundaries"),
            (r#"{"bits":8,"mode":"static","low":[0.5],"high":[1]}"#, "does not hold 0"),
            (r#"{"bits":8,"mode":"static","low":[-3e38],"high":[3e38]}"#, "not finite"),
            (r#"{"bits":8,"mode":"static","low":[0],"high":[1],"group_size":64}"#, "group size"),
            (r#"{"bits":8,"mode":"static","low":[0],"high":[1],"clip":[1]}"#, "clip factors"),
            (r#"{"bits":8,"mode":"token","clip":[0]}"#, "not above 0"),
            (r#"{"bits":8,"mode":"token","clip":[1,1]}"#, "2 clip factors"),
            (r#"{"bits":8,"mode":"token","shift":[{"scale":-1,"codes":"AAA="}]}"#, "scale of a shift"),
            (r#"{"bits":8,"mode":"token","shift":[{"scale":1,"codes":"AA"}]}"#, "padding"),
            (
                r#"{"bits":8,"mode":"token","shift":[{"scale":1,"codes":""},{"scale":1,"codes":""}]}"#,
                "2 shifts",
            ),
            (
                r#"{"bits":8,"mode":"token","boundaries":[1],"shift":[{"scale":1,"codes":""},{"scale":1,"codes":"AA=="}]}"#,
                "numbers of channels",
            ),
            (r#"{"bits":1,"mode":"token"}"#, "1 bits"),
            (r#"{"bits":8,"mode":"often"}"#, "often"),
            (r#"{"mode":"token"}"#, "bits"),
            ("7", "integer"),
        ] {
            let error = stored(layer).expect_err(layer).to_string();
            assert!(error.contains("\"a.b\"") && error.contains(fact), "{layer}: {error}");
        }
        assert!(Activations::parse(r#"{"schema":"aq.activations/2","time":"t","layers":{}}"#).is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[-{}\\[\\]\":,a-z0-9.e]{0,60}") {
            let _ = Activations::parse(&text);
            let _ = stored(&text);
        }
    }
}
