//! A folder of safetensors files: one file, or shards with or without an index.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use aq_core::StoredTensor;
use serde::Deserialize;

use crate::joined::Joined;
use crate::json::{self, UniqueMap};
use crate::member::{names, resolve};
use crate::{Access, Format, IoError, Result, Source, safetensors};

/// What an index holds. `metadata.total_size` is known to be wrong in files in use and is not looked at.
#[derive(Debug, Deserialize)]
struct Index {
    weight_map: UniqueMap<String>,
}

/// The shards of an index and the tensors each must hold.
pub(crate) type Shards = BTreeMap<String, HashSet<String>>;

/// Opens a folder: by its index when there is one, else every `*.safetensors` file in it.
pub(crate) fn open(folder: &Path, access: Access) -> Result<Box<dyn Source>> {
    let names = names(folder)?;
    let files = match find_index(folder, &names)? {
        Some(index) => open_index(folder, index, access)?,
        None => open_files(folder, &names, access)?,
    };
    safetensors::recognise(files, folder)
}

/// Whether a folder holds safetensors files.
pub(crate) fn has_weights(folder: &Path) -> bool {
    names(folder).is_ok_and(|names| names.iter().any(|n| is_weights(n)))
}

fn is_weights(name: &str) -> bool {
    name.ends_with(".safetensors") && !name.starts_with('.')
}

/// The index of a folder. One of a variant (`model.safetensors.index.fp16.json`) counts only when there is no plain one.
fn find_index<'a>(folder: &Path, names: &'a [String]) -> Result<Option<&'a str>> {
    let found = |plain: bool| {
        let is_index =
            |n: &&str| n.contains(".safetensors.index.") && n.ends_with(".json") && !n.starts_with('.');
        let is_plain = |n: &str| n.ends_with(".safetensors.index.json") && plain_name(n).is_none();
        names.iter().map(String::as_str).filter(is_index).filter(|n| is_plain(n) == plain).collect::<Vec<_>>()
    };
    let plain = found(true);
    let candidates = if plain.is_empty() { found(false) } else { plain };
    match candidates[..] {
        [] => Ok(None),
        [index] => Ok(Some(index)),
        [a, b, ..] => Err(IoError::malformed(folder, format!("more than one index: {a} and {b}"))),
    }
}

/// The name without its variant: `model.safetensors` for `model.fp16.safetensors`, none for a plain name.
fn plain_name(name: &str) -> Option<String> {
    const VARIANTS: [&str; 5] = ["fp16", "fp32", "bf16", "ema", "non_ema"];
    VARIANTS.iter().find_map(|v| {
        let dot = format!(".{v}.");
        let dash = format!(".{v}-");
        let plain = name.replacen(&dot, ".", 1).replacen(&dash, "-", 1);
        (plain != name).then_some(plain)
    })
}

/// Parses an index and sorts its tensors by shard.
pub(crate) fn parse_index(bytes: &[u8], path: &Path) -> Result<Shards> {
    let index: Index = json::parse(bytes, path, "index")?;
    let mut shards = Shards::new();
    for (tensor, shard) in index.weight_map.0 {
        shards.entry(shard).or_default().insert(tensor);
    }
    match shards.is_empty() {
        true => Err(IoError::malformed(path, "the weight_map of the index is empty")),
        false => Ok(shards),
    }
}

