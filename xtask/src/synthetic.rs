//! Checkpoints with the shapes of real models and made-up weights, the same bytes on every machine.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::Context;
use serde_json::Map;

use crate::random::Random;
use crate::safetensors;

/// The name and shape of a tensor.
pub(crate) type Tensor = (String, Vec<u64>);

/// Samples of a Student-t distribution with 5 degrees of freedom and unit variance, drawn once and used again.
pub(crate) struct Pool(Vec<f32>);

impl Pool {
    const LEN: usize = 1 << 22;

    pub(crate) fn new() -> Self {
        let mut random = Random(1);
        Pool((0..Pool::LEN).map(|_| student(&mut random)).collect())
    }
}

/// Writes the tensors as bfloat16 to a safetensors file. A tensor's bytes depend on `model`, its name and its shape
/// only. Matrices get heavy-tailed weights of about `1 / sqrt(inputs)`, rows of differing size and a few large input
/// channels; vectors lie around 1 when they are weights and around 0 when they are not.
pub(crate) fn write(path: &Path, model: &str, tensors: &[Tensor], pool: &Pool) -> anyhow::Result<()> {
    let file = File::create(path).with_context(|| path.display().to_string())?;
    let mut file = BufWriter::with_capacity(1 << 20, file);
    let header = header(tensors);
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(header.as_bytes())?;
    for (name, shape) in tensors {
        write_tensor(&mut file, &format!("{model}\0{name}"), shape, pool)?;
    }
    file.flush().with_context(|| path.display().to_string())
}

/// The number of elements.
pub(crate) fn elements(shape: &[u64]) -> u64 {
    shape.iter().product()
}

fn header(tensors: &[Tensor]) -> String {
    let metadata = Map::from_iter([("format".to_owned(), "pt".into())]);
    safetensors::header(
        &metadata,
        tensors.iter().map(|(name, shape)| (&**name, "BF16", &**shape, 2 * elements(shape))),
    )
}

fn write_tensor(file: &mut impl Write, key: &str, shape: &[u64], pool: &Pool) -> anyhow::Result<()> {
    let mut random =
        Random(key.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        }));
    let n = usize::try_from(elements(shape))?;
    let columns = if shape.len() < 2 { n } else { n / usize::try_from(shape[0].max(1))? };
    let (centre, size) = match (shape.len() < 2, key.ends_with("weight")) {
        (true, true) => (1.0, 0.1),
        (true, false) => (0.0, 0.02),
        _ => (0.0, 1.0 / (columns as f32).sqrt()),
    };
    let channels: Vec<f32> = (0..columns).map(|_| channel(&mut random)).collect();
    let mut bytes = Vec::new();
    for _ in 0..n.checked_div(columns).unwrap_or(0) {
        let row = size * (0.15 * random.near_normal()).exp() as f32;
        let mut from = random.below(Pool::LEN);
        bytes.clear();
        for channel in &channels {
            let value = centre + row * channel * pool.0[from];
            bytes.extend(bf16(value).to_le_bytes());
            from = (from + 1) % Pool::LEN;
        }
        file.write_all(&bytes)?;
    }
    Ok(())
}

/// The size of an input channel: one in 256 is large.
fn channel(random: &mut Random) -> f32 {
    if random.below(256) == 0 { 2.5 + 3.5 * random.uniform() as f32 } else { 1.0 }
}

/// Student-t with 5 degrees of freedom. No library function, so the bits are the same everywhere.
fn student(random: &mut Random) -> f32 {
    const DEGREES: f64 = 5.0;
    let chi: f64 = (0..5).map(|_| random.near_normal().powi(2)).sum();
    let unit = (DEGREES - 2.0).sqrt() / chi.max(1e-3).sqrt();
    (random.near_normal() * unit).clamp(-9.0, 9.0) as f32
}

/// The nearest bfloat16, ties to even, of a finite number.
fn bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bfloat16_is_rounded_to_the_nearest() {
        let cases =
            [(1.0, 0x3f80), (-2.0, 0xc000), (1.003_906_3, 0x3f80), (1.011_718_8, 0x3f82), (1.01, 0x3f81)];
        for (value, want) in cases {
            assert_eq!(bf16(value), want, "{value}");
        }
    }

    #[test]
    fn samples_have_unit_variance_and_heavy_tails() {
        let mut random = Random(7);
        let x: Vec<f64> = (0..100_000).map(|_| f64::from(student(&mut random))).collect();
        let moment = |k: i32| x.iter().map(|x| x.powi(k)).sum::<f64>() / x.len() as f64;
        assert!((moment(2) - 1.0).abs() < 0.05, "{}", moment(2));
        assert!(moment(4) > 4.0, "{}", moment(4));
    }

    #[test]
    fn a_tensor_does_not_depend_on_its_neighbours() {
        let folder = std::env::temp_dir().join(format!("aq-synthetic-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("model.safetensors");
        let pool = Pool::new();
        let tensor = |name: &str| (name.to_owned(), vec![4, 24]);
        let mut data = Vec::new();
        for tensors in [vec![tensor("a.weight"), tensor("b.weight")], vec![tensor("b.weight")]] {
            write(&path, "test", &tensors, &pool).unwrap();
            let bytes = std::fs::read(&path).unwrap();
            let start = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
            assert_eq!((start % 8, bytes.len() - start), (0, tensors.len() * 4 * 24 * 2));
            data.push(bytes[bytes.len() - 4 * 24 * 2..].to_vec());
        }
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(data[0], data[1]);
    }
}
