//! Groups whose weights take the values of a small table times a scale.

mod row;
mod table;

use aq_codec::encoded_bytes;
use aq_core::{
    BitWidth, CodebookEncoding, EncodedRows, Encoding, Estimate, LayerInputs, LayerPlan, LayerStats,
    QuantStrategy, RowQuantizer, Rows, Scratch, StrategyError, StrategyId, TensorInfo,
};

use crate::grouped::{self, each_row, expect_length};
use row::{RowEncoder, ScaleRule};

/// A table of least squared error and fitted scales, id `codebook`: 2, 3 or 4 bits.
///
/// ```text
/// minimise  sum(h * (w - scale * table[code])^2)     h: importance of the input channel, or 1
/// ```
///
/// The table starts as the one of least squared error for Gaussian weights (Max, "Quantizing for minimum distortion", 1960).
/// Where the weights of the layer are at hand it is trained on evenly spaced rows of it by Lloyd's iteration ("Least squares
/// quantization in PCM", 1982): codes for the scales, scales for the codes, then each value becomes the mean of its weights. The scale of a group
/// starts at several multiples of the root mean square of its weights; codes and scale are then fitted in turn. The table is
/// stored as f16 in every slab, a scale as one f16 a group.
#[derive(Debug, Clone, Copy, Default)]
pub struct Codebook;

/// The fixed table of 4-bit NormalFloat, id `nf4`, for comparison with and weights from tools that use it; 4 bits only.
///
/// ```text
/// scale = f16(largest |w| of the group)     w ~= scale * table[code]
/// ```
///
/// The values are quantiles of a normal distribution (Dettmers et al., "QLoRA", 2023, arXiv 2305.14314), rounded to f16 here. They
/// are as probable as one another, which is not what makes the squared error least. Importance is not used.
#[derive(Debug, Clone, Copy, Default)]
pub struct Nf4;

impl QuantStrategy for Codebook {
    fn id(&self) -> StrategyId {
        StrategyId::new("codebook")
    }

    fn supports(&self, layer: &TensorInfo) -> bool {
        grouped::supports(layer)
    }

    fn takes(&self, bits: BitWidth) -> bool {
        (2..=4).contains(&bits.get())
    }

    fn estimate(&self, layer: &TensorInfo, _: &LayerStats<'_>, plan: &LayerPlan) -> Estimate {
        estimate(layer, plan, [0.1142, 0.0317, 0.00805])
    }

    fn prepare<'a>(
        &'a self,
        layer: &LayerInputs<'a>,
        plan: &LayerPlan,
    ) -> Result<Box<dyn RowQuantizer + 'a>, StrategyError> {
        check(self, "codebook", layer, plan)?;
        let table = table::trained(layer, plan)?;
        prepare(layer, RowEncoder::new(table, ScaleRule::Fitted, plan, layer.stats.importance))
    }
}

impl QuantStrategy for Nf4 {
    fn id(&self) -> StrategyId {
        StrategyId::new("nf4")
    }

    fn supports(&self, layer: &TensorInfo) -> bool {
        grouped::supports(layer)
    }

    fn takes(&self, bits: BitWidth) -> bool {
        bits.get() == 4
    }

    fn estimate(&self, layer: &TensorInfo, _: &LayerStats<'_>, plan: &LayerPlan) -> Estimate {
        estimate(layer, plan, [0.357, 0.0439, 0.00913])
    }

    fn prepare<'a>(
        &'a self,
        layer: &LayerInputs<'a>,
        plan: &LayerPlan,
    ) -> Result<Box<dyn RowQuantizer + 'a>, StrategyError> {
        check(self, "nf4", layer, plan)?;
        prepare(layer, RowEncoder::new(table::nf4(), ScaleRule::Largest, plan, None))
    }
}

fn encoding(plan: &LayerPlan) -> CodebookEncoding {
    CodebookEncoding { bits: plan.bits, group_size: plan.group_size }
}

/// Exact bytes, and the error at 2, 3 and 4 bits.
fn estimate(layer: &TensorInfo, plan: &LayerPlan, relative_mse: [f64; 3]) -> Estimate {
    let encoding = Encoding::Codebook(encoding(plan));
    let relative_mse = relative_mse[usize::from(plan.bits.get().min(4)) - 2];
    Estimate {
        encoding,
        bytes: encoded_bytes(layer, &encoding),
        relative_mse,
        transformed: false,
        shared_bytes: 0,
    }
}

fn check(
    strategy: &dyn QuantStrategy,
    id: &'static str,
    layer: &LayerInputs<'_>,
    plan: &LayerPlan,
) -> Result<(), StrategyError> {
    let tensor = layer.info.name();
    let reason = grouped::refusal(layer.info)
        .or_else(|| (!strategy.takes(plan.bits)).then(|| format!("it has no table of {} bits", plan.bits)));
    if let Some(reason) = reason {
        return Err(StrategyError::Unsupported { strategy: id, tensor: tensor.into(), reason });
    }
    let (given, cols) = (layer.stats.importance.map(<[f32]>::len), layer.info.cols() as usize);
    expect_length("importance", tensor, given.unwrap_or(cols), cols)
}

fn prepare<'a>(
    layer: &LayerInputs<'a>,
    encoder: RowEncoder<'a>,
) -> Result<Box<dyn RowQuantizer + 'a>, StrategyError> {
    Ok(Box::new(CodebookRows { encoder, tensor: layer.info.name(), cols: layer.info.cols() as usize }))
}

/// A layer that is ready to be quantized.
struct CodebookRows<'a> {
    encoder: RowEncoder<'a>,
    tensor: &'a str,
    cols: usize,
}

impl RowQuantizer for CodebookRows<'_> {
    fn quantize_rows(
        &self,
        rows: Rows<'_>,
        scratch: &mut Scratch,
        out: &mut EncodedRows,
    ) -> Result<(), StrategyError> {
        each_row(&rows, self.tensor, self.cols, scratch, |scratch| self.encoder.push(scratch, out))
    }
}
