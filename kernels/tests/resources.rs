//! Registers, shared memory and spills of every kernel, compared with what is recorded beside this: what a GPU would
//! show as a slower kernel shows here, without one. Needs NVRTC and no driver.

use bigmac_gpu::nvidia::{Compiler, Resources};
use bigmac_gpu::{Knobs, Program, Source};
use bigmac_kernels::programs::programs;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Set, the record is written again.
const WRITE: &str = "BIGMAC_WRITE_RESOURCES";

/// What is recorded of a kernel. `spills` are the bytes that a thread stores and loads for want of registers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    registers: u32,
    shared: u32,
    spills: (u32, u32),
}

/// The file: kernels under "source kernel target KNOB=value ..".
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    /// The version of NVRTC that all of it is from.
    nvrtc: String,
    kernels: BTreeMap<String, Entry>,
}

impl Record {
    fn file() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("resources.json")
    }

    /// As JSON with a line per kernel, so that changes read well.
    fn text(&self) -> String {
        let line = |(name, entry): (&String, &Entry)| {
            format!("    {}: {}", serde_json::to_string(name).unwrap(), serde_json::to_string(entry).unwrap())
        };
        let lines: Vec<String> = self.kernels.iter().map(line).collect();
        let nvrtc = serde_json::to_string(&self.nvrtc).unwrap();
        format!("{{\n  \"nvrtc\": {nvrtc},\n  \"kernels\": {{\n{}\n  }}\n}}\n", lines.join(",\n"))
    }
}

/// Compiles a program: what each of its kernels takes, by the name that it is recorded under.
fn compile(
    compiler: &Compiler,
    (source, target, knobs): &(&'static Source, &'static str, Knobs),
) -> BTreeMap<String, Entry> {
    let image = compiler.compile(target, &Program { source, knobs }).unwrap_or_else(|e| panic!("{e}"));
    let named = |signature: &str| image.resources.iter().any(|resources| resources.kernel == signature);
    assert!(image.signatures.iter().all(|s| named(&s.name)), "{}: {}", source.file, image.log);
    let entry = |found: &Resources| {
        let mut name = format!("{} {} {target}", source.file, found.kernel);
        for (knob, value) in knobs {
            write!(name, " {knob}={value}").unwrap();
        }
        let (registers, shared) = (found.registers, found.shared);
        (name, Entry { registers, shared, spills: (found.spill_stores, found.spill_loads) })
    };
    image.resources.iter().map(entry).collect()
}

/// Compiles everything, on all processors. Where the same compiler makes something else of a program than is recorded,
/// it is asked again: it is not deterministic, and of some programs takes a register more or less in one compilation of
/// a hundred.
fn compile_all(compiler: &Compiler, recorded: Option<&Record>) -> Record {
    const AGAIN: usize = 2;
    let nvrtc = compiler.version().to_string();
    let recorded = recorded.filter(|recorded| recorded.nvrtc == nvrtc);
    let mut work: Vec<(&'static Source, &'static str, Knobs)> = Vec::new();
    for variants in programs() {
        for target in variants.architectures() {
            work.extend(variants.programs().into_iter().map(|knobs| (variants.source(), *target, knobs)));
        }
    }
    let kernels = Mutex::new(BTreeMap::new());
    let next = AtomicUsize::new(0);
    let differs = |found: &BTreeMap<String, Entry>| {
        recorded.is_some_and(|r| {
            found.iter().any(|(name, entry)| r.kernels.get(name).is_some_and(|e| e != entry))
        })
    };
    let compile_some = || {
        while let Some(program) = work.get(next.fetch_add(1, Ordering::Relaxed)) {
            let mut found = compile(compiler, program);
            for _ in 0..AGAIN {
                if differs(&found) {
                    found = compile(compiler, program);
                }
            }
            kernels.lock().unwrap().append(&mut found);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(compile_some);
        }
    });
    Record { nvrtc, kernels: kernels.into_inner().unwrap() }
}

