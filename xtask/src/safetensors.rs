//! As much of the safetensors format as the developer commands need.

use std::fs;
use std::path::Path;

use anyhow::{Context, ensure};
use serde_json::{Map, Value, json};

/// A whole file in memory.
#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct Content {
    pub(crate) metadata: Map<String, Value>,
    pub(crate) tensors: Vec<Tensor>,
}

/// A tensor with its bytes, little-endian.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Tensor {
    pub(crate) name: String,
    pub(crate) dtype: String,
    pub(crate) shape: Vec<u64>,
    pub(crate) bytes: Vec<u8>,
}

impl Tensor {
    pub(crate) fn f32(name: &str, shape: &[u64], values: &[f32]) -> Self {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Tensor { name: name.to_owned(), dtype: "F32".to_owned(), shape: shape.to_vec(), bytes }
    }
}

impl Content {
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let parse = || Content::parse(&fs::read(path)?);
        parse().with_context(|| path.display().to_string())
    }

    fn parse(bytes: &[u8]) -> anyhow::Result<Self> {
        let (length, rest) = bytes.split_first_chunk().context("shorter than 8 bytes")?;
        let length = usize::try_from(u64::from_le_bytes(*length))?;
        let (header, data) = rest.split_at_checked(length).context("the header is cut off")?;
        let mut header: Map<String, Value> = serde_json::from_slice(header)?;
        let metadata = header.remove("__metadata__").and_then(|m| m.as_object().cloned()).unwrap_or_default();
        let mut tensors: Vec<(usize, Tensor)> = Vec::new();
        for (name, entry) in header {
            tensors.push(tensor(&name, &entry, data).with_context(|| name.clone())?);
        }
        tensors.sort_by_key(|(start, _)| *start);
        Ok(Content { metadata, tensors: tensors.into_iter().map(|(_, tensor)| tensor).collect() })
    }

    pub(crate) fn write(&self, path: &Path) -> anyhow::Result<()> {
        let entries = self.tensors.iter().map(|t| (&*t.name, &*t.dtype, &*t.shape, t.bytes.len() as u64));
        let header = header(&self.metadata, entries);
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        self.tensors.iter().for_each(|tensor| bytes.extend(&tensor.bytes));
        fs::write(path, bytes).with_context(|| path.display().to_string())
    }
}

/// Where the data of a tensor begin, and the tensor.
fn tensor(name: &str, entry: &Value, data: &[u8]) -> anyhow::Result<(usize, Tensor)> {
    let range: [usize; 2] = serde_json::from_value(entry["data_offsets"].clone())?;
    let bytes = data.get(range[0]..range[1]).context("its data are cut off")?.to_vec();
    let shape: Vec<u64> = serde_json::from_value(entry["shape"].clone())?;
    let elements: u64 = shape.iter().product();
    ensure!(elements == 0 || (bytes.len() as u64).is_multiple_of(elements), "its data do not fit its shape");
    let dtype = entry["dtype"].as_str().context("it has no dtype")?.to_owned();
    Ok((range[0], Tensor { name: name.to_owned(), dtype, shape, bytes }))
}

/// The header of tensors (name, type, shape, bytes) that lie one after the other, padded with spaces so that the data
/// begin at a multiple of 8.
pub(crate) fn header<'a>(
    metadata: &Map<String, Value>,
    tensors: impl Iterator<Item = (&'a str, &'a str, &'a [u64], u64)>,
) -> String {
    let mut entries = Map::new();
    entries.insert("__metadata__".into(), Value::Object(metadata.clone()));
    let mut start = 0;
    for (name, dtype, shape, bytes) in tensors {
        let end = start + bytes;
        entries.insert(name.into(), json!({"dtype": dtype, "shape": shape, "data_offsets": [start, end]}));
        start = end;
    }
    let text = Value::Object(entries).to_string();
    let width = text.len().next_multiple_of(8);
    format!("{text:width$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_survives_writing_and_reading() {
        let path = std::env::temp_dir().join(format!("aq-content-{}.safetensors", std::process::id()));
        let metadata = Map::from_iter([("aq.time".to_owned(), json!("t"))]);
        let tensors = vec![Tensor::f32("b", &[2, 2], &[1.0, 2.0, 3.0, 4.0]), Tensor::f32("a", &[1], &[-0.5])];
        let content = Content { metadata, tensors };
        content.write(&path).unwrap();
        assert_eq!(Content::read(&path).unwrap(), content);
        let bytes = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        for cut in [4, 20, bytes.len() - 1] {
            assert!(Content::parse(&bytes[..cut]).is_err(), "{cut}");
        }
    }
}
