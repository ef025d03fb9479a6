//! The suites that time whole commands.

use std::process::Command;

use serde_json::{Value, json};

use super::Found;
use super::case::{Case, Title};
use super::job::{Contender, Jobs};
use crate::process::{self, cargo, program};
use crate::statistics::Measured;

/// The baseline of a job that ends with fsync.
const COPY: &str = "cp and fsync";

/// The whole job beside a copy of its input, and numpy on a smaller model when there is numpy.
pub(crate) fn speed(jobs: &Jobs<'_>, found: &mut Found) -> anyhow::Result<()> {
    let (output, copy) = (jobs.file("out.parquet"), jobs.file("copy"));
    let mut all = vec![Contender::new(COPY, jobs.copy(&jobs.model, &copy), Some(&copy))];
    for method in ["minmax", "ls"] {
        all.push(Contender::new(method, jobs.quantize(method, &output, &[]), Some(&output)));
    }
    jobs.measure(&mut all)?;
    let (base, own) = all.split_first().expect("the copy and two methods");
    for own in own {
        let work = jobs.weights / 1e6;
        found.cases.push(rate(Row { suite: "speed", unit: "Mweights/s", params: bits() }, work, own, base));
    }
    numpy(jobs, found)
}

fn numpy(jobs: &Jobs<'_>, found: &mut Found) -> anyhow::Result<()> {
    const SCRIPT: &str = include_str!("numpy_minmax.py");
    let check = program("python3").args(["-c", "import numpy"]).output();
    if !check.is_ok_and(|output| output.status.success()) {
        found.notes.push("speed: no numpy baseline, python3 with numpy is not here".to_owned());
        return Ok(());
    }
    let weights = jobs.smaller("small.safetensors", 200_000_000)?;
    let (model, output, other) =
        (jobs.file("small.safetensors"), jobs.file("numpy.bin"), jobs.file("small.parquet"));
    let mut python = program("python3");
    python.args(["-c", SCRIPT]).arg(&model).arg(&output);
    let mut aq = jobs.aq(&["quantize", "--json", "--quiet", "--bits", "4", "--method", "minmax"]);
    aq.arg(&model).arg("--output").arg(&other);
    let mut all = [
        Contender::new("numpy and fsync", python, Some(&output)),
        Contender::new("minmax, 200 MB", aq, Some(&other)),
    ];
    jobs.measure(&mut all)?;
    let row = Row { suite: "speed", unit: "Mweights/s", params: bits() };
    found.cases.push(rate(row, weights / 1e6, &all[1], &all[0]));
    Ok(())
}

/// Two threads, and all there are, beside one.
pub(crate) fn parallel(jobs: &Jobs<'_>, found: &mut Found) -> anyhow::Result<()> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut counts = vec![1, 2, cores];
    counts.sort_unstable();
    counts.dedup();
    let output = jobs.file("out.parquet");
    for method in ["minmax", "ls"] {
        let contender = |threads: &usize| {
            let command = jobs.quantize(method, &output, &["--threads", &threads.to_string()]);
            Contender::new(&format!("{method}, {threads} threads"), command, Some(&output))
        };
        let mut all: Vec<Contender> = counts.iter().map(contender).collect();
        jobs.measure(&mut all)?;
        for (own, threads) in all.iter().zip(&counts).skip(1) {
            let params = json!({"bits": 4, "method": method, "threads": threads});
            let own_row = Row { suite: "parallel", unit: "Mweights/s", params };
            let case = rate(own_row, jobs.weights / 1e6, own, &all[0]);
            found.cases.push(Case { name: "whole job".into(), baseline: "1 thread".into(), ..case });
        }
    }
    for method in ["minmax", "ls"] {
        found.cases.extend(compute(jobs, method, &counts)?);
    }
    found.notes.push(
        "parallel: the whole job includes writing and fsync; its compute part plans and encodes, and drops what comes out"
            .to_owned(),
    );
    Ok(())
}

/// The compute part, by the program `encode` of the package `aq-benches`.
fn compute(jobs: &Jobs<'_>, method: &str, counts: &[usize]) -> anyhow::Result<Vec<Case>> {
    process::run(&mut cargo(&["build", "--release", "--package", "aq-benches", "--bin", "encode"]))?;
    let path = jobs.setting.target.join("release").join(format!("encode{}", std::env::consts::EXE_SUFFIX));
    let mut command = program(path);
    command.arg(&jobs.model).arg(jobs.setting.runs.to_string()).arg(method);
    let output = command.args(counts.iter().map(usize::to_string)).output()?;
    anyhow::ensure!(output.status.success(), "encode: {}", String::from_utf8_lossy(&output.stderr));
    let rate_of = |line: &str| -> anyhow::Result<Measured> {
        let line: Value = serde_json::from_str(line)?;
        let seconds: Option<Vec<f64>> =
            line["seconds"].as_array().into_iter().flatten().map(Value::as_f64).collect();
        Ok(Measured::rate(jobs.weights / 1e6, &seconds.unwrap_or_default()))
    };
    let text = String::from_utf8(output.stdout)?;
    let rates = text.lines().map(rate_of).collect::<anyhow::Result<Vec<Measured>>>()?;
    let title = |threads: &usize| Title {
        suite: "parallel",
        name: "compute part",
        params: json!({"bits": 4, "method": method, "threads": threads}),
        unit: "Mweights/s",
        baseline: "1 thread",
    };
    Ok(counts.iter().zip(&rates).skip(1).map(|(n, &rate)| Case::higher(title(n), rate, rates[0])).collect())
}

