//! `aq inspect`

use aq_engine::aq_core::Encoding;
use aq_engine::aq_timeaware::{Activations, Mode};
use aq_engine::{Result, activations, format_size, inspect, inspect_json, settings};

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
    if let Some(activations) = activations(&*source)? {
        output::line(&summary(&activations));
    }
    for (name, value) in settings(&*source) {
        output::line(&output::printable(&format!("setting {name}: {value}")));
    }
    for (key, value) in source.metadata() {
        let short: String = value.chars().take(100).collect();
        output::line(&output::printable(&format!("{key} = {short}")));
    }
    Ok(())
}

/// How the inputs of layers are quantized, in a line.
fn summary(activations: &Activations) -> String {
    let plans = || activations.layers.values();
    let mut bits: Vec<u8> = plans().map(|p| p.bits).collect();
    bits.sort_unstable();
    bits.dedup();
    let bits: Vec<String> = bits.iter().map(u8::to_string).collect();
    let modes = [Mode::Token, Mode::Static, Mode::Groups]
        .map(|mode| (mode, plans().filter(|p| p.mode == mode).count()));
    let modes: Vec<String> =
        modes.iter().filter(|(_, n)| *n > 0).map(|(mode, n)| format!("{n} {}", mode.name())).collect();
    let shifted = plans().filter(|p| !p.shift.is_empty()).count();
    format!(
        "inputs of {} layers quantized to {} bits: {}; channels of {shifted} shifted (time is {})",
        activations.layers.len(),
        bits.join(", "),
        modes.join(", "),
        output::printable(&activations.time)
    )
}
