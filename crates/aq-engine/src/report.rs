//! What a job did: sizes, errors and decisions.

mod comparison;
mod depth;
mod details;
mod file;
mod heat_map;
mod histogram;
mod page;
mod svg;

use aq_codec::Rotation;
use aq_core::{Decision, Encoding, LayerPlan, PlannedTensor, StoredTensor};
use aq_kernels::metric::Comparison;
use aq_kernels::output::OutputComparison;
use aq_timeaware::{Choice, Errors};
use serde_json::{Value, json};

pub use comparison::report_comparison;
pub use details::{Details, ErrorsByTime, Histogram};
pub use file::ReportFile;

pub(crate) use details::{Measured, measure_details};
pub(crate) use page::Page;

use crate::activations;
use crate::blocks::TensorQuality;
use crate::caveat::{self, Caveat};

/// One line of the report: a tensor, its sizes and its error.
#[derive(Debug, Clone)]
pub struct TensorReport {
    /// Name, shape and source type.
    pub stored: StoredTensor,
    /// What was decided and why.
    pub decision: Decision,
    /// Bytes in the output.
    pub bytes: u64,
    /// Where the output has it dequantized: the codec, and the bytes of codes and side data that the weights went through.
    pub encoded: Option<(StoredTensor, u64)>,
    /// Source weights against decoded ones; all zero for a kept tensor. The largest difference is not looked for.
    pub comparison: Comparison,
    /// Outputs of the layer on held-out calibration rows; all zero without calibration.
    pub output: OutputComparison,
    /// How the inputs of the layer are quantized, where they are.
    pub activations: Option<Choice>,
}

impl TensorReport {
    pub(crate) fn new(
        planned: &PlannedTensor,
        stored: &StoredTensor,
        encoded: &StoredTensor,
        quality: &TensorQuality,
        activations: Option<&Choice>,
    ) -> Self {
        Self {
            stored: stored.clone(),
            decision: planned.decision.clone(),
            bytes: quality.bytes,
            encoded: (stored != encoded).then(|| (encoded.clone(), quality.encoded_bytes)),
            comparison: quality.comparison,
            output: quality.output,
            activations: activations.cloned(),
        }
    }

    /// Whether it was quantized.
    pub fn is_quantized(&self) -> bool {
        matches!(self.decision, Decision::Quantize(_))
    }

    /// Bits of the output for each weight, side data included.
    pub fn bits_per_weight(&self) -> f64 {
        bits_per_weight(self.bytes, self.stored.info.elements())
    }

    /// Slope of the decoded on the source weights, `sum(w q) / sum(w w)`; 1 for weights that are all zero.
    pub fn slope(&self) -> f64 {
        slope(&self.comparison)
    }

    /// Squared error of the layer's outputs over their squares, on held-out calibration rows; `None` without calibration.
    pub fn output_error(&self) -> Option<f64> {
        (self.output.truth > 0.0).then(|| self.output.relative_error())
    }

    /// Columns of a block of the rotation; `None` without one.
    pub fn rotation(&self) -> Option<usize> {
        let Decision::Quantize(LayerPlan { rotation: Some(seed), .. }) = self.decision else { return None };
        Some(Rotation::new(self.stored.info.cols() as usize, seed)?.block())
    }

    fn json(&self) -> Value {
        let info = &self.stored.info;
        let (mut method, mut kept) = (Value::Null, Value::Null);
        match &self.decision {
            Decision::Quantize(plan) => method = json!(plan.method),
            Decision::Keep { reason } => kept = json!(reason),
        }
        let (bits, group) = match self.stored.encoding {
            Encoding::Raw => (json!(info.dtype().size() * 8), Value::Null),
            encoding => {
                let (bits, group_size) = encoding.bits_and_group();
                (json!(bits), json!(group_size))
            }
        };
        let measured = self.is_quantized();
        let mut row = json!({
            "name": info.name(), "shape": info.shape(), "src_dtype": info.dtype(),
            "codec": self.stored.codec(), "method": method, "bits": bits, "group_size": group,
            "rotation": self.rotation(), "params": info.elements(), "bytes": self.bytes, "bits_per_weight": self.bits_per_weight(),
            "cosine": measured.then(|| self.comparison.cosine()),
            "relative_mse": measured.then(|| finite(self.comparison.relative_mse())),
            "slope": measured.then(|| self.slope()),
            "output_error": self.output_error(),
            "output_slope": self.output_error().map(|_| self.output.slope()),
            "kept_reason": kept,
        });
        if let Some((encoded, bytes)) = &self.encoded {
            let (bits, group_size) = encoded.encoding.bits_and_group();
            row["dequantized_from"] = json!({
                "codec": encoded.codec(), "bits": bits, "group_size": group_size, "bytes": bytes,
                "bits_per_weight": bits_per_weight(*bytes, info.elements()),
            });
        }
        if let Some(choice) = &self.activations {
            row["activations"] = activations::json(choice);
        }
        row
    }
}

/// A step down that the engine took by itself.
#[derive(Debug, Clone)]
pub struct Fallback {
    /// Tensor, or `None` for the whole job.
    pub tensor: Option<String>,
    /// What was wanted.
    pub from: String,
    /// What was done.
    pub to: String,
    /// Why.
    pub reason: String,
}

