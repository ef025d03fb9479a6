//! `cargo xtask layers`: which crate may use which.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::{Context, bail};
use serde_json::Value;

use crate::process::{metadata, root};

type Names = BTreeSet<String>;

/// What each crate may use of the workspace, the crates to come included.
const ALLOWED: &[(&str, &[&str])] = &[
    ("aq-core", &[]),
    ("aq-kernels", &[]),
    ("aq-codec", &["aq-core", "aq-kernels"]),
    ("aq-spatial", &["aq-core", "aq-kernels", "aq-codec"]),
    ("aq-timeaware", &["aq-core", "aq-kernels"]),
    ("aq-search", &["aq-core"]),
    ("aq-io", &["aq-core", "aq-codec"]),
    ("aq-engine", &["aq-core", "aq-kernels", "aq-codec", "aq-spatial", "aq-timeaware", "aq-search", "aq-io"]),
    ("aq-cli", &["aq-engine"]),
    ("aq-py", &["aq-kernels", "aq-codec", "aq-engine"]),
    ("aq-benches", &["aq-core", "aq-kernels", "aq-codec", "aq-spatial", "aq-io", "aq-engine", "aq-scalar"]),
    ("aq-scalar", &[]),
    ("xtask", &[]),
];

/// Outside crates that have one home.
const HOMES: &[(&str, &[&str])] = &[
    ("pulp", &["aq-kernels"]),
    ("arrow2", &["aq-io"]),
    ("parquet2", &["aq-io"]),
    ("parquet-format-safe", &["aq-io"]),
    ("memmap2", &["aq-io"]),
    ("rayon", &["aq-engine", "aq-py"]),
    ("pyo3", &["aq-py"]),
    ("numpy", &["aq-py"]),
    ("clap", &["aq-cli", "xtask"]),
    ("indicatif", &["aq-cli"]),
    ("anyhow", &["aq-cli", "xtask"]),
];

/// Fails with every dependency that the table does not allow, and when `docs/architecture.md` shows another table.
pub(crate) fn run() -> anyhow::Result<()> {
    let members = dependencies()?;
    let mut wrong = forbidden(&members);
    wrong.extend(undocumented(&members, &documented()?));
    if !wrong.is_empty() {
        bail!("dependencies and their table differ:\n  {}", wrong.join("\n  "));
    }
    eprintln!("layers: {} crates keep to the table", members.len());
    Ok(())
}

/// Direct dependencies of each workspace member, those of tests left out.
fn dependencies() -> anyhow::Result<BTreeMap<String, Names>> {
    let metadata = metadata()?;
    let packages = metadata["packages"].as_array().context("cargo metadata lists no packages")?;
    Ok(packages.iter().map(|p| (text(&p["name"]), package_dependencies(p))).collect())
}

fn package_dependencies(package: &Value) -> Names {
    let all = package["dependencies"].as_array().into_iter().flatten();
    all.filter(|d| d["kind"].as_str() != Some("dev")).map(|d| text(&d["name"])).collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn forbidden(members: &BTreeMap<String, Names>) -> Vec<String> {
    let mut wrong = Vec::new();
    for (name, uses) in members {
        let Some((_, allowed)) = ALLOWED.iter().find(|(crate_name, _)| crate_name == name) else {
            wrong.push(format!("{name} is not in the table"));
            continue;
        };
        for used in uses {
            let inside = used.starts_with("aq-") && !allowed.contains(&used.as_str());
            let homeless = HOMES.iter().any(|(c, homes)| c == used && !homes.contains(&name.as_str()));
            if inside || homeless {
                wrong.push(format!("{name} may not use {used}"));
            }
        }
    }
    wrong
}

/// The "may use" column of the table in `docs/architecture.md`.
fn documented() -> anyhow::Result<BTreeMap<String, Names>> {
    let path = root().join("docs/architecture.md");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    Ok(rows.filter_map(table_row).collect())
}

/// Crate and what it may use, from a row such as ``| `aq-io` | job | `aq-core`, `aq-codec` | strategies |``.
fn table_row(line: &str) -> Option<(String, Names)> {
    let cells: Vec<&str> = line.split('|').map(str::trim).collect();
    let [_, name, _, uses, ..] = cells[..] else { return None };
    let plain = |name: &str| name.trim().trim_matches('`').to_owned();
    let names = uses.split(',').map(plain).filter(|n| n.starts_with("aq-")).collect();
    Some((plain(name), names))
}

fn undocumented(members: &BTreeMap<String, Names>, rows: &BTreeMap<String, Names>) -> Vec<String> {
    let mut wrong = Vec::new();
    for name in members.keys() {
        let allowed: Names = ALLOWED
            .iter()
            .filter(|(crate_name, _)| crate_name == name)
            .flat_map(|(_, uses)| uses.iter().filter(|u| members.contains_key(**u)).map(|u| (*u).to_owned()))
            .collect();
        if rows.get(name) != Some(&allowed) {
            wrong.push(format!("docs/architecture.md: the row of {name} should allow {allowed:?}"));
        }
    }
    let strangers = rows.keys().filter(|name| !members.contains_key(*name));
    wrong.extend(strangers.map(|name| format!("docs/architecture.md: there is no crate {name}")));
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(list: &[(&str, &[&str])]) -> BTreeMap<String, Names> {
        list.iter().map(|(n, uses)| ((*n).into(), uses.iter().map(|u| (*u).into()).collect())).collect()
    }

    #[test]
    fn a_forbidden_edge_is_named() {
        assert!(forbidden(&members(&[("aq-io", &["aq-core", "arrow2"]), ("xtask", &["clap"])])).is_empty());
        assert_eq!(forbidden(&members(&[("aq-io", &["aq-spatial"])])), ["aq-io may not use aq-spatial"]);
        assert_eq!(forbidden(&members(&[("aq-core", &["parquet2"])])), ["aq-core may not use parquet2"]);
        assert_eq!(forbidden(&members(&[("aq-extra", &[])])), ["aq-extra is not in the table"]);
    }

    #[test]
    fn the_document_must_show_the_same_rows() {
        let crates = members(&[("aq-core", &[]), ("aq-codec", &["aq-core"]), ("aq-kernels", &[])]);
        let rows = |codec| {
            let lines = ["| `aq-core` | words | - | files |", "| `aq-kernels` | SIMD | - | layers |", codec];
            lines.into_iter().filter_map(table_row).collect()
        };
        let good = rows("| `aq-codec` | bytes | `aq-core`, `aq-kernels` | files |");
        assert!(undocumented(&crates, &good).is_empty());
        assert_eq!(undocumented(&crates, &rows("| `aq-codec` | bytes | `aq-core` | files |")).len(), 1);
        assert_eq!(undocumented(&crates, &rows("| `aq-other` | bytes | - | files |")).len(), 2);
    }
}
