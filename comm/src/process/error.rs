//! What can go wrong when ranks that are processes are connected.

use bigmac_gpu::libraries::LibraryError;
use std::path::PathBuf;

/// An engine cannot be started or stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The system refused something.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The rank is not among the addresses.
    #[error("expected a rank below {size}, as there are {size} addresses, got {rank}")]
    NoSuchRank {
        /// What was given.
        rank: usize,
        /// How many addresses there are.
        size: usize,
    },
    /// The MPI library is missing, damaged, or not an MPI.
    #[error(transparent)]
    Library(#[from] LibraryError),
    /// The library is MPICH with the ABI that its own versions share, which is not the standard one.
    #[error(
        "{} has MPICH's own ABI, whose handles are known to its compiler alone; name libmpi_abi.so.1 of MPICH 5 or newer, or libmpi.so.40 of \
         Open MPI, in BIGMAC_LIBMPI", file.display()
    )]
    OldAbi {
        /// The file.
        file: PathBuf,
    },
    /// A call of MPI failed.
    #[error("{call} failed: {message} (error {code}); the library is {library}")]
    Mpi {
        /// The function.
        call: &'static str,
        /// What it returned.
        code: i32,
        /// What MPI says about that.
        message: String,
        /// The library's own version text.
        library: String,
    },
    /// The launcher is of another MPI than the library, so that each process would be alone.
    #[error(
        "the launcher that started this process, as {variable} shows, and the library {} ({version}) belong to different MPIs; name the library \
         of the launcher's MPI in BIGMAC_LIBMPI", file.display()
    )]
    OtherLauncher {
        /// The variable that the launcher set.
        variable: &'static str,
        /// The library.
        file: PathBuf,
        /// What the library says of itself.
        version: String,
    },
    /// MPI did not start or stop in time.
    #[error("waited {seconds} s for MPI to {what}; {advice}")]
    Late {
        /// What was waited for.
        what: &'static str,
        /// How long.
        seconds: f64,
        /// What to do.
        advice: &'static str,
    },
    /// Something had failed before, so MPI was left as it is: the process must end with `_exit`.
    #[error(
        "MPI was not finalized, as rank {rank} failed: {reason}; end the process with _exit, since exit waits for MPI"
    )]
    NotFinalized {
        /// The rank that failed.
        rank: usize,
        /// What happened there.
        reason: String,
    },
    /// There is one world communicator per engine.
    #[error("the communicator of this MPI engine was taken before; split it to get more")]
    Taken,
}
