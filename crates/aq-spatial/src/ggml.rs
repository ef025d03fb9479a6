//! The block types of ggml, at the least squared error that a search finds.
//!
//! ```text
//! minimise  sum(h * (w - d * scale * value(code) + dmin * min)^2)     h: importance of the input channel, or 1
//! ```
//!
//! ggml's own quantizers weigh errors by the weights themselves where they have no importances, try each clip once, and round scales to integers
//! without looking back. Here scale and minimum of each group are fitted by least squares from several clips (`aq_kernels::groups`, all groups of a
//! block side by side); then the numbers that a block shares and the integers that are stored for its groups are chosen by coordinate descent
//! on the error of the weights that will be decoded (`shared.rs`). There is no gain: any other factor would enlarge the error.

mod shared;
mod single;

use aq_codec::encoded_bytes;
use aq_codec::ggml::{GgmlBlock, push_block};
use aq_core::{
    BitWidth, EncodedRows, Encoding, Estimate, GgmlType, LayerInputs, LayerPlan, LayerStats, QuantStrategy,
    RowQuantizer, Rows, Scratch, StrategyError, StrategyId, TensorInfo,
};
use aq_kernels::groups::{Grid, Groups, LANES, Lanes, codes};
use half::f16;

use crate::grouped::{self, each_row};

/// A block type of ggml; its id is the name in lower case, `q4_k`. Rows are whole blocks.
#[derive(Debug, Clone, Copy)]
pub struct GgmlBlocks(pub GgmlType);

impl GgmlBlocks {
    /// The strategy of every type.
    pub fn all() -> impl Iterator<Item = Self> {
        GgmlType::ALL.into_iter().map(Self)
    }
}

impl QuantStrategy for GgmlBlocks {
    fn id(&self) -> StrategyId {
        StrategyId::new(self.0.method())
    }

    fn supports(&self, layer: &TensorInfo) -> bool {
        grouped::supports(layer) && self.0.row_bytes(layer.cols()).is_some()
    }

    fn takes(&self, bits: BitWidth) -> bool {
        bits == self.0.bits()
    }

    fn estimate(&self, layer: &TensorInfo, _: &LayerStats<'_>, _: &LayerPlan) -> Estimate {
        let encoding = Encoding::Ggml(self.0);
        Estimate {
            encoding,
            transformed: false,
            bytes: encoded_bytes(layer, &encoding),
            relative_mse: gaussian_error(self.0),
            shared_bytes: 0,
        }
    }

    fn prepare<'a>(
        &'a self,
        layer: &LayerInputs<'a>,
        _: &LayerPlan,
    ) -> Result<Box<dyn RowQuantizer + 'a>, StrategyError> {
        grouped::check(self.0.method(), layer)?;
        let (kind, cols) = (self.0, layer.info.cols());
        if kind.row_bytes(cols).is_none() {
            let reason = format!("its rows of {cols} weights are no multiple of {}", kind.block_weights());
            let tensor = layer.info.name().to_string();
            return Err(StrategyError::Unsupported { strategy: kind.method(), tensor, reason });
        }
        let importance = layer.stats.importance;
        Ok(Box::new(GgmlRows { kind, importance, tensor: layer.info.name(), cols: cols as usize }))
    }
}

/// Relative squared error for Gaussian weights.
fn gaussian_error(kind: GgmlType) -> f64 {
    match kind {
        GgmlType::Q2_K => 0.0671,
        GgmlType::Q3_K => 0.0206,
        GgmlType::Q4_0 => 0.00655,
        GgmlType::Q4_1 => 0.00472,
        GgmlType::Q4_K => 0.00486,
        GgmlType::IQ4_NL => 0.00544,
        GgmlType::IQ4_XS => 0.0055,
        GgmlType::Q5_0 => 0.00162,
        GgmlType::Q5_1 => 0.00111,
        GgmlType::Q5_K => 0.00121,
        GgmlType::Q6_K => 0.000295,
        GgmlType::Q8_0 => 0.0000267,
    }
}

/// A layer that is ready to be quantized.
struct GgmlRows<'a> {
    kind: GgmlType,
    importance: Option<&'a [f32]>,
    tensor: &'a str,
    cols: usize,
}

