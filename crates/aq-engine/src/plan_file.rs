//! Plans in files: what `aq plan --json` prints and `aq search` writes, read back as decisions.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use aq_core::{
    BitWidth, DType, Decision, Encoding, GroupSize, LayerPlan, LowRankPlan, Plan, PlannedTensor, Rate,
    SmoothingPlan, StoredTensor, TensorInfo,
};
use serde::Deserialize;
use serde_json::{Value, json};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::registry::Registry;
use crate::{EngineError, Job, Result};

/// What happens to each tensor, by a file.
#[derive(Debug, Clone)]
pub struct PlanFile {
    path: PathBuf,
    models: Vec<ModelRows>,
}

/// The rows of one model.
#[derive(Debug, Clone, Deserialize)]
struct ModelRows {
    /// The component of a pipeline that it is.
    component: Option<String>,
    /// Seed of rotations.
    #[serde(default)]
    seed: u64,
    layers: Vec<Row>,
}

/// The decision on one tensor. What a row leaves out is taken from the job.
#[derive(Debug, Clone, Deserialize)]
struct Row {
    name: String,
    shape: Option<Vec<u64>>,
    decision: Kind,
    /// The floating-point type that a kept tensor gets.
    dtype: Option<DType>,
    method: Option<String>,
    bits: Option<BitWidth>,
    rate: Option<Rate>,
    group_size: Option<GroupSize>,
    gain: Option<bool>,
    rotation: Option<bool>,
    low_rank: Option<Value>,
    smoothing: Option<Value>,
    time_groups: Option<u32>,
    reason: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Quantize,
    Keep,
}

#[derive(Deserialize)]
struct Components {
    components: Vec<ModelRows>,
}

/// The largest plan that is read: a row a tensor and a job a slab of a very large model.
const MAX_BYTES: u64 = 256 << 20;
/// The schema of plans.
const SCHEMA: &str = "aq.plan/1";

impl PlanFile {
    /// Reads JSON or YAML.
    ///
    /// # Errors
    /// [`EngineError::Config`] that names the file and what is wrong with it, [`EngineError::Io`] when it cannot be read.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let fail = |reason: String| EngineError::Config(format!("{}: {reason}", path.display()));
        let bytes = std::fs::metadata(path).map_err(aq_io::IoError::os(path))?.len();
        if bytes > MAX_BYTES {
            return Err(fail(format!("{bytes} bytes are too much for a plan")));
        }
        let text = std::fs::read_to_string(path).map_err(aq_io::IoError::os(path))?;
        let value: Value = match text.trim_start().starts_with('{') {
            true => serde_json::from_str(&text).map_err(|e| fail(format!("not a valid plan: {e}")))?,
            false => serde_saphyr::from_str(&text).map_err(|e| {
                let text = e.to_string();
                fail(format!("not a valid plan: {}", text.lines().next().unwrap_or_default().trim()))
            })?,
        };
        match &value["schema"] {
            Value::Null => {}
            Value::String(schema) if schema == SCHEMA => {}
            other => return Err(fail(format!("its schema is {other}, not {SCHEMA:?}"))),
        }
        let wrong = |e: &serde_json::Error| fail(format!("not a valid plan: {e}"));
        let models = match value.get("components") {
            Some(_) => Components::deserialize(value).map_err(|e| wrong(&e))?.components,
            None => vec![ModelRows::deserialize(value).map_err(|e| wrong(&e))?],
        };
        Ok(Self { path: path.into(), models })
    }

    /// The decisions for the model at `model`.
    ///
    /// # Errors
    /// [`EngineError::Config`] that names the tensor that the plan lacks, does not fit, or asks for what cannot be done.
    pub(crate) fn decide(
        &self,
        model: &Path,
        tensors: &[StoredTensor],
        job: &Job,
        registry: &Registry,
    ) -> Result<Plan> {
        let rows = self.rows(model)?;
        let mut by_name: HashMap<&str, &Row> = HashMap::with_capacity(rows.layers.len());
        for row in &rows.layers {
            if by_name.insert(&row.name, row).is_some() {
                return Err(self.fault(&row.name, "is planned twice"));
            }
        }
        let decide = |stored: &StoredTensor| {
            let info = &stored.info;
            let row =
                by_name.remove(info.name()).ok_or_else(|| self.fault(info.name(), "is not in the plan"))?;
            let decision = row.decision(info, rows.seed, job, registry);
            let decision = decision.map_err(|fact| self.fault(info.name(), &fact))?;
            let info = row.info(stored).map_err(|fact| self.fault(info.name(), &fact))?;
            Ok(PlannedTensor { info, decision })
        };
        let tensors: Vec<_> = tensors.iter().map(decide).collect::<Result<_>>()?;
        match rows.layers.iter().find(|row| by_name.contains_key(row.name.as_str())) {
            Some(row) => Err(self.fault(&row.name, "is not in the model")),
            None => Ok(Plan { tensors }),
        }
    }

    /// The rows of the only model, or of the component whose folder `model` is.
    fn rows(&self, model: &Path) -> Result<&ModelRows> {
        let is = |rows: &&ModelRows| rows.component.as_deref().is_some_and(|name| model.ends_with(name));
        match self.models.as_slice() {
            [one] => Ok(one),
            several => several.iter().find(is).ok_or_else(|| {
                let reason = format!("{}: no component of it is {}", self.path.display(), model.display());
                EngineError::Config(reason)
            }),
        }
    }

    fn fault(&self, tensor: &str, fact: &str) -> EngineError {
        EngineError::Config(format!("{}: tensor {tensor:?}: {fact}", self.path.display()))
    }
}

