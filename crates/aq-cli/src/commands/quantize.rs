//! `aq quantize`

use aq_engine::{Job, JobOptions, Registry, Report, Result, TensorReport, format_size};
use console::style;

use crate::args::QuantizeArgs;
use crate::output;
use crate::progress::Bar;
use crate::signals::Signals;

pub(crate) fn run(args: &QuantizeArgs, signals: &Signals) -> Result<()> {
    if args.dry_run {
        return super::plan::dry_run(args, signals);
    }
    let registry = Registry::default();
    let job = Job::new(options(args)?, &registry)?;
    let mut bar = Bar::new(args.show.quiet || args.show.json);
    let report = aq_engine::run(&job, &registry, &signals.cancel, &mut bar);
    drop(bar);
    let report = report?;
    if args.show.json {
        output::json(&report.json());
    } else if !args.show.quiet {
        summary(&report, args.show.verbose);
    }
    Ok(())
}

/// The options of the job that `args` asks for.
pub(crate) fn options(args: &QuantizeArgs) -> Result<JobOptions> {
    let flags = JobOptions {
        output: args.output.clone(),
        format: args.format.clone(),
        dtype: args.plain.dtype.clone(),
        shard_size: args.plain.shard_size.clone(),
        base_model: args.base_model.clone(),
        report: args.show.report.clone(),
        threads: args.resources.threads,
        memory_limit: args.resources.memory_limit.clone(),
        block_size: args.resources.block_size.clone(),
        streaming: args.resources.streaming.then_some(true),
        force: args.force,
        resume: args.resume,
        ..args.choice.job(&args.input)
    };
    Ok(flags.over(args.choice.surroundings()?))
}

/// How many of the worst tensors a summary shows.
const WORST: usize = 5;

fn summary(report: &Report, verbose: bool) {
    let (tensors, params, bytes) = report.quantized_totals();
    let kept = report.tensors.len() as u64 - tensors;
    let ratio = report.input_bytes as f64 / report.output_bytes.max(1) as f64;
    let architecture = report.architecture.as_deref().unwrap_or("unknown architecture");
    output::line(&format!(
        "{}  {} ({}, {:.1} M parameters) -> {}",
        style(&report.output).bold(),
        format_size(report.input_bytes),
        architecture,
        report.params() as f64 / 1e6,
        style(format!("{}, {ratio:.2} times smaller", format_size(report.output_bytes))).bold()
    ));
    let bits = if params == 0 { 0.0 } else { bytes as f64 * 8.0 / params as f64 };
    output::line(&format!(
        "{tensors} tensors quantized at {bits:.3} bits per weight, {kept} kept; whole file {:.3} bits per weight",
        report.bits_per_weight()
    ));
    if tensors > 0 {
        let global = report.global();
        output::line(&format!(
            "weight error: cosine {:.5}, relative MSE {:.3e} (weights only: look at outputs before you trust it)",
            global.cosine(),
            global.relative_mse()
        ));
    }
    if let Some(e) = report.activation_errors() {
        output::line(&format!(
            "input error, mean over layers: one static range {:.3e}, equal time groups {:.3e}, best time groups {:.3e}, \
             ranges of each token {:.3e}; as asked for, but without channel shifts {:.3e}",
            e.fixed, e.uniform, e.groups, e.token, e.unshifted
        ));
    }
    output::line(&format!(
        "{:.2} s, {:.0} M weights/s, {} threads, {}, peak memory {}",
        report.elapsed_s,
        report.params() as f64 / 1e6 / report.elapsed_s.max(1e-9),
        report.threads,
        report.simd,
        format_size(report.peak_rss_bytes)
    ));
    fallbacks(report, verbose);
    let mut quantized: Vec<&TensorReport> = report.quantized().collect();
    if !verbose {
        quantized.sort_by(|a, b| b.comparison.relative_mse().total_cmp(&a.comparison.relative_mse()));
        quantized.truncate(WORST);
        output::line(&style("worst tensors").underlined().to_string());
    }
    let row = |t: &&TensorReport| {
        vec![
            t.stored.info.name().to_string(),
            format!("{:?}", t.stored.info.shape()),
            format!("{:.3}", t.bits_per_weight()),
            format!("{:.5}", t.comparison.cosine()),
            format!("{:.3e}", t.comparison.relative_mse()),
            format!("{:.4}", t.slope()),
        ]
    };
    let rows: Vec<Vec<String>> = quantized.iter().map(row).collect();
    output::table(&["tensor", "shape", "bits", "cosine", "rel. MSE", "slope"], &rows);
    if verbose {
        kept_tensors(report);
    }
}

/// A line for each step down; of tensors with the same one the first is named and the others are counted, unless `verbose`.
fn fallbacks(report: &Report, verbose: bool) {
    let mut seen = Vec::new();
    for f in &report.fallbacks {
        let step = (f.tensor.is_some(), &f.from, &f.to, &f.reason);
        if !verbose && seen.contains(&step) {
            continue;
        }
        let alike = report
            .fallbacks
            .iter()
            .filter(|o| step == (o.tensor.is_some(), &o.from, &o.to, &o.reason))
            .count();
        let more = if verbose || alike == 1 { String::new() } else { format!(" and {} more", alike - 1) };
        let what = f.tensor.as_deref().unwrap_or("job");
        output::line(&format!("{what}{more}: {} -> {}: {}", f.from, f.to, f.reason));
        seen.push(step);
    }
}

fn kept_tensors(report: &Report) {
    let rows: Vec<Vec<String>> = report
        .tensors
        .iter()
        .filter_map(|t| match &t.decision {
            aq_engine::aq_core::Decision::Keep { reason } => Some(vec![
                t.stored.info.name().to_string(),
                format!("{:?}", t.stored.info.shape()),
                format_size(t.bytes),
                reason.clone(),
            ]),
            aq_engine::aq_core::Decision::Quantize(_) => None,
        })
        .collect();
    if !rows.is_empty() {
        output::table(&["kept", "shape", "bytes", "reason"], &rows);
    }
}
