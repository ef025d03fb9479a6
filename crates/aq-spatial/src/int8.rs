//! Signed bytes with a scale a row, as ComfyUI and stable-diffusion.cpp multiply with them.

use aq_codec::{AffineRow, Rotation, Side, encoded_bytes, push_row};
use aq_core::{
    AffineEncoding, BitWidth, EncodedRows, Encoding, Estimate, GroupSize, LayerInputs, LayerPlan, LayerStats,
    OffsetKind, QuantStrategy, RowQuantizer, Rows, Scratch, StrategyError, StrategyId, TensorInfo,
    slab_count,
};
use aq_kernels::affine::min_max;
use aq_kernels::metric::first_non_finite;

use crate::exponent::{multiply, normalize, stored_exponent};
use crate::grid::round;
use crate::grouped::{self, count_rows, row_of, widen_row};

/// Symmetric round to nearest with a scale a row, ids `int8` and `convrot`: codes of 8 bits whose zero point is 128.
///
/// ```text
/// scale = f16(max|w| / 127)
/// code  = clamp(round_ties_even(w / scale), -127, 127) + 128
/// w    ~= (code - 128) * scale
/// ```
///
/// `convrot` rotates each 256 columns regularly first ([`Rotation::regular`]), where that divides a row; other rows are as `int8` has them.
/// Gains and importances are not used: at 8 bits there is next to nothing to gain, and other programs know neither.
#[derive(Debug, Clone, Copy)]
pub struct Int8 {
    rotates: bool,
}

const BITS: BitWidth = BitWidth::ALL[BitWidth::ALL.len() - 1];
/// The zero point of every row: codes less it are signed bytes.
const ZERO: f32 = 128.0;
/// Columns that are rotated together; other programs have fast kernels for this number.
const BLOCK: usize = 256;

impl Int8 {
    /// Without rotation, `int8`.
    pub const PLAIN: Self = Self { rotates: false };
    /// With it, `convrot`.
    pub const ROTATED: Self = Self { rotates: true };

    fn name(self) -> &'static str {
        if self.rotates { "convrot" } else { "int8" }
    }

    fn rotation(self, layer: &TensorInfo) -> Option<Rotation> {
        Rotation::regular(BLOCK, usize::try_from(layer.cols()).ok()?).filter(|_| self.rotates)
    }

    fn encoding() -> AffineEncoding {
        AffineEncoding { bits: BITS, group_size: GroupSize::ROW, offset: OffsetKind::ZeroPoint }
    }

    fn side(self, layer: &TensorInfo) -> Vec<u8> {
        Side { rotation: self.rotation(layer), ..Side::default() }.bytes()
    }
}

impl QuantStrategy for Int8 {
    fn id(&self) -> StrategyId {
        StrategyId::new(self.name())
    }

    fn supports(&self, layer: &TensorInfo) -> bool {
        grouped::supports(layer)
    }

    fn takes(&self, bits: BitWidth) -> bool {
        bits == BITS
    }

    fn estimate(&self, layer: &TensorInfo, _: &LayerStats<'_>, _: &LayerPlan) -> Estimate {
        let (encoding, transformed) = (Encoding::Affine(Self::encoding()), self.rotation(layer).is_some());
        let heads = if transformed { 4 * slab_count(layer, &encoding) } else { 0 };
        let bytes = encoded_bytes(layer, &encoding) + self.side(layer).len() as u64 + heads;
        Estimate { encoding, transformed, bytes, relative_mse: 7e-5, shared_bytes: 0 }
    }

    fn prepare<'a>(
        &'a self,
        layer: &LayerInputs<'a>,
        plan: &LayerPlan,
    ) -> Result<Box<dyn RowQuantizer + 'a>, StrategyError> {
        grouped::check(self.name(), layer)?;
        if self.rotates && (plan.rotation.is_some() || !plan.smoothing.is_off() || !plan.low_rank.is_off()) {
            let reason = "it rotates by itself and takes no other transform".into();
            let (strategy, tensor) = (self.name(), layer.info.name().into());
            return Err(StrategyError::Unsupported { strategy, tensor, reason });
        }
        let (info, rotation) = (layer.info, self.rotation(layer.info));
        let mut signs = Vec::new();
        if let Some(rotation) = rotation {
            rotation.signs(info.cols() as usize, &mut signs);
        }
        Ok(Box::new(Int8Rows { info, rotation, signs, side: self.side(info) }))
    }
}

/// A layer that is ready to be quantized.
struct Int8Rows<'a> {
    info: &'a TensorInfo,
    rotation: Option<Rotation>,
    signs: Vec<f32>,
    side: Vec<u8>,
}

impl RowQuantizer for Int8Rows<'_> {
    fn quantize_rows(
        &self,
        rows: Rows<'_>,
        scratch: &mut Scratch,
        out: &mut EncodedRows,
    ) -> Result<(), StrategyError> {
        let cols = self.info.cols() as usize;
        let count = count_rows(&rows, self.info.name(), cols)?;
        scratch.row.resize(cols, 0.0);
        scratch.codes.resize(cols, 0);
        for row in 0..count {
            widen_row(row_of(rows.data, row * cols, cols), &mut scratch.row);
            if let Some(rotation) = self.rotation {
                rotation.forward(&self.signs, &mut scratch.row);
                self.require_finite(&scratch.row)?;
            }
            push_symmetric(scratch, out);
        }
        Ok(())
    }

    fn side(&self) -> &[u8] {
        &self.side
    }
}

impl Int8Rows<'_> {
    fn require_finite(&self, row: &[f32]) -> Result<(), StrategyError> {
        match first_non_finite(row) {
            None => Ok(()),
            Some(_) => Err(StrategyError::Read {
                tensor: self.info.name().into(),
                reason: "holds values too large to be rotated".into(),
            }),
        }
    }
}

/// Quantizes the row in `scratch.row` and appends it to `out`.
fn push_symmetric(scratch: &mut Scratch, out: &mut EncodedRows) {
    let Scratch { row, codes, .. } = scratch;
    let exponent = normalize(row);
    let (low, high) = min_max(row);
    let largest = high.max(-low) / 127.0;
    let stored = stored_exponent(&[largest], &[], exponent);
    multiply(row, exponent - stored);
    let mut scale = [largest];
    multiply(&mut scale, exponent - stored);
    let scale = round(scale[0]);
    for (code, &w) in codes.iter_mut().zip(row.iter()) {
        let steps = if scale > 0.0 { (w / scale).round_ties_even() } else { 0.0 };
        *code = (steps.clamp(-127.0, 127.0) + ZERO) as u8;
    }
    let row = AffineRow { codes, scales: &[scale], offsets: &[ZERO], exponent: stored as i8 };
    push_row(&Int8::encoding(), row, out);
}
