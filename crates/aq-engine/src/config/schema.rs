//! The JSON Schema of configuration files.

use serde_json::{Map, Value, json};

use super::keys::{KEYS, Key};
use crate::profile::Profile;

/// The JSON Schema of configuration files, by which editors complete and check them: `docs/aq.schema.json`. It is made from the table that
/// files are read by.
pub fn schema() -> Value {
    let mut properties = Map::new();
    for key in KEYS {
        properties.insert(key.name.into(), property(key, key.help));
        for alias in key.aliases {
            properties.insert((*alias).into(), property(key, &format!("The same as {}.", key.name)));
        }
    }
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Configuration of aq quantize",
        "type": "object",
        "additionalProperties": false,
        "properties": properties,
    })
}

fn property(key: &Key, help: &str) -> Value {
    let mut property = json!({"description": help});
    let defaults = Profile::ALL.map(key.default);
    match &defaults {
        [Some(value), b, c] if Some(value) == b.as_ref() && b == c => {
            property["default"] = key.kind.of_text(value);
        }
        [Some(edge), Some(local), Some(cloud)] => {
            property["description"] =
                json!(format!("{help} By default {edge} (edge), {local} (local) or {cloud} (cloud)."));
        }
        _ => {}
    }
    if let (Some(property), Value::Object(kind)) = (property.as_object_mut(), key.kind.schema()) {
        property.extend(kind);
    }
    property
}