impl RowQuantizer for GgmlRows<'_> {
    fn quantize_rows(
        &self,
        rows: Rows<'_>,
        scratch: &mut Scratch,
        out: &mut EncodedRows,
    ) -> Result<(), StrategyError> {
        each_row(&rows, self.tensor, self.cols, scratch, |scratch| {
            let row = std::mem::take(&mut scratch.row);
            match self.kind.group_weights() {
                16 => self.push_row(&row, scratch.own::<Room<16>>(), out),
                _ => self.push_row(&row, scratch.own::<Room<32>>(), out),
            }
            scratch.row = row;
            out.row_count += 1;
        })
    }
}

/// Room for 16 groups of `N` weights.
struct Room<const N: usize> {
    groups: Groups<N>,
    codes: [[u8; LANES]; N],
    block: GgmlBlock,
}

impl<const N: usize> Default for Room<N> {
    fn default() -> Self {
        Self { groups: Groups::default(), codes: [[0; LANES]; N], block: GgmlBlock::default() }
    }
}

impl GgmlRows<'_> {
    /// Quantizes a row, 16 groups at a time.
    fn push_row<const N: usize>(&self, row: &[f32], room: &mut Room<N>, out: &mut EncodedRows) {
        for (i, weights) in row.chunks(LANES * N).enumerate() {
            let importance = self.importance.map(|h| &h[i * LANES * N..][..weights.len()]);
            room.groups.load(weights, importance);
            let stored = match self.kind.block_weights() {
                32 => single::choose(self.kind, &room.groups),
                _ => shared::choose(self.kind, &room.groups),
            };
            codes(&room.groups, grid(self.kind), &stored.scale(), &stored.offset(), &mut room.codes);
            let lanes = self.kind.block_weights() / N;
            for block in 0..weights.len() / self.kind.block_weights() {
                stored.fill(block * lanes, lanes, &room.codes, first_code(self.kind), &mut room.block);
                push_block(self.kind, &room.block, out);
            }
        }
    }
}

/// The grid of a type's codes.
fn grid(kind: GgmlType) -> Grid {
    if aq_codec::ggml::is_nonlinear(kind) {
        return Grid::Nonlinear;
    }
    let bias = f32::from(aq_codec::ggml::bias(kind));
    match kind {
        // Products with signed bytes want no -128.
        GgmlType::Q8_0 => Grid::Integers { low: -127.0, high: 127.0 },
        _ => Grid::Integers { low: -bias, high: f32::from(kind.bits().max_code()) - bias },
    }
}

/// The code of the lowest value of the grid.
fn first_code(kind: GgmlType) -> u8 {
    let lowest = if aq_codec::ggml::is_nonlinear(kind) { 0.0 } else { grid(kind).ends().0 };
    aq_codec::ggml::bias(kind) - (-lowest) as u8
}

/// What is stored for 16 groups: `scale = d * scales`, `offset = -(dmin * mins)`. `d` and `dmin` are halves, the others whole numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Stored {
    d: Lanes,
    dmin: Lanes,
    scales: Lanes,
    mins: Lanes,
}

impl Stored {
    /// The scale that decoding sees. The product is exact: it has at most 19 bits.
    fn scale(&self) -> Lanes {
        std::array::from_fn(|l| self.d[l] * self.scales[l])
    }

    fn offset(&self) -> Lanes {
        std::array::from_fn(|l| -(self.dmin[l] * self.mins[l]))
    }

    /// Makes a block of the `lanes` groups from group `first` on.
    fn fill<const N: usize>(
        &self,
        first: usize,
        lanes: usize,
        codes: &[[u8; LANES]; N],
        first_code: u8,
        block: &mut GgmlBlock,
    ) {
        (block.d, block.dmin) = (f16::from_f32(self.d[first]), f16::from_f32(self.dmin[first]));
        for l in 0..lanes {
            block.scales[l] = self.scales[first + l] as i8;
            block.mins[l] = self.mins[first + l] as u8;
            for (code, codes) in block.codes[l * N..][..N].iter_mut().zip(codes) {
                *code = codes[first + l] + first_code;
            }
        }
    }
}

/// The nearest finite half.
fn round(value: f32) -> f32 {
    f16::from_f32(value).clamp(f16::MIN, f16::MAX).to_f32()
}
