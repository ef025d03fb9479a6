//! Weights, and one call from weights to decoded weights.

use aq_codec::{ReadScratch, decode};
use aq_core::{
    BitWidth, DType, EncodedRows, Encoding, GroupSize, InputRows, LayerInputs, LayerPlan, LayerStats,
    LayerWeights, QuantStrategy, RowData, Rows, Scratch, StepDown, StrategyError, TensorInfo,
};
use aq_kernels::float16::{widen_bf16, widen_f16};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand_distr::{Distribution, Exp1, StandardNormal, StudentT};

/// The strategies by their ids.
pub(crate) const METHODS: [&str; 6] = ["minmax", "ls", "gptq", "codebook", "nf4", "hqq"];

/// A case: what the plan says and the shape of the weights.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Case {
    pub(crate) method: &'static str,
    pub(crate) bits: u8,
    pub(crate) group: u32,
    pub(crate) gain: bool,
    pub(crate) cols: usize,
}

impl Case {
    /// Whether the strategy has codes of that many bits.
    pub(crate) fn exists(&self) -> bool {
        strategy(self.method).takes(self.plan().bits)
    }

    pub(crate) fn plan(&self) -> LayerPlan {
        let bits = BitWidth::new(self.bits).expect("a valid width");
        let group_size = GroupSize::new(self.group).expect("a valid size");
        LayerPlan { gain: self.gain, ..LayerPlan::new(self.method, bits, group_size) }
    }

    pub(crate) fn info(&self, weights: usize) -> TensorInfo {
        let shape = vec![(weights / self.cols) as u64, self.cols as u64];
        TensorInfo::new("w", shape, DType::F32).expect("a valid shape")
    }

    pub(crate) fn encoding(&self, weights: usize) -> Encoding {
        strategy(self.method).estimate(&self.info(weights), &LayerStats::default(), &self.plan()).encoding
    }

    /// Encodes rows given in one call or in several.
    pub(crate) fn encode(&self, blocks: &[RowData<'_>], importance: Option<&[f32]>) -> EncodedRows {
        self.encode_with(blocks, LayerStats { importance, ..LayerStats::default() }).0
    }

    /// Encodes rows of which the strategy may look at all beforehand.
    pub(crate) fn encode_known(&self, weights: &[f32], stats: LayerStats<'_>) -> EncodedRows {
        self.encode_with(&[RowData::F32(weights)], stats).0
    }

    /// Encodes rows with what is known of the inputs, and says what steps down it took.
    pub(crate) fn encode_with(
        &self,
        blocks: &[RowData<'_>],
        stats: LayerStats<'_>,
    ) -> (EncodedRows, Vec<StepDown>) {
        let info = self.info(blocks.iter().map(RowData::len).sum());
        let strategy = strategy(self.method);
        let weights = Blocks { blocks, cols: self.cols };
        let layer = LayerInputs { info: &info, stats, weights: Some(&weights) };
        let quantizer = strategy.prepare(&layer, &self.plan()).expect("inputs that fit");
        let (mut scratch, mut out) = (Scratch::default(), EncodedRows::default());
        for &data in blocks {
            let rows = Rows { data, cols: self.cols, first_row: out.row_count };
            quantizer.quantize_rows(rows, &mut scratch, &mut out).expect("rows that fit");
        }
        quantizer.end_slab(&mut scratch, &mut out).expect("rows that can be stored");
        (out, quantizer.step_downs().to_vec())
    }

    pub(crate) fn decode(&self, encoded: &EncodedRows) -> Vec<f32> {
        let weights = encoded.row_count as usize * self.cols;
        let mut out = vec![0.0; weights];
        let info = self.info(weights);
        let encoding = self.encoding(weights);
        decode(
            &encoding,
            &info,
            encoded.parts(),
            encoded.row_count,
            0,
            &mut ReadScratch::default(),
            &mut out,
        )
        .expect("parts that fit");
        out
    }

    pub(crate) fn round_trip(&self, weights: &[f32]) -> Vec<f32> {
        self.decode(&self.encode(&[RowData::F32(weights)], None))
    }
}

/// Calibration rows in memory.
pub(crate) struct Inputs {
    pub(crate) rows: Vec<f32>,
    pub(crate) cols: usize,
}

impl Inputs {
    /// Normal inputs with a common part, unlike in size.
    pub(crate) fn new(count: usize, cols: usize) -> Self {
        let mut rows = gauss(count * cols, 40);
        for row in rows.chunks_mut(cols) {
            let common = row[0] + row[cols / 2];
            row.iter_mut().enumerate().for_each(|(i, x)| *x = (*x + common) * (0.5 + (i % 7) as f32 * 0.2));
        }
        Self { rows, cols }
    }

    pub(crate) fn changed(mut self, change: impl Fn(usize, &mut f32)) -> Self {
        let cols = self.cols;
        self.rows.iter_mut().enumerate().for_each(|(i, x)| change(i % cols, x));
        self
    }

    pub(crate) fn stats(&self) -> LayerStats<'_> {
        LayerStats { inputs: Some(self), ..LayerStats::default() }
    }

    /// Squared error of the outputs over their squares.
    pub(crate) fn output_error(&self, w: &[f32], q: &[f32]) -> f64 {
        let (mut error, mut truth) = (0.0, 0.0);
        for (w, q) in w.chunks(self.cols).zip(q.chunks(self.cols)) {
            for x in self.rows.chunks(self.cols) {
                let dot = |v: &[f32]| v.iter().zip(x).map(|(v, x)| f64::from(v * x)).sum::<f64>();
                error += (dot(w) - dot(q)).powi(2);
                truth += dot(w).powi(2);
            }
        }
        error / truth
    }
}

impl InputRows for Inputs {
    fn visit(&self, visit: &mut dyn FnMut(&[f32], f64)) -> Result<(), StrategyError> {
        self.rows.chunks(100 * self.cols).for_each(|rows| visit(rows, 1.0));
        Ok(())
    }
}

/// Blocks of rows as the weights of a layer.
pub(crate) struct Blocks<'a> {
    pub(crate) blocks: &'a [RowData<'a>],
    pub(crate) cols: usize,
}

