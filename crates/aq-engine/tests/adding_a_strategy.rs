//! Builds and runs the example of `docs/adding-a-strategy.md`, from outside as any other crate would.

// example: begin
use aq_codec::{AffineRow, encoded_bytes, push_row};
use aq_core::{
    AffineEncoding, EncodedRows, Encoding, Estimate, LayerInputs, LayerPlan, LayerStats, OffsetKind,
    QuantStrategy, RowData, RowQuantizer, Rows, Scratch, StrategyError, StrategyId, TensorInfo,
};
use aq_kernels::float16::{widen_bf16, widen_f16};
use half::f16;

/// Symmetric round to nearest: the largest weight of a group is the end of its grid.
struct AbsMax;

impl QuantStrategy for AbsMax {
    fn id(&self) -> StrategyId {
        StrategyId::new("example.absmax")
    }

    fn supports(&self, layer: &TensorInfo) -> bool {
        layer.dtype().is_float() && layer.cols() > 0
    }

    fn estimate(&self, layer: &TensorInfo, _: &LayerStats<'_>, plan: &LayerPlan) -> Estimate {
        let encoding = Encoding::Affine(encoding(plan));
        // Gaussian weights that end at 3 sigma: a step of 6 / max_code, and an error of step^2 / 12.
        let relative_mse = 3.0 / f64::from(plan.bits.max_code()).powi(2);
        let bytes = encoded_bytes(layer, &encoding);
        Estimate { encoding, bytes, relative_mse, transformed: false, shared_bytes: 0 }
    }

    fn prepare<'a>(
        &'a self,
        _: &LayerInputs<'a>,
        plan: &LayerPlan,
    ) -> Result<Box<dyn RowQuantizer + 'a>, StrategyError> {
        Ok(Box::new(AbsMaxRows { encoding: encoding(plan) }))
    }
}

fn encoding(plan: &LayerPlan) -> AffineEncoding {
    AffineEncoding { bits: plan.bits, group_size: plan.group_size, offset: OffsetKind::ZeroPoint }
}

/// What the rows of a layer share: nothing but how they are stored.
struct AbsMaxRows {
    encoding: AffineEncoding,
}

impl RowQuantizer for AbsMaxRows {
    fn quantize_rows(
        &self,
        rows: Rows<'_>,
        scratch: &mut Scratch,
        out: &mut EncodedRows,
    ) -> Result<(), StrategyError> {
        for row in 0..rows.data.len() / rows.cols {
            widen(rows.data, row * rows.cols, rows.cols, &mut scratch.row);
            self.push(scratch, out);
        }
        Ok(())
    }
}

impl AbsMaxRows {
    /// Quantizes `scratch.row` and appends it.
    fn push(&self, scratch: &mut Scratch, out: &mut EncodedRows) {
        let max_code = f32::from(self.encoding.bits.max_code());
        let zero = (max_code + 1.0) / 2.0;
        scratch.codes.clear();
        scratch.scales.clear();
        scratch.offsets.clear();
        for group in scratch.row.chunks(self.encoding.group_size.weights(scratch.row.len())) {
            let largest = group.iter().fold(0.0_f32, |m, w| m.max(w.abs()));
            // The scale is stored as f16, so the codes are chosen for its rounded value.
            let scale = f16::from_f32(largest / (max_code - zero)).min(f16::MAX).to_f32();
            let step = if scale > 0.0 { scale } else { 1.0 };
            let code = |w: &f32| ((w / step).round_ties_even() + zero).clamp(0.0, max_code) as u8;
            scratch.codes.extend(group.iter().map(code));
            scratch.scales.push(scale);
            scratch.offsets.push(zero);
        }
        let row = AffineRow {
            codes: &scratch.codes,
            scales: &scratch.scales,
            offsets: &scratch.offsets,
            exponent: 0,
        };
        push_row(&self.encoding, row, out);
    }
}

/// `cols` weights from `start` on, as `f32`.
fn widen(data: RowData<'_>, start: usize, cols: usize, row: &mut Vec<f32>) {
    row.resize(cols, 0.0);
    match data {
        RowData::F32(x) => row.copy_from_slice(&x[start..][..cols]),
        RowData::F16(x) => widen_f16(&x[start..][..cols], row),
        RowData::BF16(x) => widen_bf16(&x[start..][..cols], row),
    }
}
// example: end

// usage: begin
use std::path::Path;
use std::sync::atomic::AtomicBool;

use aq_engine::{Job, JobOptions, Registry, Report, Silent, run};

fn quantize(input: &Path, output: &Path) -> aq_engine::Result<Report> {
    let mut registry = Registry::default();
    registry.register(Box::new(AbsMax));
    let options = JobOptions {
        input: input.into(),
        output: Some(output.into()),
        method: Some("example.absmax".into()),
        bits: Some(4),
        ..JobOptions::default()
    };
    run(&Job::new(options, &registry)?, &registry, &AtomicBool::new(false), &mut Silent)
}
// usage: end

#[test]
fn the_example_quantizes_a_model() {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/models/digits-dit");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let output = folder.path().join("out.parquet");
    let report = quantize(&model, &output).expect("the job runs");
    assert_eq!(report.quantized().count(), 25);
    assert!(report.global().cosine() > 0.98, "{}", report.global().cosine());

    let comparison =
        aq_engine::compare(&model, &output, None, &AtomicBool::new(false)).expect("both can be read");
    let (global, _) = comparison.global();
    assert!((global.cosine() - report.global().cosine()).abs() < 1e-12);
    let inspected = aq_engine::inspect_json(&*aq_engine::inspect(&output).expect("it opens"));
    assert!(inspected["metadata"]["aq.plan"].as_str().is_some_and(|plan| plan.contains("example.absmax")));
}

#[test]
fn the_document_shows_this_code() {
    let document = include_str!("../../../docs/adding-a-strategy.md").replace("\r\n", "\n");
    let code = include_str!("adding_a_strategy.rs").replace("\r\n", "\n");
    for part in ["example", "usage"] {
        let begin = code.split_once(&format!("// {part}: begin\n")).expect("the part begins").1;
        let shown = begin.split_once(&format!("// {part}: end\n")).expect("the part ends").0;
        assert!(
            document.contains(&format!("```rust\n{shown}```\n")),
            "the part {part:?} differs from the document"
        );
    }
}
