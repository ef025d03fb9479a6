//! The frontier of true bits per weight against error: every method of the built `aq`, and what else is at hand.

mod bound;
mod chart;
mod generate;
mod methods;
mod peers;
mod point;
mod source;
mod table;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::{Found, Setting};
pub(crate) use chart::escaped;
use methods::{Methods, Variant};
pub(crate) use point::Section;
use source::Source;

/// What the suite is told besides the setting.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// accuracy: measure this folder with model.safetensors (or model.f32.safetensors) and calib.safetensors too; repeatable
    #[arg(long, value_name = "DIR")]
    model: Vec<PathBuf>,
    /// accuracy: only the sources whose name contains this
    #[arg(long, value_name = "TEXT")]
    source: Option<String>,
    /// accuracy: the Python whose packages are measured as peers
    #[arg(long, value_name = "FILE", default_value = "python3", env = "PYTHON")]
    python: PathBuf,
}

/// Measures every source and leaves a section for each.
pub(crate) fn run(setting: &Setting, args: &Args, found: &mut Found) -> anyhow::Result<()> {
    let folder = Folder::new(&setting.target)?;
    let mut sources = source::synthetic(&folder.0, setting.quick)?;
    let example = crate::process::root().join("docs/models/digits-dit");
    for model in std::iter::once(&example).chain(&args.model) {
        sources.push(Source::open(model, &folder.0)?);
    }
    sources.retain(|source| args.source.as_ref().is_none_or(|text| source.name.contains(text)));
    let first = sources.first().context("no source has a name like that")?;
    let methods = Methods::ask(&setting.aq, &first.model, &folder.0)?;
    for source in &sources {
        eprintln!("accuracy: {}", source.name);
        found.sections.push(section(&methods, source, args, &mut found.notes)?);
    }
    found.notes.extend(NOTES.map(str::to_owned));
    Ok(())
}

const NOTES: [&str; 3] = [
    "accuracy: bits per weight count every byte of the quantized tensors in the file; errors are squared errors over squares",
    "accuracy: on sources without inputs methods run with --gain off, which is the least weight error; slope is that of \
     the decoded on the source weights",
    "accuracy: output errors are those of `aq compare` on rows that no method saw, means over layers; so is the slope",
];

fn section(
    methods: &Methods,
    source: &Source,
    args: &Args,
    notes: &mut Vec<String>,
) -> anyhow::Result<Section> {
    let mut section = source.section();
    add_points(methods, source, methods.variants(source), &mut section, notes);
    peers::measure(methods, source, &args.python, &mut section, notes)?;
    let beside = methods.beside_peers(&section);
    add_points(methods, source, beside, &mut section, notes);
    Ok(section)
}

/// Measures variants; a note says which of them failed, and what the engine did by itself.
fn add_points(
    methods: &Methods,
    source: &Source,
    variants: Vec<Variant>,
    section: &mut Section,
    notes: &mut Vec<String>,
) {
    for variant in variants {
        let said = match methods.measure(source, &variant) {
            Ok((point, said)) => {
                section.points.push(point);
                said
            }
            // The types of ggml have codes of one width each.
            Err(error) if error.to_string().contains(" has no codes of ") => Vec::new(),
            Err(error) => vec![format!("accuracy: {} {variant}: left out: {error:#}", source.name)],
        };
        for note in said {
            if !notes.contains(&note) {
                notes.push(note);
            }
        }
    }
}

/// A folder of our own, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(target: &Path) -> anyhow::Result<Self> {
        let path = target.join("bench").join(format!("accuracy-{}", std::process::id()));
        fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
        Ok(Folder(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("{}: {error}", self.0.display());
        }
    }
}
