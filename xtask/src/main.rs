//! Developer commands, run as `cargo xtask COMMAND`. One file a command.
#![forbid(unsafe_code)]

mod check;
mod layers;
mod process;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Developer commands of ArrowQuant.
#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Check format, lints, layers and documentation.
    Check,
    /// Run every test: Rust, then the built command from Python.
    Test,
    /// Compare the crates' dependencies with the table in docs/architecture.md.
    Layers,
}

fn main() -> ExitCode {
    let done = match Args::parse().command {
        Command::Check => check::run(),
        Command::Test => test::run(),
        Command::Layers => layers::run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
