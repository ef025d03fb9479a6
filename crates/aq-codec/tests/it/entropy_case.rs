//! Codes to try the entropy codec on.

use aq_codec::entropy::{
    Centroids, ColumnSteps, EncodeScratch, RowScales, SlabCodes, encode_slab, power, step,
};
use aq_core::EncodedRows;

/// The unit of all scales.
const UNIT: f32 = 0.37;

/// A small generator, so that a case is a few numbers.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        self.0 >> 33
    }

    /// About normal: a sum of 12 uniform numbers.
    pub(crate) fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.next() as f64 / (1_u64 << 31) as f64).sum::<f64>() - 6.0
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) codes: Vec<i32>,
    pub(crate) cols: usize,
    pub(crate) steps: Option<Vec<i8>>,
    pub(crate) fineness: u8,
    pub(crate) levels: Vec<i16>,
}

impl Case {
    pub(crate) fn new(rows: usize, cols: usize, steps: Option<Vec<i8>>, codes: Vec<i32>) -> Self {
        let levels = (0..rows).map(|i| (i * 7 % 40) as i16 - 20).collect();
        Self { codes, cols, steps, fineness: 4, levels }
    }

    /// Normal codes of this spread, larger in later columns by up to `growth` octaves; one in `rare` is huge.
    pub(crate) fn normal(rows: usize, cols: usize, spread: f64, growth: f64, rare: u64, seed: u64) -> Self {
        let mut random = Random(seed);
        let steps: Vec<i8> = (0..cols).map(|j| (-4.0 * growth * j as f64 / cols as f64) as i8).collect();
        let codes = (0..rows * cols).map(|i| {
            let spread = spread / f64::from(step(steps[i % cols]));
            let far = if random.next().is_multiple_of(rare) { 1e7 } else { 1.0 };
            (random.normal() * spread * far).round() as i32
        });
        let codes = codes.collect();
        Self::new(rows, cols, (growth != 0.0).then_some(steps), codes)
    }

    pub(crate) fn rows(&self) -> usize {
        self.levels.len()
    }

    pub(crate) fn slab(&self) -> SlabCodes<'_> {
        let steps = self.steps.as_deref().map_or(ColumnSteps::Equal, ColumnSteps::Quarters);
        SlabCodes { codes: &self.codes, cols: self.cols, steps }
    }

    pub(crate) fn encode(&self, centroids: Centroids<'_>) -> EncodedRows {
        let mut out = EncodedRows::default();
        encode_slab(self.slab(), self.scales(), centroids, &mut EncodeScratch::default(), &mut out);
        out
    }

    pub(crate) fn scales(&self) -> RowScales<'_> {
        RowScales { unit: UNIT, fineness: self.fineness, levels: &self.levels }
    }

    pub(crate) fn scale(&self, row: usize) -> f32 {
        UNIT * power(self.levels[row].into(), self.fineness)
    }

    /// The weights by the formula, the same deltas in each class.
    pub(crate) fn weights(&self, deltas: [i8; 3]) -> Vec<f32> {
        let weight = |i: usize| {
            let (code, row, col) = (self.codes[i], i / self.cols, i % self.cols);
            let size = code.unsigned_abs();
            let delta = if size == 0 { 0.0 } else { f32::from(deltas[size.min(3) as usize - 1]) / 256.0 };
            let step = self.steps.as_ref().map_or(1.0, |s| step(s[col]));
            let value = code as f32 - delta * code.signum() as f32;
            value * step * self.scale(row)
        };
        (0..self.codes.len()).map(weight).collect()
    }

    /// Bits of the codes if a code cost what its share in the whole slab says.
    pub(crate) fn entropy(&self) -> f64 {
        let mut counts = std::collections::HashMap::new();
        self.codes.iter().for_each(|c| *counts.entry(c).or_insert(0_u64) += 1);
        let n = self.codes.len() as f64;
        counts.values().map(|&c| -(c as f64) * (c as f64 / n).log2()).sum()
    }
}
