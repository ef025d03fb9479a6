//! Groups whose weights are a scale or its negative, or 0.

mod fit;
mod row;

use aq_codec::encoded_bytes;
use aq_core::{
    BitWidth, EncodedRows, Encoding, Estimate, GroupSize, LayerInputs, LayerPlan, LayerStats, QuantStrategy,
    RowQuantizer, Rows, Scratch, SignEncoding, SignLevels, StrategyError, StrategyId, TensorInfo,
};

use crate::grouped::{self, each_row};
use row::RowEncoder;

/// Signs and a scale a group, ids `binary` (1 bit) and `ternary` (3 levels, five of them in a byte). Experimental.
///
/// ```text
/// minimise  sum(h * (w - scale * sign)^2)     h: importance of the input channel, or 1
///
/// binary    sign = -1 or 1       scale = sum(h |w|) / sum(h)
/// ternary   sign = -1, 0 or 1    scale = sum(h |w|) / sum(h) over the k largest |w|; k has the largest sum(h |w|)^2 / sum(h)
/// ```
///
/// Both are the optimum and no heuristic: for a given scale the best signs are 0 where `|w| <= scale / 2`, so one of the `k` is the best set.
/// That of Ternary Weight Networks (Li and Liu, arXiv 1605.04711) cuts at 0.7 times the mean of `|w|` instead; the scale of `binary` is that of
/// XNOR-Net (Rastegari et al., ECCV 2016). Models trained for such codes use them as they are; others lose much.
#[derive(Debug, Clone, Copy)]
pub struct Sign {
    levels: SignLevels,
}

impl Sign {
    /// Two levels, `binary`.
    pub const BINARY: Self = Self { levels: SignLevels::Binary };
    /// Three levels, `ternary`.
    pub const TERNARY: Self = Self { levels: SignLevels::Ternary };

    fn name(self) -> &'static str {
        match self.levels {
            SignLevels::Binary => "binary",
            SignLevels::Ternary => "ternary",
        }
    }

    fn encoding(self, plan: &LayerPlan) -> SignEncoding {
        SignEncoding { levels: self.levels, group_size: plan.group_size }
    }
}

impl QuantStrategy for Sign {
    fn id(&self) -> StrategyId {
        StrategyId::new(self.name())
    }

    fn supports(&self, layer: &TensorInfo) -> bool {
        grouped::supports(layer)
    }

    fn takes(&self, bits: BitWidth) -> bool {
        bits == self.levels.bits()
    }

    /// Bytes for more scales are better spent on any other codes.
    fn default_group_size(&self) -> Option<GroupSize> {
        Some(GroupSize::ROW)
    }

    fn caveat(&self) -> Option<&'static str> {
        Some(match self.levels {
            SignLevels::Binary => {
                "experimental: models quantized by entropy at a rate of 1.1 take as many bytes and make better results"
            }
            SignLevels::Ternary => {
                "experimental: models quantized by entropy at a rate of 1.7 take as many bytes and make better results"
            }
        })
    }

    fn estimate(&self, layer: &TensorInfo, _: &LayerStats<'_>, plan: &LayerPlan) -> Estimate {
        let encoding = Encoding::Sign(self.encoding(plan));
        let relative_mse = match self.levels {
            SignLevels::Binary => 0.3634,
            SignLevels::Ternary => 0.1902,
        };
        let bytes = encoded_bytes(layer, &encoding);
        Estimate { encoding, bytes, relative_mse, transformed: false, shared_bytes: 0 }
    }

    fn prepare<'a>(
        &'a self,
        layer: &LayerInputs<'a>,
        plan: &LayerPlan,
    ) -> Result<Box<dyn RowQuantizer + 'a>, StrategyError> {
        grouped::check(self.name(), layer)?;
        let encoder =
            RowEncoder { encoding: self.encoding(plan), gain: plan.gain, importance: layer.stats.importance };
        Ok(Box::new(SignRows { encoder, tensor: layer.info.name(), cols: layer.info.cols() as usize }))
    }
}

/// A layer that is ready to be quantized.
struct SignRows<'a> {
    encoder: RowEncoder<'a>,
    tensor: &'a str,
    cols: usize,
}

impl RowQuantizer for SignRows<'_> {
    fn quantize_rows(
        &self,
        rows: Rows<'_>,
        scratch: &mut Scratch,
        out: &mut EncodedRows,
    ) -> Result<(), StrategyError> {
        each_row(&rows, self.tensor, self.cols, scratch, |scratch| self.encoder.push(scratch, out))
    }
}
