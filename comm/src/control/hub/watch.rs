//! The hub's clock: signs of life to all, silence of members, and the limit for joining.

use super::roster::Roster;
use std::sync::Arc;
use std::time::Instant;

/// Runs until the hub closes.
pub(super) fn watch(roster: &Arc<Roster>) {
    let pulse = roster.limits.pulse();
    let mut next = Instant::now() + pulse;
    while roster.sleep_until(next) {
        next = Instant::now() + pulse;
        roster.tick();
    }
}
