//! The real NVRTC.

use super::fake::real_compiler;
use crate::cache::Cache;
use crate::driver::DriverError;
use crate::launch::{HEADERS, Knob, Program, Source};
use std::time::SystemTime;

const TEXT: &str = "#include \"bigmac.cuh\"\n#include \"mine.cuh\"\n\
                    KERNEL void add_one(T* x, i32 n) {\n  if (threadIdx.x < n) x[threadIdx.x] = from_float<T>(mine(1.0f));\n}\n";
const MINE: (&str, &str) = ("mine.cuh", "#pragma once\nDEV float mine(float x) { return x + KNOB; }\n");

static SOURCE: Source = Source { file: "test/kernel.cu", text: TEXT, includes: &[MINE] };

const KNOBS: [(&str, Knob); 2] = [("ELEMENT", Knob::Word("bf16")), ("KNOB", Knob::Int(1))];

#[test]
fn programs_compile_to_whole_images_for_both_architectures() {
    let Some(compiler) = real_compiler() else { return };
    for target in ["sm_80", "sm_90a"] {
        let image = compiler.compile(target, &Program { source: &SOURCE, knobs: &KNOBS }).unwrap();
        assert!(image.bytes.starts_with(b"\x7fELF"));
        assert_eq!(image.signatures[0].name, "add_one");
        let [resources] = &image.resources[..] else { panic!("{}", image.log) };
        assert_eq!((resources.kernel.as_str(), resources.spill_stores, resources.shared), ("add_one", 0, 0));
        assert!((4..=32).contains(&resources.registers), "{resources:?}");
        // A file that lacks its end is told from a whole one.
        let whole = |bytes: &[u8]| crate::nvidia::module::is_whole(bytes);
        assert!(whole(&image.bytes) && !whole(&image.bytes[..image.bytes.len() - 1]));
    }
    let unknown =
        compiler.compile("sm_999", &Program { source: &SOURCE, knobs: &KNOBS }).unwrap_err().to_string();
    assert!(unknown.contains("sm_999") && unknown.contains("sm_90"), "{unknown}");
}

#[test]
fn every_header_can_be_included_by_its_name() {
    let Some(compiler) = real_compiler() else { return };
    for (name, _) in HEADERS.iter().filter(|(name, _)| !name.contains("replay")) {
        let text = format!("#include \"bigmac.cuh\"\n#include \"{name}\"\nKERNEL void f(i32 n) {{}}\n");
        let source = Source { file: "include/kernel.cu", text: text.leak(), includes: &[] };
        compiler
            .compile("sm_90a", &Program { source: &source, knobs: &[] })
            .unwrap_or_else(|e| panic!("{name}: {e}"));
    }
}

#[test]
fn what_does_not_compile_is_told_by_file_and_line() {
    let Some(compiler) = real_compiler() else { return };
    let error = |source: &Source| compiler.compile("sm_80", &Program { source, knobs: &KNOBS }).unwrap_err();
    let wrong = Source {
        file: "op/kernel.cu",
        text: "#include \"bigmac.cuh\"\nKERNEL void f(T* x) {\n  x[0] = nothing;\n}\n",
        includes: &[],
    };
    let DriverError::Compile { file, target, log } = error(&wrong) else { panic!() };
    assert_eq!((file.as_str(), target.as_str()), ("op/kernel.cu", "sm_80"));
    assert!(log.contains("op/kernel.cu(3): error") && log.contains("nothing"), "{log}");
    let header = Source { includes: &[("mine.cuh", "\n\nint x = nothing;\n")], ..SOURCE };
    let DriverError::Compile { log, .. } = error(&header) else { panic!() };
    assert!(log.contains("mine.cuh(3): error"), "{log}");
    let without = Source { includes: &[], ..SOURCE };
    assert!(error(&without).to_string().contains("mine.cuh"), "a header that is not there");
    let zero = Source::new("op/zero.cu", "KERNEL void f(i32 n) {}\0");
    assert!(error(&zero).to_string().contains("zero byte"));
}

#[test]
fn what_is_compiled_once_is_found_until_anything_changes() {
    let Some(compiler) = real_compiler() else { return };
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::at(dir.path().to_owned()).unwrap();
    let compile = |source: &Source, target: &str, knobs: &[(&'static str, Knob)]| {
        let compiled = compiler.compile_cached(target, &Program { source, knobs }, &cache).unwrap();
        assert_eq!(compiled.signatures.len(), 1);
        compiled.image
    };
    let first = compile(&SOURCE, "sm_80", &KNOBS);
    let long_ago = SystemTime::UNIX_EPOCH;
    std::fs::File::options().append(true).open(&first).unwrap().set_modified(long_ago).unwrap();
    assert_eq!(compile(&SOURCE, "sm_80", &KNOBS), first);
    assert_eq!(first.metadata().unwrap().modified().unwrap(), long_ago, "it was compiled again");
    let text = Source { text: TEXT.replace("x[threadIdx.x]", "x[0]").leak(), ..SOURCE };
    let header = Source { includes: &[(MINE.0, "DEV float mine(float x) { return KNOB; }")], ..SOURCE };
    let others = [
        compile(&text, "sm_80", &KNOBS),
        compile(&header, "sm_80", &KNOBS),
        compile(&SOURCE, "sm_90a", &KNOBS),
        compile(&SOURCE, "sm_80", &[KNOBS[0], ("KNOB", Knob::Int(2))]),
        compile(&SOURCE, "sm_80", &[("ELEMENT", Knob::Word("float")), KNOBS[1]]),
    ];
    let all: std::collections::BTreeSet<_> = others.iter().chain([&first]).collect();
    assert_eq!(all.len(), 6);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 6, "nothing is left aside");
}

/// Sources on disk are set by a variable of the process, so this runs in one of its own.
#[test]
fn sources_on_disk_are_named_by_their_paths() {
    const INSIDE: &str = "BIGMAC_TEST_INSIDE";
    let Some(compiler) = real_compiler() else { return };
    if std::env::var_os(INSIDE).is_some() {
        let error = compiler.compile("sm_80", &Program { source: &SOURCE, knobs: &KNOBS }).unwrap_err();
        println!("{error}");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("test")).unwrap();
    std::fs::write(dir.path().join(SOURCE.file), TEXT.replace("mine(1.0f)", "gone")).unwrap();
    std::fs::write(dir.path().join(MINE.0), "\nint broken = ;\n").unwrap();
    let name = "nvidia::tests::compiler::sources_on_disk_are_named_by_their_paths";
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture"])
        .env(INSIDE, "1")
        .env(crate::KERNEL_DIR, dir.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    for wanted in [
        format!("{}(4): error", dir.path().join(SOURCE.file).display()),
        format!("{}(2): error", dir.path().join(MINE.0).display()),
    ] {
        assert!(output.status.success() && text.contains(&wanted), "{wanted} in {text}");
    }
}
