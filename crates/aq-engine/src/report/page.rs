//! A report for people: what a page shows, whatever made the numbers.

use aq_core::{Decision, Encoding, StoredTensor};
use askama::Template;

use super::svg::number;
use super::{
    Details, Fallback, Histogram, Report, TensorReport, bits_per_weight, depth, heat_map, histogram, slope,
};
use crate::compare::{ModelComparison, TensorComparison};
use crate::{EngineError, Result, format_size};

/// Tensors in the table of the worst.
const WORST: usize = 12;

/// What a page shows, in its order.
#[derive(Debug, Template)]
#[template(path = "report.html")]
pub(crate) struct Page {
    title: String,
    subtitle: String,
    facts: Vec<Fact>,
    classes: Vec<Class>,
    depth: Option<String>,
    heat_maps: Vec<String>,
    rows: Vec<Row>,
    histograms: Vec<(String, String)>,
    reasons: Vec<Reason>,
    steps: Vec<Step>,
    notes: Vec<String>,
    settings: Option<String>,
    version: &'static str,
}

/// The same page as Markdown.
#[derive(Template)]
#[template(path = "report.md", escape = "none")]
struct MarkdownPage<'a> {
    page: &'a Page,
}

/// A number at the head of a page.
#[derive(Debug)]
pub(super) struct Fact {
    label: &'static str,
    value: String,
    note: String,
}

/// Tensors that are stored alike.
#[derive(Debug)]
pub(super) struct Class {
    name: String,
    tensors: usize,
    params: u64,
    bytes: Option<u64>,
    /// Percent of the largest class, for a bar.
    width: f64,
}

/// A tensor.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) name: String,
    shape: String,
    params: u64,
    how: String,
    bytes: Option<u64>,
    pub(super) relative_mse: Option<f64>,
    cosine: Option<f64>,
    pub(super) output_error: Option<f64>,
    slope: Option<f64>,
    /// Why it is kept, where it is.
    pub(super) kept: Option<String>,
}

/// A step down.
#[derive(Debug)]
pub(super) struct Step {
    what: String,
    from: String,
    to: String,
    reason: String,
}

/// Why tensors are kept, and which.
#[derive(Debug)]
pub(super) struct Reason {
    reason: String,
    names: Vec<String>,
}

impl Page {
    /// The page of a job.
    pub(crate) fn of_report(report: &Report) -> Self {
        let (tensors, params, bytes) = report.quantized_totals();
        let global = report.global();
        let ratio = report.input_bytes as f64 / report.output_bytes.max(1) as f64;
        let mut facts = vec![
            fact(
                "size",
                format_size(report.output_bytes),
                format!("{} before, {ratio:.2} times smaller", format_size(report.input_bytes)),
            ),
            fact(
                "bits per weight",
                format!("{:.3}", report.bits_per_weight()),
                "every byte of the output, over all weights".into(),
            ),
            fact(
                "bits per quantized weight",
                format!("{:.3}", bits_per_weight(bytes, params)),
                format!("{tensors} of {} tensors", report.tensors.len()),
            ),
            fact(
                "weight error",
                number(global.relative_mse()),
                format!("relative MSE; cosine {:.6}", global.cosine()),
            ),
        ];
        facts.extend(report.output_error().map(|(mean, max)| {
            fact(
                "output error",
                number(mean),
                format!("mean over layers, held-out calibration rows; largest {}", number(max)),
            )
        }));
        facts.push(fact(
            "time",
            format!("{:.1} s", report.elapsed_s),
            format!(
                "{} threads, {}, peak memory {}",
                report.threads,
                report.simd,
                format_size(report.peak_rss_bytes)
            ),
        ));
        facts
            .extend(report.caveats.iter().map(|c| fact("experimental", c.method.to_string(), c.text.into())));
        let rows = report.tensors.iter().map(Row::of_report).collect();
        let architecture = report.architecture.as_deref().unwrap_or("unknown architecture");
        Self {
            title: format!("{}, quantized", report.input),
            subtitle: format!(
                "{architecture}, {} weights, to {} ({})",
                millions(report.params()),
                report.output,
                report.format
            ),
            facts,
            steps: report.fallbacks.iter().map(Step::of).collect(),
            settings: Some(format!("{:#}", report.settings)),
            ..Self::of_rows(rows, report.details.as_ref())
        }
    }

