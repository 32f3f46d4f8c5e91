//! Hugging Face directories: `config.json` beside `model.safetensors`, or beside an index of several such files.

use crate::init::{ParameterSpec, collect};
use crate::json::{read_object, write_object};
use bigmac_autograd::Parameters;
use bigmac_kernels::cast::cast;
use bigmac_runtime::safetensors::{NamedBytes, SafetensorsFile, write};
use bigmac_runtime::{Context, DType, Error, Result, Spec, Tensor};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// Names listed in one message.
const LISTED: usize = 5;
const CONFIG: &str = "config.json";
/// The weight file of transformers.
pub const TRANSFORMERS: &str = "model.safetensors";

/// How a kind of directory is laid out: its weight file, and how names in it and names within modules correspond.
#[derive(Clone, Copy, Debug)]
pub struct Format {
    /// The weight file; when it is not there, `FILE.index.json` names the files that its parameters are spread over.
    pub file: &'static str,
    /// From a file's name to a module's; `None` for what is to be passed over.
    pub read: fn(&str) -> Option<String>,
    /// From a module's name to a file's.
    pub write: fn(&str) -> String,
}

/// An open directory. Values are read when they are asked for, so each rank reads what it holds.
#[derive(Debug)]
pub struct Checkpoint {
    directory: PathBuf,
    config: Map<String, Value>,
    files: Vec<SafetensorsFile>,
    /// From a module's name to the file and the name in it.
    entries: BTreeMap<String, (usize, String)>,
}

impl Checkpoint {
    /// Opens a directory, its configuration and all of its weight files.
    ///
    /// # Errors
    /// [`Error::Io`] for what cannot be read; [`Error::Format`] for damaged files or two names that mean one parameter.
    pub fn open(directory: &Path, format: Format) -> Result<Self> {
        let config = read_object(&directory.join(CONFIG))?;
        let files = weight_files(directory, format.file)?
            .iter()
            .map(|path| SafetensorsFile::open(path))
            .collect::<Result<Vec<_>>>()?;
        let mut entries: BTreeMap<String, (usize, String)> = BTreeMap::new();
        for (index, file) in files.iter().enumerate() {
            for name in file.names() {
                let Some(own) = (format.read)(name) else { continue };
                if let Some((_, other)) = entries.insert(own.clone(), (index, name.to_owned())) {
                    let message =
                        format!("'{name}' and '{other}' both name the parameter '{own}'; remove one");
                    return Err(Error::format(file.path(), message));
                }
            }
        }
        Ok(Checkpoint { directory: directory.to_owned(), config, files, entries })
    }

    /// The configuration, by the model's own reader; its errors then name the file.
    ///
    /// # Errors
    /// [`Error::Format`].
    pub fn config<C>(&self, read: impl FnOnce(&Map<String, Value>) -> Result<C>) -> Result<C> {
        read(&self.config).map_err(|e| Error::format(&self.directory.join(CONFIG), e.to_string()))
    }

    /// Checks that the directory holds the parameters `whole` of the uncut model, in their shapes, and no other but
    /// those named `redundant`, which are passed over.
    ///
    /// # Errors
    /// [`Error::Format`] that lists up to five names.
    pub fn expect(&self, whole: &[ParameterSpec], redundant: &[&str]) -> Result<()> {
        let fail = |what: &str, names: Vec<String>, hint: &str| {
            if names.is_empty() {
                return Ok(());
            }
            Err(Error::format(&self.directory, format!("{what}: {}; {hint}", listed(&names))))
        };
        let missing = whole.iter().filter(|s| !self.entries.contains_key(&s.source));
        fail(
            "parameters are missing from the weight files",
            missing.map(|s| s.source.clone()).collect(),
            "are these the weights of this config.json?",
        )?;
        let known: HashSet<&str> = whole.iter().map(|s| s.source.as_str()).collect();
        let expected = |name: &str| known.contains(name) || redundant.contains(&name);
        let unexpected = self.entries.keys().filter(|name| !expected(name));
        fail(
            "the weight files hold parameters that the model does not have",
            unexpected.cloned().collect(),
            "is config.json that of these weights?",
        )?;
        let mut wrong = Vec::new();
        for spec in whole {
            let shape = self.entry(&spec.source)?.2.shape;
            if shape.as_slice() != spec.file_shape {
                wrong.push(format!("{} {shape:?} instead of {:?}", spec.source, spec.file_shape));
            }
        }
        fail("parameters have other shapes than config.json says", wrong, "is it that of these weights?")
    }

    /// The file, the name in it, and what is there.
    fn entry(&self, name: &str) -> Result<(&SafetensorsFile, &str, Spec)> {
        let (file, stored) = self.entries.get(name).ok_or_else(|| {
            Error::format(&self.directory, format!("the weight files have no parameter '{name}'"))
        })?;
        let file = &self.files[*file];
        Ok((file, stored, file.spec(stored)?))
    }

