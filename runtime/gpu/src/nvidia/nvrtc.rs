//! The compiler of kernels: NVRTC, which needs no driver and no GPU.

use super::error::{OpenError, Version};
use super::resources::{self, Resources};
use crate::cache::{self, Cache, Key};
use crate::driver::{DriverError, DriverResult};
use crate::launch::{Compiled, Program, Signature, Text, signatures};
use crate::libraries::{Library, LibraryError, NVRTC, Opened, functions};
use cudarc::nvrtc::sys::{self, nvrtcProgram, nvrtcResult};
use std::ffi::{CStr, CString, c_char, c_int};
use std::path::{Path, PathBuf};

/// Options of every compilation. Lines are kept for profilers, which costs nothing at run time; the log tells the
/// resources.
const OPTIONS: [&str; 3] = ["--std=c++17", "-lineinfo", "--ptxas-options=-v"];

functions! {
    /// What this program uses of NVRTC.
    Functions from sys, checked by Functions::check: nvrtcResult => Result<(), Failure> {
        version = nvrtcVersion (major: *mut c_int, minor: *mut c_int);
        architecture_count = nvrtcGetNumSupportedArchs (count: *mut c_int);
        architectures = nvrtcGetSupportedArchs (architectures: *mut c_int);
        create = nvrtcCreateProgram (
            program: *mut nvrtcProgram, source: *const c_char, name: *const c_char, headers: c_int, texts: *const *const c_char,
            names: *const *const c_char
        );
        destroy = nvrtcDestroyProgram (program: *mut nvrtcProgram);
        compile = nvrtcCompileProgram (program: nvrtcProgram, count: c_int, options: *const *const c_char);
        log_size = nvrtcGetProgramLogSize (program: nvrtcProgram, bytes: *mut usize);
        log = nvrtcGetProgramLog (program: nvrtcProgram, log: *mut c_char);
        image_size = nvrtcGetCUBINSize (program: nvrtcProgram, bytes: *mut usize);
        image = nvrtcGetCUBIN (program: nvrtcProgram, image: *mut c_char);
    }
    unchecked {
        name = nvrtcGetErrorString (status: u32) -> *const c_char;
    }
}

/// A call that failed, and what it returned.
#[derive(Debug)]
pub(super) struct Failure {
    call: &'static str,
    status: u32,
}

impl Functions {
    fn check(&self, call: &'static str, status: u32) -> Result<(), Failure> {
        if status == nvrtcResult::NVRTC_SUCCESS as u32 { Ok(()) } else { Err(Failure { call, status }) }
    }

    /// The compute capabilities that it compiles for, such as 90.
    fn known(&self) -> Result<Vec<c_int>, Failure> {
        let mut count = 0;
        // SAFETY: `count` is room for what the call writes.
        unsafe { self.architecture_count(&mut count)? };
        let mut known = vec![0; usize::try_from(count).unwrap_or(0)];
        // SAFETY: there is room for as many numbers as the call before said.
        unsafe { self.architectures(known.as_mut_ptr())? };
        Ok(known)
    }
}

/// A program as it was compiled.
#[derive(Clone, Debug)]
pub struct Image {
    /// The compiled file, a cubin.
    pub bytes: Vec<u8>,
    /// The compiler's log.
    pub log: String,
    /// What each kernel takes of a multiprocessor, by name.
    pub resources: Vec<Resources>,
    /// What each kernel is called with.
    pub signatures: Vec<Signature>,
}

/// NVRTC, open. Several threads may compile at once.
#[derive(Debug)]
pub struct Compiler {
    functions: Functions,
    file: PathBuf,
    version: Version,
    /// Compute capabilities that it knows, such as 90.
    known: Vec<c_int>,
    /// What NVRTC opens by its name alone when it first compiles; opened here, it is found wherever it lies.
    _builtins: Option<Opened>,
}

impl Compiler {
    /// The newest NVRTC that is found.
    pub fn open() -> Result<Compiler, LibraryError> {
        Compiler::load(NVRTC.open()?)
    }

