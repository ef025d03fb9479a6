//! `aq convert`

use aq_engine::{ConvertOptions, Result, convert, format_size};

use crate::args::ConvertArgs;
use crate::output;
use crate::signals::Signals;

pub(crate) fn run(args: &ConvertArgs, signals: &Signals) -> Result<()> {
    let (format, plain) = (args.format.as_deref(), &args.plain);
    let options = ConvertOptions::parse(format, plain.dtype.as_deref(), plain.shard_size.as_deref())?;
    let options = ConvertOptions { force: args.force, model: args.model.clone(), ..options };
    let bytes = convert(&args.file, &args.output, &options, &signals.cancel)?;
    output::line(&format!("{}: {}", args.output.display(), format_size(bytes)));
    Ok(())
}
