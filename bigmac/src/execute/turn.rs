//! Ranks of one process that compute one at a time, so that none disturbs another's ops.

use super::error::ExecuteError;
use bigmac_runtime::Context;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What ranks of one process pass on: only the one that has it computes. A rank gives it up while it waits for values,
/// so some rank can always go on.
#[derive(Debug, Default)]
pub struct Baton(Mutex<()>);

/// A rank's part in passing the baton on.
pub(super) struct Turn<'a> {
    baton: &'a Baton,
    held: Option<MutexGuard<'a, ()>>,
}

impl<'a> Turn<'a> {
    /// Without the baton yet.
    pub fn new(baton: &'a Baton) -> Self {
        Turn { baton, held: None }
    }

    /// Waits for the baton.
    pub fn take(&mut self) {
        if self.held.is_none() {
            // A rank that panicked while it had the baton changed nothing that others could find broken.
            self.held = Some(self.baton.0.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// Gives the baton up, once the device has done what was queued.
    pub fn give(&mut self, ctx: &Context) -> Result<(), ExecuteError> {
        if self.held.is_some() {
            ctx.stream().synchronize()?;
            self.held = None;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn only_one_rank_has_the_baton() {
        let (baton, inside, turns) = (Baton::default(), AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for rank in 0..4 {
                let (baton, inside, turns) = (&baton, &inside, &turns);
                scope.spawn(move || {
                    let ctx = Context::on(rank, 1, None).unwrap();
                    let mut turn = Turn::new(baton);
                    for _ in 0..100 {
                        turn.take();
                        // Whoever has it already goes on.
                        turn.take();
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        std::thread::yield_now();
                        inside.fetch_sub(1, Ordering::SeqCst);
                        turns.fetch_add(1, Ordering::Relaxed);
                        turn.give(&ctx).unwrap();
                    }
                });
            }
        });
        assert_eq!(turns.into_inner(), 400);
    }
}