    /// The page of a comparison.
    pub(crate) fn of_comparison(
        original: &str,
        quantized: &str,
        compared: &ModelComparison,
        details: &Details,
    ) -> Self {
        let (global, params) = compared.global();
        let mut facts = vec![
            fact(
                "bits per weight",
                format!("{:.3}", compared.bits_per_weight),
                "every byte of the second, over its weights".into(),
            ),
            fact(
                "weight error",
                number(global.relative_mse()),
                format!(
                    "relative MSE over {} quantized weights; cosine {:.6}",
                    millions(params),
                    global.cosine()
                ),
            ),
        ];
        let outputs: Vec<f64> = compared.tensors.iter().filter_map(TensorComparison::output_error).collect();
        if let Some(max) = outputs.iter().copied().reduce(f64::max) {
            let mean = outputs.iter().sum::<f64>() / outputs.len() as f64;
            facts.push(fact(
                "output error",
                number(mean),
                format!("mean over layers, calibration rows; largest {}", number(max)),
            ));
        }
        let only: Vec<String> =
            compared.only_in_one.iter().map(|name| format!("{name} is in one of the models only")).collect();
        Self {
            title: format!("{quantized} against {original}"),
            subtitle: format!("{} tensors compared", compared.tensors.len()),
            facts,
            notes: only,
            ..Self::of_rows(compared.tensors.iter().map(Row::of_comparison).collect(), Some(details))
        }
    }

    fn of_rows(rows: Vec<Row>, details: Option<&Details>) -> Self {
        let none = Details::default();
        let details = details.unwrap_or(&none);
        let named = |h: &Histogram| (h.tensor.clone(), histogram::chart(h));
        Self {
            title: String::new(),
            subtitle: String::new(),
            facts: Vec::new(),
            classes: classes(&rows),
            depth: depth::chart(&rows),
            heat_maps: details.by_time.iter().filter_map(heat_map::chart).collect(),
            histograms: details.histograms.iter().map(named).collect(),
            reasons: reasons(&rows),
            rows,
            steps: Vec::new(),
            notes: Vec::new(),
            settings: None,
            version: env!("CARGO_PKG_VERSION"),
        }
    }

    /// As one HTML file that asks nothing of a network or of scripts.
    ///
    /// # Errors
    /// [`EngineError::Internal`] when the template fails.
    pub(crate) fn html(&self) -> Result<String> {
        self.render().map_err(|e| EngineError::Internal(e.to_string()))
    }

    /// As Markdown.
    ///
    /// # Errors
    /// [`EngineError::Internal`] when the template fails.
    pub(crate) fn markdown(&self) -> Result<String> {
        MarkdownPage { page: self }.render().map_err(|e| EngineError::Internal(e.to_string()))
    }

    /// The rows of largest error.
    fn worst(&self) -> Vec<&Row> {
        let mut rows: Vec<&Row> = self.rows.iter().filter(|row| row.kept.is_none()).collect();
        rows.sort_by(|a, b| b.error().total_cmp(&a.error()));
        rows.truncate(WORST);
        rows
    }

    fn kept(&self) -> usize {
        self.reasons.iter().map(|reason| reason.names.len()).sum()
    }

    fn any_output(&self) -> bool {
        self.rows.iter().any(|row| row.output_error.is_some())
    }
}

fn fact(label: &'static str, value: String, note: String) -> Fact {
    Fact { label, value, note }
}

