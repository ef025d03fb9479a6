//! Says what is in a file.

use std::path::Path;

use aq_core::Encoding;
use aq_io::{Access, Source};
use serde_json::{Value, json};

use crate::Result;

/// Opens any file or folder we read, headers only.
///
/// # Errors
/// When it cannot be read.
pub fn inspect(path: &Path) -> Result<Box<dyn Source>> {
    Ok(aq_io::open(path, Access::Positioned)?)
}

/// The resolved settings that a file of ours was made with, by name; none where it does not say.
pub fn settings(source: &dyn Source) -> Vec<(String, Value)> {
    let parsed = |key| serde_json::from_str::<Value>(source.metadata().get(key)?).ok();
    let of_plan = parsed("aq.plan").and_then(|mut plan| plan.get_mut("settings").map(Value::take));
    let settings = of_plan.or_else(|| parsed("aq.settings"));
    let Some(Value::Object(settings)) = settings else { return Vec::new() };
    settings.into_iter().filter(|(_, value)| !value.is_null()).collect()
}

/// The JSON object of `aq inspect --json`.
pub fn inspect_json(source: &dyn Source) -> Value {
    let tensors: Vec<Value> = source
        .tensors()
        .iter()
        .enumerate()
        .map(|(i, t)| {
            let mut row = json!({"name": t.info.name(), "shape": t.info.shape()});
            match t.encoding {
                Encoding::Raw => {
                    row["dtype"] = json!(t.info.dtype());
                    row["bits"] = json!(t.info.dtype().size() * 8);
                    row["group_size"] = Value::Null;
                }
                encoding => {
                    let (bits, group_size) = encoding.bits_and_group();
                    row["codec"] = json!(t.codec());
                    row["src_dtype"] = json!(t.info.dtype());
                    row["bits"] = json!(bits);
                    row["group_size"] = json!(group_size);
                }
            }
            row["bytes"] = json!(source.stored_bytes(i));
            row
        })
        .collect();
    json!({
        "schema": "aq.inspect/1", "format": source.format().name(), "metadata": source.metadata(),
        "settings": settings(source).into_iter().collect::<serde_json::Map<_, _>>(), "tensors": tensors,
    })
}
