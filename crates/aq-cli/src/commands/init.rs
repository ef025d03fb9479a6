//! `aq init`

use aq_engine::{EngineError, Profile, Result, config_template, schema, write_new_file};

use crate::args::InitArgs;
use crate::output;

pub(crate) fn run(args: &InitArgs) -> Result<()> {
    let text = match args.schema {
        true => {
            serde_json::to_string_pretty(&schema()).map_err(|e| EngineError::Internal(e.to_string()))? + "\n"
        }
        false => config_template(Profile::named(&args.profile)?),
    };
    match &args.output {
        Some(path) => write_new_file(path, &text, args.force),
        None => {
            output::line(text.trim_end());
            Ok(())
        }
    }
}
