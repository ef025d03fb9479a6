//! `quantization_config` in the `config.json` of a model.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::LayerForm;
use crate::json::{parse, read_bytes};
use crate::member::resolve;
use crate::{IoError, Result};

/// The configuration of a model in diffusers.
pub(crate) const FILE: &str = "config.json";
/// The version of the layout that is written and read.
pub(crate) const LAYOUT: u32 = 1;
/// Key of the metadata of each file, with that version.
pub(crate) const LAYOUT_KEY: &str = "aq.layout";
/// Key of metadata that goes to the configuration.
pub(crate) const ACTIVATIONS: &str = "aq.activations";
/// Key of `config.json`.
const KEY: &str = "quantization_config";
/// What checkpoints of this layout say.
const METHOD: &str = "arrow_quant";

/// What is read of `quantization_config`.
#[derive(Debug, Deserialize)]
pub(super) struct Said {
    pub(super) bits: u8,
    pub(super) group_size: u32,
    #[serde(default)]
    pub(super) layers: Map<String, Value>,
    #[serde(default)]
    pub(super) activations: Option<Value>,
}

/// The configuration of a model in diffusers: a JSON object.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ModelConfig {
    path: PathBuf,
    object: Map<String, Value>,
}

impl ModelConfig {
    /// Reads the `config.json` of a model: in a folder, or beside a file.
    ///
    /// # Errors
    /// [`IoError::NotFound`] when there is none, [`IoError::Malformed`] when it is no JSON object.
    pub fn read(model: &Path) -> Result<Self> {
        let beside = model.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let folder = if model.is_dir() { model } else { beside };
        let path = folder.join(FILE);
        if !path.is_file() {
            let fact = "there is no such file, and a diffusers folder needs the configuration of the model";
            return Err(IoError::not_found(&path, fact));
        }
        let object = object(&read_bytes(&path, "configuration")?, &path)?;
        Ok(Self { path, object })
    }

    /// Its text with what it says of packed layers; `activations` is JSON.
    ///
    /// # Errors
    /// [`IoError::Malformed`] when `activations` is not JSON.
    pub(crate) fn with_layers(
        mut self,
        layers: &[(String, LayerForm)],
        activations: Option<&str>,
    ) -> Result<String> {
        let first = layers.first().map(|(_, form)| (form.bits, form.group_size));
        let (bits, group_size) = first.unwrap_or((Some(4), Some(64)));
        let entry = |(name, form): &(String, LayerForm)| {
            let form = LayerForm {
                bits: form.bits.filter(|_| form.bits != bits),
                group_size: form.group_size.filter(|_| form.group_size != group_size),
                ..form.clone()
            };
            (name.clone(), json!(form))
        };
        let layers: Map<String, Value> = layers.iter().map(entry).collect();
        let mut said = json!({"quant_method": METHOD, "version": LAYOUT, "bits": bits, "group_size": group_size, "layers": layers});
        if let Some(activations) = activations {
            said["activations"] = parse(activations.as_bytes(), &self.path, ACTIVATIONS)?;
        }
        self.object.insert(KEY.into(), said);
        Ok(format!("{:#}\n", Value::Object(self.object)))
    }
}

/// The text of a `config.json` without what it says of packed layers, for a model that has none; as it is where it says nothing of them.
///
/// ```
/// let packed = r#"{"depth": 2, "quantization_config": {"quant_method": "arrow_quant"}}"#;
/// assert_eq!(aq_io::plain_config(packed), "{\n  \"depth\": 2\n}\n");
/// assert_eq!(aq_io::plain_config(r#"{"depth": 2}"#), r#"{"depth": 2}"#);
/// ```
pub fn plain_config(config: &str) -> String {
    let Ok(Value::Object(mut object)) = serde_json::from_str(config) else { return config.into() };
    if object.get(KEY).and_then(|said| said.get("quant_method")) != Some(&json!(METHOD)) {
        return config.into();
    }
    object.shift_remove(KEY);
    format!("{:#}\n", Value::Object(object))
}

/// What the configuration of the model in `folder` says of packed layers, and its path; `None` where it says nothing of them.
///
/// # Errors
/// [`IoError::Malformed`] or [`IoError::Unsupported`] when that is not what this version reads.
pub(super) fn read(folder: &Path) -> Result<Option<(PathBuf, Said)>> {
    if !folder.join(FILE).is_file() {
        return Ok(None);
    }
    let path = resolve(folder, FILE, folder)?;
    let Some(said) = object(&read_bytes(&path, "configuration")?, &path)?.shift_remove(KEY) else {
        return Ok(None);
    };
    if said.get("quant_method") != Some(&json!(METHOD)) {
        return Ok(None);
    }
    match said.get("version").and_then(Value::as_u64) {
        Some(version) if version != u64::from(LAYOUT) => {
            let fact = format!("version {version} of the packed layout; this program reads version {LAYOUT}");
            return Err(IoError::unsupported(&path, fact));
        }
        _ => {}
    }
    let fault = |e| IoError::malformed(&path, format!("{KEY} does not describe packed layers: {e}"));
    let said = serde_json::from_value(said).map_err(fault)?;
    Ok(Some((path, said)))
}

fn object(bytes: &[u8], path: &Path) -> Result<Map<String, Value>> {
    parse(bytes, path, "configuration of the model")
}
