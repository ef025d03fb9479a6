//! What happens to each tensor of a model.

use serde::{Deserialize, Serialize};

use crate::{BitWidth, GroupSize, Rate, TensorInfo};

/// Stable name of a strategy, written to files: `minmax`, `ls`, or `crate.name` for one from elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StrategyId(String);

impl StrategyId {
    /// Takes the name as it is.
    pub fn new(id: impl Into<String>) -> Self {
        Self(id.into())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for StrategyId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// How one layer is quantized.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerPlan {
    /// Strategy that decides the parameters.
    pub method: StrategyId,
    /// Bits of one code.
    pub bits: BitWidth,
    /// Weights that share a scale.
    pub group_size: GroupSize,
    /// Whether one factor per output row removes the shrinkage of the grid.
    pub gain: bool,
    /// Bits per weight for a codec of variable rate; `None` for as many as `bits`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// Seed of the rotation of the input axis; `None` for no rotation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<u64>,
    /// A low-rank part beside the codes.
    #[serde(default, skip_serializing_if = "LowRankPlan::is_off")]
    pub low_rank: LowRankPlan,
    /// A factor for each input channel.
    #[serde(default, skip_serializing_if = "SmoothingPlan::is_off")]
    pub smoothing: SmoothingPlan,
    /// Bits of the inputs at run time; `None` where they stay in floating point.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub act_bits: Option<BitWidth>,
    /// Whether the centers of input channels may be taken off before inputs are rounded.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub act_shift: bool,
    /// The most groups of timesteps whose inputs have a range of their own; `None` for as many as the job says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_groups: Option<u32>,
}

/// How each input channel of a layer is divided by a factor that its weights are multiplied by.
///
/// With `a` the largest magnitude of a channel over all timesteps and `w` that of its weights, the factor is:
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SmoothingPlan {
    /// 1.
    #[default]
    Off,
    /// That of the other formulas that leaves the least output error, or 1 where none leaves less.
    Auto,
    /// A power of the mean magnitude of the channel; the exponent leaves the least output error (AWQ).
    Awq,
    /// `sqrt(a / w)`, with `a` the mean over timesteps, weighted by how little they agree with the weights (PTQ4DiT).
    Ptq4dit,
    /// `a^alpha / w^(1 - alpha)` for an alpha in hundredths (SmoothQuant, DiTAS).
    Alpha(u8),
}

impl SmoothingPlan {
    /// Reads `off`, `auto`, `awq`, `ptq4dit`, `smoothquant` (an alpha of 0.5) or an alpha from 0 to 1.
    ///
    /// ```
    /// use aq_core::SmoothingPlan;
    /// assert_eq!(SmoothingPlan::parse("0.35"), Some(SmoothingPlan::Alpha(35)));
    /// assert_eq!(SmoothingPlan::parse("smoothquant"), Some(SmoothingPlan::Alpha(50)));
    /// assert_eq!((SmoothingPlan::parse("1.5"), SmoothingPlan::parse("some")), (None, None));
    /// ```
    pub fn parse(text: &str) -> Option<Self> {
        match text.to_ascii_lowercase().as_str() {
            "off" => Some(Self::Off),
            "auto" => Some(Self::Auto),
            "awq" => Some(Self::Awq),
            "ptq4dit" => Some(Self::Ptq4dit),
            "smoothquant" => Some(Self::Alpha(50)),
            alpha => {
                let alpha = alpha.parse::<f64>().ok().filter(|a| (0.0..=1.0).contains(a))?;
                Some(Self::Alpha((alpha * 100.0).round() as u8))
            }
        }
    }

    /// Whether there is none.
    pub fn is_off(&self) -> bool {
        *self == Self::Off
    }
}

/// Whether a layer gets a low-rank part, and of what rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LowRankPlan {
    /// None.
    #[default]
    Off,
    /// Of the best rank, where it lowers the error more than as many bytes of codes would.
    Auto,
    /// Of this rank.
    Rank(u8),
}

impl LowRankPlan {
    /// The largest rank.
    pub const MAX_RANK: u8 = 64;

    /// Reads `off`, `auto` or a rank from 1 to 64.
    ///
    /// ```
    /// use aq_core::LowRankPlan;
    /// assert_eq!(LowRankPlan::parse("8"), Some(LowRankPlan::Rank(8)));
    /// assert_eq!((LowRankPlan::parse("65"), LowRankPlan::parse("many")), (None, None));
    /// ```
    pub fn parse(text: &str) -> Option<Self> {
        match text.to_ascii_lowercase().as_str() {
            "off" => Some(Self::Off),
            "auto" => Some(Self::Auto),
            rank => rank.parse().ok().filter(|r| (1..=Self::MAX_RANK).contains(r)).map(Self::Rank),
        }
    }

    /// Whether there is none.
    pub fn is_off(&self) -> bool {
        *self == Self::Off
    }
}

impl LayerPlan {
    /// A plan with gain, at the rate of `bits`.
    ///
    /// ```
    /// use aq_core::{BitWidth, GroupSize, LayerPlan, Rate};
    /// let plan = LayerPlan::new("entropy", BitWidth::new(2)?, GroupSize::ROW);
    /// assert!(plan.gain);
    /// assert_eq!(plan.target_rate(), Rate::new(2.0)?);
    /// # Ok::<(), aq_core::CoreError>(())
    /// ```
    pub fn new(method: &str, bits: BitWidth, group_size: GroupSize) -> Self {
        Self {
            method: StrategyId::new(method),
            bits,
            group_size,
            gain: true,
            rate: None,
            rotation: None,
            low_rank: LowRankPlan::Off,
            smoothing: SmoothingPlan::Off,
            act_bits: None,
            act_shift: false,
            time_groups: None,
        }
    }

    /// The rate that a codec of variable rate aims at.
    pub fn target_rate(&self) -> Rate {
        self.rate.unwrap_or_else(|| self.bits.into())
    }
}

/// What happens to one tensor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "decision", rename_all = "snake_case")]
pub enum Decision {
    /// Quantize it.
    Quantize(LayerPlan),
    /// Keep it as it is.
    Keep {
        /// Why, in a few words for the report.
        reason: String,
    },
}

/// A tensor and its decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedTensor {
    /// The tensor as it lies in the source.
    pub info: TensorInfo,
    /// What happens to it.
    pub decision: Decision,
}

/// Every tensor of the output, in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Plan {
    /// Tensors in output order.
    pub tensors: Vec<PlannedTensor>,
}
