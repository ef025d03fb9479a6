//! The report of a comparison.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use aq_core::Encoding;
use aq_io::Access;

use super::file::ReportFile;
use super::page::Page;
use super::{Measured, measure_details};
use crate::calibration::Calibration;
use crate::compare::{ModelComparison, TensorComparison};
use crate::{Result, Silent};

/// Writes the report of `compared`, which compares `original` with `quantized`. Both are read again for histograms of the worst tensors
/// and, with a `calibration` that has times, for errors by time.
///
/// # Errors
/// When a file cannot be read or the report cannot be written.
pub fn report_comparison(
    original: &Path,
    quantized: &Path,
    calibration: Option<&Path>,
    compared: &ModelComparison,
    file: &ReportFile,
    cancel: &AtomicBool,
) -> Result<()> {
    let (a, b) = (aq_io::open(original, Access::Positioned)?, aq_io::open(quantized, Access::Positioned)?);
    let calibration = Calibration::read(calibration, a.tensors(), &mut Silent)?;
    let differs = |t: &&TensorComparison| t.stored.encoding != Encoding::Raw || t.comparison.error > 0.0;
    let measured = compared.tensors.iter().filter(differs).map(|t| Measured {
        name: t.stored.info.name(),
        error: t.output_error().unwrap_or_else(|| t.comparison.relative_mse()),
    });
    let details = measure_details(&*a, &*b, &measured.collect::<Vec<_>>(), &calibration, cancel)?;
    let mut json = compared.json();
    json["details"] = details.json();
    let names = [original, quantized].map(|path| path.display().to_string());
    file.write(&Page::of_comparison(&names[0], &names[1], compared, &details), &json)
}
