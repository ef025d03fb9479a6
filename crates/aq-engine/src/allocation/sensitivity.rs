//! What the damage of each layer alone does to the outputs of the model: a file that was measured by running it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::curve::Curve;
use crate::calibration::layer_of;
use crate::{EngineError, Result};

/// Damage of each layer by bits per weight.
#[derive(Debug, Clone)]
pub struct Sensitivity {
    path: PathBuf,
    curves: BTreeMap<String, Curve>,
}

#[derive(Deserialize)]
struct Document {
    schema: String,
    layers: Vec<Layer>,
}

#[derive(Deserialize)]
struct Layer {
    name: String,
    points: Vec<Point>,
}

#[derive(Deserialize)]
struct Point {
    bits_per_weight: f64,
    damage: f64,
}

/// The schema of such files.
const SCHEMA: &str = "aq.sensitivity/1";
/// The largest file that is read.
const MAX_BYTES: u64 = 64 << 20;

impl Sensitivity {
    /// Reads `{"schema":"aq.sensitivity/1","layers":[{"name","points":[{"bits_per_weight","damage"}]}]}`: for each layer (a weight's
    /// name without `.weight`) what quantizing it alone to so many bits does to the model's outputs, squared error over squares.
    ///
    /// # Errors
    /// [`EngineError::Config`] that names the file, the layer and what is wrong, [`EngineError::Io`] when it cannot be read.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let fail = |reason: String| EngineError::Config(format!("{}: {reason}", path.display()));
        let bytes = std::fs::metadata(path).map_err(aq_io::IoError::os(path))?.len();
        if bytes > MAX_BYTES {
            return Err(fail(format!("{bytes} bytes are too much for sensitivities")));
        }
        let text = std::fs::read_to_string(path).map_err(aq_io::IoError::os(path))?;
        let document: Document =
            serde_json::from_str(&text).map_err(|e| fail(format!("not a file of sensitivities: {e}")))?;
        if document.schema != SCHEMA {
            return Err(fail(format!("its schema is {:?}, not {SCHEMA:?}", document.schema)));
        }
        let mut curves = BTreeMap::new();
        for Layer { name, points } in document.layers {
            let points = points.iter().map(|p| (p.bits_per_weight, p.damage)).collect();
            let curve = Curve::new(points).map_err(|fact| fail(format!("layer {name:?}: {fact}")))?;
            if curves.insert(layer_of(&name).to_string(), curve).is_some() {
                return Err(fail(format!("layer {name:?} is there twice")));
            }
        }
        Ok(Self { path: path.into(), curves })
    }

    /// The curve of the layer of a weight.
    ///
    /// # Errors
    /// [`EngineError::Config`] when it was not measured.
    pub(crate) fn of(&self, weight: &str) -> Result<&Curve> {
        let missing = || format!("{}: tensor {weight:?}: its layer was not measured", self.path.display());
        self.curves.get(layer_of(weight)).ok_or_else(|| EngineError::Config(missing()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Sensitivity> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("s.json");
        std::fs::write(&path, text).expect("it takes a file");
        Sensitivity::read(&path)
    }

    #[test]
    fn files_are_read_and_faults_named() {
        let file = |points: &str| {
            format!(r#"{{"schema":"aq.sensitivity/1","layers":[{{"name":"a.fc","points":[{points}]}}]}}"#)
        };
        let good = file(r#"{"bits_per_weight":3.0,"damage":0.01},{"bits_per_weight":2.0,"damage":0.04}"#);
        let sensitivity = read(&good).expect("good");
        let at = sensitivity.of("a.fc.weight").expect("measured").at(2.5);
        assert!((at - 0.02).abs() < 1e-9, "{at}");
        assert!(sensitivity.of("b.weight").expect_err("not measured").to_string().contains("b.weight"));
        for (text, word) in [
            (file(""), "a.fc"),
            (file(r#"{"bits_per_weight":2.0,"damage":-1.0}"#), "a.fc"),
            (file(r#"{"bits_per_weight":0.0,"damage":1.0}"#), "a.fc"),
            (file(r#"{"bits_per_weight":2.0,"damage":1.0},{"bits_per_weight":2.0,"damage":1.0}"#), "twice"),
            (r#"{"schema":"aq.plan/1","layers":[]}"#.into(), "schema"),
            ("[".into(), "s.json"),
        ] {
            let error = read(&text).expect_err(&text);
            assert!(error.to_string().contains(word) && error.exit_code() == 4, "{error}");
        }
    }
}
