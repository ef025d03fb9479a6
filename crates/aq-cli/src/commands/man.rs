//! `aq man`

use aq_engine::{EngineError, Result};
use clap::CommandFactory;

use crate::args::{Cli, ManArgs};
use crate::output;

/// Prints the page of `aq`, or writes those of all commands to a folder.
pub(crate) fn run(args: &ManArgs) -> Result<()> {
    let Some(folder) = &args.folder else {
        let mut page = Vec::new();
        clap_mangen::Man::new(Cli::command())
            .render(&mut page)
            .map_err(|e| EngineError::Internal(e.to_string()))?;
        output::bytes(&page);
        return Ok(());
    };
    std::fs::create_dir_all(folder)
        .and_then(|()| clap_mangen::generate_to(Cli::command(), folder))
        .map_err(|e| EngineError::Usage(format!("{}: the pages cannot be written: {e}", folder.display())))
}
