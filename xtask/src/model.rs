//! `cargo xtask model`: a synthetic checkpoint with the tensor names and shapes of a public model.

use std::fs;
use std::io::Read;
use std::path::PathBuf;

use anyhow::{Context, ensure};
use flate2::read::GzDecoder;
use serde_json::Value;

use crate::synthetic::{self, Pool, Tensor, elements};

/// Names and shapes of the tensors of public models: compressed JSON with `tensors`, `prefix` and `config`.
const LAYOUTS: [(&str, &[u8]); 4] = [
    ("dit-xl-2-256", include_bytes!("../layouts/dit-xl-2-256.json.gz")),
    ("sd-vae", include_bytes!("../layouts/sd-vae.json.gz")),
    ("wavegrad-base", include_bytes!("../layouts/wavegrad-base.json.gz")),
    ("mdlm-owt", include_bytes!("../layouts/mdlm-owt.json.gz")),
];

/// The parts of a name that a number follows when a block is repeated.
const BLOCKS: [&str; 4] = ["layers", "blocks", "transformer_blocks", "single_transformer_blocks"];

/// Which model, and how much of it.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The model whose layout to use
    #[arg(value_parser = LAYOUTS.map(|(name, _)| name))]
    name: String,
    /// Folder to write the safetensors file and config.json to
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Keep the first N of each repeated block
    #[arg(long, value_name = "N")]
    layers: Option<usize>,
    /// Multiply each dimension of 64 or more by F, rounded to a multiple of 8
    #[arg(long, value_name = "F", default_value_t = 1.0)]
    scale: f64,
}

/// Writes the checkpoint: bfloat16, the same bytes for the same arguments.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    ensure!(args.scale > 0.0 && args.scale <= 16.0, "--scale is above 0 and at most 16");
    let layout = layout(&args.name)?;
    let tensors = tensors(&layout, args.layers, args.scale)?;
    let prefix = layout["prefix"].as_str().context("the layout has no prefix")?;
    fs::create_dir_all(&args.out).with_context(|| args.out.display().to_string())?;
    let path = args.out.join(format!("{prefix}.safetensors"));
    synthetic::write(&path, &args.name, &tensors, &Pool::new())?;
    fs::write(args.out.join("config.json"), serde_json::to_string_pretty(&layout["config"])? + "\n")?;
    let parameters: u64 = tensors.iter().map(|(_, shape)| elements(shape)).sum();
    println!("{}: {} tensors, {parameters} parameters", path.display(), tensors.len());
    Ok(())
}

fn layout(name: &str) -> anyhow::Result<Value> {
    let (_, bytes) = LAYOUTS.iter().find(|(known, _)| *known == name).context("there is no such layout")?;
    let mut text = String::new();
    GzDecoder::new(*bytes).read_to_string(&mut text)?;
    Ok(serde_json::from_str(&text)?)
}

fn tensors(layout: &Value, layers: Option<usize>, scale: f64) -> anyhow::Result<Vec<Tensor>> {
    let entries = layout["tensors"].as_array().context("the layout has no tensors")?;
    let mut kept = Vec::new();
    for entry in entries {
        let name = entry[0].as_str().context("a tensor has no name")?;
        let shape = entry[1].as_array().context("a tensor has no shape")?;
        let shape: Option<Vec<u64>> = shape.iter().map(|d| Some(scaled(d.as_u64()?, scale))).collect();
        if layers.is_none_or(|n| is_within(name, n)) {
            kept.push((name.to_owned(), shape.context("a shape is no list of integers")?));
        }
    }
    Ok(kept)
}

/// Whether every block number in a name is below `layers`.
fn is_within(name: &str, layers: usize) -> bool {
    let parts: Vec<&str> = name.split('.').collect();
    let numbers = parts.windows(2).filter(|pair| BLOCKS.contains(&pair[0]));
    numbers.filter_map(|pair| pair[1].parse::<usize>().ok()).all(|number| number < layers)
}

fn scaled(dimension: u64, scale: f64) -> u64 {
    if dimension < 64 || scale == 1.0 {
        return dimension;
    }
    ((dimension as f64 * scale / 8.0).round() as u64 * 8).max(8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_have_the_parameters_they_state() {
        for (name, _) in LAYOUTS {
            let layout = layout(name).unwrap();
            let tensors = tensors(&layout, None, 1.0).unwrap();
            // Stored with the parameters, but not one of them.
            let parameters = tensors.iter().filter(|(name, _)| !name.ends_with("inv_freq"));
            let sum: u64 = parameters.map(|(_, shape)| elements(shape)).sum();
            assert_eq!(Some(sum), layout["params"].as_u64(), "{name}");
        }
    }

    #[test]
    fn a_smaller_model_keeps_whole_blocks() {
        let layout = layout("dit-xl-2-256").unwrap();
        let two = tensors(&layout, Some(2), 0.125).unwrap();
        assert!(two.iter().any(|(name, _)| name.starts_with("transformer_blocks.1.")));
        assert!(!two.iter().any(|(name, _)| name.starts_with("transformer_blocks.2.")));
        let (_, shape) = two.iter().find(|(name, _)| name.ends_with("0.attn1.to_q.weight")).unwrap();
        assert_eq!(shape, &[144, 144]);
    }
}
