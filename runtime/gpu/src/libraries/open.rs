//! Opening libraries and taking functions from them.

use super::{Library, Lookup};
use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};

/// Why a library can't be used.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LibraryError {
    /// There is no such file.
    #[error("{}", not_found(.0))]
    NotFound(Box<Lookup>),
    /// The file is there and can't be opened.
    #[error("{} can't be opened: {message}", file.display())]
    Open {
        /// The file.
        file: PathBuf,
        /// What the dynamic loader said.
        message: String,
    },
    /// The library has no function of that name.
    #[error(
        "{} ({version}) has no function '{symbol}'; it is too old, or not what its name says: install a newer one{}",
        file.display(),
        variable.map(|variable| format!(", or name another file in {variable}")).unwrap_or_default()
    )]
    Symbol {
        /// The function.
        symbol: &'static str,
        /// The library's file.
        file: PathBuf,
        /// What is known of its version.
        version: String,
        /// The environment variable that names another file.
        variable: Option<&'static str>,
    },
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

fn not_found(lookup: &Lookup) -> String {
    let looked: Vec<String> =
        lookup.looked_in.iter().map(|directory| directory.display().to_string()).collect();
    let places =
        if looked.is_empty() { String::new() } else { "; looked in ".to_owned() + &looked.join(", ") };
    missing(lookup) + &places
}

fn missing(lookup: &Lookup) -> String {
    let library = &lookup.library;
    let title = library.names.join(" or ");
    match (library.variable, &lookup.given) {
        (Some(variable), Some(given)) => format!(
            "{variable} names {}, which is no file; correct it, or unset it to have {title} searched",
            given.display()
        ),
        (variable, _) => {
            let or = variable.map(|variable| format!(", or name the file in {variable}")).unwrap_or_default();
            format!("{title} ({}) wasn't found; {}{or}", library.purpose, library.advice)
        }
    }
}

/// An open library. It stays open until the process ends: drivers start threads and handlers that run after the last call.
#[derive(Debug)]
pub struct Opened {
    library: ManuallyDrop<libloading::Library>,
    file: PathBuf,
    variable: Option<&'static str>,
}

impl Library {
    /// Finds and opens the library.
    ///
    /// # Errors
    /// [`LibraryError::NotFound`] and [`LibraryError::Open`].
    pub fn open(self) -> Result<Opened, LibraryError> {
        let lookup = self.find();
        match &lookup.found {
            Some(file) => self.open_file(&file.clone()),
            None => Err(LibraryError::NotFound(Box::new(lookup))),
        }
    }

    /// Opens a file as this library.
    ///
    /// # Errors
    /// [`LibraryError::Open`].
    pub fn open_file(self, file: &Path) -> Result<Opened, LibraryError> {
        // SAFETY: what runs when one of these libraries is opened is its own initialisation, which asks nothing of the process.
        let library = unsafe { libloading::Library::new(file) }
            .map_err(|error| LibraryError::Open { file: file.to_owned(), message: error.to_string() })?;
        Ok(Opened { library: ManuallyDrop::new(library), file: file.to_owned(), variable: self.variable })
    }
}

impl Opened {
    /// The file.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The function of that name. `version` is what is known of the library's version, for the error.
    ///
    /// # Errors
    /// [`LibraryError::Symbol`].
    ///
    /// # Safety
    /// `F` is a function pointer, `unsafe extern "C"`, with the parameters and result that the library's function has.
    pub unsafe fn function<F: Copy>(&self, symbol: &'static str, version: &str) -> Result<F, LibraryError> {
        // SAFETY: the caller vouches for the type; the pointer stays good, since the library is never closed.
        match unsafe { self.library.get::<F>(symbol.as_bytes()) } {
            Ok(function) => Ok(*function),
            Err(_) => Err(LibraryError::Symbol {
                symbol,
                file: self.file.clone(),
                version: version.to_owned(),
                variable: self.variable,
            }),
        }
    }
}

/// Declares a table of a library's functions. For `name = "symbol" (argument: type, ..);` it has an unsafe method `name` that calls the
/// function: under `plain` it returns the function's status, under `checked by CHECK -> RESULT` what `CHECK(&table, symbol, status)`
/// makes of it.
macro_rules! functions {
    (
        $(#[$doc:meta])* $table:ident;
        plain { $($plain:ident = $plain_symbol:literal ($($plain_argument:ident: $plain_type:ty),*);)* }
        $(checked by $check:path => $result:ty {
            $($name:ident = $symbol:literal ($($argument:ident: $type:ty),*);)*
        })?
    ) => {
        $(#[$doc])*
        pub(super) struct $table {
            $($plain: unsafe extern "C" fn($($plain_type),*) -> std::ffi::c_int,)*
            $($($name: unsafe extern "C" fn($($type),*) -> std::ffi::c_int,)*)?
        }

        impl $table {
            /// Takes every function from an open library; `version` is for the error about one that is missing.
            pub(super) fn load(
                library: &$crate::libraries::Opened,
                version: &str,
            ) -> Result<Self, $crate::libraries::LibraryError> {
                Ok($table {
                    // SAFETY: the types are those of the library's own header.
                    $($plain: unsafe { library.function($plain_symbol, version)? },)*
                    // SAFETY: as above.
                    $($($name: unsafe { library.function($symbol, version)? },)*)?
                })
            }

            $(
                #[doc = concat!("Calls `", $plain_symbol, "`.\n\n# Safety\nAs its documentation says.")]
                pub(super) unsafe fn $plain(&self, $($plain_argument: $plain_type),*) -> std::ffi::c_int {
                    // SAFETY: the caller keeps to what the function's documentation says.
                    unsafe { (self.$plain)($($plain_argument),*) }
                }
            )*

            $($(
                #[doc = concat!("Calls `", $symbol, "`.\n\n# Safety\nAs its documentation says.")]
                pub(super) unsafe fn $name(&self, $($argument: $type),*) -> $result {
                    // SAFETY: the caller keeps to what the function's documentation says.
                    $check(self, $symbol, unsafe { (self.$name)($($argument),*) })
                }
            )*)?
        }
    };
}
pub(crate) use functions;
