//! `cargo xtask test`: every test there is. Continuous integration runs this and nothing else.

use std::path::Path;

use crate::process::{self, cargo, program};
use crate::{browser, python, wheel};

/// Runs the Rust tests, builds `aq` and the wheel, and runs the Python tests against them: those that need torch in an environment of their
/// own, as it takes gigabytes.
pub(crate) fn run() -> anyhow::Result<()> {
    rust_tests()?;
    // With the features of the tests, so that nothing is compiled twice.
    process::run(&mut cargo(&["build", "--release", "--workspace", "--bin", "aq", "--tests"]))?;
    let target = process::target_directory()?;
    let aq = target.join("release").join(format!("aq{}", std::env::consts::EXE_SUFFIX));
    let plain = python::environment(&target.join("venv"), "crates/aq-cli/tests/python/requirements.txt")?;
    let wheel = wheel::build(&plain)?;
    wheel::install(&plain, &wheel)?;
    browser::provide();
    pytest(&plain, "crates/aq-cli/tests/python", &aq)?;
    pytest(&plain, "crates/aq-py/tests/python", &aq)?;
    let torch = python::environment(&target.join("venv-torch"), "crates/aq-py/tests/torch/requirements.txt")?;
    wheel::install(&torch, &wheel)?;
    pytest(&torch, "crates/aq-py/tests/torch", &aq)
}

fn pytest(python: &Path, tests: &str, aq: &Path) -> anyhow::Result<()> {
    process::run(program(python).args(["-m", "pytest", "-q", "-rs", tests]).env("AQ_BIN", aq))
}

fn rust_tests() -> anyhow::Result<()> {
    let mut tests = cargo(&["test", "--release", "--workspace"]);
    if cfg!(windows) {
        // A running program cannot be replaced there, and this program is running.
        tests.args(["--exclude", "xtask"]);
    }
    process::run(&mut tests)?;
    // Benchmarks check the answers that they are about to time.
    process::run(&mut cargo(&["test", "--release", "--workspace", "--bench", "*"]))
}
