//! `aq plan` and `aq quantize --dry-run`

use aq_engine::{
    Job, JobOptions, OpenModel, Registry, Result, format_size, make_plan, open_for_plan, plan_json,
};
use serde_json::{Value, json};

use crate::args::{PlanArgs, QuantizeArgs};
use crate::output;

pub(crate) fn run(args: &PlanArgs) -> Result<()> {
    let plan = plan(args.choice.job(&args.input).over(args.choice.surroundings()?))?;
    if args.table {
        table(&plan);
    } else {
        output::json(&plan);
    }
    Ok(())
}

/// The plan of a quantize command, for people unless `--json`.
pub(crate) fn dry_run(args: &QuantizeArgs) -> Result<()> {
    let plan = plan(super::quantize::options(args)?)?;
    if args.show.json {
        output::json(&plan);
    } else if !args.show.quiet {
        table(&plan);
    }
    Ok(())
}

fn plan(options: JobOptions) -> Result<Value> {
    let registry = Registry::default();
    let job = Job::new(options, &registry)?;
    let mut plans = Vec::new();
    for OpenModel { component, source } in open_for_plan(&job)? {
        let plan = make_plan(source.path(), source.tensors(), &job, &registry)?;
        let mut plan = plan_json(&plan, source.tensors(), &registry)?;
        if let Some(component) = component {
            plan["component"] = json!(component);
        }
        plans.push(plan);
    }
    if plans.len() == 1 {
        return Ok(plans.remove(0));
    }
    Ok(json!({"schema": "aq.plan/1", "components": plans}))
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
                text(&l["bits"]),
                text(&l["group_size"]),
                format_size(bytes),
                text(&l["reason"]),
            ]
        })
        .collect();
    output::table(&["tensor", "shape", "decision", "method", "bits", "group", "bytes", "reason"], &rows);
    output::line(&format!(
        "about {} in all, {:.3} bits per weight",
        format_size(plan["bytes_estimate"].as_u64().unwrap_or(0)),
        plan["bits_per_weight_estimate"].as_f64().unwrap_or(0.0)
    ));
}
