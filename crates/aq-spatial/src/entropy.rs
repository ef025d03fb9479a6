//! The entropy-coded uniform grid: the strategy, and what the rows of a layer share.

mod controller;
mod layer;
mod rows;
mod tile;
mod trial;

use aq_codec::encoded_bytes;
use aq_core::{
    Encoding, Estimate, LayerInputs, LayerPlan, LayerStats, QuantStrategy, RowQuantizer, StrategyError,
    StrategyId, TensorInfo,
};

use crate::entropy::layer::EntropyLayer;
use crate::entropy::rows::EntropyRows;
use crate::entropy::trial::sample_bytes;
use crate::grouped;
use crate::hessian;

/// A uniform grid without ends whose codes are entropy-coded, id `entropy`.
///
/// ```text
/// w ~= code * step[column] * scale[row]
/// minimise  D + lambda R      D = (w - q) H (w - q), or |w - q|^2 without calibration;  R: bits, side data included
/// ```
///
/// 1. The step of a column is the pivot `U[i][i]` of the Cholesky factor `H^-1 = U^T U`, to a quarter of an octave: rounding
///    errors of all columns then count the same, as reverse water-filling asks (Cover and Thomas, Elements of Information Theory,
///    13.3.3; with error feedback it is sequential scalar quantization of a Gaussian vector). Without calibration all columns have one step, and rows are scaled
///    by their root mean square.
/// 2. One factor for the layer is searched on some of its rows until the codec says that the codes take the wanted bits
///    per weight, every byte counted. On the way come the centroids of the bins, and how much magnitudes lose before they are rounded
///    (a dead zone; Sullivan, IEEE Trans. Inf. Theory 42, 1996), which is what minimises `D + lambda R`.
/// 3. Rows are rounded with error feedback as by [`Gptq`](crate::Gptq), values being centroids.
/// 4. The gain of a row goes into its scale, in small parts of an octave.
///
/// `H` is damped by the share of its mean diagonal value that does best on calibration rows it was not made of, from 0.003 to
/// 0.1; what takes more is reported. `group_size` has no meaning here. The rate is [`LayerPlan::target_rate`].
#[derive(Debug, Clone, Copy, Default)]
pub struct Entropy;

impl QuantStrategy for Entropy {
    fn id(&self) -> StrategyId {
        StrategyId::new("entropy")
    }

    fn supports(&self, layer: &TensorInfo) -> bool {
        grouped::supports(layer)
    }

    /// The error of an entropy-coded uniform grid on Gaussian weights is 1.42 times the bound, `2^(-2 rate)`.
    fn estimate(&self, layer: &TensorInfo, stats: &LayerStats<'_>, plan: &LayerPlan) -> Estimate {
        let rate = plan.target_rate().bits_per_weight();
        let encoding = Encoding::Entropy;
        let bytes = (layer.elements() as f64 * rate / 8.0).ceil() as u64;
        let bytes = bytes.min(encoded_bytes(layer, &encoding));
        let relative_mse = 1.42 * (-2.0 * rate).exp2();
        let shared_bytes = sample_bytes(layer) + hessian::shared_bytes(stats, layer.cols() as usize, 1);
        Estimate { encoding, bytes, relative_mse, transformed: false, shared_bytes }
    }

    fn prepare<'a>(
        &'a self,
        layer: &LayerInputs<'a>,
        plan: &LayerPlan,
    ) -> Result<Box<dyn RowQuantizer + 'a>, StrategyError> {
        grouped::check("entropy", layer)?;
        let layer_state = EntropyLayer::prepare(layer, plan)?;
        Ok(Box::new(EntropyRows { layer: layer_state, tensor: layer.info.name() }))
    }
}