/// What is worse than recorded, or differs from it where the compiler is the same. Empty when all is well.
fn differences(recorded: &Record, found: &Record) -> Vec<String> {
    let none = Entry::default();
    let mut wrong = Vec::new();
    for (name, entry) in &found.kernels {
        let before = recorded.kernels.get(name).unwrap_or(&none);
        if entry.spills.0 > before.spills.0 || entry.spills.1 > before.spills.1 {
            wrong.push(format!("{name} SPILLS more: {:?} bytes, before {:?}", entry.spills, before.spills));
        }
    }
    if recorded.nvrtc != found.nvrtc {
        return wrong;
    }
    for name in recorded.kernels.keys().chain(found.kernels.keys()).collect::<BTreeSet<_>>() {
        match (recorded.kernels.get(name), found.kernels.get(name)) {
            (Some(before), Some(now)) if before != now => {
                wrong.push(format!("{name}: {now:?}, before {before:?}"))
            }
            (Some(_), None) => wrong.push(format!("{name}: recorded, and not compiled any more")),
            (None, Some(now)) => wrong.push(format!("{name}: {now:?}, not recorded")),
            _ => {}
        }
    }
    wrong
}

#[test]
fn kernels_take_what_is_recorded() {
    let compiler = match Compiler::open() {
        Ok(compiler) => compiler,
        Err(error) if std::env::var_os("CI").is_none_or(|ci| ci != "true") => {
            eprintln!("SKIPPED: no kernel was compiled, as NVRTC is not here: {error}");
            return;
        }
        Err(error) => panic!("{error}"),
    };
    if std::env::var_os(WRITE).is_some() {
        let found = compile_all(&compiler, None);
        for (name, entry) in found.kernels.iter().filter(|(_, entry)| entry.spills != (0, 0)) {
            eprintln!("{name} spills {:?} bytes", entry.spills);
        }
        std::fs::write(Record::file(), found.text()).unwrap();
        return;
    }
    let text = std::fs::read_to_string(Record::file())
        .unwrap_or_else(|e| panic!("{}: {e}", Record::file().display()));
    let recorded: Record = serde_json::from_str(&text).unwrap();
    let found = compile_all(&compiler, Some(&recorded));
    let wrong = differences(&recorded, &found);
    assert!(
        wrong.is_empty(),
        "{} kernels differ from {} (NVRTC {}):\n{}\nWhen that is as it should be, write the file again: \
         {WRITE}=1 cargo test -p bigmac-kernels --test resources",
        wrong.len(),
        Record::file().display(),
        found.nvrtc,
        wrong.join("\n")
    );
}

#[test]
fn a_spill_always_counts_and_the_rest_only_with_the_same_compiler() {
    let record = |nvrtc: &str, kernels: &[(&str, u32, u32)]| Record {
        nvrtc: nvrtc.into(),
        kernels: (kernels.iter())
            .map(|&(name, registers, spill)| {
                (name.into(), Entry { registers, shared: 0, spills: (spill, spill) })
            })
            .collect(),
    };
    let recorded = record("13.0", &[("a", 32, 0), ("b", 40, 8), ("gone", 8, 0)]);
    let compare = |nvrtc, kernels: &[(&str, u32, u32)]| differences(&recorded, &record(nvrtc, kernels));
    assert!(compare("13.0", &[("a", 32, 0), ("b", 40, 8), ("gone", 8, 0)]).is_empty());
    assert_eq!(compare("13.0", &[("a", 33, 0), ("b", 40, 8), ("new", 1, 0)]).len(), 3);
    assert!(compare("12.9", &[("a", 33, 0), ("b", 40, 4), ("new", 1, 0)]).is_empty());
    for nvrtc in ["13.0", "12.9"] {
        let wrong = compare(nvrtc, &[("a", 32, 4), ("b", 40, 12), ("gone", 8, 0), ("new", 1, 4)]);
        assert_eq!(wrong.iter().filter(|line| line.contains("SPILLS")).count(), 3, "{wrong:?}");
    }
}

/// Every `.cu` below a directory, as paths from there.
fn sources(directory: &Path, below: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(directory).unwrap().map(Result::unwrap) {
        let (path, name) = (entry.path(), below.join(entry.file_name()));
        if path.is_dir() {
            sources(&path, &name, found);
        } else if path.extension().is_some_and(|extension| extension == "cu") {
            found.insert(name.to_str().unwrap().to_owned());
        }
    }
}

#[test]
fn every_source_is_among_the_programs() {
    let mut there = BTreeSet::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), Path::new(""), &mut there);
    let mut listed: BTreeSet<String> = programs().iter().map(|v| v.source().file.to_owned()).collect();
    assert!(listed.remove("copy.cu"), "the runtime's own");
    assert_eq!(
        there, listed,
        "every .cu below kernels/src is listed by `programs` of its folder, and every source there is a file"
    );
}