/// What a job did.
#[derive(Debug, Clone)]
pub struct Report {
    /// Input path as given.
    pub input: String,
    /// Bytes of its tensors.
    pub input_bytes: u64,
    /// Recognised architecture.
    pub architecture: Option<String>,
    /// Output path as given.
    pub output: String,
    /// Its format.
    pub format: String,
    /// Bytes of all output files.
    pub output_bytes: u64,
    /// The settings that decided the output.
    pub settings: Value,
    /// SIMD level in use.
    pub simd: &'static str,
    /// Worker threads.
    pub threads: usize,
    /// Wall time, in seconds.
    pub elapsed_s: f64,
    /// Largest resident memory of the process, in bytes.
    pub peak_rss_bytes: u64,
    /// Steps down.
    pub fallbacks: Vec<Fallback>,
    /// What users should know of the methods in use.
    pub caveats: Vec<Caveat>,
    /// Every tensor, in output order.
    pub tensors: Vec<TensorReport>,
    /// What was measured for a report file; `None` without one.
    pub details: Option<Details>,
}

impl Report {
    /// Elements of all tensors.
    pub fn params(&self) -> u64 {
        self.tensors.iter().map(|t| t.stored.info.elements()).sum()
    }

    /// The tensors that were quantized.
    pub fn quantized(&self) -> impl Iterator<Item = &TensorReport> {
        self.tensors.iter().filter(|t| t.is_quantized())
    }

    /// The error over the concatenation of all quantized tensors.
    pub fn global(&self) -> Comparison {
        let mut all = Comparison::default();
        self.quantized().for_each(|t| all.merge(&t.comparison));
        all
    }

    /// Mean and largest output error of the layers that have one.
    pub fn output_error(&self) -> Option<(f64, f64)> {
        let errors: Vec<f64> = self.quantized().filter_map(TensorReport::output_error).collect();
        let max = errors.iter().copied().reduce(f64::max)?;
        Some((errors.iter().sum::<f64>() / errors.len() as f64, max))
    }

    /// Mean errors of the inputs of the layers whose inputs are quantized and calibrated; `None` when there are none.
    pub fn activation_errors(&self) -> Option<Errors> {
        let all: Vec<Errors> = self.quantized().filter_map(|t| t.activations.as_ref()?.errors).collect();
        let mean = |of: fn(&Errors) -> f64| all.iter().map(of).sum::<f64>() / all.len() as f64;
        (!all.is_empty()).then(|| Errors {
            fixed: mean(|e| e.fixed),
            uniform: mean(|e| e.uniform),
            groups: mean(|e| e.groups),
            token: mean(|e| e.token),
            unshifted: mean(|e| e.unshifted),
        })
    }

    /// Bits of the output for each weight of the model: every byte of the output counts.
    pub fn bits_per_weight(&self) -> f64 {
        bits_per_weight(self.output_bytes, self.params())
    }

    /// Tensors, weights and bytes of the quantized part.
    pub fn quantized_totals(&self) -> (u64, u64, u64) {
        self.quantized().fold((0, 0, 0), |(n, params, bytes), t| {
            (n + 1, params + t.stored.info.elements(), bytes + t.bytes)
        })
    }

    /// The JSON object of `aq quantize --json`.
    pub fn json(&self) -> Value {
        let (tensors, params, bytes) = self.quantized_totals();
        let cosines: Vec<f64> = self.quantized().map(|t| t.comparison.cosine()).collect();
        let any = !cosines.is_empty();
        let mean = cosines.iter().sum::<f64>() / cosines.len().max(1) as f64;
        let min = cosines.iter().copied().fold(1.0, f64::min);
        let global = self.global();
        let mut json = json!({
            "schema": "aq.quantize/1",
            "version": env!("CARGO_PKG_VERSION"),
            "input": {"path": self.input, "bytes": self.input_bytes, "tensors": self.tensors.len(), "params": self.params(),
                      "architecture": self.architecture},
            "output": {"path": self.output, "format": self.format, "bytes": self.output_bytes,
                       "bits_per_weight": self.bits_per_weight()},
            "quantized": {"tensors": tensors, "params": params, "bytes": bytes,
                          "bits_per_weight": bits_per_weight(bytes, params)},
            "settings": self.settings, "simd": self.simd, "threads": self.threads,
            "elapsed_s": self.elapsed_s, "params_per_s": self.params() as f64 / self.elapsed_s.max(1e-9),
            "peak_rss_bytes": self.peak_rss_bytes,
            "weight": {"cosine_mean": any.then_some(mean), "cosine_min": any.then_some(min),
                       "cosine_global": any.then(|| global.cosine()),
                       "relative_mse_global": any.then(|| finite(global.relative_mse()))},
            "activation_error": self.activation_errors().map(activations::errors_json),
            "output_error": self.output_error().map(|(mean, max)| json!({"mean": mean, "max": max})),
            "fallbacks": self.fallbacks.iter().map(|f| json!({
                "tensor": f.tensor, "from": f.from, "to": f.to, "reason": f.reason})).collect::<Vec<_>>(),
            "caveats": caveat::json(&self.caveats),
            "tensors": self.tensors.iter().map(TensorReport::json).collect::<Vec<_>>(),
        });
        if let Some(details) = &self.details {
            json["details"] = details.json();
        }
        json
    }
}

/// Slope of the second on the first; 1 when the first is all zero.
pub(crate) fn slope(comparison: &Comparison) -> f64 {
    if comparison.aa == 0.0 { 1.0 } else { comparison.dot / comparison.aa }
}

/// Bits for each of `params` weights in `bytes` bytes; 0 when there are none.
pub(crate) fn bits_per_weight(bytes: u64, params: u64) -> f64 {
    if params == 0 { 0.0 } else { bytes as f64 * 8.0 / params as f64 }
}

/// JSON has no infinity: an infinite ratio becomes null.
pub(crate) fn finite(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}
