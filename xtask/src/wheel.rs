//! `cargo xtask wheel`: the Python package.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::process::{self, program};
use crate::python;

/// Builds the wheel into `target/wheels` with the maturin of the environment that the tests use.
pub(crate) fn run() -> anyhow::Result<()> {
    let venv = process::target_directory()?.join("venv");
    let python = python::environment(&venv, "crates/aq-cli/tests/python/requirements.txt")?;
    println!("{}", build(&python)?.display());
    Ok(())
}

/// Builds the wheel with the maturin of an environment.
pub(crate) fn build(python: &Path) -> anyhow::Result<PathBuf> {
    let wheels = process::target_directory()?.join("wheels");
    if wheels.exists() {
        fs::remove_dir_all(&wheels)?;
    }
    let arguments =
        ["-m", "maturin", "build", "--release", "--manifest-path", "crates/aq-py/Cargo.toml", "--out"];
    process::run(program(python).args(arguments).arg(&wheels).arg("--interpreter").arg(python))?;
    let built = fs::read_dir(&wheels)?.next().context("maturin wrote no wheel")??;
    Ok(built.path())
}

/// Installs a wheel in an environment, in place of the one that is there.
pub(crate) fn install(python: &Path, wheel: &Path) -> anyhow::Result<()> {
    let pip =
        ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--force-reinstall"];
    process::run(program(python).args(pip).arg(wheel))
}
