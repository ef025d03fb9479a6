//! Opens what a job reads: one model, or chosen components of a pipeline.

use aq_io::{Access, Format, ModelConfig, Pipeline, Source};

use crate::report::Fallback;
use crate::{EngineError, Job, Result, format_size, memory, packed};

/// What a job reads.
pub(crate) enum Input {
    /// A model file or folder.
    Model(Model),
    /// A diffusers pipeline and the components to quantize.
    Pipeline(Chosen),
}

/// An opened model and the memory it may be worked on with.
pub(crate) struct Model {
    /// The file or folder as it was given.
    pub(crate) path: std::path::PathBuf,
    pub(crate) source: Box<dyn Source>,
    /// Its `config.json`, where the output needs it.
    pub(crate) config: Option<ModelConfig>,
    pub(crate) memory_limit: u64,
    pub(crate) fallbacks: Vec<Fallback>,
}

fn unused(key: &str) -> Fallback {
    Fallback {
        tensor: None,
        from: key.into(),
        to: "off".into(),
        reason: "it is about activations, which are quantized with --act-bits only".into(),
    }
}

/// A pipeline and the components to quantize, at least one.
pub(crate) struct Chosen {
    pub(crate) pipeline: Pipeline,
    pub(crate) components: Vec<String>,
}

/// Components that are quantized when none is named: the denoisers.
const DENOISERS: [&str; 5] = ["transformer", "transformer_2", "unet", "prior", "decoder"];

/// Memory assumed to be free where the system does not tell.
const ASSUMED_FREE: u64 = 4 << 30;

/// Opens the job's input.
pub(crate) fn open(job: &Job) -> Result<Input> {
    if !job.input.join("model_index.json").is_file() {
        if let Some(name) = job.components.first() {
            return Err(EngineError::Usage(format!(
                "--component {name}: {} is not a diffusers pipeline folder",
                job.input.display()
            )));
        }
        return Ok(Input::Model(open_model(&job.input, job)?));
    }
    let pipeline = Pipeline::open(&job.input)?;
    let with_weights = pipeline.components.iter().filter(|c| c.has_weights);
    let known: Vec<&str> = with_weights.map(|c| c.name.as_str()).collect();
    let components: Vec<String> = match job.components.as_slice() {
        [] => known.iter().filter(|n| DENOISERS.contains(n)).map(ToString::to_string).collect(),
        names => names.to_vec(),
    };
    if let Some(name) = components.iter().find(|n| !known.contains(&n.as_str())) {
        return Err(EngineError::Config(format!(
            "{}: no component {name:?} with safetensors weights; there are {}",
            job.input.display(),
            known.join(", ")
        )));
    }
    if components.is_empty() {
        return Err(EngineError::Usage(format!(
            "{}: no denoiser among the components {}; choose with --component",
            job.input.display(),
            known.join(", ")
        )));
    }
    Ok(Input::Pipeline(Chosen { pipeline, components }))
}

/// Opens one model: by memory map when it fits the memory limit, else by positioned reads.
pub(crate) fn open_model(path: &std::path::Path, job: &Job) -> Result<Model> {
    let source = aq_io::open(path, Access::Positioned)?;
    let config = packed::config(job, path)?;
    let bytes: u64 = (0..source.tensors().len()).map(|i| source.stored_bytes(i)).sum();
    let memory_limit = job.memory_limit.unwrap_or_else(|| memory::available().unwrap_or(ASSUMED_FREE) / 2);
    let mut fallbacks: Vec<Fallback> = job.unused.iter().map(|key| unused(key)).collect();
    if job.streaming {
        return Ok(Model { path: path.into(), source, config, memory_limit, fallbacks });
    }
    if bytes > memory_limit {
        let (model, limit) = (format_size(bytes), format_size(memory_limit));
        fallbacks.push(streaming(format!("the model's {model} exceed the memory limit of {limit}")));
        return Ok(Model { path: path.into(), source, config, memory_limit, fallbacks });
    }
    let source = aq_io::open(path, Access::Mapped)?;
    if !is_mapped(&*source) {
        fallbacks.push(streaming("the model cannot be mapped into memory".into()));
    }
    Ok(Model { path: path.into(), source, config, memory_limit, fallbacks })
}

/// Whether the bytes of a safetensors model can be borrowed; of other formats nobody asks.
fn is_mapped(source: &dyn Source) -> bool {
    let mut filled = source.tensors().iter().enumerate().filter(|(_, stored)| stored.info.bytes() > 0);
    source.format() != Format::Safetensors
        || filled.next().is_none_or(|(index, _)| source.borrow_bytes(index, 0..1).is_some())
}

fn streaming(reason: String) -> Fallback {
    Fallback { tensor: None, from: "batch".into(), to: "streaming".into(), reason }
}

impl Chosen {
    /// Folder of a component.
    pub(crate) fn path(&self, name: &str) -> std::path::PathBuf {
        let component = self.pipeline.components.iter().find(|c| c.name == name);
        component.map_or_else(|| self.pipeline.path.join(name), |c| c.path.clone())
    }
}