impl Row {
    /// The tensor in the type that it gets.
    fn info(&self, stored: &StoredTensor) -> Result<TensorInfo, String> {
        let info = &stored.info;
        match self.dtype.filter(|&dtype| self.decision == Kind::Keep && dtype != info.dtype()) {
            None => Ok(info.clone()),
            Some(dtype) => {
                let plain = stored.encoding == Encoding::Raw && info.dtype().is_float();
                if !plain || !matches!(dtype, DType::F16 | DType::BF16) {
                    return Err(format!(
                        "of type {} cannot be stored as {}",
                        info.dtype().name(),
                        dtype.name()
                    ));
                }
                TensorInfo::new(info.name(), info.shape().to_vec(), dtype).map_err(|e| e.to_string())
            }
        }
    }

    fn decision(
        &self,
        info: &TensorInfo,
        seed: u64,
        job: &Job,
        registry: &Registry,
    ) -> Result<Decision, String> {
        if let Some(shape) = self.shape.as_deref().filter(|&shape| shape != info.shape()) {
            return Err(format!("has shape {:?}, but {shape:?} in the plan", info.shape()));
        }
        if self.decision == Kind::Keep {
            return Ok(Decision::Keep { reason: self.reason.clone().unwrap_or_else(|| "plan".into()) });
        }
        let plan = self.layer(info, seed, job, registry)?;
        let strategy = registry.get(&plan.method).ok_or_else(|| format!("unknown method {}", plan.method))?;
        if let Some(reason) = registry.refusal(&plan.method, plan.bits) {
            return Err(reason);
        }
        let possible =
            info.dtype().is_float() && info.elements() > 0 && info.cols() <= aq_core::MAX_ROW_WEIGHTS;
        if !possible || !strategy.supports(info) {
            return Err(format!("{} cannot quantize it", plan.method));
        }
        Ok(Decision::Quantize(plan))
    }

