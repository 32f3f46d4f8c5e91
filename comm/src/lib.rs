//! Communicators of BigMac: what ranks say to each other; ranks as threads of one process, and as processes.
//!
//! Everything that crosses ranks goes through the trait [`Communicator`]. [`run_ranks`] runs one closure per rank, each
//! on a thread of its own, with a [`LocalCommunicator`]:
//!
//! ```
//! use bigmac_comm::{CommError, Communicator, Reduce, run_ranks};
//! use bigmac_runtime::{Context, Tensor};
//! use std::time::Duration;
//!
//! let sums = run_ranks(3, Duration::from_secs(5), |comm| {
//!     let ctx = Context::cpu(comm.rank(), 1)?;
//!     let mut x = Tensor::from_slice(&ctx, &[comm.rank() as f32, 1.0], &[2])?;
//!     comm.all_reduce(&ctx, &mut x, Reduce::Sum)?;
//!     Ok::<_, CommError>(x.as_slice::<f32>()?.to_vec())
//! })?;
//! assert_eq!(sums, vec![vec![3.0, 3.0]; 3]);
//! # Ok::<(), bigmac_comm::RankError<CommError>>(())
//! ```
//!
//! Ranks that are processes have a [`ProcessCommunicator`], over TCP ([`TcpEngine`]) or over an MPI that is loaded at
//! run time ([`MpiEngine`]). It gives the same bits and the same errors.

pub mod control;
pub mod environment;

mod communicator;
mod error;
mod group;
mod local;
mod mailbox;
mod mpi;
mod process;
mod tag;
mod tcp;

pub use bigmac_kernels::reduce::Reduce;
pub use communicator::{Communicator, shard};
pub use error::{CommError, Result};
pub use local::{LocalCommunicator, RankError, RankFailure, run_ranks};
pub use mpi::{MPI, MpiEngine};
pub use process::{EngineError, Failer, ProcessCommunicator};
pub use tag::Tag;
pub use tcp::{Listening, TcpEngine};
