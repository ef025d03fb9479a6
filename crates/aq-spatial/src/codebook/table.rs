//! The tables: fixed ones, and those trained on a layer.

use aq_core::{GroupSize, LayerInputs, LayerPlan, LayerWeights, StrategyError};
use aq_kernels::codebook::{MAX_VALUES, Table, nearest};

use super::row::{fitted_scale, inverse};
use crate::exponent::normalize;
use crate::grid::round;

/// Weights of a layer that its table is trained on, in whole rows.
const SAMPLE: u64 = 1 << 16;
/// Rounds of training.
const ROUNDS: usize = 12;

/// The positive half of the values of least squared error for a normal distribution of variance 1.
const GAUSS_2: [f32; 2] = [0.4528, 1.5104];
const GAUSS_3: [f32; 4] = [0.2451, 0.7560, 1.3439, 2.1520];
const GAUSS_4: [f32; 8] = [0.1284, 0.3881, 0.6568, 0.9423, 1.2562, 1.6181, 2.0690, 2.7326];

/// NormalFloat: quantiles of a normal distribution, from -1 to 1.
const NF4: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

/// The table of `nf4`, as stored.
pub(super) fn nf4() -> Table {
    Table::new(&NF4.map(round))
}

/// The table of least squared error for the layer; for normal weights where the layer's are not at hand.
pub(super) fn trained(layer: &LayerInputs<'_>, plan: &LayerPlan) -> Result<Table, StrategyError> {
    let start = gauss(plan.bits.get());
    let Some(weights) = layer.weights else { return Ok(start) };
    let sample = Sample::read(layer, weights, plan.group_size)?;
    let mut table = start;
    for _ in 0..ROUNDS {
        match sample.improve(&table) {
            Some(better) if better != table => table = better,
            _ => break,
        }
    }
    Ok(rounded(&table).unwrap_or(start))
}

fn gauss(bits: u8) -> Table {
    let half: &[f32] = match bits {
        2 => &GAUSS_2,
        3 => &GAUSS_3,
        _ => &GAUSS_4,
    };
    let values: Vec<f32> = half.iter().rev().map(|v| -v).chain(half.iter().copied()).map(round).collect();
    Table::new(&values)
}

/// The table as stored; `None` when values then coincide.
fn rounded(table: &Table) -> Option<Table> {
    rising(&table.values().iter().map(|&v| round(v)).collect::<Vec<f32>>())
}

fn rising(values: &[f32]) -> Option<Table> {
    let good = values.iter().all(|v| v.is_finite()) && values.is_sorted_by(|a, b| a < b);
    good.then(|| Table::new(values))
}

/// Evenly spaced rows of a layer.
struct Sample<'a> {
    weights: Vec<f32>,
    cols: usize,
    group: usize,
    importance: Option<&'a [f32]>,
}

impl<'a> Sample<'a> {
    fn read(
        layer: &LayerInputs<'a>,
        weights: &dyn LayerWeights,
        group_size: GroupSize,
    ) -> Result<Self, StrategyError> {
        let (rows, cols) = (layer.info.rows(), layer.info.cols());
        let count = (SAMPLE / cols).clamp(1, rows);
        let (mut row, mut sample) = (Vec::new(), Vec::with_capacity((count * cols) as usize));
        for i in 0..count {
            weights.read_row((u128::from(i) * u128::from(rows) / u128::from(count)) as u64, &mut row)?;
            normalize(&mut row);
            sample.extend_from_slice(&row);
        }
        let cols = cols as usize;
        let importance = layer.stats.importance;
        Ok(Self { weights: sample, cols, group: group_size.weights(cols), importance })
    }

    /// One round of Lloyd's iteration. `None` when it leads nowhere.
    fn improve(&self, table: &Table) -> Option<Table> {
        let (mut sums, mut squares) = ([0f64; MAX_VALUES], [0f64; MAX_VALUES]);
        let mut codes = vec![0; self.group];
        for row in self.weights.chunks(self.cols) {
            for (i, group) in row.chunks(self.group).enumerate() {
                let h = self.importance.map(|h| &h[i * self.group..][..group.len()]);
                let scale = fitted_scale(table, group, h);
                let codes = &mut codes[..group.len()];
                nearest(table, group, inverse(scale), codes);
                let scale = f64::from(scale);
                for (j, (&w, &code)) in group.iter().zip(&*codes).enumerate() {
                    let h = h.map_or(1.0, |h| f64::from(h[j]));
                    sums[usize::from(code)] += h * scale * f64::from(w);
                    squares[usize::from(code)] += h * scale * scale;
                }
            }
        }
        let means = sums.iter().zip(squares).zip(table.values());
        let means = means.map(|((sum, square), &old)| if square > 0.0 { (sum / square) as f32 } else { old });
        rising(&means.collect::<Vec<f32>>())
    }
}
