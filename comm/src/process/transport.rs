//! What an engine must do: carry frames.

use super::frame::Frame;
use std::time::Duration;

/// Carries frames from this rank to others. Frames for one rank arrive in the order they were given.
pub trait Transport: Send + Sync {
    /// Queues a frame for rank `to`, numbered as in the world and not this one, without waiting. The frame is dropped
    /// once it was sent, or can't be, and the rank's mailbox is then nudged. A peer that can't be reached becomes a
    /// failure of the mailbox; nothing is returned here.
    fn send(&self, to: usize, frame: Frame);

    /// Waits, at most for `limit`, until everything queued was sent, and closes. Nothing is sent after this.
    fn close(&self, limit: Duration);
}
