//! The crates use each other only as `docs/architecture.md` allows.

use std::process::Command;

#[test]
fn crates_keep_to_the_dependency_table() {
    let output = Command::new(env!("CARGO_BIN_EXE_xtask")).arg("layers").output().expect("xtask starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
