//! Signed bytes with a scale a row, plain and rotated.

use aq_codec::{ReadScratch, Rotation, decode, seal};
use aq_core::{
    EncodedRows, LayerInputs, LayerPlan, LayerStats, LowRankPlan, RowData, Rows, Scratch, SlabParts,
    StrategyError,
};

use crate::support::{Case, gauss, relative_mse, strategy};

fn case(method: &'static str, cols: usize) -> Case {
    Case { method, bits: 8, group: 0, gain: true, cols }
}

/// The encoded rows and the decoded weights.
fn round_trip(case: Case, weights: &[f32]) -> (EncodedRows, Vec<f32>) {
    let (info, strategy) = (case.info(weights.len()), strategy(case.method));
    let layer = LayerInputs::new(&info);
    let quantizer = strategy.prepare(&layer, &case.plan()).expect("a layer");
    let mut out = EncodedRows::default();
    let rows = Rows { data: RowData::F32(weights), cols: case.cols, first_row: 0 };
    quantizer.quantize_rows(rows, &mut Scratch::default(), &mut out).expect("finite rows");
    seal(&mut out);
    let estimate = strategy.estimate(&info, &LayerStats::default(), &case.plan());
    assert_eq!(estimate.transformed, !quantizer.side().is_empty());
    let parts = SlabParts { side: quantizer.side(), ..out.parts() };
    let mut decoded = vec![0.0; weights.len()];
    let scratch = &mut ReadScratch::default();
    decode(&estimate.encoding, &info, parts, out.row_count, 0, scratch, &mut decoded).expect("good parts");
    (out, decoded)
}

#[test]
fn rows_of_any_magnitude_keep_seven_bits() {
    for (method, cols) in [("int8", 200), ("int8", 512), ("convrot", 200), ("convrot", 512)] {
        for magnitude in [1e-30, 1e-5, 1.0, 1e30] {
            let weights: Vec<f32> = gauss(5 * cols, 3).into_iter().map(|w| w * magnitude).collect();
            let (out, decoded) = round_trip(case(method, cols), &weights);
            assert!(relative_mse(&weights, &decoded) < 1.2e-4, "{method} {cols} {magnitude}");
            assert!(out.offsets.iter().all(|&zero| zero == 128));
            assert!(out.codes.iter().all(|&code| code > 0), "codes less 128 lie between -127 and 127");
            assert!(out.codes.chunks(cols).all(|row| row.iter().any(|code| [1, 255].contains(code))));
        }
        let (_, decoded) = round_trip(case(method, cols), &vec![0.0; cols]);
        assert!(decoded.iter().all(|&w| w == 0.0));
    }
}

#[test]
fn an_outlier_is_spread_over_its_block() {
    let mut weights = gauss(4 * 512, 4);
    weights.iter_mut().skip(5).step_by(512).for_each(|w| *w += 80.0);
    let error = |method| relative_mse(&weights, &round_trip(case(method, 512), &weights).1);
    assert!(error("convrot") < error("int8") / 8.0, "{} {}", error("convrot"), error("int8"));
}

#[test]
fn a_regular_rotation_is_the_power_of_the_regular_matrix() {
    const H4: [[f32; 4]; 4] =
        [[1.0, 1.0, 1.0, -1.0], [1.0, 1.0, -1.0, 1.0], [1.0, -1.0, 1.0, 1.0], [-1.0, 1.0, 1.0, 1.0]];
    for block in [16usize, 64, 256, 1024] {
        let rotation = Rotation::regular(block, block).expect("a power of 4");
        let mut signs = Vec::new();
        rotation.signs(block, &mut signs);
        for column in [0, 1, 7, block / 2 + 3, block - 1] {
            let mut row = vec![0.0; block];
            row[column] = 1.0;
            rotation.forward(&signs, &mut row);
            let entry = |to: usize| {
                let digits =
                    (0..block.trailing_zeros() / 2).map(|k| (to >> (2 * k) & 3, column >> (2 * k) & 3));
                digits.map(|(i, j)| H4[i][j] / 2.0).product::<f32>()
            };
            for (from, value) in row.iter().enumerate() {
                let (to, negative) = Rotation::regular_column(from);
                assert_eq!(if negative { -value } else { *value }, entry(to), "{block} {column} {from}");
            }
        }
    }
    assert_eq!([8, 32, 512].map(|block| Rotation::regular(block, 1024)), [None; 3]);
}

#[test]
fn a_second_transform_is_refused() {
    let info = case("convrot", 512).info(1024);
    let plans = |plan: LayerPlan| {
        [LayerPlan { rotation: Some(1), ..plan.clone() }, LayerPlan { low_rank: LowRankPlan::Auto, ..plan }]
    };
    for plan in plans(case("convrot", 512).plan()) {
        let refused = strategy("convrot").prepare(&LayerInputs::new(&info), &plan).err();
        assert!(matches!(refused, Some(StrategyError::Unsupported { .. })));
    }
}
