//! `aq compare`

use aq_engine::{ReportFile, Result, compare, report_comparison};

use crate::args::CompareArgs;
use crate::output;
use crate::signals::Signals;

pub(crate) fn run(args: &CompareArgs, signals: &Signals) -> Result<()> {
    let (original, quantized, calibration) = (&args.original, &args.quantized, args.calibration.as_deref());
    let file = args.report.clone().map(ReportFile::new).transpose()?;
    let comparison = compare(original, quantized, calibration, &signals.cancel)?;
    if let Some(file) = &file {
        report_comparison(original, quantized, calibration, &comparison, file, &signals.cancel)?;
    }
    if args.json {
        output::json(&comparison.json());
        return Ok(());
    }
    let mut tensors: Vec<_> = comparison.tensors.iter().collect();
    tensors.sort_by(|a, b| b.comparison.relative_mse().total_cmp(&a.comparison.relative_mse()));
    let rows: Vec<Vec<String>> = tensors
        .iter()
        .map(|t| {
            vec![
                t.stored.info.name().to_string(),
                format!("{:?}", t.stored.info.shape()),
                format!("{:.6}", t.comparison.cosine()),
                format!("{:.4e}", t.comparison.relative_mse()),
                format!("{:.4e}", t.comparison.max_abs),
                t.output_error().map_or_else(|| "-".into(), |e| format!("{e:.4e}")),
            ]
        })
        .collect();
    output::table(&["tensor", "shape", "cosine", "rel. MSE", "max |error|", "output error"], &rows);
    let (global, params) = comparison.global();
    output::line(&format!(
        "all quantized weights ({:.1} M): cosine {:.6}, relative MSE {:.4e}; file {:.3} bits per weight",
        params as f64 / 1e6,
        global.cosine(),
        global.relative_mse(),
        comparison.bits_per_weight
    ));
    if !comparison.only_in_one.is_empty() {
        let names = comparison.only_in_one.iter().take(5).cloned().collect::<Vec<_>>().join(", ");
        output::warn(&format!("{} tensors are in one file only: {names}", comparison.only_in_one.len()));
    }
    Ok(())
}