    fn layer(
        &self,
        info: &TensorInfo,
        seed: u64,
        job: &Job,
        registry: &Registry,
    ) -> Result<LayerPlan, String> {
        let mut bits = self.bits.unwrap_or(job.bits);
        let method = match &self.method {
            Some(name) => {
                let method = registry.resolve(name).map_err(|e| e.to_string())?;
                bits = self.bits.unwrap_or_else(|| registry.nearest_width(&method, bits));
                method
            }
            None => registry.default_strategy(bits, job.calibration.is_some(), self.group_size.is_some()),
        };
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_string);
        let smoothing = match &self.smoothing {
            None | Some(Value::Null | Value::Bool(false)) => SmoothingPlan::Off,
            Some(value @ Value::Object(_)) => SmoothingPlan::deserialize(value).map_err(|e| e.to_string())?,
            Some(value) => SmoothingPlan::parse(&text(value)).ok_or("its smoothing is none that there is")?,
        };
        let low_rank = match &self.low_rank {
            None | Some(Value::Null | Value::Bool(false)) => LowRankPlan::Off,
            Some(value @ Value::Object(_)) => LowRankPlan::deserialize(value).map_err(|e| e.to_string())?,
            Some(value) => LowRankPlan::parse(&text(value)).ok_or("its low rank is none that there is")?,
        };
        let asked = self.group_size.or(job.in_groups.then_some(job.group_size));
        let group_size = asked.unwrap_or_else(|| registry.default_group(&method, job.profile));
        let rotation = self.rotation.unwrap_or(job.rotation);
        Ok(LayerPlan {
            method,
            bits,
            group_size,
            gain: self.gain.unwrap_or(job.gain),
            rate: self.rate,
            rotation: rotation.then(|| xxh3_64_with_seed(info.name().as_bytes(), seed)),
            low_rank,
            smoothing,
            act_bits: job.activations.as_ref().and_then(|a| BitWidth::new(a.bits).ok()),
            act_shift: job.activations.as_ref().is_some_and(|a| a.shift),
            time_groups: self.time_groups,
        })
    }
}

/// The row of a plan about one tensor.
pub(crate) fn row(info: &TensorInfo, decision: &Decision) -> Value {
    match decision {
        Decision::Keep { reason } => json!({
            "name": info.name(), "shape": info.shape(), "decision": "keep", "dtype": info.dtype(), "method": null, "bits": null, "rate": null,
            "group_size": null, "gain": null, "rotation": false, "low_rank": null, "smoothing": null, "reason": reason,
        }),
        Decision::Quantize(plan) => {
            let rotates = |seed| aq_codec::Rotation::new(info.cols() as usize, seed).is_some();
            let mut row = json!({
                "name": info.name(), "shape": info.shape(), "decision": "quantize", "method": plan.method,
                "bits": plan.bits, "rate": plan.rate, "group_size": plan.group_size, "gain": plan.gain,
                "rotation": plan.rotation.is_some_and(rotates), "low_rank": plan.low_rank,
                "smoothing": plan.smoothing, "reason": null,
            });
            if let Some(groups) = plan.time_groups {
                row["time_groups"] = json!(groups);
            }
            row
        }
    }
}