/// Peak memory and time with a limit beside none.
pub(crate) fn memory(jobs: &Jobs<'_>, found: &mut Found) -> anyhow::Result<()> {
    const LIMITS: [&str; 2] = ["64MiB", "128MiB"];
    let output = jobs.file("out.parquet");
    let contender = |name: &str, more: &[&str]| {
        Contender::new(name, jobs.quantize("minmax", &output, more), Some(&output))
    };
    let mut all = vec![contender("no limit", &[])];
    all.extend(LIMITS.map(|limit| contender(limit, &["--memory-limit", limit])));
    jobs.measure(&mut all)?;
    let peak = |contender: &Contender| -> anyhow::Result<Measured> {
        let bytes = contender.numbers("peak_rss_bytes")?;
        Ok(Measured::of(&bytes.iter().map(|b| b / f64::from(1 << 20)).collect::<Vec<f64>>()))
    };
    for (own, limit) in all[1..].iter().zip(LIMITS) {
        let params = json!({"bits": 4, "method": "minmax", "memory_limit": limit});
        let title =
            |name, unit| Title { suite: "memory", name, params: params.clone(), unit, baseline: "no limit" };
        found.cases.push(Case::lower(title("peak resident", "MiB"), peak(own)?, peak(&all[0])?));
        let rate = |c: &Contender| Measured::rate(jobs.weights / 1e6, &c.seconds);
        found.cases.push(Case::higher(title("whole job", "Mweights/s"), rate(own), rate(&all[0])));
    }
    found.notes.push(
        "memory: without a limit the input is mapped, and its pages count as resident while they are in use"
            .to_owned(),
    );
    Ok(())
}

/// Writing Parquet, checking it and reading it back, each beside a copy of its input or output.
pub(crate) fn io(jobs: &Jobs<'_>, found: &mut Found) -> anyhow::Result<()> {
    let (arrow, parquet) = (jobs.file("in.arrow"), jobs.file("in.parquet"));
    for file in [&arrow, &parquet] {
        let done = jobs.quantize("minmax", file, &[]).output()?;
        anyhow::ensure!(done.status.success(), "quantize: {}", String::from_utf8_lossy(&done.stderr));
    }
    let (written, plain, copy) = (jobs.file("out.parquet"), jobs.file("out.safetensors"), jobs.file("copy"));
    let mut convert = jobs.aq(&["convert"]);
    convert.arg(&arrow).arg("--output").arg(&written);
    let mut verify = jobs.aq(&["verify"]);
    verify.arg(&parquet);
    let mut dequantize = jobs.aq(&["dequantize", "--dtype", "bf16"]);
    dequantize.arg(&parquet).arg("--output").arg(&plain);
    let again = |from| Contender::new(COPY, jobs.copy(from, &copy), Some(&copy));
    let own = |name, command: Command, output| Contender::new(name, command, output);
    for (own, mut base, file) in [
        (own("write parquet", convert, Some(&*written)), again(&arrow), &arrow),
        (own("verify parquet", verify, None), again(&parquet), &parquet),
        (own("dequantize parquet", dequantize, Some(&*plain)), again(&jobs.model), &jobs.model),
    ] {
        if own.name == "verify parquet" {
            // Checking writes nothing, so neither does its baseline wait for the disk.
            let null = std::path::Path::new("/dev/null");
            base = Contender::new("cp to /dev/null", jobs.copy(file, null), None);
        }
        let mut pair = [own, base];
        jobs.measure(&mut pair)?;
        let megabytes = std::fs::metadata(file)?.len() as f64 / 1e6;
        found.cases.push(rate(
            Row { suite: "io", unit: "MB/s", params: bits() },
            megabytes,
            &pair[0],
            &pair[1],
        ));
    }
    Ok(())
}

fn bits() -> Value {
    json!({"bits": 4})
}

struct Row<'a> {
    suite: &'a str,
    unit: &'a str,
    params: Value,
}

/// One command beside another that does as much work.
fn rate(row: Row<'_>, work: f64, own: &Contender, base: &Contender) -> Case {
    let Row { suite, unit, params } = row;
    let title = Title { suite, name: &own.name, params, unit, baseline: &base.name };
    Case::higher(title, Measured::rate(work, &own.seconds), Measured::rate(work, &base.seconds))
}
