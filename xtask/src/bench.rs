//! `cargo xtask bench`: how fast the kernels and the whole job are, beside what bounds them, and how accurate the methods.

mod accuracy;
pub(crate) mod case;
mod job;
mod report;
mod simd;
mod suites;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::ValueEnum;
use serde_json::{Value, json};

use crate::compare_bench;
use crate::process::{self, cargo, program};
use case::Case;
use report::Results;

/// What to measure, and where to leave it.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// What to measure
    #[arg(long, value_enum, default_value = "all")]
    suite: Suite,
    /// Smaller data and 3 runs instead of 5
    #[arg(long)]
    quick: bool,
    /// Fail when a ratio is more than 10 % below that of this older results.json
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
    /// Folder for results.json, report.md and report.html [default: bench-results in the target folder]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// A built `aq` to measure instead of building one
    #[arg(long, value_name = "FILE", env = "AQ_BIN")]
    aq: Option<PathBuf>,
    #[command(flatten)]
    accuracy: accuracy::Args,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Suite {
    /// Each kernel at each SIMD level, beside its plain twin and memcpy
    Simd,
    /// The whole job, beside cp and numpy
    Speed,
    /// More threads beside one
    Parallel,
    /// Peak memory and time with a limit beside none
    Memory,
    /// Writing, checking and reading back Parquet, beside cp
    Io,
    /// Bits per weight against error for every method and peer, beside the rate-distortion bound
    Accuracy,
    /// All of them
    All,
}

/// What every suite is told.
pub(crate) struct Setting {
    runs: usize,
    quick: bool,
    target: PathBuf,
    aq: PathBuf,
}

/// What a suite found out.
#[derive(Default)]
pub(crate) struct Found {
    cases: Vec<Case>,
    sections: Vec<accuracy::Section>,
    notes: Vec<String>,
}

/// Measures, prints a table and writes the results.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let setting = setting(args)?;
    let folder = args.out.clone().unwrap_or_else(|| setting.target.join("bench-results"));
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let host = host(&setting);
    let wants = |suite| args.suite == suite || args.suite == Suite::All;
    let mut found = Found::default();
    if wants(Suite::Simd) {
        simd::run(&setting, &mut found)?;
    }
    if wants(Suite::Accuracy) {
        accuracy::run(&setting, &args.accuracy, &mut found)?;
    }
    if !matches!(args.suite, Suite::Simd | Suite::Accuracy) {
        let jobs = job::Jobs::new(&setting)?;
        for (suite, run) in [
            (Suite::Speed, suites::speed as fn(&job::Jobs<'_>, &mut Found) -> anyhow::Result<()>),
            (Suite::Parallel, suites::parallel),
            (Suite::Memory, suites::memory),
            (Suite::Io, suites::io),
        ] {
            if wants(suite) {
                run(&jobs, &mut found)?;
            }
        }
    }
    found.notes.push(format!("load averages before and after: {} and {}", text(&host["load"]), load()));
    write(&folder, &host, &found)?;
    match &args.baseline {
        Some(path) => compare_bench::report(&compare_bench::load(path)?, &found.all_cases()),
        None => Ok(()),
    }
}

impl Found {
    /// Timings and accuracies.
    fn all_cases(&self) -> Vec<Case> {
        let accuracies = self.sections.iter().flat_map(accuracy::Section::cases);
        self.cases.iter().cloned().chain(accuracies).collect()
    }
}

fn setting(args: &Args) -> anyhow::Result<Setting> {
    let target = process::target_directory()?;
    let needs_aq = args.suite != Suite::Simd;
    let aq = match &args.aq {
        Some(aq) => std::path::absolute(aq)?,
        None => target.join("release").join(format!("aq{}", std::env::consts::EXE_SUFFIX)),
    };
    if needs_aq && args.aq.is_none() {
        process::run(&mut cargo(&["build", "--release", "--package", "aq-cli"]))?;
    }
    Ok(Setting { runs: if args.quick { 3 } else { 5 }, quick: args.quick, target, aq })
}

fn write(folder: &Path, host: &Value, found: &Found) -> anyhow::Result<()> {
    let cases: Vec<Value> = found.all_cases().iter().map(Case::to_json).collect();
    let results = json!({"schema": case::SCHEMA, "host": host, "notes": found.notes, "cases": cases});
    let shown = Results { host, notes: &found.notes, cases: &found.cases, sections: &found.sections };
    found.sections.iter().for_each(|section| println!("{}", section.markdown()));
    if !found.cases.is_empty() {
        println!("{}", report::table(&found.cases));
    }
    found.notes.iter().for_each(|note| println!("- {note}"));
    fs::write(folder.join("results.json"), serde_json::to_string_pretty(&results)? + "\n")?;
    fs::write(folder.join("report.md"), shown.markdown())?;
    fs::write(folder.join("report.html"), shown.html())?;
    println!("written: results.json, report.md and report.html in {}", folder.display());
    Ok(())
}

/// The machine, as far as it says.
fn host(setting: &Setting) -> Value {
    let line = |path: &str, key: &str| {
        let file = fs::read_to_string(path).unwrap_or_default();
        let line = file.lines().find(|line| line.starts_with(key)).unwrap_or_default();
        line.split_once(':').map_or("unknown", |(_, value)| value.trim()).to_owned()
    };
    let version = program(&setting.aq).arg("--version").output();
    let version = version.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned());
    json!({"os": std::env::consts::OS, "arch": std::env::consts::ARCH,
           "cpu": line("/proc/cpuinfo", "model name"), "memory": line("/proc/meminfo", "MemTotal"),
           "threads": std::thread::available_parallelism().map_or(1, usize::from),
           "aq": version.unwrap_or_else(|_| "not built".to_owned()), "quick": setting.quick, "load": load()})
}

fn load() -> String {
    let file = fs::read_to_string("/proc/loadavg").unwrap_or_else(|_| "unknown".to_owned());
    file.split_whitespace().take(3).collect::<Vec<_>>().join(" ")
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
