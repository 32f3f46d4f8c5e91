//! A job of several processes, of which this one is a rank: joined, agreed upon, and left.
//!
//! Who is there and who failed is the control plane's business ([`bigmac_comm::control`]); what carries tensors is an
//! engine's ([`Job::connect`]).

mod engine;
mod error;
mod join;
mod last_words;

pub use error::JobError;
pub use last_words::exit;

use crate::train::{Fault, TrainError};
use bigmac_comm::MpiEngine;
use bigmac_comm::control::{Hub, Loss, Member, Position};
use bigmac_comm::environment::Place;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// How long the control plane's word on a lost rank may take after the engine has noticed.
const NEWS: Duration = Duration::from_secs(3);

/// How long the end of MPI may take once all ranks are done.
const FINISH: Duration = Duration::from_secs(30);

/// This process's place among the ranks of a job that all have joined.
pub struct Job {
    place: Place,
    host: String,
    member: Member,
    /// In the process of rank 0, where no launcher of ours holds it.
    hub: Option<Hub>,
    /// MPI, where it was needed to find each other.
    mpi: Mutex<Option<MpiEngine>>,
    /// Whoever knows the job, for engines to be told apart from strangers.
    secret: Vec<u8>,
    loss: Arc<OnceLock<Loss>>,
}

impl Job {
    /// This process's rank.
    pub fn rank(&self) -> usize {
        self.place.rank
    }

    /// Its number among the ranks of its host.
    pub fn local_rank(&self) -> usize {
        self.place.local_rank
    }

    /// How many ranks there are.
    pub fn size(&self) -> usize {
        self.place.size
    }

    /// How many hosts they are on.
    pub fn hosts(&self) -> usize {
        self.member.peers().iter().map(|peer| &peer.host).collect::<BTreeSet<_>>().len()
    }

    /// How often the job was started again before.
    pub fn restart(&self) -> u32 {
        self.place.restart
    }

    /// Where this rank is in its work, to be set as it works: other ranks learn of it when this one is lost.
    pub fn position(&self) -> Position {
        self.member.position()
    }

    /// Rank 0's bytes, which it alone gives. Every rank makes the same calls in the same order.
    ///
    /// # Errors
    /// [`JobError::Control`].
    pub fn share(&self, what: &str, mine: Option<Vec<u8>>) -> Result<Vec<u8>, JobError> {
        let all = self.member.gather(what, mine.unwrap_or_default())?;
        Ok(all.into_iter().next().unwrap_or_default())
    }

    /// Returns once every rank has come this far, however long that takes.
    ///
    /// # Errors
    /// [`JobError::Control`].
    pub fn wait_for_all(&self, what: &str) -> Result<(), JobError> {
        Ok(self.member.gather(what, Vec::new()).map(drop)?)
    }

    /// The loss that an error followed from, where it did. An engine may notice before the control plane tells.
    fn cause(&self, error: &anyhow::Error) -> Option<Loss> {
        let followed = error.chain().any(|cause| {
            let train = cause.downcast_ref::<TrainError>();
            let job = cause.downcast_ref::<JobError>();
            train.is_some_and(|e| e.fault() == Fault::Peer) || job.is_some_and(JobError::is_loss)
        });
        let until = Instant::now() + NEWS;
        while followed && self.loss.get().is_none() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(10));
        }
        self.loss.get().cloned()
    }

    /// The end of this rank's part, in order or with an error, which the other ranks are told. Where another rank was
    /// lost first, the error becomes a sentence on that.
    ///
    /// # Errors
    /// `done`'s; [`JobError::Ended`] where the job ended because of another rank.
    pub fn end<T>(self, done: anyhow::Result<T>) -> anyhow::Result<T> {
        let done = match done {
            Ok(value) => Ok(value),
            Err(error) => match self.cause(&error) {
                Some(loss) => Err(self.ended(&loss).into()),
                None => {
                    self.member.fail(&format!("{error:#}"));
                    Err(error)
                }
            },
        };
        last_words::may_speak();
        let mpi = self.mpi.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some(mpi) = mpi {
            // Without all ranks it would wait for those that are gone.
            if done.is_ok() && mpi.finish(FINISH).is_ok() {
                last_words::mpi_is_over();
            }
        }
        if done.is_ok() {
            self.member.leave();
        }
        if let Some(hub) = self.hub {
            // With this process the hub would end for all others, too.
            hub.finish(last_words::PATIENCE);
        }
        done
    }
}
