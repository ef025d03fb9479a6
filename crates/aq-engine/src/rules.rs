//! Per-tensor rules: `--tensor-type REGEX=SPEC`.

use aq_core::{BitWidth, GroupSize, Rate};
use regex::Regex;

use crate::{EngineError, Result};

/// What a rule asks for; absent parts come from the job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RuleSpec {
    /// Keep the tensor as it is.
    Skip,
    /// Quantize it, even where a skip list would keep it.
    Quantize {
        /// Strategy.
        method: Option<String>,
        /// Bits.
        bits: Option<BitWidth>,
        /// Bits per weight, for a method of variable rate.
        rate: Option<Rate>,
        /// Group size.
        group_size: Option<GroupSize>,
    },
}

/// A pattern over tensor names and what to do with a match; the first matching rule wins.
#[derive(Debug, Clone)]
pub struct Rule {
    text: String,
    pattern: Regex,
    spec: RuleSpec,
}

impl Rule {
    /// Reads `REGEX=SPEC`: SPEC is `skip`, bits (`4`, `int4`), a method, or `method:bits[:group]` (`ls:3:64`, `:8`). Bits may
    /// have a fraction for a method of variable rate (`entropy:2.1`).
    ///
    /// # Errors
    /// [`EngineError::Config`] that names the rule.
    ///
    /// ```
    /// use aq_engine::{Rule, RuleSpec};
    /// let rule = Rule::parse(r"\.mlp\.=ls:3:64")?;
    /// assert!(rule.matches("blocks.0.mlp.fc1.weight"));
    /// assert_eq!(Rule::parse("norm=skip")?.spec(), &RuleSpec::Skip);
    /// assert!(Rule::parse("norm=7").is_err());
    /// # Ok::<(), aq_engine::EngineError>(())
    /// ```
    pub fn parse(text: &str) -> Result<Self> {
        let bad = |why: String| EngineError::Config(format!("rule {text:?}: {why}"));
        let (pattern, spec) = text.rsplit_once('=').ok_or_else(|| bad("expected REGEX=SPEC".into()))?;
        let pattern = Regex::new(pattern).map_err(|e| bad(one_line(&e.to_string())))?;
        let spec = parse_spec(spec.trim()).map_err(bad)?;
        Ok(Self { text: text.into(), pattern, spec })
    }

    /// Whether the rule applies to a tensor of that name.
    pub fn matches(&self, name: &str) -> bool {
        self.pattern.is_match(name)
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

fn parse_spec(spec: &str) -> Result<RuleSpec, String> {
    if spec.eq_ignore_ascii_case("skip") {
        return Ok(RuleSpec::Skip);
    }
    let parts: Vec<&str> = spec.split(':').map(str::trim).collect();
    let (method, (bits, rate), group) = match parts.as_slice() {
        [one] => match parse_bits(one) {
            Some(bits) => (None, (Some(bits?), None), None),
            None => (Some(*one), (None, None), None),
        },
        [method, bits] => (Some(*method), some_bits(bits)?, None),
        [method, bits, group] => (Some(*method), some_bits(bits)?, Some(*group)),
        _ => return Err("expected bits, skip or method:bits:group".into()),
    };
    let method = method.filter(|m| !m.is_empty());
    if let Some(m) = method.filter(|m| !m.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))) {
        return Err(format!("{m:?} is neither bits, skip nor a method"));
    }
    let group_size = group
        .map(|g| g.parse::<u32>().map_err(|_| format!("{g:?} is not a group size")))
        .transpose()?
        .map(|g| GroupSize::new(g).map_err(|e| e.to_string()))
        .transpose()?;
    Ok(RuleSpec::Quantize { method: method.map(str::to_ascii_lowercase), bits, rate, group_size })
}

/// Nothing, a bit width, or a rate with a fraction.
fn some_bits(text: &str) -> Result<(Option<BitWidth>, Option<Rate>), String> {
    if text.is_empty() {
        return Ok((None, None));
    }
    if let Some(rate) = text.parse::<f64>().ok().filter(|_| text.contains('.')) {
        return Rate::new(rate).map(|rate| (None, Some(rate))).map_err(|e| e.to_string());
    }
    let bits = parse_bits(text).ok_or_else(|| format!("{text:?} is not a bit width"))??;
    Ok((Some(bits), None))
}

/// Bits when `text` is a number, with or without `int` or `q` before it; the number may still be refused.
fn parse_bits(text: &str) -> Option<Result<BitWidth, String>> {
    let lower = text.to_ascii_lowercase();
    let digits = lower.strip_prefix("int").or_else(|| lower.strip_prefix('q')).unwrap_or(&lower);
    let number: u8 = digits.parse().ok()?;
    Some(BitWidth::new(number).map_err(|e| e.to_string()))
}

#[cfg(test)]
mod tests {
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
        let rate = Some(Rate::new(2.1).expect("valid"));
        let entropy =
            RuleSpec::Quantize { method: Some("entropy".into()), bits: None, rate, group_size: None };
        assert_eq!(spec("a=entropy:2.1"), entropy);
        for bad in ["a", "a=entropy:0.1", "(=4", "a=7", "a=ls:x", "a=ls:4:5", "a=ls:4:64:1", "a=4 bits"] {
            assert!(Rule::parse(bad).is_err(), "{bad}");
        }
    }
}
