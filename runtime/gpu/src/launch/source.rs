//! Kernel sources: where their text comes from, and the parameters of their kernels.

use crate::error::{DriverError, DriverResult};
use crate::shared::variable;
use std::path::{Path, PathBuf};

/// Set to a directory that holds `gelu/kernel.cu` and the like, sources are read from there instead of from the
/// program: a kernel can be changed and tried without building anything.
pub const KERNEL_DIR: &str = "BIGMAC_KERNEL_DIR";

/// A kernel source that is part of the program.
#[derive(Debug)]
pub struct Source {
    /// Its path below the folder of kernels, such as `gelu/kernel.cu`.
    pub file: &'static str,
    /// Its text.
    pub text: &'static str,
    /// Files that it includes beside `bigmac.cuh`: the name in the `#include`, which is also the path below the folder
    /// of kernels, and the text.
    pub includes: &'static [(&'static str, &'static str)],
}

/// The headers that every source may include.
pub(crate) const HEADERS: [(&str, &str); 8] = [
    ("bigmac.cuh", include_str!("../include/bigmac.cuh")),
    ("device.cuh", include_str!("../include/device.cuh")),
    ("replay.cuh", include_str!("../replay/replay.cuh")),
    ("replay_mma.cuh", include_str!("../replay/replay_mma.cuh")),
    ("hopper.cuh", include_str!("../include/hopper.cuh")),
    ("hopper_device.cuh", include_str!("../include/hopper_device.cuh")),
    ("hopper_replay.cuh", include_str!("../replay/hopper_replay.cuh")),
    ("hopper_replay_wgmma.cuh", include_str!("../replay/hopper_replay_wgmma.cuh")),
];

/// The value of a knob, a macro that a source is compiled with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Knob {
    /// A number.
    Int(i64),
    /// A word.
    Word(&'static str),
}

impl std::fmt::Display for Knob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Knob::Int(n) => n.fmt(f),
            Knob::Word(w) => w.fmt(f),
        }
    }
}

impl<N: Into<i64>> From<N> for Knob {
    fn from(n: N) -> Knob {
        Knob::Int(n.into())
    }
}

/// A source with its knobs set.
#[derive(Clone, Copy, Debug)]
pub struct Program<'a> {
    /// The source.
    pub source: &'a Source,
    /// Macros to define.
    pub knobs: &'a [(&'static str, Knob)],
}

/// All text that a program is compiled from, as it is in [`KERNEL_DIR`] now where that is set.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Text {
    /// The source's name in messages: its path in [`KERNEL_DIR`], or the one below the folder of kernels.
    pub file: String,
    /// The source.
    pub main: String,
    /// Name and text of each file that can be included.
    pub includes: Vec<(String, String)>,
}

impl Source {
    /// A source of one file.
    pub const fn new(file: &'static str, text: &'static str) -> Self {
        Source { file, text, includes: &[] }
    }

    /// The files in [`KERNEL_DIR`] that stand for this source, when it is set.
    pub fn overriding_files(&self) -> Option<Vec<PathBuf>> {
        let dir = PathBuf::from(variable(KERNEL_DIR)?);
        let names = std::iter::once(self.file).chain(self.includes.iter().map(|(name, _)| *name));
        let names = names.chain(HEADERS.iter().map(|(name, _)| *name));
        Some(names.map(|name| dir.join(name)).filter(|path| path.is_file()).collect())
    }

    /// The text as it is now. A file that [`KERNEL_DIR`] does not hold is the program's own.
    ///
    /// # Errors
    /// [`DriverError::Call`] when [`KERNEL_DIR`] is not a directory, or a file in it cannot be read.
    pub fn read(&self) -> DriverResult<Text> {
        let dir = variable(KERNEL_DIR).map(PathBuf::from);
        let wrong = |path: &Path, message: String| {
            let message = format!("{message}; correct the directory, or unset {KERNEL_DIR}");
            DriverError::call(format!("{KERNEL_DIR}: {}", path.display()), message)
        };
        if let Some(dir) = dir.as_ref().filter(|dir| !dir.is_dir()) {
            return Err(wrong(dir, "not found".into()));
        }
        let read = |name: &str, text: &str| -> DriverResult<(String, String)> {
            let Some(path) = dir.as_ref().map(|dir| dir.join(name)).filter(|path| path.is_file()) else {
                return Ok((name.to_owned(), text.to_owned()));
            };
            let text =
                std::fs::read_to_string(&path).map_err(|e| wrong(&path, format!("cannot be read: {e}")))?;
            // Some editors write a byte order mark, which no compiler has to know.
            let text = text.strip_prefix('\u{feff}').unwrap_or(&text).to_owned();
            Ok((path.display().to_string(), text))
        };
        let (file, main) = read(self.file, self.text)?;
        let include = |(name, text): &(&str, &str)| Ok(((*name).to_owned(), read(name, text)?.1));
        let includes = HEADERS.iter().chain(self.includes).map(include).collect::<DriverResult<_>>()?;
        Ok(Text { file, main, includes })
    }
}

