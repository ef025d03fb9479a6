//! `cargo xtask coverage`: which lines the tests reach.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use serde_json::Value;

use crate::process::{self, cargo, program, root};

/// Runs the tests of the workspace with counters compiled in and prints a table of files.
pub(crate) fn run() -> anyhow::Result<()> {
    let (profdata, cov) = (tool("llvm-profdata")?, tool("llvm-cov")?);
    let target = process::target_directory()?.join("coverage");
    let profiles = target.join("profiles");
    if profiles.exists() {
        fs::remove_dir_all(&profiles)?;
    }
    fs::create_dir_all(&profiles)?;
    let tests = |arguments: &[&str]| {
        let mut command = cargo(&["test", "--workspace", "--exclude", "xtask", "--lib", "--bins", "--tests"]);
        command.args(arguments).env("CARGO_TARGET_DIR", &target);
        command
            .env("RUSTFLAGS", "-C instrument-coverage")
            .env("LLVM_PROFILE_FILE", profiles.join("%p-%m.profraw"));
        command
    };
    process::run(&mut tests(&[]))?;
    let listing = tests(&["--no-run", "--message-format=json"]).output()?;
    ensure!(listing.status.success(), "cargo test: {}", String::from_utf8_lossy(&listing.stderr));
    let programs = executables(&String::from_utf8(listing.stdout)?);
    ensure!(!programs.is_empty(), "cargo test names no program");
    report(&profdata, &cov, &profiles, &programs)
}

/// Adds up the counts and prints them for the files of the workspace.
fn report(profdata: &Path, cov: &Path, profiles: &Path, programs: &[PathBuf]) -> anyhow::Result<()> {
    let merged = profiles.join("all.profdata");
    let mut raw = Vec::new();
    for entry in fs::read_dir(profiles)? {
        raw.push(entry?.path());
    }
    ensure!(!raw.is_empty(), "the tests left no profile");
    process::run(program(profdata).args(["merge", "-sparse", "-o"]).arg(&merged).args(raw))?;
    let mut command = program(cov);
    command.arg("report").arg(format!("-instr-profile={}", merged.display()));
    command.args([r"-ignore-filename-regex=(\.cargo|rustc|/tests/)"]).arg(&programs[0]);
    programs[1..].iter().for_each(|path| _ = command.arg("-object").arg(path));
    process::run(&mut command)
}

/// The programs that cargo built, from its messages.
fn executables(messages: &str) -> Vec<PathBuf> {
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    messages.filter_map(|message| message["executable"].as_str().map(PathBuf::from)).collect()
}

/// A tool of LLVM that reads the profiles of this compiler: of the toolchain, or of the system in the same version.
fn tool(name: &str) -> anyhow::Result<PathBuf> {
    let rustc = |arguments: &[&str]| -> anyhow::Result<String> {
        let output = program("rustc").args(arguments).output().context("cannot start rustc")?;
        Ok(String::from_utf8(output.stdout)?)
    };
    let about = rustc(&["-vV"])?;
    let (host, version) = (field(&about, "host")?, field(&about, "LLVM version")?);
    let major = version.split('.').next().unwrap_or_default();
    let sysroot = PathBuf::from(rustc(&["--print", "sysroot"])?.trim());
    let own = sysroot.join("lib/rustlib").join(host).join("bin").join(name);
    let candidates = [own, PathBuf::from(format!("{name}-{major}"))];
    for path in candidates {
        if program(&path).arg("--version").current_dir(root()).output().is_ok() {
            return Ok(path);
        }
    }
    bail!(
        "{name} is missing: rustup component add llvm-tools, or the system's llvm-{major} (Debian: apt install llvm-{major})"
    )
}

fn field<'a>(about: &'a str, key: &str) -> anyhow::Result<&'a str> {
    let mut pairs = about.lines().filter_map(|line| line.split_once(": "));
    Ok(pairs.find(|(k, _)| *k == key).with_context(|| format!("rustc does not tell its {key}"))?.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_among_the_messages() {
        let messages = "{\"reason\":\"compiler-artifact\",\"executable\":null}\n\
                        {\"reason\":\"compiler-artifact\",\"executable\":\"/t/it-1\"}\nnot json\n";
        assert_eq!(executables(messages), [PathBuf::from("/t/it-1")]);
    }

    #[test]
    fn the_compiler_tells_its_llvm() {
        let about = "rustc 1.95.0\nhost: x86_64-unknown-linux-gnu\nLLVM version: 22.1.2\n";
        assert_eq!(field(about, "LLVM version").unwrap(), "22.1.2");
        assert!(field(about, "release").is_err());
    }
}
