//! Times the strategies `gptq` and `trellis` on one layer and one thread, beside `ls` and the trellis without error feedback.
//!
//! `gptq [ROWS] [COLUMNS] [INPUTS]` (4096 4096 4096): `prepare` is the Hessian of so many calibration rows and its factors, in
//! blocks of 512 columns above 2048 columns; `rows` is the rest. Weights and inputs are about normal, the inputs with a common
//! part. The least of 3 runs.

use std::time::Instant;

use aq_benches::weights;
use aq_core::{
    BitWidth, DType, EncodedRows, GroupSize, InputRows, LayerInputs, LayerPlan, LayerStats, QuantStrategy,
    RowData, Rows, Scratch, StrategyError, TensorInfo,
};

struct Inputs {
    rows: Vec<f32>,
    cols: usize,
}

impl InputRows for Inputs {
    fn visit(&self, visit: &mut dyn FnMut(&[f32], f64)) -> Result<(), StrategyError> {
        self.rows.chunks(256 * self.cols).for_each(|rows| visit(rows, 1.0));
        Ok(())
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1).map(|a| a.parse().expect("a number"));
    let (rows, cols) = (arguments.next().unwrap_or(4096), arguments.next().unwrap_or(4096));
    let mut inputs = Inputs { rows: weights(arguments.next().unwrap_or(4096) * cols), cols };
    for row in inputs.rows.chunks_mut(cols) {
        let common = row[0];
        row.iter_mut().for_each(|x| *x += 0.5 * common);
    }
    let (data, importance) = (weights(rows * cols), vec![1.0; cols]);
    println!("{rows} rows of {cols} weights, {} inputs, {}", inputs.rows.len() / cols, aq_kernels::level());
    let fed = LayerStats { importance: Some(&importance), inputs: Some(&inputs), ..LayerStats::default() };
    for (id, bits) in [("ls", 2), ("ls", 4), ("gptq", 2), ("gptq", 3), ("gptq", 4), ("gptq", 8)] {
        print(id, bits, &data, cols, fed);
    }
    for (id, bits) in ["trellis", "trellis6"].into_iter().flat_map(|id| [2, 3, 4].map(|bits| (id, bits))) {
        print(id, bits, &data, cols, LayerStats { inputs: None, ..fed });
        print(id, bits, &data, cols, fed);
    }
}

fn print(id: &str, bits: u8, data: &[f32], cols: usize, stats: LayerStats<'_>) {
    let [prepare, work] = least(id, bits, data, cols, stats);
    let ns = |seconds: f64| seconds * 1e9 / data.len() as f64;
    let inputs = if stats.inputs.is_some() { "inputs" } else { "none" };
    println!(
        "{id:8} {bits} bits, {inputs:6}: prepare {prepare:6.2} s, rows {work:6.2} s: {:6.1} + {:6.1} ns a weight",
        ns(prepare),
        ns(work)
    );
}

/// Seconds of `prepare` and of the rows.
fn least(id: &str, bits: u8, data: &[f32], cols: usize, stats: LayerStats<'_>) -> [f64; 2] {
    let info =
        TensorInfo::new("w", vec![(data.len() / cols) as u64, cols as u64], DType::F32).expect("small");
    let layer = LayerInputs { stats, ..LayerInputs::new(&info) };
    let group = GroupSize::new(128).expect("a valid size");
    let plan = LayerPlan::new(id, BitWidth::new(bits).expect("a valid width"), group);
    let strategies = aq_spatial::strategies();
    let strategy = strategies.iter().find(|s| s.id().as_str() == id).expect("a built-in strategy");
    let mut scratch = Scratch::default();
    let mut once = || run(&**strategy, &layer, &plan, data, &mut scratch);
    (0..3).map(|_| once()).reduce(|a, b| [a[0].min(b[0]), a[1].min(b[1])]).expect("three runs")
}

fn run(
    strategy: &dyn QuantStrategy,
    layer: &LayerInputs<'_>,
    plan: &LayerPlan,
    data: &[f32],
    scratch: &mut Scratch,
) -> [f64; 2] {
    let start = Instant::now();
    let quantizer = strategy.prepare(layer, plan).expect("inputs that fit");
    let prepared = start.elapsed().as_secs_f64();
    let cols = layer.info.cols() as usize;
    let mut out = EncodedRows::default();
    for (i, block) in data.chunks(256 * cols).enumerate() {
        let rows = Rows { data: RowData::F32(block), cols, first_row: i as u64 * 256 };
        quantizer.quantize_rows(rows, scratch, &mut out).expect("rows that fit");
    }
    [prepared, start.elapsed().as_secs_f64() - prepared]
}
