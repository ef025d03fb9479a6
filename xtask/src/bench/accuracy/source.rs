//! What is quantized: made-up layers, and models with samples of their inputs.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};

use super::bound::Law;
use super::generate::{self, CALIBRATION_ROWS, Correlated, HELD_OUT_ROWS};
use super::point::{Quantity, Section};
use crate::random::Random;
use crate::safetensors::{Content, Tensor};

/// A model and what is known of it.
pub(crate) struct Source {
    pub(crate) name: String,
    title: String,
    pub(crate) model: PathBuf,
    pub(crate) samples: Option<Samples>,
    /// The group size that methods with groups are asked for.
    pub(crate) group: u32,
    law: Law,
}

/// Two files with inputs of the layers.
pub(crate) struct Samples {
    /// The rows that methods see.
    pub(crate) calibration: PathBuf,
    /// The rows that errors are measured on.
    pub(crate) held_out: PathBuf,
}

impl Source {
    /// A folder with a model and `calib.safetensors`; of every bucket the last quarter of the rows is held out.
    pub(crate) fn open(folder: &Path, work: &Path) -> anyhow::Result<Self> {
        let files = ["model.safetensors", "model.f32.safetensors"].map(|name| folder.join(name));
        let model = files.into_iter().find(|file| file.is_file());
        let model = model.with_context(|| format!("{}: there is no model.safetensors", folder.display()))?;
        let folder = folder.canonicalize()?;
        let name = folder.file_name().unwrap_or(folder.as_os_str()).to_string_lossy().into_owned();
        let samples = Samples {
            calibration: work.join(format!("{name}-calibration.safetensors")),
            held_out: work.join(format!("{name}-held-out.safetensors")),
        };
        let (calibration, held_out) = split(&Content::read(&folder.join("calib.safetensors"))?)?;
        calibration.write(&samples.calibration)?;
        held_out.write(&samples.held_out)?;
        let title = format!("{name}: the layers of a real model");
        let (model, samples) = (model.canonicalize()?, Some(samples));
        Ok(Source { name, title, model, samples, group: 64, law: Law::Normal })
    }

    /// A section without points, with the bound.
    pub(crate) fn section(&self) -> Section {
        let judged_by = if self.samples.is_some() { Quantity::Outputs } else { Quantity::Weights };
        Section::new(&self.name, &self.title, judged_by, self.law)
    }
}

/// The made-up layers, written to `work`; smaller and fewer when in a hurry.
pub(crate) fn synthetic(work: &Path, quick: bool) -> anyhow::Result<Vec<Source>> {
    let rows = if quick { 256 } else { 1024 };
    let mut sources = Vec::new();
    for (name, law) in [("gaussian", Law::Normal), ("laplace", Law::Laplace), ("student-t5", Law::Student(5))]
    {
        let (model, mut random) = (work.join(format!("{name}.safetensors")), Random(11));
        generate::independent(&model, rows, || match law {
            Law::Normal => random.normal(),
            Law::Laplace => random.laplace(),
            Law::Student(degrees) => random.student(degrees),
        })?;
        let title = format!("{name}: {rows} x 4096 independent weights");
        sources.push(Source { name: name.to_owned(), title, model, samples: None, group: 128, law });
    }
    sources.push(correlated(work, if quick { 1 } else { 3 })?);
    Ok(sources)
}

fn correlated(work: &Path, count: u64) -> anyhow::Result<Source> {
    let mut layers: Vec<Correlated> = (1..=count).map(Correlated::new).collect();
    let file = |name: &str| work.join(format!("correlated{name}.safetensors"));
    let samples = Samples { calibration: file("-calibration"), held_out: file("-held-out") };
    generate::write_weights(&file(""), &layers)?;
    generate::write_samples(&samples.calibration, &mut layers, CALIBRATION_ROWS)?;
    generate::write_samples(&samples.held_out, &mut layers, HELD_OUT_ROWS)?;
    let title = format!(
        "correlated: layers 256 x 512 with correlated inputs and outlier channels, seeds 1 to {count}"
    );
    let (name, model, samples) = ("correlated".to_owned(), file(""), Some(samples));
    Ok(Source { name, title, model, samples, group: 128, law: Law::Normal })
}

/// Splits samples `[buckets, rows, inputs]` into the first three quarters of the rows of each bucket and the rest. Tensors
/// of another rank go to both.
fn split(content: &Content) -> anyhow::Result<(Content, Content)> {
    let empty = || Content { metadata: content.metadata.clone(), tensors: Vec::new() };
    let (mut calibration, mut held_out) = (empty(), empty());
    for tensor in &content.tensors {
        if let [_, rows, _] = tensor.shape[..] {
            calibration.tensors.push(rows_of(tensor, 0, rows * 3 / 4)?);
            held_out.tensors.push(rows_of(tensor, rows * 3 / 4, rows)?);
        } else {
            calibration.tensors.push(tensor.clone());
            held_out.tensors.push(tensor.clone());
        }
    }
    Ok((calibration, held_out))
}

/// Rows `from .. to` of every bucket.
fn rows_of(tensor: &Tensor, from: u64, to: u64) -> anyhow::Result<Tensor> {
    let [buckets, rows, inputs] = tensor.shape[..] else { unreachable!("of rank 3") };
    ensure!(buckets * inputs > 0 && rows > 1, "{}: shape {:?}", tensor.name, tensor.shape);
    let bucket = tensor.bytes.len() / usize::try_from(buckets)?;
    let row = bucket / usize::try_from(rows)?;
    let range = usize::try_from(from)? * row..usize::try_from(to)? * row;
    let bytes = tensor.bytes.chunks(bucket).flat_map(|bucket| bucket[range.clone()].to_vec()).collect();
    Ok(Tensor { shape: vec![buckets, to - from, inputs], bytes, ..tensor.clone() })
}

#[cfg(test)]
pub(crate) fn example(samples: Option<Samples>) -> Source {
    let (name, title) = ("example".to_owned(), String::new());
    Source { name, title, model: PathBuf::new(), samples, group: 64, law: Law::Normal }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_row_is_in_both_parts() {
        let values: Vec<f32> = (0..2 * 4 * 3).map(|i| i as f32).collect();
        let tensors =
            vec![Tensor::f32("layer", &[2, 4, 3], &values), Tensor::f32("timesteps", &[2], &[0.0, 1.0])];
        let (calibration, held_out) = split(&Content { tensors, ..Content::default() }).unwrap();
        let want = [&values[0..9], &values[12..21]].concat();
        assert_eq!(calibration.tensors[0], Tensor::f32("layer", &[2, 3, 3], &want));
        let want = [&values[9..12], &values[21..24]].concat();
        assert_eq!(held_out.tensors[0], Tensor::f32("layer", &[2, 1, 3], &want));
        assert_eq!(calibration.tensors[1], held_out.tensors[1]);
    }

    #[test]
    fn a_bucket_of_one_row_cannot_be_split() {
        let tensors = vec![Tensor::f32("layer", &[2, 1, 3], &[0.0; 6])];
        assert!(split(&Content { tensors, ..Content::default() }).is_err());
    }
}