impl Row {
    fn of_report(tensor: &TensorReport) -> Self {
        let measured = tensor.is_quantized();
        let encoded = tensor.encoded.as_ref().map_or(&tensor.stored, |(encoded, _)| encoded);
        let kept = match &tensor.decision {
            Decision::Keep { reason } => Some(reason.clone()),
            Decision::Quantize(_) => None,
        };
        Self {
            bytes: Some(tensor.bytes),
            relative_mse: measured.then(|| tensor.comparison.relative_mse()),
            cosine: measured.then(|| tensor.comparison.cosine()),
            output_error: tensor.output_error(),
            slope: measured.then(|| tensor.slope()),
            kept,
            ..Self::of_stored(encoded)
        }
    }

    fn of_comparison(tensor: &TensorComparison) -> Self {
        let same = tensor.stored.encoding == Encoding::Raw && tensor.comparison.error == 0.0;
        Self {
            relative_mse: Some(tensor.comparison.relative_mse()),
            cosine: Some(tensor.comparison.cosine()),
            output_error: tensor.output_error(),
            slope: Some(slope(&tensor.comparison)),
            kept: same.then(|| "equal in both".into()),
            ..Self::of_stored(&tensor.stored)
        }
    }

    fn of_stored(stored: &StoredTensor) -> Self {
        let info = &stored.info;
        let how = match (stored.encoding, stored.encoding.bits_and_group()) {
            (Encoding::Raw, _) => info.dtype().name().to_string(),
            (_, (Some(bits), Some(group))) if group.groups(info.cols() as usize) == 1 => {
                format!("{} {bits} bits, whole rows", stored.codec())
            }
            (_, (Some(bits), Some(group))) => format!("{} {bits} bits, group {group}", stored.codec()),
            (_, (Some(bits), None)) => format!("{} {bits} bits", stored.codec()),
            _ => stored.codec().to_string(),
        };
        let shape: Vec<String> = info.shape().iter().map(u64::to_string).collect();
        Self {
            name: info.name().to_string(),
            shape: shape.join(" × "),
            params: info.elements(),
            how,
            bytes: None,
            relative_mse: None,
            cosine: None,
            output_error: None,
            slope: None,
            kept: None,
        }
    }

    /// The error that decides which tensors are the worst: that of the outputs where it is known.
    fn error(&self) -> f64 {
        self.output_error.or(self.relative_mse).unwrap_or(0.0)
    }

    fn bits_text(&self) -> String {
        shown(self.bytes.map(|bytes| bits_per_weight(bytes, self.params)))
    }

    fn weight_text(&self) -> String {
        shown(self.relative_mse)
    }

    fn output_text(&self) -> String {
        shown(self.output_error)
    }

    fn cosine_text(&self) -> String {
        ratio(self.cosine)
    }

    fn slope_text(&self) -> String {
        ratio(self.slope)
    }

    fn size_text(&self) -> String {
        size(self.bytes)
    }

    fn name_cell(&self) -> String {
        cell(&self.name)
    }
}

impl Class {
    fn size_text(&self) -> String {
        size(self.bytes)
    }

    fn params_text(&self) -> String {
        millions(self.params)
    }

    fn width_text(&self) -> String {
        format!("{:.1}", self.width)
    }
}

/// Rows that are stored alike, the largest class first.
fn classes(rows: &[Row]) -> Vec<Class> {
    let mut classes: Vec<Class> = Vec::new();
    for row in rows {
        let name = if row.kept.is_some() { format!("kept {}", row.how) } else { row.how.clone() };
        let at = classes.iter().position(|class| class.name == name).unwrap_or_else(|| {
            classes.push(Class { name, tensors: 0, params: 0, bytes: row.bytes.map(|_| 0), width: 0.0 });
            classes.len() - 1
        });
        let class = &mut classes[at];
        (class.tensors, class.params) = (class.tensors + 1, class.params + row.params);
        class.bytes = class.bytes.zip(row.bytes).map(|(all, more)| all + more);
    }
    let weight_of = |class: &Class| class.bytes.unwrap_or(class.params);
    classes.sort_by_key(|class| std::cmp::Reverse(weight_of(class)));
    let most = classes.first().map_or(1, weight_of).max(1) as f64;
    classes.iter_mut().for_each(|class| class.width = weight_of(class) as f64 / most * 100.0);
    classes
}

