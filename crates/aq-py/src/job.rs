//! Long work: it runs on a thread of its own, while the thread that Python called listens for signals.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use aq_engine::aq_core::{DType, Decision, Encoding, PlannedTensor, StoredTensor, TensorInfo};
use aq_engine::{ConvertOptions, Job, Progress, Registry, make_plan};
use pyo3::prelude::*;
use serde_json::json;

use crate::errors::{raised, refused};

/// How long a signal may wait.
const POLL: Duration = Duration::from_millis(50);

/// Quantizes `input` into `output` with options as a JSON object, and gives the report as JSON. `told` is called with the kind of an
/// event, a number and a text.
#[pyfunction]
pub(crate) fn quantize(
    py: Python<'_>,
    input: PathBuf,
    output: PathBuf,
    options: &str,
    told: Option<Bound<'_, PyAny>>,
) -> PyResult<String> {
    let mut options = options_of(options)?;
    (options.input, options.output) = (input, Some(output));
    let registry = Registry::default();
    let job = Job::new(options, &registry).map_err(raised)?;
    let work = |cancel: &AtomicBool, events: Sender<Event>| {
        let mut progress = Told { events };
        aq_engine::run(&job, &registry, cancel, &mut progress).map(|report| report.json().to_string())
    };
    run(py, work, told.as_ref())
}

/// Compares two models, and gives the errors as JSON.
#[pyfunction]
pub(crate) fn compare(
    py: Python<'_>,
    original: PathBuf,
    quantized: PathBuf,
    calibration: Option<PathBuf>,
) -> PyResult<String> {
    let work = |cancel: &AtomicBool, _events| {
        let compared = aq_engine::compare(&original, &quantized, calibration.as_deref(), cancel);
        compared.map(|compared| compared.json().to_string())
    };
    run(py, work, None)
}

/// Writes `input` in another format; returns the bytes written. `model` is the original, for its `config.json`.
#[pyfunction]
pub(crate) fn convert(
    py: Python<'_>,
    input: PathBuf,
    output: PathBuf,
    format: &str,
    model: Option<PathBuf>,
    shard_size: &str,
) -> PyResult<u64> {
    let options = ConvertOptions::parse(Some(format), None, Some(shard_size)).map_err(raised)?;
    let options = ConvertOptions { model, ..options };
    run(py, |cancel, _events| aq_engine::convert(&input, &output, &options, cancel), None)
}

/// What happens to each tensor of a model with such names and shapes, as JSON.
#[pyfunction]
pub(crate) fn plan(tensors: Vec<(String, Vec<u64>)>, options: &str) -> PyResult<String> {
    let registry = Registry::default();
    let job = Job::new(options_of(options)?, &registry).map_err(raised)?;
    let stored = |(name, shape)| {
        let info = TensorInfo::new(name, shape, DType::F32).map_err(|e| refused(e.to_string()))?;
        Ok(StoredTensor::new(info, Encoding::Raw))
    };
    let tensors = tensors.into_iter().map(stored).collect::<PyResult<Vec<_>>>()?;
    let plan = make_plan("model".as_ref(), &tensors, &job, &registry).map_err(raised)?;
    let layer = |tensor: &PlannedTensor| match &tensor.decision {
        Decision::Keep { reason } => {
            json!({"name": tensor.info.name(), "decision": "keep", "reason": reason})
        }
        Decision::Quantize(plan) => json!({
            "name": tensor.info.name(), "decision": "quantize", "method": plan.method, "bits": plan.bits, "group_size": plan.group_size,
        }),
    };
    Ok(json!({"layers": plan.plan.tensors.iter().map(layer).collect::<Vec<_>>()}).to_string())
}

/// Every option's name.
#[pyfunction]
pub(crate) fn option_names() -> Vec<&'static str> {
    aq_engine::option_names().collect()
}

/// The options of a JSON object.
pub(crate) fn options_of(json: &str) -> PyResult<aq_engine::JobOptions> {
    let given = serde_json::from_str(json).map_err(|e| refused(e.to_string()))?;
    aq_engine::read_options(&given).map_err(raised)
}

/// What a job tells: a kind, a number and a text.
pub(crate) type Event = (&'static str, u64, String);

pub(crate) struct Told {
    pub(crate) events: Sender<Event>,
}

impl Told {
    fn tell(&self, kind: &'static str, number: u64, text: &str) {
        // Nobody listens any more when the caller was interrupted; the job is about to learn that by its flag.
        let _ = self.events.send((kind, number, text.to_string()));
    }
}

impl Progress for Told {
    fn start(&mut self, total_bytes: u64, _tensors: usize) {
        self.tell("start", total_bytes, "");
    }

    fn advance(&mut self, source_bytes: u64, tensor: &str) {
        self.tell("advance", source_bytes, tensor);
    }

    fn searched(&mut self, scored: usize, most: usize, best: f64, _start: f64) {
        self.tell("start", most as u64, "");
        self.tell("advance", scored as u64, &format!("best {best:.6e}"));
    }

    fn warn(&mut self, message: &str) {
        self.tell("warn", 0, message);
    }

    fn verifying(&mut self) {
        self.tell("verify", 0, "");
    }
}

/// Does `work` on a thread of its own and passes on its events, without the interpreter's lock while there are none. A signal or an exception of
/// `told` sets the flag that `work` looks at, and is raised when it has ended.
pub(crate) fn run<T: Send>(
    py: Python<'_>,
    work: impl FnOnce(&AtomicBool, Sender<Event>) -> aq_engine::Result<T> + Send,
    told: Option<&Bound<'_, PyAny>>,
) -> PyResult<T> {
    let cancel = AtomicBool::new(false);
    let (sender, events) = channel();
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| work(&cancel, sender));
        let listened = listen(py, events, told);
        cancel.store(listened.is_err(), Ordering::Relaxed);
        let done = py.detach(|| worker.join());
        listened?;
        match done {
            Ok(done) => done.map_err(raised),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Passes on events until the worker has ended.
fn listen(py: Python<'_>, events: Receiver<Event>, told: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
    let mut events = events;
    loop {
        let (event, back) = py.detach(move || (events.recv_timeout(POLL), events));
        events = back;
        match (event, told) {
            (Ok(event), Some(told)) => drop(told.call1(event)?),
            (Err(RecvTimeoutError::Disconnected), _) => return Ok(()),
            _ => {}
        }
        py.check_signals()?;
    }
}
