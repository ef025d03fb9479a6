//! Small models for the tests, written without the crate under test.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use aq_engine::{Job, JobOptions, Registry, Report, Result, Silent};

/// A tensor as f32 values.
pub(crate) struct Tensor {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) values: Vec<f32>,
}

/// Weights without any pattern, in -1..1, the same for the same seed.
pub(crate) fn weights(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..n).map(|_| next() * next()).collect()
}

/// Two large weights of several slabs, a ragged one, a bias and a scalar.
pub(crate) fn tensors() -> Vec<Tensor> {
    let shapes: [(&str, &[usize]); 5] = [
        ("blocks.0.fc1.weight", &[3000, 1152]),
        ("blocks.0.fc1.bias", &[3000]),
        ("blocks.0.conv.weight", &[40, 37, 3, 3]),
        ("blocks.0.fc2.weight", &[700, 2001]),
        ("step", &[]),
    ];
    let make = |(seed, (name, shape)): (usize, (&str, &[usize]))| {
        let values = weights(shape.iter().product(), seed as u64 + 1);
        Tensor { name: name.into(), shape: shape.into(), values }
    };
    shapes.into_iter().enumerate().map(make).collect()
}

/// Writes a safetensors file of f32 tensors.
pub(crate) fn write(path: &Path, tensors: &[Tensor]) {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for t in tensors {
        let begin = data.len();
        data.extend(t.values.iter().flat_map(|v| v.to_le_bytes()));
        let entry =
            serde_json::json!({"dtype": "F32", "shape": t.shape, "data_offsets": [begin, data.len()]});
        header.insert(t.name.clone(), entry);
    }
    let header = serde_json::Value::from(header).to_string();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.extend(data);
    std::fs::write(path, file).expect("a temporary folder takes a file");
}

/// A folder with `model.safetensors` in it.
pub(crate) struct Fixture {
    pub(crate) folder: tempfile::TempDir,
}

impl Fixture {
    pub(crate) fn new(tensors: &[Tensor]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        write(&folder.path().join("model.safetensors"), tensors);
        Self { folder }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Options that write `name`.
    pub(crate) fn options(&self, name: &str) -> JobOptions {
        JobOptions {
            input: self.path("model.safetensors"),
            output: Some(self.path(name)),
            ..JobOptions::default()
        }
    }

    /// Names in the folder, hidden ones included.
    pub(crate) fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder.path()).expect("readable");
        let mut names: Vec<String> =
            entries.map(|e| e.expect("readable").file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

/// Runs a job to its end.
pub(crate) fn quantize(options: JobOptions) -> Result<Report> {
    let registry = Registry::default();
    let job = Job::new(options, &registry)?;
    aq_engine::run(&job, &registry, &AtomicBool::new(false), &mut Silent)
}

/// The sums of a comparison. The largest difference is looked for only where two models are compared.
pub(crate) fn sums(comparison: &aq_kernels::metric::Comparison) -> [f64; 4] {
    let aq_kernels::metric::Comparison { dot, aa, bb, error, .. } = *comparison;
    [dot, aa, bb, error]
}
