//! The browser that the tests of report pages look with.

use crate::process::{self, program};
use crate::python::is_root;

/// Installs Chromium and its driver where they are missing and we may. Where they stay missing, the tests that need them say that they
/// are skipped.
pub(crate) fn provide() {
    let works = |name: &str| program(name).arg("--version").output().is_ok_and(|o| o.status.success());
    if works("chromedriver") || !is_root() || !works("apt-get") {
        return;
    }
    let install = ["install", "--yes", "--no-install-recommends", "chromium", "chromium-driver"];
    let installed = process::run(program("apt-get").arg("update"))
        .and_then(|()| process::run(program("apt-get").args(install)));
    if let Err(error) = installed {
        eprintln!("no browser to look at reports with: {error:#}");
    }
}
