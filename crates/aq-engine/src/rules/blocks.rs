//! Blocks of a model by their number: the first, the last, the third to the fifth.

use std::collections::HashMap;

/// How many blocks each list of blocks of a model has, by the name of the list: `blocks`, `model.layers`, `down_blocks`.
///
/// A block is what the first number in a tensor's name counts, where at least two parts of the name follow, as in
/// `blocks.3.attn.qkv.weight`; `t_embedder.mlp.0.weight` is in none.
#[derive(Debug, Clone, Default)]
pub(crate) struct ModelBlocks {
    counts: HashMap<String, i64>,
}

impl ModelBlocks {
    /// Those of a model with tensors of these names.
    pub(crate) fn of<'a>(names: impl Iterator<Item = &'a str>) -> Self {
        let mut counts: HashMap<String, i64> = HashMap::new();
        for (list, number) in names.filter_map(place) {
            let count = counts.entry(list.to_string()).or_default();
            *count = (*count).max(number.saturating_add(1));
        }
        Self { counts }
    }
}

/// The list of blocks that a tensor is in and its number there.
fn place(name: &str) -> Option<(&str, i64)> {
    let mut start = name.find('.')? + 1;
    loop {
        let end = start + name[start..].find('.')?;
        if let Ok(number) = name[start..end].parse::<u32>() {
            let follows = name[end + 1..].contains('.');
            return follows.then_some((&name[..start - 1], i64::from(number)));
        }
        start = end + 1;
    }
}

/// Some blocks: `0` is the first of each list, `-1` the last, `0..2` the first two, `-2..` the last two; `down_blocks[0]` and the like are
/// of the lists of that name alone, and `blocks[0]` of all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BlockPattern {
    list: Option<String>,
    first: i64,
    /// Behind the last one; `None` for all from the first on.
    end: Option<i64>,
}

impl BlockPattern {
    /// Reads numbers, or a list's name with numbers in brackets; `None` for anything else.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (list, numbers) = match text.strip_suffix(']') {
            Some(text) => {
                let (list, numbers) = text.split_once('[')?;
                let is_name =
                    !list.is_empty() && list.chars().all(|c| c.is_alphanumeric() || "._".contains(c));
                (is_name.then_some(list)?, numbers)
            }
            None => ("blocks", text),
        };
        let number = |text: &str| text.parse::<i32>().ok().map(i64::from);
        let (first, end) = match numbers.split_once("..") {
            Some(("", "")) => return None,
            Some((first, end)) => {
                let first = if first.is_empty() { 0 } else { number(first)? };
                (first, if end.is_empty() { None } else { Some(number(end)?) })
            }
            None => {
                let one = number(numbers)?;
                // Behind the last block there is no number that counts from the end.
                (one, (one != -1).then_some(one + 1))
            }
        };
        Some(Self { list: (list != "blocks").then(|| list.to_string()), first, end })
    }

    /// Whether the tensor of that name is in one of them.
    pub(crate) fn matches(&self, name: &str, blocks: &ModelBlocks) -> bool {
        let Some((list, number)) = place(name) else { return false };
        let Some(&count) = blocks.counts.get(list) else { return false };
        let is_named = |wanted: &String| {
            list.strip_suffix(wanted.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        let from_start = |n: i64| if n < 0 { n + count } else { n };
        self.list.as_ref().is_none_or(is_named)
            && number >= from_start(self.first)
            && self.end.is_none_or(|end| number < from_start(end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Vec<String> {
        let block = |list: &str, n: u32| format!("{list}.{n}.attn.qkv.weight");
        let blocks = (0..28).map(|n| block("blocks", n)).chain((0..12).map(|n| block("model.layers", n)));
        let others = ["t_embedder.mlp.0.weight", "t_embedder.mlp.2.weight", "x.weight", "bias"];
        blocks.chain((0..4).map(|n| block("unet.down_blocks", n))).chain(others.map(String::from)).collect()
    }

    #[track_caller]
    fn chosen(pattern: &str) -> Vec<String> {
        let names = names();
        let blocks = ModelBlocks::of(names.iter().map(String::as_str));
        let pattern = BlockPattern::parse(pattern).expect("a good pattern");
        let short = |name: &String| name.strip_suffix(".attn.qkv.weight").map(str::to_string);
        names.iter().filter(|n| pattern.matches(n, &blocks)).filter_map(short).collect()
    }

    #[test]
    fn blocks_are_found_by_their_number() {
        assert_eq!(chosen("0"), ["blocks.0", "model.layers.0", "unet.down_blocks.0"]);
        assert_eq!(chosen("blocks[-1]"), ["blocks.27", "model.layers.11", "unet.down_blocks.3"]);
        assert_eq!(chosen("layers[0..2]"), ["model.layers.0", "model.layers.1"]);
        assert_eq!(chosen("model.layers[-2..]"), ["model.layers.10", "model.layers.11"]);
        assert_eq!(chosen("down_blocks[1..-1]"), ["unet.down_blocks.1", "unet.down_blocks.2"]);
        assert_eq!(chosen("down_blocks[..1]"), ["unet.down_blocks.0"]);
        assert_eq!(chosen("down_blocks[-4]"), ["unet.down_blocks.0"]);
        assert!(
            chosen("own_blocks[0]").is_empty()
                && chosen("layers[12]").is_empty()
                && chosen("2..1").is_empty()
        );
        assert_eq!(chosen("0..").len(), 44);
    }

    #[test]
    fn what_is_no_pattern_is_none() {
        for text in
            ["", "..", "blocks", "blocks[]", "[0]", "a b[0]", "blocks[0-9]", "0..x", "1.5", "99999999999"]
        {
            assert_eq!(BlockPattern::parse(text), None, "{text}");
        }
    }
}
