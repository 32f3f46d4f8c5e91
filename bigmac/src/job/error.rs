//! What can go wrong in a job of several processes.

use bigmac_comm::EngineError;
use bigmac_comm::control::{At, ControlError, Loss};
use bigmac_comm::environment::EnvironmentError;

/// Why this process cannot be a rank, or is none any more.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// What launchers left in the environment.
    #[error(transparent)]
    Environment(#[from] EnvironmentError),
    /// The ranks did not find each other, do not agree, or one was lost.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// An engine cannot be started.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Threads of one process were asked for, and there are several.
    #[error(
        "pipeline.engine = local is for threads of one process, but {ranks} processes were started; leave it at auto, or \
         start one process"
    )]
    #[allow(missing_docs)]
    Local { ranks: usize },
    /// MPI says another rank than the launcher.
    #[error(
        "MPI says that this is rank {} of {}, the environment says rank {} of {}: start the ranks with the mpirun of the \
         MPI library that is loaded (BIGMAC_LIBMPI names it), or use pipeline.engine = tcp", mpi.0, mpi.1, job.0, job.1
    )]
    #[allow(missing_docs)]
    OtherPlace { mpi: (usize, usize), job: (usize, usize) },
    /// An address that a rank listens at, and that is none.
    #[error("rank {rank} says that it listens at '{given}', which is not an address")]
    #[allow(missing_docs)]
    Address { rank: usize, given: String },
    /// A number of seconds that is none.
    #[error("{name} is '{given}'; expected a number of seconds above 0")]
    #[allow(missing_docs)]
    Seconds { name: &'static str, given: String },
    /// No address of the control plane.
    #[error(
        "{launcher} does not say where the ranks meet; set BIGMAC_MASTER to HOST:PORT of rank 0, the same on all ranks"
    )]
    #[allow(missing_docs)]
    NoMaster { launcher: String },
    /// The job ended because of another rank.
    #[error("rank {rank} on {host} stopped{}: {loss}", at.as_ref().map_or(String::new(), |at| format!(" at {at}")))]
    #[allow(missing_docs)]
    Ended { rank: usize, host: String, at: Option<At>, loss: Box<Loss> },
}

impl JobError {
    /// Whether the same call would fail again, whoever lives.
    pub fn is_input(&self) -> bool {
        match self {
            JobError::Control(error) => error.is_input(),
            JobError::Engine(error) => matches!(
                error,
                EngineError::Library(_) | EngineError::OldAbi { .. } | EngineError::OtherLauncher { .. }
            ),
            JobError::Ended { .. } => false,
            _ => true,
        }
    }

    /// Whether a rank or the control plane was lost: starting again helps.
    pub fn is_loss(&self) -> bool {
        match self {
            JobError::Control(error) => error.is_loss(),
            JobError::Engine(EngineError::Late { .. } | EngineError::NotFinalized { .. }) => true,
            JobError::Ended { .. } => true,
            _ => false,
        }
    }
}
