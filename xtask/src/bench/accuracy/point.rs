//! What is measured of one source.

use serde_json::{Map, Value, json};

use super::bound::Law;
use crate::bench::case::{Case, Title};
use crate::statistics::Measured;

/// Everything measured of one source.
pub(crate) struct Section {
    pub(crate) name: String,
    pub(crate) title: String,
    /// What the chart shows.
    pub(crate) judged_by: Quantity,
    pub(crate) points: Vec<Point>,
    /// Lines of the chart: bits per weight and error.
    pub(crate) curves: Vec<Curve>,
    law: Law,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Quantity {
    Weights,
    Outputs,
}

/// A line of a chart: bits per weight and error.
#[derive(Debug)]
pub(crate) struct Curve {
    pub(crate) title: String,
    pub(crate) points: Vec<(f64, f64)>,
}

/// One way to quantize, measured.
#[derive(Debug, Clone)]
pub(crate) struct Point {
    /// The method with its options, or the program and the type.
    pub(crate) name: String,
    /// Bits as they were asked for.
    pub(crate) asked: String,
    pub(crate) is_peer: bool,
    pub(crate) bits_per_weight: f64,
    pub(crate) error: Errors,
}

/// The errors of one result.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Errors {
    pub(crate) relative_mse: f64,
    pub(crate) cosine: f64,
    /// Of outputs where there are any, else of weights.
    pub(crate) slope: f64,
    /// Mean over layers; `None` without inputs.
    pub(crate) output: Option<f64>,
}

impl Errors {
    /// Reads what `aq compare --json` printed.
    pub(crate) fn read(report: &Value) -> Option<Self> {
        let tensors = report["tensors"].as_array()?;
        let mean = |key: &str| {
            let numbers: Vec<f64> = tensors.iter().filter_map(|tensor| tensor[key].as_f64()).collect();
            (!numbers.is_empty()).then(|| numbers.iter().sum::<f64>() / numbers.len() as f64)
        };
        let global = |key: &str| report["global"][key].as_f64();
        Some(Errors {
            relative_mse: global("relative_mse")?,
            cosine: global("cosine")?,
            slope: mean("output_slope").or_else(|| global("slope"))?,
            output: mean("output_error"),
        })
    }
}

impl Section {
    pub(crate) fn new(name: &str, title: &str, judged_by: Quantity, law: Law) -> Self {
        let steps = (0..=32).map(|step| 0.5 + f64::from(step) / 4.0);
        let points = steps.map(|bits| (bits, law.bound(bits))).collect();
        let curves = vec![Curve { title: law.title().to_owned(), points }];
        let (name, title) = (name.to_owned(), title.to_owned());
        Section { name, title, judged_by, points: Vec::new(), curves, law }
    }

    /// The bound on the error of weights at so many bits.
    pub(crate) fn bound(&self, bits_per_weight: f64) -> f64 {
        self.law.bound(bits_per_weight)
    }

    /// One case for the weight error of each point, and one for its output error. The baseline is the bound for
    /// independent weights at the same bits per weight.
    pub(crate) fn cases(&self) -> Vec<Case> {
        let case = |point: &Point, of: &str, error: f64| {
            let params = json!({"source": self.name, "bits": point.asked, "error_of": of});
            let title = Title {
                suite: "accuracy",
                name: &point.name,
                params,
                unit: "relative squared error",
                baseline: self.law.title(),
            };
            let base = Measured::of(&[self.bound(point.bits_per_weight)]);
            Case { detail: detail(point), ..Case::lower(title, Measured::of(&[error]), base) }
        };
        let of_point = |point: &Point| {
            let weights = case(point, "weights", point.error.relative_mse);
            std::iter::once(weights).chain(point.error.output.map(|error| case(point, "outputs", error)))
        };
        self.points.iter().flat_map(|point| of_point(point).collect::<Vec<_>>()).collect()
    }
}

fn detail(point: &Point) -> Map<String, Value> {
    let Errors { cosine, slope, .. } = point.error;
    let detail = json!({"bits_per_weight": point.bits_per_weight, "cosine": cosine, "slope": slope,
                        "peer": point.is_peer});
    detail.as_object().cloned().unwrap_or_default()
}

#[cfg(test)]
pub(crate) fn example() -> Section {
    let mut section = Section::new("gaussian", "gaussian: 1 x 1", Quantity::Weights, Law::Normal);
    for (name, is_peer, bits_per_weight, relative_mse) in
        [("ls", false, 2.25_f64, 0.11), ("ls", false, 4.25, 0.0083), ("ggml <Q4_0>", true, 4.5, 0.0074)]
    {
        let error = Errors { relative_mse, cosine: 0.9, slope: 1.0, output: None };
        let (name, asked) = (name.to_owned(), bits_per_weight.floor().to_string());
        section.points.push(Point { name, asked, is_peer, bits_per_weight, error });
    }
    section
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_means_over_layers() {
        let layer = |error: Value| json!({"output_error": error, "output_slope": error});
        let mut report = json!({"global": {"relative_mse": 0.1, "cosine": 0.95, "slope": 0.9},
                                "tensors": [layer(json!(0.5)), layer(json!(1.5)), layer(json!(null))]});
        let want = Errors { relative_mse: 0.1, cosine: 0.95, slope: 1.0, output: Some(1.0) };
        assert_eq!(Errors::read(&report), Some(want));
        report["tensors"] = json!([layer(json!(null))]);
        assert_eq!(Errors::read(&report), Some(Errors { slope: 0.9, output: None, ..want }));
        assert_eq!(Errors::read(&json!({})), None);
    }

    #[test]
    fn a_case_is_held_against_the_bound_at_its_true_bits() {
        let mut section = example();
        section.points[0].error.output = Some(0.02);
        let cases = section.cases();
        assert_eq!(cases.len(), 4);
        assert!((cases[0].ratio - (-4.5_f64).exp2() / 0.11).abs() < 1e-12);
        assert!((cases[1].ratio - (-4.5_f64).exp2() / 0.02).abs() < 1e-12);
        assert_ne!(cases[0].params, cases[1].params);
        assert_eq!(cases[0].detail["bits_per_weight"], 2.25);
    }
}
