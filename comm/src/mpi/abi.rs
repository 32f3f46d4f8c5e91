//! What of MPI's binary interface is used: a few functions on bytes, the same in both ABIs, and their constants, which
//! differ.

use bigmac_gpu::libraries::{LibraryError, Opened};
use std::ffi::{c_char, c_int, c_void};

/// A communicator, datatype, error handler or request: a pointer in both ABIs.
pub type Handle = *mut c_void;

/// `MPI_Status`: both ABIs begin with these three; the rest is as long as that of the longer, the standard one.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default)]
pub struct Status {
    pub source: c_int,
    pub tag: c_int,
    pub error: c_int,
    internal: [c_int; 5],
}

/// `MPI_ANY_SOURCE` in both ABIs.
pub const ANY_SOURCE: c_int = -1;
/// Errors of a peer that died, of a wait for anybody while one died, and of a communicator that was revoked (Open MPI).
pub const PEER_ERRORS: [c_int; 3] = [75, PENDING, 77];
/// The second of them: the receive goes on once the death was acknowledged.
pub const PENDING: c_int = 76;

macro_rules! functions {
    ($($name:ident = $symbol:ident ($($argument:ident: $type:ty),*);)*) => {
        /// MPI's functions. Each returns 0 or an error.
        pub struct Functions {
            $(pub $name: unsafe extern "C" fn($($argument: $type),*) -> c_int,)*
            /// Makes every later call on a communicator fail everywhere; only of MPIs that survive the death of ranks.
            pub comm_revoke: Option<unsafe extern "C" fn(Handle) -> c_int>,
            /// Lets receives from anybody go on after the death of ranks; only of such MPIs.
            pub comm_failure_ack: Option<unsafe extern "C" fn(Handle) -> c_int>,
        }

        impl Functions {
            /// Takes every function from an open library.
            pub fn load(library: &Opened) -> Result<Self, LibraryError> {
                Ok(Functions {
                    // SAFETY: the types are those of `mpi.h`, in which handles are pointers in both ABIs.
                    $($name: unsafe { library.function(stringify!($symbol), &[], UNKNOWN)? },)*
                    // SAFETY: as above.
                    comm_revoke: unsafe { library.function("MPIX_Comm_revoke", &[], UNKNOWN) }.ok(),
                    // SAFETY: as above.
                    comm_failure_ack: unsafe { library.function("MPIX_Comm_failure_ack", &[], UNKNOWN) }.ok(),
                })
            }
        }
    };
}

/// A library's version, when it is not known whether it is an MPI.
const UNKNOWN: &str = "an MPI";

functions! {
    init_thread = MPI_Init_thread (argc: *mut c_int, argv: *mut *mut *mut c_char, required: c_int, provided: *mut c_int);
    comm_rank = MPI_Comm_rank (comm: Handle, rank: *mut c_int);
    comm_size = MPI_Comm_size (comm: Handle, size: *mut c_int);
    comm_dup = MPI_Comm_dup (comm: Handle, copy: *mut Handle);
    comm_set_errhandler = MPI_Comm_set_errhandler (comm: Handle, handler: Handle);
    isend = MPI_Isend (data: *const c_void, count: c_int, datatype: Handle, to: c_int, tag: c_int, comm: Handle, request: *mut Handle);
    irecv = MPI_Irecv (data: *mut c_void, count: c_int, datatype: Handle, from: c_int, tag: c_int, comm: Handle, request: *mut Handle);
    test = MPI_Test (request: *mut Handle, done: *mut c_int, status: *mut Status);
    cancel = MPI_Cancel (request: *mut Handle);
    finalize = MPI_Finalize ();
    error_string = MPI_Error_string (code: c_int, text: *mut c_char, length: *mut c_int);
    get_library_version = MPI_Get_library_version (text: *mut c_char, length: *mut c_int);
}

impl std::fmt::Debug for Functions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Functions")
    }
}

/// The constants that differ.
#[derive(Clone, Copy, Debug)]
pub struct Constants {
    pub comm_world: Handle,
    pub byte: Handle,
    pub errors_return: Handle,
    pub thread_serialized: c_int,
}

// SAFETY: handles are numbers, or addresses of variables of a library that is never closed; what they stand for is used
// by one thread alone.
unsafe impl Send for Constants {}

impl Constants {
    /// Those of the standard ABI (MPI 5.0, section "Application Binary Interface"), whose functions the library has.
    pub fn standard(library: &Opened) -> Result<Self, LibraryError> {
        // A library without this function has another ABI, or is not an MPI.
        // SAFETY: the pointer is not used.
        unsafe { library.function::<*mut c_void>("MPI_Abi_get_version", &[], UNKNOWN) }?;
        let handle = |value: usize| std::ptr::without_provenance_mut(value);
        Ok(Constants {
            comm_world: handle(0x101),
            byte: handle(0x247),
            errors_return: handle(0x143),
            thread_serialized: 2048,
        })
    }

    /// Those of Open MPI, whose handles are the addresses of its variables.
    pub fn open_mpi(library: &Opened) -> Result<Self, LibraryError> {
        // SAFETY: these are variables.
        let handle = |symbol| unsafe { library.function::<Handle>(symbol, &[], "Open MPI") };
        Ok(Constants {
            comm_world: handle("ompi_mpi_comm_world")?,
            byte: handle("ompi_mpi_byte")?,
            errors_return: handle("ompi_mpi_errors_return")?,
            thread_serialized: 2,
        })
    }
}
