//! `aq dequantize`

use aq_engine::aq_core::DType;
use aq_engine::{EngineError, Result, dequantize, format_size};

use crate::args::{DequantizeArgs, FloatType};
use crate::output;
use crate::signals::Signals;

pub(crate) fn run(args: &DequantizeArgs, signals: &Signals) -> Result<()> {
    if args.output.extension().is_some_and(|e| e != "safetensors") {
        let message =
            format!("{}: the output of dequantize is a .safetensors file or a folder", args.output.display());
        return Err(EngineError::Usage(message));
    }
    let dtype = match args.dtype {
        FloatType::F32 => DType::F32,
        FloatType::F16 => DType::F16,
        FloatType::Bf16 => DType::BF16,
    };
    let bytes = dequantize(&args.file, &args.output, dtype, args.force, &signals.cancel)?;
    output::line(&format!("{}: {}", args.output.display(), format_size(bytes)));
    Ok(())
}