fn reasons(rows: &[Row]) -> Vec<Reason> {
    let mut reasons: Vec<Reason> = Vec::new();
    for row in rows {
        let Some(reason) = &row.kept else { continue };
        match reasons.iter_mut().find(|known| known.reason == *reason) {
            Some(known) => known.names.push(row.name.clone()),
            None => reasons.push(Reason { reason: reason.clone(), names: vec![row.name.clone()] }),
        }
    }
    reasons.sort_by_key(|reason| std::cmp::Reverse(reason.names.len()));
    reasons
}

impl Step {
    fn of(fallback: &Fallback) -> Self {
        Self {
            what: fallback.tensor.clone().unwrap_or_else(|| "the job".into()),
            from: fallback.from.clone(),
            to: fallback.to.clone(),
            reason: fallback.reason.clone(),
        }
    }
}

/// A number that may be missing.
fn shown(value: Option<f64>) -> String {
    value.map_or_else(|| "–".into(), number)
}

/// A ratio near 1, with the digits that tell it from 1.
fn ratio(value: Option<f64>) -> String {
    value.map_or_else(|| "–".into(), |v| format!("{v:.5}"))
}

/// Bytes that may not be known.
fn size(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "–".into(), format_size)
}

/// A number of weights for people.
fn millions(weights: u64) -> String {
    match weights {
        0..100_000 => weights.to_string(),
        _ => format!("{:.2} M", weights as f64 / 1e6),
    }
}

/// Text for a cell of a Markdown table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use aq_core::{DType, TensorInfo};

    use super::*;

    fn row(name: &str, error: Option<f64>, kept: Option<&str>) -> Row {
        let info = TensorInfo::new(name, vec![4, 64], DType::F32).expect("a small shape");
        let stored = StoredTensor::new(info, Encoding::Raw);
        Row {
            relative_mse: error,
            bytes: Some(100),
            kept: kept.map(str::to_string),
            ..Row::of_stored(&stored)
        }
    }

    fn page() -> Page {
        let rows = vec![
            row("a.weight", Some(0.01), None),
            row("<script>|b", Some(0.5), None),
            row("norm", None, Some("rank 1")),
        ];
        let details = Details {
            histograms: vec![Histogram {
                tensor: "a.weight".into(),
                limit: 4.0,
                before: vec![1, 5, 2],
                after: vec![0, 8, 0],
            }],
            by_time: Vec::new(),
        };
        Page { title: "T".into(), ..Page::of_rows(rows, Some(&details)) }
    }

    #[test]
    fn a_page_asks_for_nothing_and_keeps_names_text() {
        let html = page().html().expect("renders");
        assert!(html.contains("default-src 'none'"));
        for forbidden in ["http:", "https:", "<script", "@import", "url(", "src="] {
            assert!(!html.contains(forbidden), "{forbidden}");
        }
        assert!(html.contains("id=\"depth\"") && html.matches("<svg").count() == 2);
        assert_eq!(html.matches("<svg").count(), html.matches("</svg>").count());
    }

    #[test]
    fn the_worst_come_first_and_reasons_are_counted() {
        let page = page();
        let worst: Vec<&str> = page.worst().iter().map(|row| row.name.as_str()).collect();
        assert_eq!(worst, ["<script>|b", "a.weight"]);
        assert_eq!(page.kept(), 1);
        let markdown = page.markdown().expect("renders");
        assert!(markdown.contains("| <script>\\|b |") && markdown.contains("- 1 kept: rank 1"));
        let lines = markdown.lines().filter(|line| line.starts_with("| a.weight")).count();
        assert_eq!(lines, 2, "{markdown}");
    }
}
