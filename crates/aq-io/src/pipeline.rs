//! A diffusers pipeline folder: which components it has, and copying what is not quantized.

use std::fs::File;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::json::{self, UniqueMap};
use crate::member::{is_plain, names, resolve};
use crate::output::sync_folder;
use crate::{IoError, Result, index};

/// The file that makes a folder a pipeline.
pub(crate) const INDEX: &str = "model_index.json";

/// Folders in folders that are looked into.
const MAX_DEPTH: usize = 8;

/// A pipeline and its components.
#[derive(Debug, Clone)]
pub struct Pipeline {
    /// Its folder.
    pub path: PathBuf,
    /// Class of the pipeline (`FluxPipeline`); empty when the index does not say.
    pub class: String,
    /// Its components in the order of the index. Those that the pipeline leaves out are not listed.
    pub components: Vec<Component>,
}

/// One component of a pipeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Component {
    /// Name, and name of its folder (`transformer`).
    pub name: String,
    /// Library of its class (`diffusers`).
    pub library: String,
    /// Class (`FluxTransformer2DModel`).
    pub class: String,
    /// Its folder.
    pub path: PathBuf,
    /// Whether the folder holds safetensors files.
    pub has_weights: bool,
}

impl Pipeline {
    /// Reads `model_index.json`.
    ///
    /// # Errors
    /// When it is missing or malformed, or names a component that is no plain folder name.
    pub fn open(path: &Path) -> Result<Self> {
        let file = resolve(path, INDEX, path)?;
        let index: UniqueMap<Value> =
            json::parse(&json::read_bytes(&file, "model index")?, &file, "model index")?;
        let (mut class, mut components) = (String::new(), Vec::new());
        for (name, value) in index.0 {
            match (&value, value.as_array().map(Vec::as_slice)) {
                (Value::String(text), _) if name == "_class_name" => class = text.clone(),
                (_, Some([Value::String(library), Value::String(class)])) if !name.starts_with('_') => {
                    components.push(component(path, &file, name, library, class)?);
                }
                _ => {}
            }
        }
        Ok(Self { path: path.into(), class, components })
    }

    /// The component of that name.
    ///
    /// # Errors
    /// [`IoError::NotFound`] with the names there are.
    pub fn component(&self, name: &str) -> Result<&Component> {
        self.components.iter().find(|c| c.name == name).ok_or_else(|| {
            let names: Vec<&str> = self.components.iter().map(|c| c.name.as_str()).collect();
            IoError::not_found(&self.path, format!("no component {name:?}; there are {}", names.join(", ")))
        })
    }

    /// Copies everything that is not there yet into the folder `destination`, except the weight files of the components `without`, hidden files
    /// and `destination` itself. Returns the number of bytes. Every file is streamed and synced; links to files are read
    /// when they stay in the pipeline or in its Hugging Face cache, other links are refused.
    ///
    /// # Errors
    /// What the operating system says, or a link that leads elsewhere.
    pub fn copy_rest(&self, destination: &Path, without: &[&str]) -> Result<u64> {
        let mut files = Vec::new();
        let skipped = destination.canonicalize().ok();
        list(&self.path, Path::new(""), skipped.as_deref(), &mut files)?;
        let is_left_out = |file: &Path| {
            let parent = file.parent().unwrap_or(Path::new(""));
            without.iter().any(|w| parent == Path::new(w)) && is_weight_file(file)
        };
        let mut bytes = 0;
        for file in files.iter().filter(|f| !is_left_out(f)) {
            bytes += self.copy_file(file, destination)?;
        }
        Ok(bytes)
    }

    fn copy_file(&self, file: &Path, destination: &Path) -> Result<u64> {
        let (from, to) = (self.path.join(file), destination.join(file));
        check_target(&from, &self.path)?;
        if to.exists() {
            return Ok(0);
        }
        let parent = to.parent().unwrap_or(destination);
        std::fs::create_dir_all(parent).map_err(IoError::os(parent))?;
        let mut source = File::open(&from).map_err(IoError::os(&from))?;
        let mut target = File::create_new(&to).map_err(IoError::os(&to))?;
        let bytes = std::io::copy(&mut source, &mut target).map_err(IoError::os(&to))?;
        target.sync_all().map_err(IoError::os(&to))?;
        sync_folder(parent)?;
        Ok(bytes)
    }
}

fn component(root: &Path, file: &Path, name: String, library: &str, class: &str) -> Result<Component> {
    if !is_plain(&name) {
        return Err(IoError::malformed(
            file,
            format!("the path of component {name:?} is not allowed: not a plain name"),
        ));
    }
    let path = root.join(&name);
    if let (Ok(target), Ok(home)) = (path.canonicalize(), root.canonicalize())
        && !target.starts_with(home)
    {
        return Err(IoError::malformed(
            file,
            format!("the path of component {name:?} leads outside of the folder"),
        ));
    }
    let has_weights = path.is_dir() && index::has_weights(&path);
    Ok(Component { name, library: library.into(), class: class.into(), path, has_weights })
}

/// Files that hold the weights of a component, in any format that such folders come with.
fn is_weight_file(file: &Path) -> bool {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let is_index =
        name.ends_with(".json") && (name.contains(".safetensors.index") || name.contains(".bin.index"));
    is_index
        || [".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".msgpack", ".h5"]
            .iter()
            .any(|e| name.ends_with(e))
}

/// Adds the files below `root/inside`, relative to `root`, in order.
fn list(root: &Path, inside: &Path, skipped: Option<&Path>, files: &mut Vec<PathBuf>) -> Result<()> {
    let folder = root.join(inside);
    if inside.components().count() > MAX_DEPTH {
        return Err(IoError::unsupported(&folder, format!("folders are nested more than {MAX_DEPTH} deep")));
    }
    for name in names(&folder)?.into_iter().filter(|n| !n.starts_with('.')) {
        let (path, relative) = (folder.join(&name), inside.join(&name));
        let kind = std::fs::symlink_metadata(&path).map_err(IoError::os(&path))?.file_type();
        if !kind.is_dir() {
            files.push(relative);
        } else if skipped.is_none_or(|s| path.canonicalize().ok().as_deref() != Some(s)) {
            list(root, &relative, skipped, files)?;
        }
    }
    Ok(())
}

/// Refuses a file that is no regular file, or a link that leads out of the pipeline and its cache.
fn check_target(path: &Path, root: &Path) -> Result<()> {
    let target = path.canonicalize().map_err(IoError::os(path))?;
    let home = root.canonicalize().map_err(IoError::os(root))?;
    if !crate::member::is_inside(&target, &home) {
        return Err(IoError::unsupported(path, "a link that leads outside of the pipeline"));
    }
    match target.is_file() {
        true => Ok(()),
        false => Err(IoError::unsupported(path, "not a regular file")),
    }
}
