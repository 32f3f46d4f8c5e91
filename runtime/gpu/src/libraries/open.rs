//! Opening libraries and taking functions from them.

use super::elf::required_length;
use super::{Library, Lookup};
use std::error::Error;
use std::fs::File;
use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};

/// Why a library cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum LibraryError {
    /// The library was not found.
    #[error("{}{}", missing(.0), places(.0))]
    NotFound(Box<Lookup>),
    /// The file is there and cannot be opened.
    #[error("{} cannot be opened: {message}; install it again, or name another file in {variable}", file.display())]
    Open { file: PathBuf, message: String, variable: &'static str },
    /// A function is missing.
    #[error(
        "{} ({version}) has no function '{symbol}': it is too old, or another library than its name says; install a newer one, or name \
         another file in {variable}",
        file.display()
    )]
    Symbol { symbol: &'static str, file: PathBuf, version: String, variable: &'static str },
    /// The library does not answer what every program must ask first.
    #[error(
        "{}: '{call}' failed with status {status}; install it again, or name another file in {variable}",
        file.display()
    )]
    Status { call: &'static str, status: u32, file: PathBuf, variable: &'static str },
}

impl LibraryError {
    /// The error in a sentence, without the directories that were searched.
    pub fn brief(&self) -> String {
        match self {
            LibraryError::NotFound(lookup) => missing(lookup),
            other => other.to_string(),
        }
    }
}

fn missing(lookup: &Lookup) -> String {
    let Library { names, purpose, variable, advice } = lookup.library;
    let title = names.join(" or ");
    match &lookup.given {
        Some(given) => format!(
            "{variable} is '{}', which is not a file; correct it, or unset it to search for {title}",
            given.display()
        ),
        None => format!("{title} ({purpose}) was not found; {advice}, or name the file in {variable}"),
    }
}

fn places(lookup: &Lookup) -> String {
    let looked: Vec<_> = lookup.looked_in.iter().map(|directory| directory.display().to_string()).collect();
    if looked.is_empty() { String::new() } else { format!("; looked in {}", looked.join(", ")) }
}

/// An open library. It stays open until the process ends: drivers start threads and handlers that run after the last
/// call.
#[derive(Debug)]
pub struct Opened {
    library: ManuallyDrop<libloading::Library>,
    file: PathBuf,
    variable: &'static str,
}

impl Library {
    /// Finds and opens the library.
    pub fn open(self) -> Result<Opened, LibraryError> {
        let lookup = self.find();
        match &lookup.found {
            Some(file) => self.open_file(file),
            None => Err(LibraryError::NotFound(Box::new(lookup))),
        }
    }

    /// Opens a file as this library.
    pub fn open_file(self, file: &Path) -> Result<Opened, LibraryError> {
        // SAFETY: what runs when one of these libraries is opened is its own initialisation, which asks nothing of the
        // process.
        self.open_by(file, |file| unsafe { libloading::Library::new(file) })
    }

    /// The same, and lets libraries that are opened later find its symbols: for those that load plugins which are not
    /// linked with them.
    pub fn open_file_global(self, file: &Path) -> Result<Opened, LibraryError> {
        use libloading::os::unix;
        let flags = unix::RTLD_LAZY | unix::RTLD_GLOBAL;
        // SAFETY: as above.
        self.open_by(file, |file| unsafe { unix::Library::open(Some(file), flags) }.map(Into::into))
    }

    fn open_by(
        self,
        file: &Path,
        open: impl FnOnce(&Path) -> Result<libloading::Library, libloading::Error>,
    ) -> Result<Opened, LibraryError> {
        let variable = self.variable;
        let wrong = |message| LibraryError::Open { file: file.to_owned(), message, variable };
        check_length(file).map_err(wrong)?;
        // The loader's own words name what is missing.
        let words = |error: &libloading::Error| match error.source() {
            Some(source) => source.to_string(),
            None => error.to_string(),
        };
        let library = open(file).map_err(|error| wrong(words(&error)))?;
        Ok(Opened { library: ManuallyDrop::new(library), file: file.to_owned(), variable })
    }
}

