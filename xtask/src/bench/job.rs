//! Timing whole commands on a synthetic model.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, ensure};
use serde_json::Value;

use super::Setting;
use crate::process::program;
use crate::synthetic::{self, Pool, Tensor, elements};

/// A synthetic model in a folder of its own, removed at the end, and commands to run on it.
pub(crate) struct Jobs<'a> {
    pub(crate) setting: &'a Setting,
    pub(crate) model: PathBuf,
    pub(crate) weights: f64,
    folder: PathBuf,
}

impl<'a> Jobs<'a> {
    /// Writes a model of 1.5 GB, or 400 MB when in a hurry, and leaves it in the page cache.
    pub(crate) fn new(setting: &'a Setting) -> anyhow::Result<Self> {
        let folder = setting.target.join("bench").join(std::process::id().to_string());
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        let (model, weights) = (folder.join("model.safetensors"), 0.0);
        let mut jobs = Jobs { setting, model, weights, folder };
        let tensors = shapes(if setting.quick { 400_000_000 } else { 1_500_000_000 });
        jobs.weights = write(&jobs.model, &tensors)?;
        Ok(jobs)
    }

    /// A file in the folder.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Writes another model of about so many bytes and gives its number of weights.
    pub(crate) fn smaller(&self, name: &str, bytes: u64) -> anyhow::Result<f64> {
        write(&self.file(name), &shapes(bytes))
    }

    /// `aq` with these arguments, as JSON.
    pub(crate) fn aq(&self, arguments: &[&str]) -> Command {
        let mut command = program(&self.setting.aq);
        command.args(arguments);
        command
    }

    /// Quantizes the model to `output` on 4 bits.
    pub(crate) fn quantize(&self, method: &str, output: &Path, more: &[&str]) -> Command {
        let mut command = self.aq(&["quantize", "--json", "--quiet", "--bits", "4", "--method", method]);
        command.args(more).arg(&self.model).arg("--output").arg(output);
        command
    }

    /// `cp FROM TO`.
    pub(crate) fn copy(&self, from: &Path, to: &Path) -> Command {
        let mut command = program("cp");
        command.arg(from).arg(to);
        command
    }

    /// Runs each of the commands once a round, in turn, so that what else the machine does falls on all of them.
    pub(crate) fn measure(&self, contenders: &mut [Contender]) -> anyhow::Result<()> {
        for _ in 0..self.setting.runs {
            contenders.iter_mut().try_for_each(Contender::run)?;
        }
        Ok(())
    }
}

impl Drop for Jobs<'_> {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.folder) {
            eprintln!("{}: {error}", self.folder.display());
        }
    }
}

/// A command, the file it writes if any, and what its runs took.
pub(crate) struct Contender {
    pub(crate) name: String,
    command: Command,
    output: Option<PathBuf>,
    pub(crate) seconds: Vec<f64>,
    /// What the runs printed, when that was JSON.
    pub(crate) reports: Vec<Value>,
}

impl Contender {
    pub(crate) fn new(name: &str, command: Command, output: Option<&Path>) -> Self {
        let output = output.map(Path::to_path_buf);
        Contender { name: name.to_owned(), command, output, seconds: Vec::new(), reports: Vec::new() }
    }

    /// Times the command and the fsync of its output, which is removed before and after.
    pub(crate) fn run(&mut self) -> anyhow::Result<()> {
        self.remove()?;
        let start = Instant::now();
        let done = self.command.output().with_context(|| format!("cannot start {}", self.name))?;
        ensure!(done.status.success(), "{}: {}", self.name, String::from_utf8_lossy(&done.stderr));
        if let Some(output) = &self.output {
            File::open(output).and_then(|file| file.sync_all()).with_context(|| self.name.clone())?;
        }
        let seconds = start.elapsed().as_secs_f64();
        eprintln!("{}: {seconds:.3} s", self.name);
        self.seconds.push(seconds);
        self.reports.extend(serde_json::from_slice::<Value>(&done.stdout).ok());
        self.remove()
    }

    /// One number of each report.
    pub(crate) fn numbers(&self, key: &str) -> anyhow::Result<Vec<f64>> {
        let numbers: Option<Vec<f64>> = self.reports.iter().map(|report| report[key].as_f64()).collect();
        numbers.filter(|n| !n.is_empty()).with_context(|| format!("{} reports no {key}", self.name))
    }

    fn remove(&self) -> anyhow::Result<()> {
        match self.output.as_deref().map(fs::remove_file) {
            Some(Err(error)) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }
}

/// Writes a model, has it on the disk and in the page cache, and gives its number of weights.
fn write(path: &Path, tensors: &[Tensor]) -> anyhow::Result<f64> {
    eprintln!("writing {}", path.display());
    synthetic::write(path, "bench", tensors, &Pool::new())?;
    File::open(path)?.sync_all()?;
    std::io::copy(&mut File::open(path)?, &mut std::io::sink())?;
    Ok(tensors.iter().map(|(_, shape)| elements(shape) as f64).sum())
}

/// The matrices of as many DiT-XL blocks as fit into so many bytes of bfloat16, one block at least.
fn shapes(bytes: u64) -> Vec<Tensor> {
    const BLOCK: [(&str, [u64; 2]); 7] = [
        ("norm1.linear", [6912, 1152]),
        ("attn1.to_q", [1152, 1152]),
        ("attn1.to_k", [1152, 1152]),
        ("attn1.to_v", [1152, 1152]),
        ("attn1.to_out.0", [1152, 1152]),
        ("ff.net.0.proj", [4608, 1152]),
        ("ff.net.2", [1152, 4608]),
    ];
    let block_bytes: u64 = BLOCK.iter().map(|(_, shape)| 2 * elements(shape)).sum();
    let block =
        |i| BLOCK.map(|(name, shape)| (format!("transformer_blocks.{i}.{name}.weight"), shape.to_vec()));
    (0..(bytes / block_bytes).max(1)).flat_map(block).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_about_as_large_as_asked() {
        for (bytes, blocks) in [(0, 1), (400_000_000, 8), (1_500_000_000, 31)] {
            let tensors = shapes(bytes);
            assert_eq!(tensors.len(), 7 * blocks, "{bytes}");
            assert!(
                tensors.iter().map(|(_, shape)| 2 * elements(shape)).sum::<u64>() <= bytes.max(50_000_000)
            );
        }
    }
}
