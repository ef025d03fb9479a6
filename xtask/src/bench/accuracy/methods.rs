//! What the built `aq` can do, and how well it does it.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use serde_json::Value;

use super::point::{Errors, Point, Section};
use super::source::Source;
use crate::process::program;

/// The methods of a built `aq`, and where to leave their results.
pub(crate) struct Methods {
    aq: PathBuf,
    names: Vec<String>,
    help: String,
    pub(crate) folder: PathBuf,
}

/// A method with its options.
pub(crate) struct Variant {
    method: String,
    /// The method and the options that are not the default.
    label: String,
    /// Bits as they are asked for.
    asked: String,
    arguments: Vec<String>,
}

/// Every method is asked for so many bits.
const BITS: [u32; 4] = [2, 3, 4, 5];
/// What a codec of variable rate is asked for besides.
const RATES: [&str; 3] = ["1.0", "1.5", "2.5"];
const RATE_OPTION: &str = "--rate";
/// Options that are tried on layers with inputs: a label, the option and its value.
const EXTRAS: [(&str, &str, &str); 2] =
    [("rotation", "--rotation", "on"), ("low rank", "--low-rank", "auto")];

impl Methods {
    /// Asks for a method that there is not: the refusal lists those there are.
    pub(crate) fn ask(aq: &Path, model: &Path, folder: &Path) -> anyhow::Result<Self> {
        let refused = program(aq).arg("plan").arg(model).args(["--method", "?"]).output()?;
        let refusal = String::from_utf8_lossy(&refused.stderr).into_owned();
        let names = listed(&refusal).with_context(|| format!("aq lists no methods: {refusal}"))?;
        let help = program(aq).args(["quantize", "--help"]).output()?.stdout;
        let help = String::from_utf8_lossy(&help).into_owned();
        Ok(Methods { aq: aq.to_path_buf(), names, help, folder: folder.to_path_buf() })
    }

    /// Every method at all the bits that it may have.
    pub(crate) fn variants(&self, source: &Source) -> Vec<Variant> {
        let mut variants = Vec::new();
        for method in &self.names {
            if method == "entropy" && self.offers(RATE_OPTION) {
                let rate = |rate: &str| Variant::new(method, rate, &[RATE_OPTION, rate]);
                variants.extend(RATES.map(rate));
            }
            for bits in BITS.map(|bits| bits.to_string()) {
                variants.push(Variant::new(method, &bits, &["--bits", &bits]));
                for (label, option, value) in EXTRAS {
                    if source.samples.is_some() && self.offers(option) {
                        let variant = Variant::new(method, &bits, &["--bits", &bits, option, value]);
                        variants.push(Variant { label: format!("{method} + {label}"), ..variant });
                    }
                }
            }
        }
        variants
    }

    /// The codec of variable rate at the size of each peer from 2 to 5 bits per weight, rounded down.
    pub(crate) fn beside_peers(&self, section: &Section) -> Vec<Variant> {
        if !self.names.iter().any(|name| name == "entropy") || !self.offers(RATE_OPTION) {
            return Vec::new();
        }
        let peers = section.points.iter().filter(|p| p.is_peer && (2.0..=5.0).contains(&p.bits_per_weight));
        let mut rates: Vec<String> =
            peers.map(|p| format!("{:.3}", (p.bits_per_weight * 1000.0).floor() / 1000.0)).collect();
        rates.sort();
        rates.dedup();
        rates.iter().map(|rate| Variant::new("entropy", rate, &[RATE_OPTION, rate])).collect()
    }

    fn offers(&self, option: &str) -> bool {
        self.help.split_whitespace().any(|word| word == option)
    }

    /// Quantizes and compares. What the engine did by itself comes with the point.
    pub(crate) fn measure(&self, source: &Source, variant: &Variant) -> anyhow::Result<(Point, Vec<String>)> {
        let output = self.folder.join("out.parquet");
        let mut command = program(&self.aq);
        command.arg("quantize").arg(&source.model).arg("--output").arg(&output);
        command.args(["--json", "--quiet", "--force", "--method", &variant.method]).args(&variant.arguments);
        command.args(["--group-size", &source.group.to_string()]);
        match &source.samples {
            Some(samples) => command.arg("--calibration").arg(&samples.calibration),
            None => command.args(["--gain", "off"]),
        };
        let report = json(&mut command)?;
        ensure!(report["quantized"]["tensors"].as_u64() > Some(0), "no tensor is quantized");
        let bits_per_weight =
            report["quantized"]["bits_per_weight"].as_f64().context("no bits per weight")?;
        let error = self.compare(source, &output)?;
        let (name, asked) = (variant.label.clone(), variant.asked.clone());
        let point = Point { name, asked, is_peer: false, bits_per_weight, error };
        Ok((point, fallbacks(source, variant, &report)))
    }

