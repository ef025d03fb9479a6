//! `cargo xtask compare-bench`: what became slower between two results.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::bench::case::{self, Case};

/// A ratio that falls to less than this share of the older one is a regression.
const KEPT: f64 = 0.9;

/// What to compare.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The older results.json
    before: PathBuf,
    /// The newer results.json
    after: PathBuf,
}

/// Lists every case whose ratio to its baseline fell by more than 10 %, and fails when there is one.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    report(&load(&args.before)?, &load(&args.after)?)
}

/// The cases of a file.
pub(crate) fn load(path: &Path) -> anyhow::Result<Vec<Case>> {
    let read = || case::read(&serde_json::from_slice(&fs::read(path)?)?);
    read().with_context(|| path.display().to_string())
}

/// As [`run`], on cases.
pub(crate) fn report(before: &[Case], after: &[Case]) -> anyhow::Result<()> {
    let Difference { worse, missing, shared } = differences(before, after);
    missing.iter().for_each(|case| println!("only in the older results: {case}"));
    if worse.is_empty() && shared > 0 {
        println!("{shared} cases compared, none more than 10 % worse");
        return Ok(());
    }
    if shared == 0 {
        bail!("the two results have no case in common");
    }
    bail!("{} of {shared} cases are more than 10 % worse:\n  {}", worse.len(), worse.join("\n  "))
}

#[derive(Debug, PartialEq)]
struct Difference {
    worse: Vec<String>,
    missing: Vec<String>,
    shared: usize,
}

fn differences(before: &[Case], after: &[Case]) -> Difference {
    let mut found = Difference { worse: Vec::new(), missing: Vec::new(), shared: 0 };
    for old in before {
        let Some(new) = after.iter().find(|new| key(new) == key(old)) else {
            found.missing.push(old.to_string());
            continue;
        };
        found.shared += 1;
        // A ratio that is no number any more is worse, too.
        if new.ratio.is_nan() || new.ratio < old.ratio * KEPT {
            found.worse.push(format!("{old}: ratio {:.3} -> {:.3}", old.ratio, new.ratio));
        }
    }
    found
}

fn key(case: &Case) -> (&str, &str, &serde_json::Map<String, serde_json::Value>, &str) {
    (&case.suite, &case.name, &case.params, &case.baseline)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::case::example;

    #[test]
    fn only_more_than_a_tenth_is_a_regression() {
        let before = [example("a", 10.0), example("b", 10.0), example("gone", 1.0)];
        let after = [example("b", 8.9), example("a", 9.1), example("new", 1.0)];
        let found = differences(&before, &after);
        assert_eq!(found.worse, ["speed b 4 against cp & fsync: ratio 5.000 -> 4.450"]);
        assert_eq!((found.missing.len(), found.shared), (1, 2));
        assert!(report(&before, &after).is_err());
        assert!(report(&after, &after).is_ok());
    }

    #[test]
    fn results_without_a_common_case_are_not_compared() {
        assert!(report(&[example("a", 1.0)], &[example("b", 1.0)]).is_err());
    }
}