/// Opens every shard of an index and compares its tensors with the index in both directions.
fn open_index(folder: &Path, name: &str, access: Access) -> Result<Box<dyn Source>> {
    let index = resolve(folder, name, &folder.join(name))?;
    let shards = parse_index(&json::read_bytes(&index, "index")?, &index)?;
    // All names are checked before the first shard is opened.
    let paths = shards.keys().map(|shard| resolve(folder, shard, &index)).collect::<Result<Vec<_>>>()?;
    let mut parts = Vec::new();
    for ((shard, listed), path) in shards.iter().zip(paths) {
        let source = safetensors::open_shard(&path, access)?;
        let held: HashSet<&str> = source.tensors().iter().map(name_of).collect();
        if let Some(missing) = listed.iter().filter(|t| !held.contains(t.as_str())).min() {
            let fact = format!("missing: the index says it is in {shard}, and it is not");
            return Err(IoError::tensor(&index, missing, fact));
        }
        if let Some(extra) = held.iter().filter(|t| !listed.contains(**t)).min() {
            return Err(IoError::tensor(&path, extra, "not in the index for this shard"));
        }
        parts.push(source);
    }
    join(folder, parts)
}

/// Opens the files of a folder that has no index; calibration samples beside the weights are not part of the model.
fn open_files(folder: &Path, names: &[String], access: Access) -> Result<Box<dyn Source>> {
    let weights: Vec<&String> = names.iter().filter(|n| is_weights(n)).collect();
    let is_kept =
        |name: &&&String| plain_name(name).is_none_or(|plain| !weights.iter().any(|w| **w == plain));
    let files: Vec<&str> = weights.iter().filter(is_kept).map(|n| n.as_str()).collect();
    if files.is_empty() {
        return Err(IoError::not_found(folder, "no .safetensors file in this folder"));
    }
    check_complete(folder, &files)?;
    let mut parts = Vec::new();
    for file in files {
        let part = safetensors::open_shard(&resolve(folder, file, folder)?, access)?;
        if !part.metadata().contains_key("aq.calibration") {
            parts.push(part);
        }
    }
    match parts.len() {
        0 => Err(IoError::not_found(folder, "no model in this folder, only calibration samples")),
        1 => Ok(parts.remove(0)),
        _ => join(folder, parts),
    }
}

/// Refuses `model-00001-of-00003.safetensors` without its two siblings: nothing else tells that tensors are missing.
fn check_complete(folder: &Path, files: &[&str]) -> Result<()> {
    let mut found: HashMap<(&str, &str), HashSet<u64>> = HashMap::new();
    for file in files {
        if let Some((stem, of, number)) = shard_number(file) {
            found.entry((stem, of)).or_default().insert(number);
        }
    }
    for ((stem, of), numbers) in found {
        let total = of.parse().unwrap_or(0);
        if numbers.len() as u64 != total {
            let fact =
                format!("{} of the {total} shards of {stem} are there; others are missing", numbers.len());
            return Err(IoError::not_found(folder, fact));
        }
    }
    Ok(())
}

/// The parts of `<stem>-<number>-of-<total>.safetensors`.
fn shard_number(file: &str) -> Option<(&str, &str, u64)> {
    let (rest, of) = file.strip_suffix(".safetensors")?.rsplit_once("-of-")?;
    let (stem, number) = rest.rsplit_once('-')?;
    of.parse::<u64>().ok()?;
    Some((stem, of, number.parse().ok()?))
}

fn join(folder: &Path, parts: Vec<Box<dyn Source>>) -> Result<Box<dyn Source>> {
    let mut metadata = BTreeMap::new();
    for part in parts.iter().rev() {
        metadata.extend(part.metadata().clone());
    }
    Ok(Box::new(Joined::new(folder, Format::Safetensors, parts, metadata)?))
}

fn name_of(tensor: &StoredTensor) -> &str {
    tensor.info.name()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variants_have_plain_names() {
        let check = |name: &str, plain: Option<&str>| assert_eq!(plain_name(name).as_deref(), plain);
        check("model.safetensors", None);
        check("model.fp16.safetensors", Some("model.safetensors"));
        check("m.fp16-00001-of-00002.safetensors", Some("m-00001-of-00002.safetensors"));
        assert_eq!(shard_number("m-00001-of-00002.safetensors"), Some(("m", "00002", 1)));
        assert_eq!(shard_number("m-a-of-b.safetensors"), None);
    }
}
