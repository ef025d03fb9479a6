//! What a rule asks for.

use aq_core::{BitWidth, DType, GroupSize, Rate};

/// What a rule asks for; absent parts come from the job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RuleSpec {
    /// Keep the tensor as it is.
    Skip,
    /// Keep the tensor, rounded to this floating-point type.
    Cast(DType),
    /// Quantize it, even where a skip list would keep it if the rule names tensors and not blocks.
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

impl RuleSpec {
    /// Reads `skip`, `f16`, `bf16`, bits (`4`, `int4`), a method, or `method:bits[:group]`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn parse(spec: &str) -> Result<Self, String> {
        if spec.eq_ignore_ascii_case("skip") {
            return Ok(RuleSpec::Skip);
        }
        if let Some(dtype) = cast(spec) {
            return Ok(RuleSpec::Cast(dtype));
        }
        let parts: Vec<&str> = spec.split(':').map(str::trim).collect();
        let (method, (bits, rate), group) = match parts.as_slice() {
            [one] => match parse_bits(one) {
                Some(bits) => (None, (Some(bits?), None), None),
                None => (Some(*one), (None, None), None),
            },
            [method, bits] => (Some(*method), some_bits(bits)?, None),
            [method, bits, group] => (Some(*method), some_bits(bits)?, Some(*group)),
            _ => return Err("expected bits, skip, f16, bf16 or method:bits:group".into()),
        };
        let method = method.filter(|m| !m.is_empty());
        if let Some(m) = method.filter(|m| !m.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c)))
        {
            return Err(format!("{m:?} is neither bits, skip, f16, bf16 nor a method"));
        }
        let group_size = group
            .map(|g| g.parse::<u32>().map_err(|_| format!("{g:?} is not a group size")))
            .transpose()?
            .map(|g| GroupSize::new(g).map_err(|e| e.to_string()))
            .transpose()?;
        Ok(RuleSpec::Quantize { method: method.map(str::to_ascii_lowercase), bits, rate, group_size })
    }
}

/// A floating-point type of 16 bits.
pub(super) fn cast(text: &str) -> Option<DType> {
    match text.to_ascii_lowercase().as_str() {
        "f16" => Some(DType::F16),
        "bf16" => Some(DType::BF16),
        _ => None,
    }
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