    /// The NVRTC for a driver that knows CUDA up to `driver`: a driver of CUDA 12 need not load what NVRTC 13 compiles,
    /// so that the older one goes first there.
    pub fn open_for(driver: Version) -> Result<Compiler, LibraryError> {
        const OLDER_FIRST: Library = Library { names: &["libnvrtc.so.12", "libnvrtc.so.13"], ..NVRTC };
        let library = if driver.major < 13 { OLDER_FIRST } else { NVRTC };
        Compiler::load(library.open()?)
    }

    pub(super) fn load(library: Opened) -> Result<Compiler, LibraryError> {
        let functions = Functions::load(&library, "NVRTC of unknown version")?;
        let wrong = |failure: Failure| library.refused(failure.call, failure.status);
        let (mut major, mut minor) = (0, 0);
        // SAFETY: both are room for what the call writes.
        unsafe { functions.version(&mut major, &mut minor) }.map_err(wrong)?;
        let known = functions.known().map_err(wrong)?;
        let part = |number: c_int| u32::try_from(number).unwrap_or(0);
        let version = Version { major: part(major), minor: part(minor) };
        let file = library.file().to_owned();
        let builtins = beside(&file, &format!("libnvrtc-builtins.so.{version}"));
        let builtins = builtins.map(|file| NVRTC.open_file(&file)).transpose()?;
        Ok(Compiler { functions, file, version, known, _builtins: builtins })
    }

    /// The file of the library.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Its version.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Whether it can compile for a target such as `sm_90a`.
    pub fn check_target(&self, target: &str) -> Result<(), OpenError> {
        let names: Vec<String> = self.known.iter().map(|number| format!("sm_{number}")).collect();
        // Suffixes stand for instructions of one architecture, or of a family.
        if names.iter().any(|name| name == target.trim_end_matches(['a', 'f'])) {
            return Ok(());
        }
        Err(OpenError::UnknownTarget {
            file: self.file.clone(),
            version: self.version,
            target: target.to_owned(),
            known: names.join(", "),
        })
    }

    /// Compiles a program for a target such as `sm_90a`. Messages name the source as
    /// [`Source::read`](crate::Source::read) does: by its path on disk where it was read from there, headers too.
    ///
    /// # Errors
    /// [`DriverError::Compile`] with the compiler's log when the source is wrong; [`DriverError::Call`] when it cannot
    /// be read, or the compiler cannot work.
    pub fn compile(&self, target: &str, program: &Program<'_>) -> DriverResult<Image> {
        self.compile_text(target, program, &program.source.read()?)
    }

    /// Compiles a program unless the cache has it compiled.
    pub fn compile_cached(
        &self,
        target: &str,
        program: &Program<'_>,
        cache: &Cache,
    ) -> DriverResult<Compiled> {
        let text = program.source.read()?;
        let signatures = signatures(&text)?;
        let key = Key::new(&text, program, target, &format!("NVRTC {} {}", self.version, OPTIONS.join(" ")));
        let image = cache.get_or_make(key, "cubin", |path| {
            let image = self.compile_text(target, program, &text)?;
            std::fs::write(path, &image.bytes).map_err(|error| cache::wrong(path, &error))
        })?;
        Ok(Compiled { signatures, image })
    }

