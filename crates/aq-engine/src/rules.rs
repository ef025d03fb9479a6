//! Rules for some tensors: `--tensor-type REGEX=SPEC`, and `rules` of a configuration file.

mod blocks;
mod mapping;
mod spec;

use regex::Regex;

use crate::{EngineError, Result};

pub(crate) use blocks::ModelBlocks;
pub(crate) use mapping::schema;
pub use spec::RuleSpec;

use blocks::BlockPattern;

/// Where a rule applies and what it asks for; the first rule that applies wins.
#[derive(Debug, Clone)]
pub struct Rule {
    text: String,
    pattern: Pattern,
    spec: RuleSpec,
}

/// Where a rule applies: to tensors of matching names, in one of these blocks; what is not given fits all.
#[derive(Debug, Clone)]
struct Pattern {
    names: Option<Regex>,
    blocks: Vec<BlockPattern>,
}

impl Rule {
    /// Reads `PATTERN=SPEC`. PATTERN is a regular expression over names, or some blocks by their number: `blocks[0]`, `blocks[-1]`,
    /// `layers[0..2]`. SPEC is `skip`, `f16`, `bf16`, bits (`4`, `int4`), a method, or `method:bits[:group]` (`ls:3:64`, `:8`). Bits may have a
    /// fraction for a method of variable rate (`entropy:2.1`).
    ///
    /// # Errors
    /// [`EngineError::Config`] that names the rule.
    ///
    /// ```
    /// use aq_engine::{Rule, RuleSpec};
    /// let rule = Rule::parse(r"\.mlp\.=ls:3:64")?;
    /// assert!(matches!(rule.spec(), RuleSpec::Quantize { .. }));
    /// assert_eq!(Rule::parse("norm=skip")?.spec(), &RuleSpec::Skip);
    /// assert!(Rule::parse("norm=7").is_err());
    /// # Ok::<(), aq_engine::EngineError>(())
    /// ```
    pub fn parse(text: &str) -> Result<Self> {
        let bad = |why: String| EngineError::Config(format!("rule {text:?}: {why}"));
        let (pattern, spec) = text.rsplit_once('=').ok_or_else(|| bad("expected REGEX=SPEC".into()))?;
        let pattern = match BlockPattern::parse(pattern).filter(|_| pattern.ends_with(']')) {
            Some(blocks) => Pattern { names: None, blocks: vec![blocks] },
            None => {
                let names = Regex::new(pattern).map_err(|e| bad(one_line(&e.to_string())))?;
                Pattern { names: Some(names), blocks: Vec::new() }
            }
        };
        let spec = RuleSpec::parse(spec.trim()).map_err(bad)?;
        Ok(Self { text: text.into(), pattern, spec })
    }

    /// Whether the rule applies to the tensor of that name in a model with these blocks.
    pub(crate) fn matches(&self, name: &str, blocks: &ModelBlocks) -> bool {
        let Pattern { names, blocks: chosen } = &self.pattern;
        names.as_ref().is_none_or(|names| names.is_match(name))
            && (chosen.is_empty() || chosen.iter().any(|c| c.matches(name, blocks)))
    }

    /// Whether it chooses blocks, and so changes how tensors are quantized but not which.
    pub(crate) fn is_of_blocks(&self) -> bool {
        !self.pattern.blocks.is_empty()
    }

    /// What it asks for.
    pub fn spec(&self) -> &RuleSpec {
        &self.spec
    }

    /// The rule as it was given.
    pub fn text(&self) -> &str {
        &self.text
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use aq_core::{BitWidth, DType, GroupSize, Rate};

    use super::*;

    #[track_caller]
    fn spec(text: &str) -> RuleSpec {
        Rule::parse(text).expect("a good rule").spec().clone()
    }

    #[test]
    fn specs_are_read() {
        let quantize = |method: Option<&str>, bits: Option<u8>, group: Option<u32>| RuleSpec::Quantize {
            method: method.map(str::to_string),
            bits: bits.map(|b| BitWidth::new(b).expect("valid")),
            rate: None,
            group_size: group.map(|g| GroupSize::new(g).expect("valid")),
        };
        assert_eq!(spec("a=4"), quantize(None, Some(4), None));
        assert_eq!(spec("a=b=int8"), quantize(None, Some(8), None));
        assert_eq!(spec("a=LS"), quantize(Some("ls"), None, None));
        assert_eq!(spec("a=minmax:2:0"), quantize(Some("minmax"), Some(2), Some(0)));
        assert_eq!(spec("a=:8"), quantize(None, Some(8), None));
        assert_eq!(spec("a=BF16"), RuleSpec::Cast(DType::BF16));
        let rate = Some(Rate::new(2.1).expect("valid"));
        let entropy =
            RuleSpec::Quantize { method: Some("entropy".into()), bits: None, rate, group_size: None };
        assert_eq!(spec("a=entropy:2.1"), entropy);
        for bad in ["a", "a=entropy:0.1", "(=4", "a=7", "a=ls:x", "a=ls:4:5", "a=ls:4:64:1", "a=4 bits"] {
            assert!(Rule::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_and_blocks_have_to_fit_both() {
        let names =
            ["blocks.0.attn.weight", "blocks.1.attn.weight", "blocks.2.attn.weight", "blocks.2.mlp.weight"];
        let blocks = ModelBlocks::of(names.into_iter());
        let chosen = |rule: Rule| names.into_iter().filter(|n| rule.matches(n, &blocks)).count();
        assert_eq!(chosen(Rule::parse("attn=4").expect("good")), 3);
        assert_eq!(chosen(Rule::parse("blocks[-1]=8").expect("good")), 2);
        assert_eq!(chosen(Rule::parse("blocks.[0-9]=8").expect("a regular expression")), 4);
        let both = serde_json::json!({"match": "attn", "blocks": ["blocks[0]", -1], "bits": 8});
        assert_eq!(chosen(Rule::read(&both).expect("good")), 2);
    }
}
