//! Rules as a configuration file has them: `{match: '\.mlp\.', blocks: [0, -1], bits: 8}`.

use aq_core::{BitWidth, GroupSize, Rate};
use regex::Regex;
use serde_json::{Map, Value, json};

use super::blocks::BlockPattern;
use super::spec::{RuleSpec, cast};
use super::{Pattern, Rule, one_line};
use crate::{EngineError, Result};

/// The keys of a rule.
const KEYS: [&str; 8] = ["match", "blocks", "skip", "dtype", "bits", "rate", "method", "group_size"];

impl Rule {
    /// Reads a rule of a configuration file: `match` (a regular expression over names) and `blocks` (numbers of blocks, of which one has to fit) say
    /// where it applies, together when both are given. It has `skip: true`, `dtype: f16` or `bf16`, or any of `bits`, `rate`, `method` and `group_size`.
    ///
    /// # Errors
    /// [`EngineError::Config`] that names the rule and the key.
    ///
    /// ```
    /// use aq_engine::{Rule, RuleSpec};
    /// assert_eq!(Rule::read(&serde_json::json!({"match": "norm", "skip": true}))?.spec(), &RuleSpec::Skip);
    /// assert!(Rule::read(&serde_json::json!({"blocks": "0..2", "bits": 7})).is_err());
    /// # Ok::<(), aq_engine::EngineError>(())
    /// ```
    pub fn read(rule: &Value) -> Result<Self> {
        read(rule).map_err(|why| EngineError::Config(format!("rule {rule}: {why}")))
    }
}

fn read(rule: &Value) -> Result<Rule, String> {
    let map = rule.as_object().ok_or("expected keys and values")?;
    if let Some(key) = map.keys().find(|key| !KEYS.contains(&key.as_str())) {
        return Err(format!("{key}: {}", crate::config::unknown(key, KEYS.iter().copied())));
    }
    let names = map.get("match").map(|value| {
        let pattern = value.as_str().ok_or_else(|| format!("match: expected text, found {value}"))?;
        Regex::new(pattern).map_err(|e| format!("match: {}", one_line(&e.to_string())))
    });
    let pattern =
        Pattern { names: names.transpose()?, blocks: map.get("blocks").map_or(Ok(Vec::new()), blocks)? };
    if pattern.names.is_none() && pattern.blocks.is_empty() {
        return Err("it has neither match nor blocks".into());
    }
    Ok(Rule { text: rule.to_string(), pattern, spec: spec(map)? })
}

fn blocks(value: &Value) -> Result<Vec<BlockPattern>, String> {
    let items = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
    let one = |item: &Value| {
        let text = item.as_str().map_or_else(|| item.to_string(), str::to_string);
        BlockPattern::parse(&text).ok_or_else(|| {
            format!("blocks: expected a number, a range such as 0..2 or -2.., or NAME[0], found {item}")
        })
    };
    items.iter().map(one).collect()
}

fn spec(map: &Map<String, Value>) -> Result<RuleSpec, String> {
    let asked: Vec<&str> = KEYS[2..].iter().copied().filter(|&key| map.contains_key(key)).collect();
    match asked.as_slice() {
        [] => Err("it asks for nothing: give skip, dtype, bits, rate, method or group_size".into()),
        ["skip"] if map["skip"] == true => Ok(RuleSpec::Skip),
        ["dtype"] => map["dtype"]
            .as_str()
            .and_then(cast)
            .map(RuleSpec::Cast)
            .ok_or("dtype: expected f16 or bf16".into()),
        keys if keys.contains(&"skip") => Err("skip: expected true, and nothing beside it".into()),
        keys if keys.contains(&"dtype") => Err("dtype: expected nothing beside it".into()),
        _ => Ok(RuleSpec::Quantize {
            method: map.get("method").map(method).transpose()?,
            bits: number(map, "bits", BitWidth::new)?,
            rate: map.get("rate").map(rate).transpose()?,
            group_size: number(map, "group_size", GroupSize::new)?,
        }),
    }
}

