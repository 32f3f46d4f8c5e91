//! A `libcuda.so.1` that is made for each test, with the faults that it asks for.

use crate::cache::Cache;
use crate::launch::Compiled;
use crate::nvidia::cuda::Cuda;
use crate::nvidia::{Compiler, Machine, Nvidia, OpenError};
use std::ffi::{CStr, c_char};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

/// The library, alone in its folder: each has its own state.
pub struct Fake {
    dir: tempfile::TempDir,
}

impl Fake {
    /// Built with those macros.
    pub fn new(macros: &[&str]) -> Fake {
        let dir = tempfile::tempdir().unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/nvidia/tests/fake_cuda.c");
        let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".into());
        let status = Command::new(&compiler)
            .args(["-shared", "-fPIC", "-O1", "-Wall", "-pthread", "-o"])
            .arg(dir.path().join("libcuda.so.1"))
            .arg(source)
            .args(macros.iter().map(|name| format!("-D{name}")))
            .status();
        assert!(status.unwrap_or_else(|e| panic!("the C compiler '{compiler}': {e}")).success());
        Fake { dir }
    }

    pub fn file(&self) -> PathBuf {
        self.dir.path().join("libcuda.so.1")
    }

    pub fn machine(&self) -> Result<Machine, OpenError> {
        Machine::inspect_with(Some(&self.file()))
    }

    /// The GPU, with a compiler that knows every architecture and is never asked to compile.
    pub fn open(&self, ordinal: usize) -> Result<Nvidia, OpenError> {
        self.open_limited(ordinal, None)
    }

    /// As [`Fake::open`], with a limit for waits.
    pub fn open_limited(&self, ordinal: usize, limit: Option<Duration>) -> Result<Nvidia, OpenError> {
        let cuda = Cuda::open(Some(&self.file()))?;
        let cache = Cache::at(self.dir.path().join("cache")).unwrap();
        Nvidia::open_with(cuda, self.compiler(), cache, ordinal, limit)
    }

    /// An NVRTC that has a version and nothing else.
    fn compiler(&self) -> Compiler {
        let file = self.dir.path().join("libnvrtc.so.13");
        if !file.is_file() {
            let functions =
                ["CreateProgram", "DestroyProgram", "CompileProgram", "GetProgramLogSize", "GetProgramLog"];
            let more = ["GetCUBINSize", "GetCUBIN"];
            let mut text: String = functions
                .iter()
                .chain(&more)
                .map(|name| format!("int nvrtc{name}(void) {{ return 4; }}\n"))
                .collect();
            text += "const char *nvrtcGetErrorString(int e) { return e ? \"\" : 0; }\n\
                     int nvrtcVersion(int *a, int *b) { *a = 13; *b = 0; return 0; }\n\
                     int nvrtcGetNumSupportedArchs(int *n) { *n = 2; return 0; }\n\
                     int nvrtcGetSupportedArchs(int *a) { a[0] = 80; a[1] = 90; return 0; }\n";
            let source = self.dir.path().join("nvrtc.c");
            std::fs::write(&source, text).unwrap();
            let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".into());
            let made =
                Command::new(compiler).args(["-shared", "-fPIC", "-o"]).arg(&file).arg(source).status();
            assert!(made.unwrap().success());
        }
        Compiler::load(crate::libraries::NVRTC.open_file(&file).unwrap()).unwrap()
    }

    /// A compiled file as the fake takes it: an ELF header with nothing behind it.
    pub fn compiled(&self) -> Compiled {
        let image = self.dir.path().join("kernel.cubin");
        let mut header = [0; 64];
        header[..4].copy_from_slice(b"\x7fELF");
        std::fs::write(&image, header).unwrap();
        Compiled { signatures: Vec::new(), image }
    }

    /// What was called.
    pub fn record(&self) -> String {
        // SAFETY: opening the same file gives the library that is open already.
        let library = unsafe { libloading::Library::new(self.file()) }.unwrap();
        // SAFETY: the function has this type, and the text that it returns ends in a zero.
        unsafe {
            let record = library.get::<unsafe extern "C" fn() -> *const c_char>(b"fake_record").unwrap();
            CStr::from_ptr(record()).to_str().unwrap().to_owned()
        }
    }
}

/// The real NVRTC; `None`, and a line that says so, where there is none. With `CI=true` that is a failure.
pub fn real_compiler() -> Option<&'static Compiler> {
    static COMPILER: OnceLock<Option<Compiler>> = OnceLock::new();
    let open = || match Compiler::open() {
        Ok(compiler) => Some(compiler),
        Err(error) if std::env::var_os("CI").is_none_or(|ci| ci != "true") => {
            eprintln!("SKIPPED: NVRTC isn't here: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    };
    COMPILER.get_or_init(open).as_ref()
}
