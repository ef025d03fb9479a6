//! `aq search`

use std::path::Path;

use aq_engine::aq_core::SmoothingPlan;
use aq_engine::{
    CommandFitness, EngineError, Fitness, IoError, Job, JobOptions, Registry, Result, SearchOptions,
    SearchSettings,
};

use crate::args::SearchArgs;
use crate::output;
use crate::progress::Bar;
use crate::signals::Signals;

pub(crate) fn run(args: &SearchArgs, signals: &Signals) -> Result<()> {
    let registry = Registry::default();
    let flags = JobOptions {
        threads: args.resources.threads,
        memory_limit: args.resources.memory_limit.clone(),
        block_size: args.resources.block_size.clone(),
        streaming: args.resources.streaming.then_some(true),
        ..args.choice.job(&args.input)
    };
    let job = Job::new(flags.over(args.choice.surroundings()?), &registry)?;
    let settings = settings(args, &job, &registry)?;
    let fitness = args.fitness.as_deref().map(CommandFitness::new).transpose()?;
    let fitness = fitness.as_ref().map(|fitness| fitness as &dyn Fitness);
    if args.output.exists() && !args.force {
        return Err(IoError::Exists { path: args.output.clone() }.into());
    }
    let mut bar = Bar::new(args.show.quiet || args.show.json);
    let found = aq_engine::search(&job, &settings, fitness, &registry, &signals.cancel, &mut bar);
    drop(bar);
    let found = found?;
    found.write(&args.output)?;
    if args.show.json {
        output::json(&found.json());
    } else if !args.show.quiet {
        summary(&found.json(), &args.output);
    }
    Ok(())
}

fn settings(args: &SearchArgs, job: &Job, registry: &Registry) -> Result<SearchSettings> {
    let smoothing = |text: &String| {
        SmoothingPlan::parse(text).ok_or_else(|| EngineError::Config(format!("unknown smoothing {text:?}")))
    };
    Ok(SearchSettings {
        options: SearchOptions {
            population: args.population,
            children: args.children,
            evaluations: args.evaluations,
            patience: args.patience.unwrap_or(usize::MAX),
            seed: job.seed,
        },
        checkpoint: args.checkpoint.clone(),
        methods: args.methods.iter().map(|name| registry.resolve(name)).collect::<Result<_>>()?,
        smoothings: args.smoothings.iter().map(smoothing).collect::<Result<_>>()?,
        time_groups: args.groups.clone(),
    })
}

fn summary(found: &serde_json::Value, output: &Path) {
    let number =
        |value: &serde_json::Value| value.as_f64().map_or_else(|| "none".into(), |n| format!("{n:.6e}"));
    output::line(&format!(
        "{}: score {} after {} plans, {} at the start",
        output.display(),
        number(&found["best"]["score"]),
        found["evaluations"],
        number(&found["start"]["score"])
    ));
}
