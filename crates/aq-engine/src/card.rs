//! The model card beside a folder output: what it was made from, how, and what that cost.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use aq_io::OutputFormat;
use serde_json::{Value, json};

use crate::report::Report;
use crate::{Job, format_size};

/// Name of the card in a folder.
pub(crate) const NAME: &str = "README.md";

/// The largest card or configuration of a source that is read.
const MAX_BYTES: u64 = 1 << 20;

/// Keys that are taken over from the card of the source.
const CARRIED: [&str; 6] =
    ["license", "license_name", "license_link", "language", "pipeline_tag", "extra_gated_prompt"];

/// The card for what `job` made of `source`, as Markdown with the front matter that the Hugging Face Hub reads. It depends on the model and the
/// settings only.
pub(crate) fn card(job: &Job, source: &Path, report: &Report) -> String {
    let base = job.base_model.clone().unwrap_or_else(|| base_model(source));
    let mut text = front_matter(source, &base, report);
    let _ = write!(
        text,
        "\n# {base}, quantized\n\nThe weights of `{base}` in {} form, made by ArrowQuant {}.\n\n{}\n{}",
        report.format,
        env!("CARGO_PKG_VERSION"),
        sizes(report),
        errors(report),
    );
    if matches!(job.output, Some((_, OutputFormat::Diffusers))) {
        text.push_str(
            "\nAfter `import arrow_quant.diffusers`, `from_pretrained` loads it without an argument.\n",
        );
    }
    let kept = report.tensors.iter().filter(|t| !t.is_quantized()).count();
    let _ = write!(
        text,
        "\n{kept} of {} tensors are kept as they were. Settings:\n\n```json\n{:#}\n```\n",
        report.tensors.len(),
        report.settings
    );
    for caveat in &report.caveats {
        let _ = writeln!(text, "\n`{}` is {}.", caveat.method, caveat.text);
    }
    // What the whole job stepped down to may be due to the machine.
    for fallback in &report.fallbacks {
        let Some(what) = &fallback.tensor else { continue };
        let _ =
            writeln!(text, "\n- `{what}`: {} instead of {}: {}", fallback.to, fallback.from, fallback.reason);
    }
    text
}

fn front_matter(source: &Path, base: &str, report: &Report) -> String {
    let mut matter = vec![("base_model", json!(base)), ("base_model_relation", json!("quantized"))];
    if source.join("model_index.json").is_file() || class_name(source).is_some() {
        matter.push(("library_name", json!("diffusers")));
    }
    let mut tags = vec!["arrowquant".to_string(), "quantized".to_string()];
    tags.extend(report.settings["bits"].as_u64().map(|bits| format!("{bits}-bit")));
    matter.push(("tags", json!(tags)));
    let carried = read(&source.join(NAME)).map(|card| header(&card)).unwrap_or_default();
    matter.extend(CARRIED.iter().filter_map(|&key| Some((key, carried.get(key)?.clone()))));
    // JSON values are YAML.
    let lines = matter.iter().map(|(key, value)| format!("{key}: {value}\n"));
    format!("---\n{}---\n", lines.collect::<String>())
}

/// The values in front of a card.
fn header(card: &str) -> BTreeMap<String, Value> {
    let yaml = card.strip_prefix("---\n").and_then(|rest| rest.split("\n---").next());
    yaml.and_then(|yaml| serde_saphyr::from_str(yaml).ok()).unwrap_or_default()
}

/// The name of a source on the Hub where its path or configuration tells, else that of its file or folder.
fn base_model(source: &Path) -> String {
    let in_cache = source.iter().find_map(|part| part.to_str()?.strip_prefix("models--"));
    let config = config(source);
    let named = config.get("_name_or_path").and_then(Value::as_str);
    let named = named.filter(|name| name.split('/').count() == 2 && !name.starts_with(['/', '.']));
    let own = || {
        let absolute = source.canonicalize().unwrap_or_else(|_| source.into());
        absolute.file_stem().unwrap_or_default().to_string_lossy().into_owned()
    };
    in_cache.map(|name| name.replacen("--", "/", 1)).or(named.map(str::to_string)).unwrap_or_else(own)
}

fn class_name(source: &Path) -> Option<String> {
    config(source).get("_class_name")?.as_str().map(str::to_string)
}

fn config(source: &Path) -> BTreeMap<String, Value> {
    let text = read(&source.join("config.json"));
    text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
}

/// A small text file, if there is one.
pub(crate) fn read(path: &Path) -> Option<String> {
    let metadata = std::fs::metadata(path).ok()?;
    let is_small = metadata.is_file() && metadata.len() <= MAX_BYTES;
    is_small.then(|| std::fs::read_to_string(path).ok())?
}

fn sizes(report: &Report) -> String {
    let (tensors, params, bytes) = report.quantized_totals();
    let bits = |bytes: u64, params: u64| bytes as f64 * 8.0 / params.max(1) as f64;
    format!(
        "| | tensors | weights | bytes | bits per weight |\n|---|---|---|---|---|\n\
         | before | {} | {} | {} | {:.3} |\n| after | {} | {} | {} | {:.3} |\n| of it quantized | {tensors} | {params} | {} | {:.3} |\n",
        report.tensors.len(),
        report.params(),
        format_size(report.input_bytes),
        bits(report.input_bytes, report.params()),
        report.tensors.len(),
        report.params(),
        format_size(report.output_bytes),
        report.bits_per_weight(),
        format_size(bytes),
        bits(bytes, params),
    )
}

fn errors(report: &Report) -> String {
    let global = report.global();
    let mut text = format!(
        "Weight error over all quantized weights: cosine {:.6}, relative MSE {:.4e}.\n",
        global.cosine(),
        global.relative_mse()
    );
    if let Some((mean, max)) = report.output_error() {
        let _ = writeln!(
            text,
            "Output error of layers on held-out calibration rows (squared error over squared output): mean {mean:.4e}, largest {max:.4e}."
        );
    }
    text.push_str("Neither says how good samples of the model are: look at some.\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_base_and_the_licence_are_found() {
        let cache = Path::new("/c/hub/models--org--some-model/snapshots/abc/transformer");
        assert_eq!(base_model(cache), "org/some-model");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let source = folder.path().join("digits");
        std::fs::create_dir(&source).expect("made");
        assert_eq!(base_model(&source), "digits");
        std::fs::write(source.join("config.json"), r#"{"_name_or_path": "me/digits"}"#).expect("written");
        assert_eq!(base_model(&source), "me/digits");
        let card = "---\nlicense: other\nlicense_name: flux-1-dev\ntags:\n- a\n---\n# Text\n";
        let header = header(card);
        assert_eq!((&header["license"], &header["license_name"]), (&json!("other"), &json!("flux-1-dev")));
        assert!(super::header("# no front matter\n---\n").is_empty());
    }
}
