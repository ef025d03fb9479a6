//! `cargo xtask fuzz`: every fuzz target for a while.

use std::process::Command;

use anyhow::{bail, ensure};

use crate::process::{self, root};

/// How long.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Seconds for each target
    #[arg(long, value_name = "N", default_value_t = 60)]
    seconds: u32,
}

/// Runs all targets, even after a crash, and fails when one crashed.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    require_tools()?;
    let list = fuzz(&["list"]).output()?;
    ensure!(list.status.success(), "cargo fuzz list: {}", String::from_utf8_lossy(&list.stderr));
    let targets = String::from_utf8(list.stdout)?;
    process::run(&mut fuzz(&["build"]))?;
    let limit = format!("-max_total_time={}", args.seconds);
    let mut crashed = Vec::new();
    for target in targets.lines() {
        if let Err(error) = process::run(&mut fuzz(&["run", target, "--", &limit])) {
            crashed.push(format!("{target}: {error}, inputs are in fuzz/artifacts/{target}"));
        }
    }
    ensure!(crashed.is_empty(), "fuzz targets failed:\n  {}", crashed.join("\n  "));
    eprintln!("fuzz: {} targets, {} s each, no crash", targets.lines().count(), args.seconds);
    Ok(())
}

/// `cargo +nightly fuzz` in the workspace root. The variables by which a running cargo names itself would undo `+nightly`.
fn fuzz(arguments: &[&str]) -> Command {
    let mut command = nightly();
    command.arg("fuzz").args(arguments);
    command
}

fn nightly() -> Command {
    let mut command = Command::new("cargo");
    let own = ["CARGO", "RUSTC", "RUSTDOC", "RUSTUP_TOOLCHAIN", "RUSTFLAGS"];
    own.iter().for_each(|name| _ = command.env_remove(name));
    command.current_dir(root()).arg("+nightly");
    command
}

fn require_tools() -> anyhow::Result<()> {
    let works = |mut command: Command| command.output().is_ok_and(|output| output.status.success());
    let mut version = nightly();
    version.arg("--version");
    if !works(version) {
        bail!("the nightly compiler is missing: rustup toolchain install nightly");
    }
    if !works(fuzz(&["--version"])) {
        bail!("cargo-fuzz is missing: cargo install cargo-fuzz --locked");
    }
    Ok(())
}