impl LayerWeights for Blocks<'_> {
    fn read_row(&self, row: u64, out: &mut Vec<f32>) -> Result<(), StrategyError> {
        let mut start = row as usize * self.cols;
        for block in self.blocks {
            if start < block.len() {
                out.resize(self.cols, 0.0);
                match block {
                    RowData::F32(x) => out.copy_from_slice(&x[start..][..self.cols]),
                    RowData::F16(x) => widen_f16(&x[start..][..self.cols], out),
                    RowData::BF16(x) => widen_bf16(&x[start..][..self.cols], out),
                }
                break;
            }
            start -= block.len();
        }
        Ok(())
    }
}

pub(crate) fn strategy(id: &str) -> Box<dyn QuantStrategy> {
    let found = aq_spatial::strategies().into_iter().find(|s| s.id().as_str() == id);
    found.expect("a strategy of this crate")
}

pub(crate) fn gauss(n: usize, seed: u64) -> Vec<f32> {
    StandardNormal.sample_iter(StdRng::seed_from_u64(seed)).take(n).collect()
}

pub(crate) fn laplace(n: usize, seed: u64) -> Vec<f32> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut exp = || -> f32 { Exp1.sample(&mut rng) };
    (0..n).map(|_| exp() - exp()).collect()
}

pub(crate) fn student5(n: usize, seed: u64) -> Vec<f32> {
    let t = StudentT::new(5.0f32).expect("positive degrees of freedom");
    t.sample_iter(StdRng::seed_from_u64(seed)).take(n).collect()
}

pub(crate) fn relative_mse(weights: &[f32], decoded: &[f32]) -> f64 {
    let squares = |x: &mut dyn Iterator<Item = f64>| x.map(|v| v * v).sum::<f64>();
    let error = squares(&mut weights.iter().zip(decoded).map(|(&w, &q)| f64::from(w) - f64::from(q)));
    error / squares(&mut weights.iter().map(|&w| f64::from(w)))
}

/// `sum(w q) / sum(w^2)`.
pub(crate) fn slope(weights: &[f32], decoded: &[f32]) -> f64 {
    let product =
        |a: &[f32], b: &[f32]| -> f64 { a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum() };
    product(weights, decoded) / product(weights, weights)
}