    /// The parameters `specs` as `dtype`; what is stored in another float type is rounded or widened.
    ///
    /// # Errors
    /// [`Error::Format`] for a missing parameter or another shape; those of allocation.
    pub fn load(&self, ctx: &Context, specs: &[ParameterSpec], dtype: DType) -> Result<Parameters> {
        collect(specs, |spec| {
            let (file, stored, found) = self.entry(&spec.source)?;
            if found.shape.as_slice() != spec.file_shape || !found.dtype.is_float() {
                let message = format!(
                    "parameter '{stored}' is {} {:?}, expected floats {:?}",
                    found.dtype, found.shape, spec.file_shape
                );
                return Err(Error::format(file.path(), message));
            }
            let tensor = file.load(ctx, stored)?.reshape(&spec.shape)?;
            if tensor.dtype() == dtype { Ok(tensor) } else { cast(ctx, &tensor, dtype) }
        })
    }
}

/// The one weight file, or those that the index names.
fn weight_files(directory: &Path, file: &str) -> Result<Vec<PathBuf>> {
    let (single, index) = (directory.join(file), directory.join(format!("{file}.index.json")));
    if single.exists() || !index.exists() {
        return Ok(vec![single]);
    }
    let object = read_object(&index)?;
    let Some(Value::Object(map)) = object.get("weight_map") else {
        return Err(Error::format(&index, "expected a 'weight_map' from parameters to files"));
    };
    let mut files = BTreeSet::new();
    for (name, file) in map {
        // The index is foreign data: it may only name files beside itself.
        let file = file.as_str().filter(|f| Path::new(f).file_name() == Some(OsStr::new(f)));
        let Some(file) = file else {
            return Err(Error::format(
                &index,
                format!("'{name}' is not mapped to the name of a file beside the index"),
            ));
        };
        files.insert(directory.join(file));
    }
    Ok(files.into_iter().collect())
}

/// Up to five names, and how many there are more.
fn listed(names: &[String]) -> String {
    let shown = names[..names.len().min(LISTED)].join(", ");
    match names.len().saturating_sub(LISTED) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// Parameters of one module, or of one stage of one, to be written.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    /// What they are.
    pub specs: &'a [ParameterSpec],
    /// Their values.
    pub parameters: &'a Parameters,
}

/// Writes `config.json` and `model.safetensors` with the parts of the uncut model `whole`. Copies of tied parameters
/// are left out; values keep their dtype, which the configuration of transformers names.
///
/// # Errors
/// [`Error::Argument`] when the parts together are not the whole model; [`Error::Io`].
pub fn write_directory(
    directory: &Path,
    mut config: Map<String, Value>,
    format: Format,
    parts: &[Part<'_>],
    whole: &[ParameterSpec],
) -> Result<()> {
    let mut tensors: Vec<(String, Tensor)> = Vec::new();
    for part in parts {
        for spec in part.specs.iter().filter(|spec| !spec.is_copy()) {
            let id = crate::init::find(part.parameters, &spec.name)?;
            let tensor = part.parameters.get(id).reshape(&spec.file_shape)?;
            tensors.push(((format.write)(&spec.name), tensor));
        }
    }
    let written: HashSet<&str> = tensors.iter().map(|(name, _)| name.as_str()).collect();
    let missing: Vec<String> = whole
        .iter()
        .map(|s| (format.write)(&s.name))
        .filter(|name| !written.contains(name.as_str()))
        .collect();
    if !missing.is_empty() {
        let message = format!("the parts to be written lack parameters of the model: {}", listed(&missing));
        return Err(Error::argument("checkpoint", message));
    }
    // Both libraries have the dtype from the weights. transformers also names it; diffusers gives every key to the
    // model's constructor, which does not take one.
    config.remove("torch_dtype");
    config.remove("dtype");
    let of_diffusers = config.contains_key("_class_name");
    if let Some((_, tensor)) = tensors.first().filter(|_| !of_diffusers) {
        config.insert("dtype".to_owned(), json!(torch_name(tensor.dtype())));
    }
    std::fs::create_dir_all(directory).map_err(|e| Error::io(directory, e))?;
    let named =
        tensors.iter().map(|(name, tensor)| NamedBytes::new(name, tensor)).collect::<Result<Vec<_>>>()?;
    // transformers refuses files that do not say for what framework they are.
    let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    write(&directory.join(format.file), &named, &metadata)?;
    write_object(&directory.join(CONFIG), &config)
}

/// A dtype's name in PyTorch.
fn torch_name(dtype: DType) -> &'static str {
    match dtype {
        DType::F64 => "float64",
        DType::F32 => "float32",
        DType::BF16 => "bfloat16",
        DType::F16 => "float16",
        DType::I32 => "int32",
        DType::U32 => "uint32",
        DType::U8 => "uint8",
    }
}