/// The type of a kernel's parameter, as far as calls are checked against it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parameter {
    /// Any pointer to device memory.
    Pointer,
    /// `i32`.
    I32,
    /// `u32`.
    U32,
    /// `i64`.
    I64,
    /// `float`.
    F32,
    /// `TensorMap`, by value.
    Map,
}

/// A kernel as its source declares it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// Name of the kernel.
    pub name: String,
    /// Types of its parameters.
    pub parameters: Vec<Parameter>,
}

/// A program that is compiled, with the parameters of its kernels.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// The kernels.
    pub signatures: Vec<Signature>,
    /// The compiled file in the cache on disk.
    pub image: PathBuf,
}

/// The kernels of a source: every `KERNEL [qualifiers] void name(parameters)`.
///
/// # Errors
/// [`DriverError::Compile`] for a parameter of a type that launches cannot pass, and for a source without a kernel.
pub fn signatures(text: &Text) -> DriverResult<Vec<Signature>> {
    let wrong = |message: String| DriverError::Compile {
        file: text.file.clone(),
        target: "any device".into(),
        log: message,
    };
    let code = without_comments(&text.main);
    let mut found = Vec::new();
    for (at, _) in code.match_indices("KERNEL") {
        let rest = &code[at + "KERNEL".len()..];
        // Qualifiers such as __launch_bounds__(128) stand before `void`.
        let Some((_, rest)) = rest.split_once("void ") else { continue };
        let Some((name, rest)) = rest.split_once('(') else { continue };
        let name = name.trim();
        let Some((list, _)) = rest.split_once(')') else {
            return Err(wrong(format!("the parameters of kernel '{name}' have no end")));
        };
        let parameters = list.split(',').map(str::trim).filter(|p| !p.is_empty()).map(|p| {
            parameter(p).ok_or_else(|| {
                wrong(format!(
                    "kernel '{name}': expected a parameter of type pointer, i32, u32, i64, float or TensorMap, got '{p}'"
                ))
            })
        });
        found.push(Signature { name: name.to_owned(), parameters: parameters.collect::<DriverResult<_>>()? });
    }
    if found.is_empty() {
        return Err(wrong("no kernel was found: declare one as `KERNEL void name(...)`".into()));
    }
    Ok(found)
}

fn parameter(text: &str) -> Option<Parameter> {
    if text.contains('*') {
        return Some(Parameter::Pointer);
    }
    text.split_whitespace().find_map(|word| match word {
        "i32" | "int" => Some(Parameter::I32),
        "u32" => Some(Parameter::U32),
        "i64" => Some(Parameter::I64),
        "float" => Some(Parameter::F32),
        "TensorMap" => Some(Parameter::Map),
        _ => None,
    })
}

/// The code with its comments blanked out, so that what they say is not taken for code.
fn without_comments(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('/') {
        code.push_str(&rest[..at]);
        let after = &rest[at..];
        let end = if after.starts_with("//") {
            after.find('\n').unwrap_or(after.len())
        } else if after.starts_with("/*") {
            after.find("*/").map_or(after.len(), |end| end + 2)
        } else {
            code.push('/');
            1
        };
        rest = &after[end..];
    }
    code.push_str(rest);
    code
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(main: &str) -> Text {
        Text { file: "x.cu".into(), main: main.into(), includes: Vec::new() }
    }

    #[test]
    fn kernels_are_read_from_their_declarations() {
        let source = "// KERNEL void no(i32 a)\nKERNEL void one(const T* __restrict__ x, T *y,\n  i32 rows, float eps) {}\n\
             /* KERNEL void nor_this(i32 a) */ KERNEL __launch_bounds__(128, 2) void two(const __grid_constant__ TensorMap map, i64 n, u32 k) {}";
        let found = signatures(&text(source)).unwrap();
        use Parameter::*;
        assert_eq!(found.len(), 2);
        assert_eq!(
            (found[0].name.as_str(), &found[0].parameters[..]),
            ("one", &[Pointer, Pointer, I32, F32][..])
        );
        assert_eq!((found[1].name.as_str(), &found[1].parameters[..]), ("two", &[Map, I64, U32][..]));
    }

    #[test]
    fn what_cannot_be_launched_is_refused_by_name() {
        for (source, wanted) in [
            ("KERNEL void f(double x) {}", "double x"),
            ("KERNEL void f(i32 x", "no end"),
            ("__global__ void f() {}", "no kernel"),
        ] {
            let error = signatures(&text(source)).unwrap_err().to_string();
            assert!(error.contains(wanted) && error.contains("x.cu"), "{error}");
        }
    }
}
