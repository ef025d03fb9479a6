//! `cargo xtask check`: what must hold before a commit, without running the tests.

use crate::layers;
use crate::process::{self, cargo};

/// Checks format, lints, layers and documentation, in this order.
pub(crate) fn run() -> anyhow::Result<()> {
    process::run(&mut cargo(&["fmt", "--all", "--check"]))?;
    process::run(&mut cargo(&["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"]))?;
    layers::run()?;
    let mut doc = cargo(&["doc", "--workspace", "--no-deps"]);
    process::run(doc.env("RUSTDOCFLAGS", "--deny warnings"))
}