fn method(value: &Value) -> Result<String, String> {
    value.as_str().map(str::to_ascii_lowercase).ok_or_else(|| format!("method: expected text, found {value}"))
}

fn rate(value: &Value) -> Result<Rate, String> {
    let rate = value.as_f64().ok_or_else(|| format!("rate: expected a number, found {value}"))?;
    Rate::new(rate).map_err(|e| format!("rate: {e}"))
}

fn number<N: TryFrom<u64>, T>(
    map: &Map<String, Value>,
    key: &str,
    new: impl Fn(N) -> Result<T, aq_core::CoreError>,
) -> Result<Option<T>, String> {
    let Some(value) = map.get(key) else { return Ok(None) };
    let number = value.as_u64().and_then(|n| N::try_from(n).ok());
    let number = number.ok_or_else(|| format!("{key}: expected a whole number, found {value}"))?;
    new(number).map(Some).map_err(|e| format!("{key}: {e}"))
}

/// What a JSON Schema says of a rule.
pub(crate) fn schema() -> Value {
    let blocks = json!({"type": ["integer", "string"], "pattern": r"^([\w.]+\[)?(-?\d+|-?\d*\.\.-?\d*)\]?$"});
    json!({
        "type": "object", "additionalProperties": false,
        "anyOf": [{"required": ["match"]}, {"required": ["blocks"]}],
        "properties": {
            "match": {"type": "string", "description": "Regular expression over the names of tensors."},
            "blocks": {"anyOf": [blocks, {"type": "array", "items": blocks}],
                       "description": "Numbers of blocks: 0 the first, -1 the last, 0..2 the first two; down_blocks[0] of one list of blocks."},
            "skip": {"const": true, "description": "Keep the tensor as it is."},
            "dtype": {"enum": ["f16", "bf16"], "description": "Keep the tensor, rounded to this type."},
            "bits": {"enum": BitWidth::with_one().collect::<Vec<_>>()},
            "rate": {"type": "number", "minimum": 0.5, "maximum": 8},
            "method": {"type": "string"},
            "group_size": {"type": "integer", "minimum": 0, "maximum": 1024, "multipleOf": 8},
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_of_files_are_read() {
        let rule = Rule::read(&json!({"match": "attn", "blocks": [0, "-2.."], "bits": 8, "group_size": 64}))
            .expect("good");
        let RuleSpec::Quantize { bits, group_size, method: None, rate: None } = rule.spec() else {
            panic!("{rule:?}")
        };
        assert_eq!((bits.map(|b| b.get()), group_size.map(|g| g.get())), (Some(8), Some(64)));
        assert_eq!(rule.text(), r#"{"match":"attn","blocks":[0,"-2.."],"bits":8,"group_size":64}"#);
        let cast = Rule::read(&json!({"match": "embed", "dtype": "bf16"})).expect("good");
        assert_eq!(cast.spec(), &RuleSpec::Cast(aq_core::DType::BF16));
    }

    #[test]
    fn what_is_wrong_with_a_rule_is_said() {
        for (rule, word) in [
            (json!("norm=skip"), "keys and values"),
            (json!({"bits": 4}), "neither match nor blocks"),
            (json!({"match": "norm"}), "asks for nothing"),
            (json!({"mach": "norm", "bits": 4}), "did you mean match?"),
            (json!({"match": "(", "bits": 4}), "match"),
            (json!({"match": "a", "bits": 7}), "bits"),
            (json!({"match": "a", "bits": 4.5}), "whole number"),
            (json!({"match": "a", "skip": false}), "skip"),
            (json!({"match": "a", "skip": true, "bits": 4}), "skip"),
            (json!({"match": "a", "dtype": "f8"}), "dtype"),
            (json!({"blocks": "first", "bits": 4}), "blocks"),
            (json!({"blocks": 0, "group_size": 20}), "group_size"),
        ] {
            let error = Rule::read(&rule).expect_err("refused");
            assert!(error.to_string().contains(word), "{error}");
            assert_eq!((error.exit_code(), error.to_string().lines().count()), (4, 1));
        }
    }
}