    /// The errors of a result, on rows that no method saw.
    pub(crate) fn compare(&self, source: &Source, result: &Path) -> anyhow::Result<Errors> {
        let mut command = program(&self.aq);
        command.args(["compare", "--json"]).arg(&source.model).arg(result);
        if let Some(samples) = &source.samples {
            command.arg("--calibration").arg(&samples.held_out);
        }
        Errors::read(&json(&mut command)?).context("aq compare reports no errors")
    }

    /// The tensors of a model that are quantized.
    pub(crate) fn quantized(&self, source: &Source) -> anyhow::Result<Vec<String>> {
        let plan = json(program(&self.aq).args(["plan", "--json"]).arg(&source.model))?;
        let layers = plan["layers"].as_array().context("the plan has no layers")?;
        let quantized = layers.iter().filter(|layer| layer["decision"] == "quantize");
        Ok(quantized.filter_map(|layer| layer["name"].as_str().map(str::to_owned)).collect())
    }
}

impl Variant {
    fn new(method: &str, asked: &str, arguments: &[&str]) -> Self {
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        Variant { method: method.to_owned(), label: method.to_owned(), asked: asked.to_owned(), arguments }
    }
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {} bits", self.label, self.asked)
    }
}

/// The names behind "use one of".
fn listed(refusal: &str) -> Option<Vec<String>> {
    let (_, list) = refusal.lines().find_map(|line| line.split_once("use one of "))?;
    Some(list.trim_end_matches('.').split(", ").map(|name| name.trim().to_owned()).collect())
}

/// Each reason once, with how many layers it concerns.
fn fallbacks(source: &Source, variant: &Variant, report: &Value) -> Vec<String> {
    let mut reasons: Vec<(&str, usize)> = Vec::new();
    for fallback in report["fallbacks"].as_array().into_iter().flatten() {
        let reason = fallback["reason"].as_str().unwrap_or("no reason");
        match reasons.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, count)) => *count += 1,
            None => reasons.push((reason, 1)),
        }
    }
    let note = |(reason, n)| format!("accuracy: {} {}: {reason} ({n} times)", source.name, variant.label);
    reasons.into_iter().map(note).collect()
}

fn json(command: &mut std::process::Command) -> anyhow::Result<Value> {
    let done = command.output()?;
    if !done.status.success() {
        let said = String::from_utf8_lossy(&done.stderr);
        bail!("{}", said.lines().next().unwrap_or("failed without a word").trim_start_matches("error: "));
    }
    Ok(serde_json::from_slice(&done.stdout)?)
}

#[cfg(test)]
mod tests {
    use super::super::source::{self, Samples};
    use super::*;

    #[test]
    fn each_size_of_a_peer_is_met_once() {
        let methods = Methods {
            aq: PathBuf::new(),
            names: vec!["entropy".to_owned()],
            help: "--rate <X>".to_owned(),
            folder: PathBuf::new(),
        };
        let mut section = super::super::point::example();
        section.points.extend(section.points.clone());
        let labels: Vec<String> = methods.beside_peers(&section).iter().map(ToString::to_string).collect();
        assert_eq!(labels, ["entropy at 4.500 bits"]);
        let none = Methods { help: String::new(), ..methods };
        assert!(none.beside_peers(&section).is_empty());
    }

    #[test]
    fn methods_are_read_from_the_refusal() {
        let refusal = "warning: x\nerror: unknown method \"?\"; use one of minmax, ls, gptq\n";
        assert_eq!(listed(refusal).unwrap(), ["minmax", "ls", "gptq"]);
        assert_eq!(listed("error: no such file"), None);
    }

    #[test]
    fn options_are_tried_where_they_are_offered() {
        let methods = Methods {
            aq: PathBuf::new(),
            names: vec!["ls".to_owned(), "entropy".to_owned()],
            help: "--rate <X>  bits\n--rotation <on|off>".to_owned(),
            folder: PathBuf::new(),
        };
        assert!(methods.offers("--rotation") && !methods.offers("--rot") && !methods.offers("--low-rank"));
        let labels = |source| -> Vec<String> {
            methods.variants(&source).iter().map(|variant| format!("{variant}")).collect()
        };
        let plain = labels(source::example(None));
        assert_eq!(plain.len(), 2 * BITS.len() + RATES.len());
        assert!(plain.contains(&"entropy at 1.5 bits".to_owned()), "{plain:?}");
        let samples = Samples { calibration: PathBuf::new(), held_out: PathBuf::new() };
        let with_inputs = labels(source::example(Some(samples)));
        assert_eq!(with_inputs.len(), 4 * BITS.len() + RATES.len());
        assert!(with_inputs.contains(&"ls + rotation at 2 bits".to_owned()), "{with_inputs:?}");
    }
}
