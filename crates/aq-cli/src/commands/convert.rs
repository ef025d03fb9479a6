//! `aq convert`

use aq_engine::{Result, convert, format_size};

use crate::args::ConvertArgs;
use crate::output;
use crate::signals::Signals;

pub(crate) fn run(args: &ConvertArgs, signals: &Signals) -> Result<()> {
    let bytes = convert(&args.file, &args.output, args.force, &signals.cancel)?;
    output::line(&format!("{}: {}", args.output.display(), format_size(bytes)));
    Ok(())
}
