//! Starting all ranks of this node, and starting them again.

use super::super::exit::{Ended, START_AGAIN};
use super::super::note;
use super::signals::Signals;
use super::start::{Started, Starter};
use super::supervise::{Patience, supervise};
use super::verdict::End;
use std::time::{Duration, Instant};

/// The longest pause before a start.
const LONGEST: Duration = Duration::from_secs(30);

/// How long ranks of other nodes may take to leave once those of node 0 are done.
const LEAVE: Duration = Duration::from_secs(30);

/// A node that does not know whether all ranks have met takes a start that lasted as long for one in which they have.
const GOOD: Duration = Duration::from_secs(10);

/// Runs the ranks until they are done, and starts them again up to `restarts` times; the pause before that is `pause`
/// and doubles with each start in which the ranks do not even meet.
pub(super) fn run(
    starter: &Starter,
    signals: &mut Signals,
    restarts: u32,
    shortest: Duration,
) -> anyhow::Result<()> {
    let (mut restart, mut pause) = (0, shortest);
    loop {
        let began = Instant::now();
        let Started { family, member, hub } = starter.start(restart)?;
        let end = supervise(family, signals, Patience::default(), &member)?;
        member.end();
        let loss = hub.as_ref().and_then(|hub| hub.failure());
        let have_met = hub.as_ref().map_or(began.elapsed() >= GOOD, |hub| hub.have_met());
        match hub {
            // Ranks of other nodes may still be on their way out.
            Some(hub) if matches!(end, End::Done) && have_met => drop(hub.finish(LEAVE)),
            hub => drop(hub),
        }
        let (said, code, is_worth_it) = match end {
            End::Done => return Ok(()),
            End::Interrupted => return Err(Ended::interrupted().into()),
            End::Failed(failure) => {
                (failure.said(loss.as_ref()), failure.code(), failure.is_worth_a_restart())
            }
            End::Lost(loss) => (loss.to_string(), START_AGAIN, true),
        };
        if restart == restarts || !is_worth_it || signals.asked().is_some() {
            return Err(Ended { code, said }.into());
        }
        restart += 1;
        if have_met {
            pause = shortest;
        }
        let seconds = pause.as_secs_f64();
        note(&format!(
            "{said}; starting the ranks of this node again in {seconds} s ({restart} of {restarts})"
        ));
        if let Some(signal) = signals.asked_within(pause) {
            return Err(Ended::by_signal(signal).into());
        }
        pause = LONGEST.min(pause * 2);
    }
}
