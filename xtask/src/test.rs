//! `cargo xtask test`: every test there is. Continuous integration runs this and nothing else.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use crate::process::{self, cargo, program, root};

const PYTHON_TESTS: &str = "crates/aq-cli/tests/python";

/// Runs the Rust tests, builds `aq`, and runs the Python tests against it in a virtual environment of their own.
pub(crate) fn run() -> anyhow::Result<()> {
    rust_tests()?;
    process::run(&mut cargo(&["build", "--release", "--package", "aq-cli"]))?;
    let target = process::target_directory()?;
    let aq = target.join("release").join(format!("aq{}", std::env::consts::EXE_SUFFIX));
    let python = virtual_environment(&target.join("venv"))?;
    process::run(program(python).args(["-m", "pytest", "-q", PYTHON_TESTS]).env("AQ_BIN", aq))
}

fn rust_tests() -> anyhow::Result<()> {
    let mut tests = cargo(&["test", "--release", "--workspace"]);
    if cfg!(windows) {
        // A running program cannot be replaced there, and this program is running.
        tests.args(["--exclude", "xtask"]);
    }
    process::run(&mut tests)
}

/// The interpreter of the environment in `folder`, which is made and filled when something is missing.
fn virtual_environment(folder: &Path) -> anyhow::Result<PathBuf> {
    let python = folder.join(if cfg!(windows) { "Scripts/python.exe" } else { "bin/python" });
    let wanted = root().join(PYTHON_TESTS).join("requirements.txt");
    let installed = folder.join("requirements.txt");
    let wanted_text = fs::read(&wanted).with_context(|| wanted.display().to_string())?;
    if python.exists() && fs::read(&installed).is_ok_and(|text| text == wanted_text) {
        return Ok(python);
    }
    create(folder)?;
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"];
    process::run(program(&python).args(pip).arg(&wanted))?;
    fs::copy(&wanted, &installed)?;
    Ok(python)
}

/// Makes the environment. Debian ships Python without what that takes, so it is installed when we may.
fn create(folder: &Path) -> anyhow::Result<()> {
    let make = || {
        let mut command = program(if cfg!(windows) { "python" } else { "python3" });
        command.args(["-m", "venv", "--clear"]).arg(folder);
        command
    };
    let first = process::run(&mut make());
    if first.is_ok() || !is_root() || program("apt-get").arg("--version").output().is_err() {
        return first.context("Python 3 with its venv module is needed (Debian: apt install python3-venv)");
    }
    process::run(program("apt-get").arg("update"))?;
    process::run(program("apt-get").args(["install", "--yes", "--no-install-recommends", "python3-venv"]))?;
    process::run(&mut make())
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output();
    id.is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}
