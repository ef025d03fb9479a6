//! Developer commands, run as `cargo xtask COMMAND`. One file a command.
#![forbid(unsafe_code)]

mod bench;
mod browser;
mod check;
mod compare_bench;
mod coverage;
mod fuzz;
mod layers;
mod model;
mod process;
mod python;
mod random;
mod safetensors;
mod statistics;
mod synthetic;
mod test;
mod wheel;

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
    /// Run every test: Rust, then the built command and the wheel from Python.
    Test,
    /// Compare the crates' dependencies with the table in docs/architecture.md.
    Layers,
    /// Measure speed and memory beside what bounds them, and write results.json, report.md and report.html.
    Bench(bench::Args),
    /// List the cases of two results.json whose ratio fell by more than 10 %, and fail when there is one.
    CompareBench(compare_bench::Args),
    /// Write a synthetic bfloat16 checkpoint with the tensor names and shapes of a public model.
    Model(model::Args),
    /// Run every fuzz target with cargo-fuzz on the nightly compiler.
    Fuzz(fuzz::Args),
    /// Show which lines the tests reach.
    Coverage,
    /// Build the Python package into target/wheels.
    Wheel,
}

fn main() -> ExitCode {
    let done = match Args::parse().command {
        Command::Check => check::run(),
        Command::Test => test::run(),
        Command::Layers => layers::run(),
        Command::Bench(args) => bench::run(&args),
        Command::CompareBench(args) => compare_bench::run(&args),
        Command::Model(args) => model::run(&args),
        Command::Fuzz(args) => fuzz::run(&args),
        Command::Coverage => coverage::run(),
        Command::Wheel => wheel::run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
