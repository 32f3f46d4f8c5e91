//! Safetensors files: names, shapes, dtypes and values, read through a memory map and written atomically.
//!
//! The format is that of <https://github.com/huggingface/safetensors>: eight bytes of header length, a JSON header, and
//! the values, little-endian, one tensor after the other.

use crate::context::Context;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::fs::write_atomically;
use crate::layout::Dims;
use crate::open::open_file;
use crate::tensor::{Spec, Tensor};
use ::safetensors::tensor::{Dtype, SafeTensorError, SafeTensors, TensorInfo};
use memmap2::Mmap;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

#[cfg(target_endian = "big")]
compile_error!("safetensors files hold little-endian values, and tensors are read as they lie in the file");

/// Where a tensor lies in the file, and of what type it is there.
#[derive(Debug)]
struct Entry {
    dtype: Dtype,
    shape: Dims,
    bytes: Range<usize>,
}

/// An open safetensors file. Its header has been checked; values are read when they are asked for.
#[derive(Debug)]
pub struct SafetensorsFile {
    path: PathBuf,
    map: Mmap,
    entries: BTreeMap<String, Entry>,
}

impl SafetensorsFile {
    /// Opens a file and checks that its header fits its length.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Format`] for a file that is truncated, damaged or of another kind.
    pub fn open(path: &Path) -> Result<Self> {
        let file = open_file(path).map_err(|e| Error::io(path, e))?;
        if file.metadata().map_err(|e| Error::io(path, e))?.len() == 0 {
            return Err(Error::format(path, "the file is empty; write or download it again"));
        }
        // SAFETY: the map is read-only, and files are replaced by renaming, never written in place, so that the bytes
        // under a map do not change. A foreign program that truncates the file at the same time ends this one by a
        // signal.
        let map = unsafe { Mmap::map(&file) }.map_err(|e| Error::io(path, e))?;
        let (header, parsed) =
            SafeTensors::read_metadata(&map).map_err(|e| Error::format(path, explain(&e)))?;
        let start = size_of::<u64>() + header;
        let entries = parsed
            .tensors()
            .into_iter()
            .map(|(name, info)| {
                let bytes = start + info.data_offsets.0..start + info.data_offsets.1;
                (name, Entry { dtype: info.dtype, shape: Dims::from_slice(&info.shape), bytes })
            })
            .collect();
        Ok(SafetensorsFile { path: path.to_owned(), map, entries })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Every tensor's name, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// True when the file has that tensor.
    pub fn contains(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    fn entry(&self, name: &str) -> Result<&Entry> {
        self.entries.get(name).ok_or_else(|| {
            let message =
                format!("tensor '{name}' was not found among the {} of the file", self.entries.len());
            Error::format(&self.path, message)
        })
    }

    /// Shape and dtype of a tensor.
    ///
    /// # Errors
    /// [`Error::Format`] when it is not found, or has a dtype that tensors cannot have.
    pub fn spec(&self, name: &str) -> Result<Spec> {
        let entry = self.entry(name)?;
        let dtype = from_file(entry.dtype).ok_or_else(|| {
            let message = format!(
                "tensor '{name}' has dtype {}; convert it to F32, BF16, F16 or I32 first",
                entry.dtype
            );
            Error::format(&self.path, message)
        })?;
        Ok(Spec { shape: entry.shape.clone(), dtype })
    }

    /// A tensor's bytes as they lie in the file.
    ///
    /// # Errors
    /// [`Error::Format`] when it is not found.
    pub fn bytes(&self, name: &str) -> Result<&[u8]> {
        let range = self.entry(name)?.bytes.clone();
        self.map.get(range).ok_or_else(|| {
            Error::format(&self.path, format!("the values of tensor '{name}' are after the end of the file"))
        })
    }

    /// A tensor in the dtype that it has in the file, copied into the context's memory.
    ///
    /// # Errors
    /// As [`SafetensorsFile::spec`], and those of allocation.
    pub fn load(&self, ctx: &Context, name: &str) -> Result<Tensor> {
        Tensor::from_bytes(ctx, self.bytes(name)?, &self.spec(name)?)
    }

    /// As [`SafetensorsFile::load`], for a caller who knows what the tensor must be.
    ///
    /// # Errors
    /// [`Error::Format`] when the file holds another shape or dtype.
    pub fn load_exact(&self, ctx: &Context, name: &str, wanted: &Spec) -> Result<Tensor> {
        let spec = self.spec(name)?;
        if spec != *wanted {
            let message = format!(
                "tensor '{name}': expected {} {:?}, got {} {:?}; is this the file of another configuration?",
                wanted.dtype, wanted.shape, spec.dtype, spec.shape
            );
            return Err(Error::format(&self.path, message));
        }
        self.load(ctx, name)
    }
}

/// A tensor to be written: its name, what it is, and its bytes in row-major order.
#[derive(Clone, Debug)]
pub struct NamedBytes<'a> {
    /// Its name in the file.
    pub name: &'a str,
    /// Shape and dtype.
    pub spec: Spec,
    /// The values.
    pub bytes: &'a [u8],
}

impl<'a> NamedBytes<'a> {
    /// A contiguous tensor under that name.
    ///
    /// # Errors
    /// [`Error::NotContiguous`], [`Error::NoValues`].
    pub fn new(name: &'a str, tensor: &'a Tensor) -> Result<Self> {
        Ok(NamedBytes { name, spec: tensor.spec(), bytes: tensor.as_bytes()? })
    }
}

/// Writes a safetensors file in place of `path`, which then holds either the old content or all of the new one.
///
/// The order of the tensors in the file is by falling element size and then by name, whatever the order of `tensors`:
/// every tensor is aligned, and the same values make the same file.
///
/// # Errors
/// [`Error::Format`] for two tensors of one name or a tensor whose bytes do not fit its spec; [`Error::Io`].
pub fn write(path: &Path, tensors: &[NamedBytes<'_>], metadata: &BTreeMap<String, String>) -> Result<()> {
    let mut order: Vec<&NamedBytes<'_>> = tensors.iter().collect();
    order.sort_by(|a, b| b.spec.dtype.size().cmp(&a.spec.dtype.size()).then_with(|| a.name.cmp(b.name)));
    let mut header = serde_json::Map::new();
    if !metadata.is_empty() {
        header.insert("__metadata__".to_owned(), metadata.clone().into_iter().collect());
    }
    let mut offset = 0;
    for tensor in &order {
        if tensor.bytes.len() != tensor.spec.bytes() {
            let (name, given, wanted) = (tensor.name, tensor.bytes.len(), tensor.spec.bytes());
            let message = format!("tensor '{name}': expected {wanted} bytes for its shape, got {given}");
            return Err(Error::format(path, message));
        }
        let info = TensorInfo {
            dtype: to_file(tensor.spec.dtype),
            shape: tensor.spec.shape.to_vec(),
            data_offsets: (offset, offset + tensor.bytes.len()),
        };
        offset = info.data_offsets.1;
        let info = serde_json::to_value(info).map_err(|e| Error::format(path, e.to_string()))?;
        if header.insert(tensor.name.to_owned(), info).is_some() {
            let message = format!("two tensors to be written are named '{}'", tensor.name);
            return Err(Error::format(path, message));
        }
    }
    let mut header = serde_json::to_vec(&header).map_err(|e| Error::format(path, e.to_string()))?;
    header.resize(header.len().next_multiple_of(size_of::<u64>()), b' ');
    write_atomically(path, |out| {
        out.write_all(&(header.len() as u64).to_le_bytes())?;
        out.write_all(&header)?;
        order.iter().try_for_each(|tensor| out.write_all(tensor.bytes))
    })
}

fn from_file(dtype: Dtype) -> Option<DType> {
    DType::ALL.into_iter().find(|&known| to_file(known) == dtype)
}

fn to_file(dtype: DType) -> Dtype {
    match dtype {
        DType::F64 => Dtype::F64,
        DType::F32 => Dtype::F32,
        DType::BF16 => Dtype::BF16,
        DType::F16 => Dtype::F16,
        DType::I32 => Dtype::I32,
        DType::U32 => Dtype::U32,
        DType::U8 => Dtype::U8,
    }
}

/// What a parser's error means for the user.
fn explain(error: &SafeTensorError) -> String {
    match error {
        SafeTensorError::MetadataIncompleteBuffer => {
            "the file is not as long as its header says (an interrupted copy or download?); fetch or write it again".into()
        }
        SafeTensorError::HeaderTooSmall
        | SafeTensorError::HeaderTooLarge
        | SafeTensorError::InvalidHeaderLength
        | SafeTensorError::InvalidHeader(_)
        | SafeTensorError::InvalidHeaderDeserialization(_) => {
            format!("this is not a safetensors file, or its beginning is damaged ({error}); give a model.safetensors file")
        }
        _ => format!("the header of the safetensors file is damaged ({error}); fetch or write the file again"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(dir: &Path) -> PathBuf {
        let ctx = Context::cpu(0, 1).unwrap();
        let a = Tensor::from_slice(&ctx, &[1.0f32, -2.0, 3.5, 0.0, 5.0, 6.0], &[2, 3]).unwrap();
        let b = Tensor::from_slice(&ctx, &[7i32], &[1]).unwrap();
        let c = Tensor::from_slice(&ctx, &[1u8, 2, 3], &[3]).unwrap();
        let d = Tensor::from_slice(&ctx, &[0.1f64], &[]).unwrap();
        let path = dir.join("x.safetensors");
        let named = [("c", &c), ("a", &a), ("d", &d), ("b", &b)].map(|(n, t)| NamedBytes::new(n, t).unwrap());
        write(&path, &named, &[("format".to_owned(), "pt".to_owned())].into()).unwrap();
        path
    }

    #[test]
    fn what_is_written_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = sample(dir.path());
        let ctx = Context::cpu(0, 1).unwrap();
        let file = SafetensorsFile::open(&path).unwrap();
        assert_eq!(file.names().collect::<Vec<_>>(), ["a", "b", "c", "d"]);
        let (_, header) = SafeTensors::read_metadata(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(header.metadata().as_ref().unwrap()["format"], "pt");
        let a = file.load(&ctx, "a").unwrap();
        assert_eq!(
            (a.shape(), a.as_slice::<f32>().unwrap()),
            (&[2, 3][..], &[1.0, -2.0, 3.5, 0.0, 5.0, 6.0][..])
        );
        assert_eq!(file.load(&ctx, "b").unwrap().as_slice::<i32>().unwrap(), [7]);
        assert_eq!(file.load(&ctx, "c").unwrap().as_slice::<u8>().unwrap(), [1, 2, 3]);
        assert_eq!(file.load(&ctx, "d").unwrap().as_slice::<f64>().unwrap(), [0.1]);
        let error = file.load(&ctx, "e").unwrap_err().to_string();
        assert!(error.contains("'e'") && error.contains("x.safetensors"), "{error}");
        let error = file.load_exact(&ctx, "a", &Spec::new(&[3, 2], DType::F32)).unwrap_err().to_string();
        assert!(error.contains("[2, 3]") && error.contains("[3, 2]"), "{error}");
    }

    #[test]
    fn the_same_tensors_in_another_order_make_the_same_file() {
        let dir = tempfile::tempdir().unwrap();
        let ctx = Context::cpu(0, 1).unwrap();
        let tensors: Vec<(String, Tensor)> = (0..20)
            .map(|i| (format!("t{i}"), Tensor::from_slice(&ctx, &[i as f32; 3], &[3]).unwrap()))
            .collect();
        let named: Vec<_> = tensors.iter().map(|(n, t)| NamedBytes::new(n, t).unwrap()).collect();
        let reversed: Vec<_> = named.iter().rev().cloned().collect();
        let (x, y) = (dir.path().join("x"), dir.path().join("y"));
        write(&x, &named, &BTreeMap::new()).unwrap();
        write(&y, &reversed, &BTreeMap::new()).unwrap();
        assert_eq!(std::fs::read(x).unwrap(), std::fs::read(y).unwrap());
    }

    #[test]
    fn damaged_and_foreign_files_are_errors_that_name_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = sample(dir.path());
        let whole = std::fs::read(&path).unwrap();
        let mut longer = whole.clone();
        longer.push(0);
        let cases: [(&[u8], &str); 7] = [
            (&[], "empty"),
            (&whole[..5], "not a safetensors file"),
            (&whole[..60], "not a safetensors file"),
            (&whole[..whole.len() - 1], "not as long"),
            (&longer, "not as long"),
            (b"{\"model_type\": \"qwen3\"}", "not a safetensors file"),
            (&[0xFF; 64], "not a safetensors file"),
        ];
        for (bytes, wanted) in cases {
            std::fs::write(&path, bytes).unwrap();
            let error = SafetensorsFile::open(&path).unwrap_err();
            assert!(matches!(error, Error::Format { .. }));
            let error = error.to_string();
            assert!(
                error.contains(wanted) && error.contains("x.safetensors"),
                "{} bytes: {error}",
                bytes.len()
            );
        }
        let missing = SafetensorsFile::open(&dir.path().join("none")).unwrap_err();
        assert!(matches!(missing, Error::Io { .. }) && missing.to_string().contains("none"));
    }

    #[test]
    fn dtypes_without_a_tensor_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        let header = br#"{"n":{"dtype":"I64","shape":[1],"data_offsets":[0,8]}}  "#;
        let bytes = [&(header.len() as u64).to_le_bytes()[..], header, &[0; 8]].concat();
        std::fs::write(&path, bytes).unwrap();
        let error = SafetensorsFile::open(&path).unwrap().spec("n").unwrap_err().to_string();
        assert!(error.contains("I64") && error.contains("'n'"), "{error}");
    }

    #[test]
    fn two_tensors_of_one_name_are_refused_and_nothing_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let ctx = Context::cpu(0, 1).unwrap();
        let t = Tensor::from_slice(&ctx, &[1.0f32], &[1]).unwrap();
        let path = dir.path().join("x");
        let named = [NamedBytes::new("t", &t).unwrap(), NamedBytes::new("t", &t).unwrap()];
        assert!(write(&path, &named, &BTreeMap::new()).unwrap_err().to_string().contains("'t'"));
        assert!(!path.exists());
    }
}
