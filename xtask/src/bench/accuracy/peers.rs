//! What other packages make of the same layers, run by Python and judged by `aq compare`.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use super::methods::Methods;
use super::point::{Curve, Point, Section};
use super::source::Source;
use crate::process::{program, root};

/// Adds a point for each peer that Python can run, and a note for each that it cannot.
pub(crate) fn measure(
    methods: &Methods,
    source: &Source,
    python: &Path,
    section: &mut Section,
    notes: &mut Vec<String>,
) -> anyhow::Result<()> {
    if !has_numpy(python) {
        notes.push(format!("accuracy: peers skipped: {} with numpy is not here", python.display()));
        return Ok(());
    }
    let mut child = start(methods, source, python)?;
    let output = BufReader::new(child.stdout.take().context("no pipe")?);
    for line in output.lines() {
        match Answer::parse(&line?)? {
            Answer::Peer(peer) => {
                let error = methods.compare(source, &peer.file)?;
                fs::remove_file(&peer.file)?;
                let Peer { name, asked, bits_per_weight, .. } = peer;
                section.points.push(Point { name, asked, is_peer: true, bits_per_weight, error });
            }
            Answer::Curve(curve) => section.curves.push(curve),
            Answer::Skipped(what) => notes.push(format!("accuracy: {}: skipped {what}", source.name)),
        }
    }
    let status = child.wait()?;
    ensure!(status.success(), "the peers' Python ended with {status}");
    Ok(())
}

fn has_numpy(python: &Path) -> bool {
    let check = program(python).args(["-c", "import numpy"]).output();
    check.is_ok_and(|output| output.status.success())
}

fn start(methods: &Methods, source: &Source, python: &Path) -> anyhow::Result<Child> {
    let samples = source.samples.as_ref();
    let request = json!({
        "model": source.model, "tensors": methods.quantized(source)?, "folder": methods.folder, "group": source.group,
        "calibration": samples.map(|s| &s.calibration), "held_out": samples.map(|s| &s.held_out),
    });
    let mut command = program(python);
    command.arg(root().join("xtask/src/bench/accuracy/peers.py"));
    command.env("PYTHONPATH", root().join("crates/aq-cli/tests/python"));
    command.env("OPENBLAS_NUM_THREADS", "1").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().with_context(|| python.display().to_string())?;
    // The pipe is closed at the end of the statement.
    child.stdin.take().context("no pipe")?.write_all(request.to_string().as_bytes())?;
    Ok(child)
}

/// A line that the script printed.
#[derive(Debug)]
enum Answer {
    Peer(Peer),
    Curve(Curve),
    Skipped(String),
}

#[derive(Debug)]
struct Peer {
    name: String,
    asked: String,
    bits_per_weight: f64,
    file: PathBuf,
}

impl Answer {
    fn parse(line: &str) -> anyhow::Result<Self> {
        let value: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
        let text = |key: &str| value[key].as_str().map(str::to_owned);
        let read = || {
            if let Some(what) = text("skipped") {
                return Some(Answer::Skipped(format!("{what}: {}", text("reason")?)));
            }
            if let Some(title) = text("curve") {
                let points = serde_json::from_value(value["points"].clone()).ok()?;
                return Some(Answer::Curve(Curve { title, points }));
            }
            let bits_per_weight = value["bits_per_weight"].as_f64()?;
            let (name, asked, file) = (text("peer")?, text("asked")?, text("file")?.into());
            Some(Answer::Peer(Peer { name, asked, bits_per_weight, file }))
        };
        read().with_context(|| format!("not an answer: {line}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read() {
        let peer = r#"{"peer": "ggml Q4_0", "asked": "", "bits_per_weight": 4.5, "file": "x"}"#;
        assert!(matches!(Answer::parse(peer).unwrap(), Answer::Peer(p) if p.bits_per_weight == 4.5));
        let curve = r#"{"curve": "bound", "points": [[1, 0.25], [2, 0.0625]]}"#;
        assert!(matches!(Answer::parse(curve).unwrap(), Answer::Curve(c) if c.points[1] == (2.0, 0.0625)));
        let skipped = r#"{"skipped": "ggml", "reason": "no module"}"#;
        assert!(matches!(Answer::parse(skipped).unwrap(), Answer::Skipped(s) if s == "ggml: no module"));
        assert!(Answer::parse(r#"{"peer": "x"}"#).is_err() && Answer::parse("oops").is_err());
    }
}
