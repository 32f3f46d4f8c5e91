//! Libraries that are not what they should be: each is one sentence that names the file and says what to do, never a
//! panic or a signal.

use super::fake::{Fake, build};
use super::refusals::{GEOMETRY, says};
use crate::driver::Driver;
use crate::launch::{Program, Source};
use crate::libraries::{CUDA, Library, LibraryError, NVRTC, required_length};
use crate::nvidia::cuda::Cuda;
use crate::nvidia::{Compiler, Machine, OpenError, Version};
use std::fs::File;
use std::path::Path;

/// Opens a file as a library, and returns the error.
type Open = fn(&Path) -> String;

fn driver(file: &Path) -> String {
    let error = Cuda::open(Some(file)).unwrap_err().to_string();
    assert_eq!(Machine::inspect_with(Some(file)).unwrap_err().to_string(), error);
    error
}

fn compiler(file: &Path) -> String {
    let loaded = NVRTC.open_file(file).and_then(Compiler::load);
    match loaded {
        Err(error) => error.to_string(),
        Ok(compiler) => {
            static SOURCE: Source = Source::new("f/kernel.cu", "KERNEL void f(i32 n) {}");
            compiler.compile("sm_70", &Program { source: &SOURCE, knobs: &[] }).unwrap_err().to_string()
        }
    }
}

const LIBRARIES: [(&str, &str, Open, Library); 2] =
    [("libcuda.so.1", "fake_cuda.c", driver, CUDA), ("libnvrtc.so.13", "fake_nvrtc.c", compiler, NVRTC)];

#[test]
fn each_is_a_sentence_that_names_the_file_and_says_what_to_do() {
    let cases: [(&str, &[&str], &[&str]); 11] = [
        (
            "libcuda.so.1",
            &["VERSION=11080", "WITHOUT_POOLS"],
            &["too old", "11.8", "12.0", "install a newer driver"],
        ),
        (
            "libcuda.so.1",
            &["VERSION_STATUS=98765"],
            &["'cuDriverGetVersion' failed with status 98765", "install"],
        ),
        (
            "libcuda.so.1",
            &["INIT=98765"],
            &["cuInit", "unknown error (98765)", "no text for it", "nvidia-smi"],
        ),
        ("libcuda.so.1", &["INIT=-1"], &["cuInit", "unknown error (4294967295)", "nvidia-smi"]),
        (
            "libcuda.so.1",
            &["WITHOUT_POOLS", "VERSION=12040"],
            &["'cuMemAllocFromPoolAsync'", "12.4", "install a newer one", "BIGMAC_LIBCUDA"],
        ),
        ("libcuda.so.1", &["OLD", "NEW"], &["'cuEventElapsedTime_v2'", "install a newer one"]),
        (
            "libnvrtc.so.13",
            &["WITHOUT_CUBIN"],
            &["'nvrtcGetCUBIN'", "install a newer one", "BIGMAC_LIBNVRTC"],
        ),
        (
            "libnvrtc.so.13",
            &["VERSION_STATUS=98765"],
            &["'nvrtcVersion' failed with status 98765", "install"],
        ),
        ("libnvrtc.so.13", &["TARGETS_STATUS=98765"], &["'nvrtcGetSupportedArchs' failed with status 98765"]),
        ("libnvrtc.so.13", &[], &["NVRTC 13.0", "sm_70", "sm_80, sm_90", "install a newer NVRTC"]),
        ("libnvrtc.so.13", &["VERSION_STATUS=-1"], &["'nvrtcVersion' failed with status 4294967295"]),
    ];
    for (name, macros, wanted) in cases {
        let dir = tempfile::tempdir().unwrap();
        let (_, source, open, _) = LIBRARIES.into_iter().find(|(library, ..)| *library == name).unwrap();
        let file = build(dir.path(), name, source, macros);
        let error = open(&file);
        says(&error, wanted);
        says(&error, &[&file.display().to_string()]);
        assert!(!error.contains('\n'), "{error}");
    }
}

