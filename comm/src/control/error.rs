//! What can go wrong in the control plane.

use super::loss::Loss;
use super::words::seconds;
use std::path::PathBuf;
use std::time::Duration;

/// Everything that can go wrong in the control plane.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// The ranks do not agree, or one of them does not belong to the job: the same sentence on every rank.
    #[error("{0}")]
    Refused(String),
    /// The job is over, on every rank.
    #[error("{0}")]
    Lost(Loss),
    /// No one could be reached that takes part in this job.
    #[error(
        "could not join the job at {address} within {}: {last}; see whether the launcher (or rank 0) runs there, and \
         whether this host may connect to that port",
        seconds(*waited)
    )]
    Unreachable {
        /// Where the hub should be.
        address: String,
        /// How long it was tried.
        waited: Duration,
        /// What the last attempt said.
        last: String,
    },
    /// Somebody else listens there.
    #[error(
        "{address} answers, but it is not a BigMac control plane; give another port, or the address of the launcher of \
         node 0"
    )]
    NotControl {
        /// Where the hub should be.
        address: String,
    },
    /// Another version of the program, with another protocol, listens there.
    #[error(
        "the control plane at {address} speaks protocol {there}, this rank speaks {here}; run the same version of \
         BigMac on all hosts"
    )]
    Protocol {
        /// Where the hub is.
        address: String,
        /// This rank's protocol.
        here: u32,
        /// The hub's protocol.
        there: u32,
    },
    /// The address to listen on is in use.
    #[error(
        "cannot listen on {address}: the port is taken by another process; end that process (`ss -ltnp` shows it), or \
         choose another port"
    )]
    PortTaken {
        /// The address.
        address: String,
    },
    /// The address to listen on cannot be used.
    #[error("cannot listen on {address}: {cause}; expected HOST:PORT, with an address of this machine")]
    Listen {
        /// The address.
        address: String,
        /// Why.
        cause: String,
    },
    /// More bytes than a message may carry.
    #[error("cannot gather {given} bytes as {what:?}: at most {most} bytes a rank are possible")]
    TooLarge {
        /// What was to be gathered, or "facts".
        what: String,
        /// This rank's bytes.
        given: usize,
        /// The most there may be.
        most: usize,
    },
    /// A token that protects nothing.
    #[error("the token {from} is empty; expected any secret text, the same on all hosts")]
    EmptyToken {
        /// Where it came from.
        from: String,
    },
    /// The file with the token cannot be used.
    #[error("cannot read the token from {}: {cause}", path.display())]
    TokenFile {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: String,
    },
    /// The system refused a thread, a socket's option or random numbers.
    #[error("control plane: the system refused {what}: {cause}")]
    System {
        /// What was asked of it.
        what: &'static str,
        /// Its answer.
        cause: String,
    },
}

impl ControlError {
    /// Whether the same call would fail again, whoever lives: the command ends with 2 then.
    pub fn is_input(&self) -> bool {
        !self.is_loss() && !matches!(self, ControlError::System { .. })
    }

    /// Whether somebody was lost or never came, so that starting again helps: the command ends with 75 then.
    pub fn is_loss(&self) -> bool {
        matches!(self, ControlError::Lost(_) | ControlError::Unreachable { .. })
    }

    pub(super) fn system(what: &'static str) -> impl FnOnce(std::io::Error) -> ControlError {
        move |error| ControlError::System { what, cause: error.to_string() }
    }
}
