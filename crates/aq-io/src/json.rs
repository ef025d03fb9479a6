//! JSON from untrusted files: bounded in size, without duplicate keys.

use std::fmt;
use std::marker::PhantomData;
use std::path::Path;

use serde::de::{Deserialize, DeserializeOwned, Deserializer, Error, MapAccess, Visitor};

use crate::file_bytes::FileBytes;
use crate::{Access, IoError, Result};

/// The largest index or manifest that is read.
pub(crate) const MAX_BYTES: u64 = 64 << 20;

/// The deepest nesting that is read.
const MAX_DEPTH: usize = 64;

/// Refuses text that is nested too deep, be it valid JSON or not; `what` names it in messages.
pub(crate) fn check_depth(bytes: &[u8], path: &Path, what: &str) -> Result<()> {
    let (mut depth, mut quoted, mut escaped) = (0usize, false, false);
    for &byte in bytes {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = quoted,
            b'"' => quoted = !quoted,
            b'{' | b'[' if !quoted => depth += 1,
            b'}' | b']' if !quoted => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_DEPTH {
            return Err(IoError::malformed(
                path,
                format!("the JSON of the {what} is nested more than {MAX_DEPTH} deep"),
            ));
        }
    }
    Ok(())
}

/// Parses JSON; `what` names it in messages.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8], path: &Path, what: &str) -> Result<T> {
    check_depth(bytes, path, what)?;
    serde_json::from_slice(bytes)
        .map_err(|e| IoError::malformed(path, format!("the {what} is not valid JSON: {e}")))
}

/// All bytes of a file of at most [`MAX_BYTES`].
pub(crate) fn read_bytes(path: &Path, what: &str) -> Result<Vec<u8>> {
    let file = FileBytes::open(path, Access::Positioned)?;
    if file.len() > MAX_BYTES {
        return Err(IoError::malformed(path, format!("the {what} is larger than {MAX_BYTES} bytes")));
    }
    let mut bytes = vec![0; file.len() as usize];
    file.read_exact_at(0, &mut bytes)?;
    Ok(bytes)
}

/// A JSON object in file order. A key that comes twice is an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UniqueMap<V>(pub(crate) Vec<(String, V)>);

impl<'de, V: Deserialize<'de>> Deserialize<'de> for UniqueMap<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs<V>(PhantomData<V>);
        impl<'de, V: Deserialize<'de>> Visitor<'de> for Pairs<V> {
            type Value = Vec<(String, V)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(pairs)
            }
        }
        let pairs = deserializer.deserialize_map(Pairs(PhantomData))?;
        match duplicate(pairs.iter().map(|(key, _)| key.as_str())) {
            Some(key) => Err(D::Error::custom(format!("duplicate key {key:?}"))),
            None => Ok(Self(pairs)),
        }
    }
}

/// A name that comes twice, if there is one.
pub(crate) fn duplicate<'a>(names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let mut sorted: Vec<&str> = names.collect();
    sorted.sort_unstable();
    sorted.windows(2).find_map(|pair| match pair {
        [a, b] if a == b => Some(*a),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_comes_twice_is_refused() {
        let path = Path::new("x");
        let good: UniqueMap<u8> = parse(br#"{"b":1,"a":2}"#, path, "test").expect("valid");
        assert_eq!(good.0, [("b".to_string(), 1), ("a".to_string(), 2)]);
        let twice = parse::<UniqueMap<u8>>(br#"{"b":1,"\u0062":2}"#, path, "test").expect_err("twice");
        assert!(twice.to_string().contains("duplicate key \"b\""), "{twice}");
    }

    #[test]
    fn nesting_is_counted_outside_of_strings() {
        let check = |text: &str| check_depth(text.as_bytes(), Path::new("x"), "test").is_ok();
        assert!(check(&"[".repeat(64)) && !check(&"[".repeat(65)));
        assert!(check(&"[]".repeat(99)) && check(&format!("\"\\\"{}\"", "{".repeat(99))));
        assert!(!check(&format!("\"\\\\\"{}", "{".repeat(99))));
    }
}
