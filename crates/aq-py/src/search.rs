//! The search for a plan, with a Python callable as its fitness.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::Sender;
use std::sync::{Mutex, PoisonError};

use aq_engine::{
    CommandFitness, EngineError, Fitness, Job, Registry, SearchOptions, SearchSettings, SmoothingPlan,
};
use pyo3::prelude::*;
use serde_json::Value;

use crate::errors::{raised, refused};
use crate::job::{Event, Told, options_of, run};

/// Searches for a plan for `input`, writes it to `output`, and gives what was found as JSON. `options` and `settings` are JSON objects; `fitness` is a
/// command or is called with the path of a plan.
#[pyfunction]
pub(crate) fn search(
    py: Python<'_>,
    input: PathBuf,
    output: PathBuf,
    options: &str,
    settings: &str,
    fitness: Option<Bound<'_, PyAny>>,
    told: Option<Bound<'_, PyAny>>,
) -> PyResult<String> {
    let mut options = options_of(options)?;
    options.input = input;
    let registry = Registry::default();
    let job = Job::new(options, &registry).map_err(raised)?;
    let settings = settings_of(settings, &job, &registry)?;
    let command = fitness.as_ref().and_then(|f| f.extract::<String>().ok());
    let command = command.as_deref().map(CommandFitness::new).transpose().map_err(raised)?;
    let callable = fitness.map(|function| Callable { function: function.unbind(), failed: Mutex::new(None) });
    let chosen = match (&command, &callable) {
        (Some(command), _) => Some(command as &dyn Fitness),
        (None, callable) => callable.as_ref().map(|callable| callable as &dyn Fitness),
    };
    let work = |cancel: &AtomicBool, events: Sender<Event>| {
        let mut progress = Told { events };
        let found = aq_engine::search(&job, &settings, chosen, &registry, cancel, &mut progress)?;
        found.write(&output)?;
        Ok(found.json().to_string())
    };
    let done = run(py, work, told.as_ref());
    // What the callable raised says more than that it failed.
    match callable.and_then(|c| c.failed.into_inner().unwrap_or_else(PoisonError::into_inner)) {
        Some(error) if done.is_err() => Err(error),
        _ => done,
    }
}

fn settings_of(json: &str, job: &Job, registry: &Registry) -> PyResult<SearchSettings> {
    let given: Value = serde_json::from_str(json).map_err(|e| refused(e.to_string()))?;
    let count = |key: &str, none: usize| match &given[key] {
        Value::Null => Ok(none),
        value => value
            .as_u64()
            .map(|n| n as usize)
            .ok_or_else(|| refused(format!("{key}: {value} is not a count"))),
    };
    let texts = |key: &str| {
        let all = given[key].as_array().into_iter().flatten();
        all.map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_string)).collect::<Vec<String>>()
    };
    let smoothing = |text: String| {
        SmoothingPlan::parse(&text).ok_or_else(|| refused(format!("unknown smoothing {text:?}")))
    };
    let group =
        |text: String| text.parse().map_err(|_| refused(format!("{text:?} is not a number of groups")));
    let defaults = SearchOptions::default();
    Ok(SearchSettings {
        options: SearchOptions {
            population: count("population", defaults.population)?,
            children: count("children", defaults.children)?,
            evaluations: count("evaluations", defaults.evaluations)?,
            patience: count("patience", defaults.patience)?,
            seed: job.seed,
        },
        checkpoint: given["checkpoint"].as_str().map(PathBuf::from),
        methods: texts("methods")
            .iter()
            .map(|name| registry.resolve(name))
            .collect::<Result<_, _>>()
            .map_err(raised)?,
        smoothings: texts("smoothings").into_iter().map(smoothing).collect::<PyResult<_>>()?,
        time_groups: texts("groups").into_iter().map(group).collect::<PyResult<_>>()?,
    })
}

/// A Python callable that is given the path of a plan.
struct Callable {
    function: Py<PyAny>,
    /// The first exception that it raised.
    failed: Mutex<Option<PyErr>>,
}

impl Fitness for Callable {
    fn name(&self) -> String {
        "a Python callable".into()
    }

    fn score(&self, plan: &Path, _cancel: &AtomicBool) -> aq_engine::Result<f64> {
        Python::attach(|py| {
            let score = self.function.call1(py, (plan.display().to_string(),));
            score.and_then(|score| score.extract::<f64>(py)).map_err(|error| {
                let reason = error.to_string();
                self.failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                EngineError::Fitness { fitness: self.name(), reason }
            })
        })
    }
}
