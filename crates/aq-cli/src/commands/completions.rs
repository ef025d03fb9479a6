//! `aq completions` and the manual page

use aq_engine::{EngineError, Result};
use clap::CommandFactory;

use crate::args::{Cli, CompletionsArgs};

pub(crate) fn run(args: &CompletionsArgs) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "aq", &mut script);
    print(&script);
    Ok(())
}

/// Prints the manual page in roff.
pub(crate) fn man() -> Result<()> {
    let mut page = Vec::new();
    clap_mangen::Man::new(Cli::command())
        .render(&mut page)
        .map_err(|e| EngineError::Internal(e.to_string()))?;
    print(&page);
    Ok(())
}

fn print(bytes: &[u8]) {
    use std::io::Write;
    let _ = std::io::stdout().lock().write_all(bytes);
}
