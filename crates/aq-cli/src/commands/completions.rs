//! `aq completions`

use aq_engine::Result;
use clap::CommandFactory;

use crate::args::{Cli, CompletionsArgs};

pub(crate) fn run(args: &CompletionsArgs) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "aq", &mut script);
    crate::output::bytes(&script);
    Ok(())
}
