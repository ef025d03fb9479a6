//! `aq plan` and `aq quantize --dry-run`

use aq_engine::{Job, JobOptions, Registry, Result, format_size};
use serde_json::Value;

use crate::args::{PlanArgs, QuantizeArgs};
use crate::output;
use crate::progress::Bar;
use crate::signals::Signals;

pub(crate) fn run(args: &PlanArgs, signals: &Signals) -> Result<()> {
    let plan = plan(args.choice.job(&args.input).over(args.choice.surroundings()?), !args.table, signals)?;
    if args.table {
        table(&plan);
    } else {
        output::json(&plan);
    }
    Ok(())
}

/// The plan of a quantize command, for people unless `--json`.
pub(crate) fn dry_run(args: &QuantizeArgs, signals: &Signals) -> Result<()> {
    let plan = plan(super::quantize::options(args)?, args.show.quiet || args.show.json, signals)?;
    if args.show.json {
        output::json(&plan);
    } else if !args.show.quiet {
        table(&plan);
    }
    Ok(())
}

fn plan(options: JobOptions, quiet: bool, signals: &Signals) -> Result<Value> {
    let registry = Registry::default();
    let job = Job::new(options, &registry)?;
    aq_engine::plan(&job, &registry, &signals.cancel, &mut Bar::new(quiet))
}

fn table(plan: &Value) {
    if let Some(components) = plan["components"].as_array() {
        components.iter().for_each(table);
        return;
    }
    let text = |v: &Value| match v {
        Value::Null => String::new(),
        Value::String(s) => s.clone(),
        other => other.to_string(),
    };
    let layers = plan["layers"].as_array().map(Vec::as_slice).unwrap_or_default();
    let rows: Vec<Vec<String>> = layers
        .iter()
        .map(|l| {
            let bytes = l["bytes_estimate"].as_u64().unwrap_or(0);
            vec![
                text(&l["name"]),
                text(&l["shape"]),
                text(&l["decision"]),
                text(&l["method"]),
                text(if l["rate"].is_null() { &l["bits"] } else { &l["rate"] }),
                text(&l["group_size"]),
                format_size(bytes),
                l["error_estimate"].as_f64().map_or_else(String::new, |error| format!("{error:.2e}")),
                text(&l["reason"]),
            ]
        })
        .collect();
    let header = ["tensor", "shape", "decision", "method", "bits", "group", "bytes", "error", "reason"];
    output::table(&header, &rows);
    output::line(&format!(
        "about {} in all, {:.3} bits per weight",
        format_size(plan["bytes_estimate"].as_u64().unwrap_or(0)),
        plan["bits_per_weight_estimate"].as_f64().unwrap_or(0.0)
    ));
}