#[test]
fn what_is_not_the_library_is_told_apart_from_what_is_cut_off() {
    for (name, source, open, library) in LIBRARIES {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(name);
        let path = file.display().to_string();
        let variable = library.variable;
        says(open(&file), &[&path, "cannot be opened", "No such file", "install it again", variable]);
        for (bytes, wanted) in [
            (&b""[..], "not a shared library"),
            (b"INPUT(-lcuda)", "not a shared library"),
            (b"\x7fELF\x01\x01 32 bits", "not a shared library"),
            (b"\x7fELF\x02\x01", "cut off: 6 bytes of 64"),
        ] {
            std::fs::write(&file, bytes).unwrap();
            says(open(&file), &[&path, wanted, "install it again", variable]);
        }
        // Another library under this name: it opens, and lacks the first function that is asked for.
        let (_, other, ..) = LIBRARIES.into_iter().find(|(other, ..)| *other != name).unwrap();
        build(dir.path(), name, other, &[]);
        says(open(&file), &[&path, "has no function", "another library than its name says"]);

        std::fs::remove_file(&file).unwrap();
        build(dir.path(), name, source, &[]);
        let whole = std::fs::read(&file).unwrap();
        assert_eq!(required_length(&mut File::open(&file).unwrap()).unwrap(), Some(whole.len() as u64));
        library.open_file(&file).unwrap();
        // A new file each time: one that is open already is not opened again.
        let lengths =
            [7, 63, 64, 65, 200, 1000, 4096, 5000, whole.len() / 2, whole.len() - 100, whole.len() - 1];
        for length in lengths {
            let part = dir.path().join(format!("{length}.so"));
            std::fs::write(&part, &whole[..length]).unwrap();
            let error = open(&part);
            says(
                &error,
                &[&part.display().to_string(), &format!("cut off: {length} bytes of "), "install it again"],
            );
            if length >= 64 + 56 * 20 {
                says(&error, &[&format!(" of {};", whole.len())]);
            }
        }
    }
}

#[test]
fn real_files_are_as_long_as_their_headers_say() {
    let mut files = vec![std::env::current_exe().unwrap()];
    files.extend(NVRTC.find().found);
    for path in files {
        let mut file = File::open(&path).unwrap();
        let (length, required) = (file.metadata().unwrap().len(), required_length(&mut file).unwrap());
        assert!(required.is_some_and(|required| required <= length), "{path:?} {length} {required:?}");
    }
}

#[test]
fn drivers_from_12_0_on_work_and_later_ones_that_lose_older_functions() {
    for (macros, version, elapsed) in [
        (&["VERSION=12000", "OLD"], Version { major: 12, minor: 0 }, "\nelapsed\n"),
        (&["VERSION=14020", "NEW"], Version { major: 14, minor: 2 }, "\nelapsed v2\n"),
    ] {
        let fake = Fake::new(macros);
        assert_eq!(fake.machine().unwrap().version, version);
        let gpu = fake.open(0).unwrap();
        let (from, to) = (gpu.mark().unwrap(), gpu.mark().unwrap());
        assert_eq!(gpu.seconds_between(from, to).unwrap(), f64::from(2f32) / 1e3);
        assert!(fake.record().contains(elapsed), "{}", fake.record());
    }
    let error = Fake::new(&["VERSION=11080", "WITHOUT_POOLS"]).open(0).unwrap_err();
    let OpenError::DriverTooOld { given, wanted, .. } = &error else { panic!("{error}") };
    assert_eq!((*given, *wanted), (Version { major: 11, minor: 8 }, Version { major: 12, minor: 0 }));
    let error = Fake::new(&["WITHOUT_POOLS"]).open(0).unwrap_err();
    assert!(matches!(
        &error,
        OpenError::Library(LibraryError::Symbol { symbol: "cuMemAllocFromPoolAsync", .. })
    ));
}

#[test]
fn statuses_that_are_not_known_here_are_told_by_their_numbers() {
    let fake = Fake::new(&["REFUSED=98765"]);
    let gpu = fake.open(0).unwrap();
    let scale = gpu.load(&fake.compiled(), "scale").unwrap();
    // SAFETY: the fake refuses before it looks at arguments.
    let error = unsafe { gpu.launch(scale, &GEOMETRY, &mut []) }.unwrap_err();
    says(error, &["launching scale", "unknown error (98765)", "no text for it"]);

    let fake = Fake::new(&["FAILING=98765"]);
    let gpu = fake.open(0).unwrap();
    let scale = gpu.load(&fake.compiled(), "scale").unwrap();
    let address = gpu.allocate(16).unwrap();
    super::work::scale(&gpu, scale, &GEOMETRY, (address, address), 4).unwrap();
    says(gpu.synchronize().unwrap_err(), &["cuStreamSynchronize", "unknown error (98765)"]);

    static SOURCE: Source = Source::new("f/kernel.cu", "KERNEL void f(i32 n) {}");
    for (status, wanted) in
        [("CREATE_STATUS=98765", "unknown error (98765)"), ("CREATE_STATUS=4", "INVALID_PROGRAM (4)")]
    {
        let dir = tempfile::tempdir().unwrap();
        let file = build(dir.path(), "libnvrtc.so.13", "fake_nvrtc.c", &[status]);
        let compiler = Compiler::load(NVRTC.open_file(&file).unwrap()).unwrap();
        let error = compiler.compile("sm_90a", &Program { source: &SOURCE, knobs: &[] }).unwrap_err();
        says(error, &["nvrtcCreateProgram", &file.display().to_string(), wanted]);
    }
}
