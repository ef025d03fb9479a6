//! Virtual environments for what runs in Python.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use crate::process::{self, program, root};

/// The interpreter of the environment in `folder`, which is made and filled with what the file `requirements` lists when something is
/// missing.
pub(crate) fn environment(folder: &Path, requirements: &str) -> anyhow::Result<PathBuf> {
    let python = folder.join(if cfg!(windows) { "Scripts/python.exe" } else { "bin/python" });
    let wanted = root().join(requirements);
    let installed = folder.join("requirements.txt");
    let wanted_text = fs::read(&wanted).with_context(|| wanted.display().to_string())?;
    if python.exists() && fs::read(&installed).is_ok_and(|text| text == wanted_text) {
        return Ok(python);
    }
    create(folder)?;
    let pip =
        ["-m", "pip", "install", "--quiet", "--no-cache-dir", "--disable-pip-version-check", "--requirement"];
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

/// Whether we may install packages of the system.
pub(crate) fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output();
    id.is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}
