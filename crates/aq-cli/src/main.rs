//! The `aq` command.
#![forbid(unsafe_code)]

mod args;
mod commands;
mod examples;
mod output;
mod progress;
mod signals;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};

use crate::args::{Cli, Command};
use crate::commands::{
    calibrate, compare, completions, convert, dequantize, init, inspect, man, plan, quantize, search, verify,
};

fn main() -> ExitCode {
    let version = format!("{} ({})", env!("CARGO_PKG_VERSION"), aq_engine::simd_level().name());
    let matches = Cli::command().version(version).get_matches();
    let cli = match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    let signals = signals::Signals::install();
    let result = match cli.command {
        Command::Quantize(args) => quantize::run(&args, &signals),
        Command::Plan(args) => plan::run(&args, &signals),
        Command::Search(args) => search::run(&args, &signals),
        Command::Inspect(args) => inspect::run(&args),
        Command::Compare(args) => compare::run(&args, &signals),
        Command::Calibrate(args) => calibrate::run(&args, &signals),
        Command::Verify(args) => verify::run(&args, &signals),
        Command::Dequantize(args) => dequantize::run(&args, &signals),
        Command::Convert(args) => convert::run(&args, &signals),
        Command::Init(args) => init::run(&args),
        Command::Completions(args) => completions::run(&args),
        Command::Man(args) => man::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::error(&error);
            ExitCode::from(signals.exit_code(error.exit_code()))
        }
    }
}
