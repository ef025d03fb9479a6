//! `aq verify`

use aq_engine::{Result, format_size, verify};
use serde_json::json;

use crate::args::VerifyArgs;
use crate::output;
use crate::signals::Signals;

pub(crate) fn run(args: &VerifyArgs, signals: &Signals) -> Result<()> {
    let verified = verify(&args.file, &signals.cancel)?;
    if args.json {
        output::json(&json!({
            "schema": "aq.verify/1", "path": args.file.display().to_string(), "ok": true,
            "tensors": verified.tensors, "slabs": verified.slabs, "bytes": verified.bytes,
        }));
    } else {
        output::line(&format!(
            "{}: {} tensors, {} slabs, {} checked, no damage",
            args.file.display(),
            verified.tensors,
            verified.slabs,
            format_size(verified.bytes)
        ));
    }
    Ok(())
}
