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

/// Builds the library `name` in a folder from a source in this one, with those macros.
pub fn build(folder: &Path, name: &str, source: &str, macros: &[&str]) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/nvidia/tests").join(source);
    let file = folder.join(name);
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".into());
    let status = Command::new(&compiler)
        .args(["-shared", "-fPIC", "-O1", "-Wall", "-pthread", "-o"])
        .arg(&file)
        .arg(source)
        .args(macros.iter().map(|name| format!("-D{name}")))
        .status();
    assert!(status.unwrap_or_else(|e| panic!("the C compiler '{compiler}': {e}")).success());
    file
}

impl Fake {
    /// Built with those macros.
    pub fn new(macros: &[&str]) -> Fake {
        let dir = tempfile::tempdir().unwrap();
        build(dir.path(), "libcuda.so.1", "fake_cuda.c", macros);
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

    /// A compiler that has a version and nothing else.
    fn compiler(&self) -> Compiler {
        let file = build(self.dir.path(), "libnvrtc.so.13", "fake_nvrtc.c", &[]);
        Compiler::load(crate::libraries::NVRTC.open_file(&file).unwrap()).unwrap()
    }

    /// A compiled file as the fake takes it: an ELF header with nothing after it.
    pub fn compiled(&self) -> Compiled {
        let image = self.dir.path().join("kernel.cubin");
        let mut header = [0; 64];
        header[..6].copy_from_slice(b"\x7fELF\x02\x01");
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
            eprintln!("SKIPPED: NVRTC is not here: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    };
    COMPILER.get_or_init(open).as_ref()
}