fn check_length(file: &Path) -> Result<(), String> {
    let lengths = File::open(file)
        .and_then(|mut file| Ok((file.metadata()?.len(), required_length(&mut file)?)))
        .map_err(|error| error.to_string())?;
    match lengths {
        (_, None) => Err("it is not a shared library for 64-bit Linux".into()),
        (length, Some(required)) if length < required => {
            Err(format!("it is cut off: {length} bytes of {required}"))
        }
        _ => Ok(()),
    }
}

impl Opened {
    /// The file.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The function of that name, or of the first of the `older` names that the library has. `version` is what is known
    /// of the library's version, for the error.
    ///
    /// # Safety
    /// `F` is a function pointer, `unsafe extern "C"`, with the parameters and result that the library's function has,
    /// under each name; or, for a variable of the library, a pointer to it.
    pub unsafe fn function<F: Copy>(
        &self,
        symbol: &'static str,
        older: &[&'static str],
        version: &str,
    ) -> Result<F, LibraryError> {
        // SAFETY: the caller vouches for the type; the pointer stays good, since the library is never closed.
        let get = |name: &&str| unsafe { self.library.get::<F>(*name) }.ok().map(|function| *function);
        [symbol].iter().chain(older).find_map(get).ok_or_else(|| LibraryError::Symbol {
            symbol,
            file: self.file.clone(),
            version: version.to_owned(),
            variable: self.variable,
        })
    }

    /// The error for a call that failed although the library is what it should be.
    pub(crate) fn refused(&self, call: &'static str, status: u32) -> LibraryError {
        LibraryError::Status { call, status, file: self.file.clone(), variable: self.variable }
    }
}

/// Declares a table of a library's functions, which an [`Opened`] library fills. It is used in place of cudarc's own
/// functions, which panic when the library or a symbol is missing, search by name alone, and return statuses as Rust
/// enums, where a number that a newer library adds is undefined behaviour. Types are cudarc's, and each signature is
/// checked against cudarc's.
///
/// For `name = symbol (argument: type, ..);` the table has an unsafe method `name` that calls the function and returns
/// what `CHECK(&table, symbol, status)` makes of its status. `symbol | older` takes the older function from libraries
/// without the newer. Under `unchecked` are functions that are declared differently from cudarc's, as they take a
/// status; what they return is passed on.
macro_rules! functions {
    (
        $(#[$doc:meta])* $table:ident from $sys:ident, checked by $check:path: $status:ident => $result:ty {
            $($name:ident = $symbol:ident $(| $older:ident)? ($($argument:ident: $type:ty),*);)*
        }
        unchecked {
            $($raw:ident = $raw_symbol:ident ($($raw_argument:ident: $raw_type:ty),*) -> $raw_result:ty;)*
        }
    ) => {
        $(#[$doc])*
        pub(super) struct $table {
            $($name: unsafe extern "C" fn($($type),*) -> u32,)*
            $($raw: unsafe extern "C" fn($($raw_type),*) -> $raw_result,)*
        }

        $(const _: unsafe fn($($type),*) -> $sys::$status = $sys::$symbol;)*

        impl std::fmt::Debug for $table {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(stringify!($table))
            }
        }

        impl $table {
            /// Takes every function from an open library; `version` is for the error about one that is missing.
            pub(super) fn load(
                library: &$crate::libraries::Opened,
                version: &str,
            ) -> Result<Self, $crate::libraries::LibraryError> {
                Ok($table {
                    // SAFETY: the types are those of the library's own header.
                    $($name: unsafe {
                        library.function(stringify!($symbol), &[$(stringify!($older))?], version)?
                    },)*
                    // SAFETY: as above.
                    $($raw: unsafe { library.function(stringify!($raw_symbol), &[], version)? },)*
                })
            }

            $(
                #[doc = concat!("Calls `", stringify!($symbol), "`.\n\n# Safety\nAs its documentation says.")]
                pub(super) unsafe fn $name(&self, $($argument: $type),*) -> $result {
                    // SAFETY: the caller keeps to what the function's documentation says.
                    $check(self, stringify!($symbol), unsafe { (self.$name)($($argument),*) })
                }
            )*

            $(
                #[doc = concat!("Calls `", stringify!($raw_symbol), "`.\n\n# Safety\nAs its documentation says.")]
                pub(super) unsafe fn $raw(&self, $($raw_argument: $raw_type),*) -> $raw_result {
                    // SAFETY: as above.
                    unsafe { (self.$raw)($($raw_argument),*) }
                }
            )*
        }
    };
}
pub(crate) use functions;