/// A plan as YAML, a line a tensor, with `comments` before it. Nulls are left out.
pub(crate) fn yaml(plan: &Plan, seed: u64, comments: &[String]) -> String {
    let mut text: String = comments.iter().map(|line| format!("# {}\n", line.replace('\n', " "))).collect();
    text.push_str(&format!("schema: {SCHEMA}\nseed: {seed}\nlayers:\n"));
    for planned in &plan.tensors {
        let mut row = row(&planned.info, &planned.decision);
        if let Value::Object(fields) = &mut row {
            fields.retain(|_, value| !value.is_null());
        }
        // A JSON object is a flow mapping of YAML.
        text.push_str(&format!("  - {row}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::JobOptions;

    fn tensors() -> Vec<StoredTensor> {
        let tensor = |name: &str, shape: &[u64]| {
            let info = TensorInfo::new(name, shape.to_vec(), DType::F32).expect("small");
            StoredTensor::new(info, Encoding::Raw)
        };
        vec![
            tensor("a.weight", &[64, 64]),
            tensor("b: \"odd\" #name.weight", &[32, 128]),
            tensor("a.bias", &[64]),
        ]
    }

    fn decided(text: &str) -> Result<Plan> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("plan.yaml");
        std::fs::write(&path, text).expect("it takes a file");
        let registry = Registry::default();
        let job = Job::new(JobOptions::default(), &registry)?;
        PlanFile::read(&path)?.decide(Path::new("model"), &tensors(), &job, &registry)
    }

    #[test]
    fn a_plan_that_is_written_is_read_back() {
        let wide = LayerPlan {
            gain: false,
            rotation: Some(xxh3_64_with_seed(b"a.weight", 7)),
            low_rank: LowRankPlan::Rank(8),
            smoothing: SmoothingPlan::Alpha(35),
            time_groups: Some(5),
            ..LayerPlan::new("ls", BitWidth::new(3).expect("valid"), GroupSize::new(32).expect("valid"))
        };
        let rate = Rate::new(2.1875).ok();
        let fine =
            LayerPlan { rate, ..LayerPlan::new("entropy", BitWidth::new(2).expect("valid"), GroupSize::ROW) };
        let decisions = [
            Decision::Quantize(wide),
            Decision::Quantize(fine),
            Decision::Keep { reason: "not: a weight".into() },
        ];
        let planned = tensors().into_iter().zip(decisions);
        let mut plan =
            Plan { tensors: planned.map(|(t, decision)| PlannedTensor { info: t.info, decision }).collect() };
        plan.tensors[2].info = TensorInfo::new("a.bias", vec![64], DType::BF16).expect("small");
        let text = yaml(&plan, 7, &["two\nlines".into()]);
        assert_eq!(decided(&text).expect("it was written"), plan);
        let rows: Vec<Value> = plan.tensors.iter().map(|p| row(&p.info, &p.decision)).collect();
        let text = json!({"schema": SCHEMA, "seed": 7, "layers": rows, "jobs": []}).to_string();
        assert_eq!(decided(&text).expect("it was written"), plan);
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let keep = |name: &str| format!("  - {{\"name\": {}, \"decision\": \"keep\"}}\n", json!(name));
        let all =
            |first: &str| format!("layers:\n{first}{}{}", keep("b: \"odd\" #name.weight"), keep("a.bias"));
        assert!(decided(&all(&keep("a.weight"))).is_ok());
        for (first, words) in [
            (keep("x.weight"), ["a.weight", "not in the plan"]),
            (keep("a.weight") + &keep("x.weight"), ["x.weight", "not in the model"]),
            (keep("a.weight") + &keep("a.weight"), ["a.weight", "twice"]),
            ("  - {name: a.weight, decision: keep, shape: [64, 65]}\n".into(), ["a.weight", "[64, 65]"]),
            (
                "  - {name: a.weight, decision: quantize, method: guess}\n".into(),
                ["a.weight", "unknown method"],
            ),
            (
                "  - {name: a.weight, decision: quantize, method: nf4, bits: 2}\n".into(),
                ["a.weight", "2 bits"],
            ),
            ("  - {name: a.weight, decision: quantize, smoothing: 3}\n".into(), ["a.weight", "smoothing"]),
            ("  - {name: a.weight, decision: quantize, bits: 7}\n".into(), ["plan.yaml", "bit width 7"]),
            ("  - {name: a.weight, decision: leave}\n".into(), ["plan.yaml", "leave"]),
            (": }\n".into(), ["plan.yaml", "not a valid plan"]),
        ] {
            let error = decided(&all(&first)).expect_err(&first);
            let text = error.to_string();
            assert!(words.iter().all(|word| text.contains(word)) && error.exit_code() == 4, "{text}");
            assert_eq!(text.lines().count(), 1, "{text}");
        }
        assert!(
            decided("schema: aq.quantize/1\nlayers: []\n")
                .expect_err("another schema")
                .to_string()
                .contains("schema")
        );
    }
}
