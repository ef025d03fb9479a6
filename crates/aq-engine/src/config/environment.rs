//! Options from variables of the environment.

use super::keys::KEYS;
use crate::{EngineError, JobOptions, Result};

/// What variables of the environment say.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// The options.
    pub options: JobOptions,
    /// Variables that are no key's but nearly, in a sentence each.
    pub doubts: Vec<String>,
}

/// Variables of other programs and of other options.
const OTHERS: [&str; 4] = ["AQ_CONFIG", "AQ_SIMD", "AQ_BIN", "AQ_BLOCK_BYTES"];

/// Reads the variables `AQ_<KEY>`: every key of a configuration file, in capitals. Switches are `1`, `true`, `on` or `0`, `false`, `off`; lists are
/// separated by semicolons, and rules are JSON.
///
/// # Errors
/// [`EngineError::Config`] that names the variable and what is wrong with it.
///
/// ```
/// let variables = [("AQ_BITS", "3"), ("AQ_TENSOR_TYPE", "norm=skip;head=8"), ("PATH", "/bin")];
/// let read = aq_engine::read_environment(variables.map(|(k, v)| (k.to_string(), v.to_string())))?;
/// assert_eq!((read.options.bits, read.options.tensor_types.len()), (Some(3), 2));
/// # Ok::<(), aq_engine::EngineError>(())
/// ```
pub fn read_environment(variables: impl IntoIterator<Item = (String, String)>) -> Result<Environment> {
    let mut read = Environment::default();
    let mut ours: Vec<_> = variables.into_iter().filter(|(name, _)| name.starts_with("AQ_")).collect();
    ours.sort();
    for (name, text) in ours {
        let key = KEYS.iter().find(|key| key.variable() == name);
        match key {
            Some(key) => key
                .set(&mut read.options, &key.kind.of_text(&text))
                .map_err(|why| EngineError::Config(format!("{name}: {why}")))?,
            None if OTHERS.contains(&name.as_str()) => {}
            None => read.doubts.extend(doubt(&name)),
        }
    }
    Ok(read)
}

/// A sentence about a variable whose name is nearly that of a key.
fn doubt(name: &str) -> Option<String> {
    let near = |variable: &String| strsim::damerau_levenshtein(variable, name) <= 2;
    let nearest = KEYS.iter().map(super::keys::Key::variable).find(near)?;
    Some(format!("the variable {name} means nothing; did you mean {nearest}?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Environment> {
        read_environment(variables.iter().map(|(k, v)| (k.to_string(), v.to_string())))
    }

    #[test]
    fn every_key_has_its_variable() {
        for key in KEYS {
            let value = serde_saphyr::from_str::<serde_json::Value>(key.example).expect("a YAML value");
            let text = match &value {
                serde_json::Value::String(text) => text.clone(),
                serde_json::Value::Array(items) if key.name != "rules" => {
                    items.iter().filter_map(|i| i.as_str()).collect::<Vec<_>>().join(";")
                }
                other => other.to_string(),
            };
            let by_variable = read(&[(&key.variable(), &text)]).expect(key.name).options;
            let mut by_file = JobOptions::default();
            key.set(&mut by_file, &value).expect(key.name);
            assert_eq!(format!("{by_variable:?}"), format!("{by_file:?}"), "{}", key.name);
            assert_ne!(format!("{by_file:?}"), format!("{:?}", JobOptions::default()), "{}", key.name);
        }
    }

    #[test]
    fn wrong_values_and_doubtful_names_are_told() {
        let error = read(&[("AQ_BITS", "many")]).expect_err("refused");
        assert_eq!(error.to_string(), "AQ_BITS: expected 1, 2, 3, 4, 5, 6 or 8, found \"many\"");
        let doubts =
            read(&[("AQ_BITTS", "3"), ("AQ_SIMD", "scalar"), ("AQ_WHATEVER", "x")]).expect("read").doubts;
        assert_eq!(doubts, ["the variable AQ_BITTS means nothing; did you mean AQ_BITS?"]);
    }
}