    fn compile_text(&self, target: &str, program: &Program<'_>, text: &Text) -> DriverResult<Image> {
        let signatures = signatures(text)?;
        self.check_target(target)
            .map_err(|error| DriverError::call(format!("compiling {}", text.file), error.to_string()))?;
        let wrong =
            |log: String| DriverError::Compile { file: text.file.clone(), target: target.to_owned(), log };
        let c_string = |text: String| {
            CString::new(text)
                .map_err(|_| wrong("the source, its name or its knobs contain a zero byte".into()))
        };
        let c_strings =
            |texts: Vec<String>| texts.into_iter().map(c_string).collect::<DriverResult<Vec<_>>>();

        let on_disk = program.source.overriding_files().unwrap_or_default();
        let includes = text.includes.iter();
        let headers = includes.clone().map(|(name, text)| with_path(name, text, &on_disk));
        let headers = c_strings(headers.collect())?;
        let names = c_strings(includes.map(|(name, _)| name.clone()).collect())?;
        let mut options: Vec<String> = OPTIONS.map(str::to_owned).into();
        options.push(format!("--gpu-architecture={target}"));
        options.extend(program.knobs.iter().map(|(name, value)| format!("-D{name}={value}")));
        let options = c_strings(options)?;
        let (main, file) = (c_string(text.main.clone())?, c_string(text.file.clone())?);

        let mut compilation = Compilation { functions: &self.functions, handle: std::ptr::null_mut() };
        // SAFETY: there are as many headers as names; all strings end in a zero and outlive the call, which copies
        // them.
        let created = unsafe {
            self.functions.create(
                &mut compilation.handle,
                main.as_ptr(),
                file.as_ptr(),
                headers.len() as c_int,
                pointers(&headers).as_ptr(),
                pointers(&names).as_ptr(),
            )
        };
        created.map_err(|failure| self.error(&failure, ""))?;
        // SAFETY: the program was just made; there are as many options as said, which end in a zero and outlive the
        // call.
        let compiled = unsafe {
            self.functions.compile(compilation.handle, options.len() as c_int, pointers(&options).as_ptr())
        };
        let log = compilation.bytes(Functions::log_size, Functions::log).map_err(|f| self.error(&f, ""))?;
        let log = String::from_utf8_lossy(&log).trim_end_matches('\0').to_owned();
        match compiled {
            Ok(()) => {}
            Err(failure) if failure.status == nvrtcResult::NVRTC_ERROR_COMPILATION as u32 => {
                return Err(wrong(log));
            }
            Err(failure) => return Err(self.error(&failure, &log)),
        }
        let bytes =
            compilation.bytes(Functions::image_size, Functions::image).map_err(|f| self.error(&f, &log))?;
        Ok(Image { bytes, resources: resources::parse(&log), log, signatures })
    }

    /// The error for a call that failed, with what the log says.
    fn error(&self, failure: &Failure, log: &str) -> DriverError {
        // SAFETY: it takes any number, and what it returns is never freed.
        let name = unsafe { self.functions.name(failure.status) };
        let name = if name.is_null() {
            "unknown error".into()
        } else {
            // SAFETY: it is a text that ends in a zero, as nvrtc.h says.
            unsafe { CStr::from_ptr(name) }.to_string_lossy()
        };
        let message = format!("{name} ({}) {log}", failure.status);
        DriverError::call(format!("{} of {}", failure.call, self.file.display()), message.trim_end())
    }
}

/// An `nvrtcProgram`, destroyed with this.
struct Compilation<'a> {
    functions: &'a Functions,
    handle: nvrtcProgram,
}

impl Compilation<'_> {
    /// What `get` writes, as many bytes as `size` says.
    fn bytes(
        &self,
        size: unsafe fn(&Functions, nvrtcProgram, *mut usize) -> Result<(), Failure>,
        get: unsafe fn(&Functions, nvrtcProgram, *mut c_char) -> Result<(), Failure>,
    ) -> Result<Vec<u8>, Failure> {
        let mut length = 0;
        // SAFETY: the program lives, and `length` is room for what the call writes.
        unsafe { size(self.functions, self.handle, &mut length)? };
        let mut bytes = vec![0_u8; length];
        // SAFETY: there is room for as many bytes as the call before said.
        unsafe { get(self.functions, self.handle, bytes.as_mut_ptr().cast())? };
        Ok(bytes)
    }
}

impl Drop for Compilation<'_> {
    fn drop(&mut self) {
        if !self.handle.is_null() {
            // SAFETY: nothing else has the handle. Whether giving back fails changes nothing any more.
            let _ = unsafe { self.functions.destroy(&mut self.handle) };
        }
    }
}

fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    strings.iter().map(|string| string.as_ptr()).collect()
}

/// A header's text, which says first where it was read from, when it was on disk: NVRTC knows headers by their names
/// alone.
fn with_path(name: &str, text: &str, on_disk: &[PathBuf]) -> String {
    match on_disk.iter().find(|path| path.ends_with(name)) {
        Some(path) => format!("#line 1 {:?}\n{text}", path.display().to_string()),
        None => text.to_owned(),
    }
}

/// The file of that name beside `file`, or beside what `file` is a link to.
fn beside(file: &Path, name: &str) -> Option<PathBuf> {
    let linked = file.canonicalize().ok();
    let folders = [Some(file), linked.as_deref()].into_iter().flatten().filter_map(Path::parent);
    folders.map(|folder| folder.join(name)).find(|path| path.is_file())
}
