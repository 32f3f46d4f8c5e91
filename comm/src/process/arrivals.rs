//! What transports do with what comes in.

use super::frame::{Body, Malformed, Notice};
use crate::mailbox::{Arrived, Content, Mailbox};
use bigmac_runtime::memory::scopes;
use bigmac_runtime::{Context, Tensor};
use std::sync::Arc;
use std::time::Duration;

/// How long a transport that has lost a peer waits for word of the cause (from the control plane, or from the peer
/// itself on another way) before it blames the connection.
pub const GRACE: Duration = Duration::from_secs(1);

/// A rank's door: frames come in here, and so does the news of lost peers.
pub struct Arrivals {
    mailbox: Arc<Mailbox>,
    /// Allocates on the CPU, under the rank's messages.
    ctx: Context,
}

/// A frame whose payload is on its way.
#[derive(Debug)]
pub struct Landing {
    notice: Notice,
    /// Where the payload goes.
    room: Option<Arrived>,
}

impl Arrivals {
    /// For the owner of `mailbox`, with the rank's context.
    pub fn new(mailbox: Arc<Mailbox>, ctx: &Context) -> Self {
        Arrivals { mailbox, ctx: ctx.host().in_scope(scopes::MESSAGES) }
    }

    /// Where the rank's calls wait.
    pub fn mailbox(&self) -> &Mailbox {
        &self.mailbox
    }

    /// Reads a header without its first four bytes, and makes room for what follows.
    ///
    /// # Errors
    /// When no rank would send it.
    pub fn open(&self, header: &[u8]) -> Result<Landing, Malformed> {
        let notice = Notice::read(header)?;
        let room = match &notice {
            Notice::Letter { body: Body::Values(spec), .. } => {
                Some(Tensor::empty(&self.ctx, &spec.shape, spec.dtype))
            }
            Notice::Letter { body: Body::Shape(spec), .. } => Some(Ok(Tensor::shape_only(spec))),
            _ => None,
        };
        Ok(Landing { notice, room })
    }

    /// Files a frame of `from` whose payload is there; false when it was the last one.
    ///
    /// # Errors
    /// When no rank would send it.
    pub fn land(&self, from: usize, landing: Landing) -> Result<bool, Malformed> {
        let (address, body) = match landing.notice {
            Notice::Letter { address, body } => (address, body),
            Notice::Failed { rank, reason } => {
                self.mailbox.fail(rank, &reason);
                return Ok(true);
            }
            Notice::Goodbye => {
                self.mailbox.end(from);
                return Ok(false);
            }
        };
        let content = match (body, landing.room) {
            (_, Some(arrived)) => Content::Tensor(arrived),
            (Body::Wish { color, key }, None) => Content::Wish { color, key },
            (_, None) => Content::Nothing,
        };
        let letter = address.letter(content).ok_or(Malformed("a message without a tensor"))?;
        // A rank that has ended wants nothing more.
        self.mailbox.put(from, letter);
        Ok(true)
    }

    /// Waits for word of what happened to rank `rank`, at most for `limit`; true when it has ended or a failure is
    /// known.
    pub fn explained(&self, rank: usize, limit: Duration) -> bool {
        self.mailbox.settled(|other| other == rank, limit)
    }
}

impl Landing {
    /// Bytes that follow the header.
    pub fn bytes(&self) -> usize {
        self.notice.payload_bytes()
    }

    /// Where the bytes go; `None` when there was no room for them, and they must be thrown away.
    pub fn buffer(&mut self) -> Option<&mut [u8]> {
        // Freshly made: contiguous, with values, and no one else's.
        self.room.as_mut()?.as_mut().ok()?.as_mut_bytes().ok()
    }
}
