//! `aq inspect`

use aq_engine::aq_core::Encoding;
use aq_engine::{Result, format_size, inspect, inspect_json};

use crate::args::InspectArgs;
use crate::output;

pub(crate) fn run(args: &InspectArgs) -> Result<()> {
    let source = inspect(&args.file)?;
    if args.json {
        output::json(&inspect_json(&*source));
        return Ok(());
    }
    let (mut params, mut bytes) = (0, 0);
    let mut rows = Vec::new();
    for (i, t) in source.tensors().iter().enumerate() {
        params += t.info.elements();
        bytes += source.stored_bytes(i);
        let how = match t.encoding {
            Encoding::Raw => t.info.dtype().name().to_string(),
            encoding => match encoding.bits_and_group() {
                (Some(bits), Some(group)) => format!("{} {bits} bits, group {group}", t.codec()),
                (Some(bits), None) => format!("{} {bits} bits", t.codec()),
                _ => t.codec().to_string(),
            },
        };
        let size = format_size(source.stored_bytes(i));
        rows.push(vec![t.info.name().to_string(), format!("{:?}", t.info.shape()), how, size]);
    }
    output::table(&["tensor", "shape", "stored as", "bytes"], &rows);
    output::line(&format!(
        "{}: {} tensors, {:.1} M parameters, {}, {:.3} bits per weight",
        source.format().name(),
        rows.len(),
        params as f64 / 1e6,
        format_size(bytes),
        bytes as f64 * 8.0 / (params as f64).max(1.0)
    ));
    for (key, value) in source.metadata() {
        let short: String = value.chars().take(100).collect();
        output::line(&output::printable(&format!("{key} = {short}")));
    }
    Ok(())
}
