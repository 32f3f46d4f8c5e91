//! Waiting for a peer that is at work, however long that takes. The time limit of a communicator is for peers that do
//! not come; if one fails, every rank is told at once.

use bigmac_comm::{CommError, Communicator, Tag};
use bigmac_runtime::{Context, Spec, Tensor};

/// As [`Communicator::recv`], without a time limit.
///
/// # Errors
/// As [`Communicator::recv`], but for its time limit.
pub(super) fn receive(
    ctx: &Context,
    comm: &dyn Communicator,
    from: usize,
    tag: Tag,
    spec: &Spec,
) -> Result<Tensor, CommError> {
    loop {
        match comm.recv(ctx, from, tag, spec) {
            Err(CommError::Timeout { .. }) => {}
            other => return other,
        }
    }
}
