//! Who takes part, and how one of them was lost.

use serde::{Deserialize, Serialize};
use std::fmt;

/// One rank of the job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Its number.
    pub rank: usize,
    /// The name of its host, as it says itself.
    pub host: String,
    /// Its process there.
    pub pid: u32,
}

/// Where a rank is in its work.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct At {
    /// The step of training.
    pub step: u64,
    /// The op's place in the rank's list of the schedule's table.
    pub op: usize,
    /// The op, in words.
    pub text: String,
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "step {}, op {} ({})", self.step, self.op, self.text)
    }
}

/// The first loss of a job: from then on no rank can go on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// The rank that was lost; none: the control plane itself, or ranks that never came.
    pub rank: Option<usize>,
    /// That rank's host; of the control plane, its address.
    pub host: String,
    /// Where the rank was when it last said so.
    pub position: Option<At>,
    /// What happened.
    pub cause: String,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.rank {
            Some(rank) => write!(f, "lost rank {rank} on {}", self.host)?,
            None => write!(f, "control plane at {}", self.host)?,
        }
        if let Some(at) = &self.position {
            write!(f, ", last seen at {at}")?;
        }
        write!(f, ": {}", self.cause)
    }
}

impl Loss {
    /// A loss of the control plane at `address`, or for its reasons.
    pub(super) fn control(address: impl fmt::Display, cause: impl Into<String>) -> Self {
        Loss { rank: None, host: address.to_string(), position: None, cause: cause.into() }
    }

    /// A loss of a rank.
    pub(super) fn peer(peer: &Peer, position: Option<At>, cause: impl Into<String>) -> Self {
        Loss { rank: Some(peer.rank), host: peer.host.clone(), position, cause: cause.into() }
    }
}
