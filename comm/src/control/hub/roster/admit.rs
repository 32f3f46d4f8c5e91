//! Who is let in, and when the job begins.

use super::{Launcher, Phase, Roster, Seat, State};
use crate::control::agree::{Claim, difference};
use crate::control::frame;
use crate::control::loss::{Loss, Peer};
use crate::control::outgoing::Outgoing;
use crate::control::silence::Watched;
use crate::control::wire::{Greeting, Role, ToMember};
use std::net::TcpStream;
use std::time::Instant;

/// The answer where the system does not let the hub serve a connection.
fn unavailable(error: std::io::Error) -> ToMember {
    ToMember::Again { reason: format!("the control plane: {error}") }
}

/// Whose connection it is.
pub(in crate::control::hub) enum Admitted {
    Rank(usize, Watched),
    /// With the number of its connection, and its host.
    Launcher(u64, String),
}

impl Roster {
    /// Takes a member or a launcher in; otherwise what to answer.
    pub fn admit(
        &self,
        greeting: Greeting,
        nonce: &[u8; 32],
        stream: &TcpStream,
    ) -> Result<Admitted, ToMember> {
        let mut state = self.lock();
        self.check_origin(&mut state, &greeting, nonce, stream)?;
        if greeting.role == Role::Launcher {
            return self.admit_launcher(&mut state, greeting.host, stream);
        }
        let rank = greeting.rank;
        let who = format!("rank {rank} on {} (pid {})", greeting.host, greeting.pid);
        let taken = state.seats.get(rank).and_then(|seat| seat.as_ref()).map(|seat| seat.peer.clone());
        match (&state.phase, &taken) {
            (Phase::Refused(reason), _) => return Err(ToMember::Refused { reason: reason.clone() }),
            // Somebody comes again to a hub that is about to end: another one will follow it.
            (Phase::Lost(loss), Some(_)) => return Err(ToMember::Again { reason: loss.to_string() }),
            (Phase::Lost(loss), None) => return Err(ToMember::Lost(loss.clone())),
            // A job that runs is not disturbed by latecomers.
            (Phase::Running, taken) => {
                let with = taken.as_ref().map_or("without such a rank".into(), |peer| {
                    format!("with rank {rank} on {} (pid {})", peer.host, peer.pid)
                });
                return Err(ToMember::Again { reason: format!("the job runs already, {with}") });
            }
            (Phase::Joining { .. }, _) => {}
        }
        let wrong = self.misplaced(&greeting, &who, taken.as_ref());
        if let Some(reason) = wrong {
            self.refuse(&mut state, reason.clone());
            return Err(ToMember::Refused { reason });
        }
        let watched = self.seat(&mut state, greeting, stream).map_err(unavailable)?;
        self.begin(&mut state);
        Ok(Admitted::Rank(rank, watched))
    }

    fn admit_launcher(
        &self,
        state: &mut State,
        host: String,
        stream: &TcpStream,
    ) -> Result<Admitted, ToMember> {
        match &state.phase {
            Phase::Refused(reason) => return Err(ToMember::Refused { reason: reason.clone() }),
            Phase::Lost(loss) => return Err(ToMember::Lost(loss.clone())),
            Phase::Joining { .. } | Phase::Running => {}
        }
        let start = || {
            self.set_deadlines(stream)?;
            let out = Outgoing::start(stream.try_clone()?)?;
            out.put(&frame::encode(&ToMember::Welcome, &[])?.into());
            Ok(Launcher { out: Some(out), stream: stream.try_clone()? })
        };
        let launcher = start().map_err(unavailable)?;
        state.open += 1;
        state.connected += 1;
        state.launchers.insert(state.connected, launcher);
        Ok(Admitted::Launcher(state.connected, host))
    }

    fn set_deadlines(&self, stream: &TcpStream) -> std::io::Result<()> {
        stream.set_read_timeout(None)?;
        stream.set_write_timeout(Some(self.limits.silence))
    }

    /// Why a rank of this job cannot have its place.
    fn misplaced(&self, greeting: &Greeting, who: &str, taken: Option<&Peer>) -> Option<String> {
        let (rank, world) = (greeting.rank, self.job.world);
        if greeting.world != world {
            return Some(format!(
                "the number of ranks is {} on {who} and {world} for the control plane at {}: start all ranks for the \
                 same number",
                greeting.world, self.address
            ));
        }
        if rank >= world {
            return Some(format!(
                "{who} is not a rank of a job of {world}: ranks count from 0 to {}",
                world - 1
            ));
        }
        let first = taken?;
        Some(format!(
            "two processes are rank {rank}: pid {} on {} and pid {} on {}; give every process a rank of its own",
            first.pid, first.host, greeting.pid, greeting.host
        ))
    }

    /// Whether a greeting is from this job, and from this start of it.
    fn check_origin(
        &self,
        state: &mut State,
        greeting: &Greeting,
        nonce: &[u8; 32],
        stream: &TcpStream,
    ) -> Result<(), ToMember> {
        if !self.job.token.proves(nonce, &greeting.proof) {
            let from =
                stream.peer_addr().map_or("an unknown address".into(), |address| address.ip().to_string());
            let reason = format!(
                "rank {} at {from} has another token than the control plane at {}: give all ranks the same token, or \
                 another port if this is another job",
                greeting.rank, self.address
            );
            // A launcher's ranks come as well.
            if greeting.role == Role::Rank {
                state.impostors.insert(greeting.rank, reason.clone());
                state.impostors.retain(|&rank, _| rank < self.job.world);
                state.last_impostor = Instant::now();
            }
            return Err(ToMember::Refused { reason });
        }
        let (theirs, ours) = (greeting.restart, self.job.restart);
        if theirs == ours {
            return Ok(());
        }
        let reason = format!(
            "rank {} on {} belongs to restart {theirs} of the job, the control plane at {} to restart {ours}",
            greeting.rank, greeting.host, self.address
        );
        // The control plane's next start is near; its last one does not come back.
        Err(if theirs > ours {
            ToMember::Again { reason }
        } else {
            ToMember::Lost(Loss::control(self.address, reason))
        })
    }

    fn seat(&self, state: &mut State, greeting: Greeting, stream: &TcpStream) -> std::io::Result<Watched> {
        self.set_deadlines(stream)?;
        let watched = Watched::new(self.limits.silence);
        let seat = Seat {
            peer: Peer { rank: greeting.rank, host: greeting.host, pid: greeting.pid },
            version: greeting.version,
            facts: greeting.facts,
            at: None,
            out: Some(Outgoing::start(stream.try_clone()?)?),
            stream: stream.try_clone()?,
            watched: watched.clone(),
            has_left: false,
        };
        state.open += 1;
        let rank = greeting.rank;
        state.seats[rank] = Some(seat);
        self.tell(state, &ToMember::Welcome, &[], |to| to == rank);
        Ok(watched)
    }

    /// Begins the job, once all are there and agree.
    fn begin(&self, state: &mut State) {
        let seats = state.seats.iter().flatten();
        if seats.clone().count() < self.job.world {
            return;
        }
        let claims: Vec<_> = seats
            .clone()
            .map(|seat| Claim { rank: seat.peer.rank, version: &seat.version, facts: &seat.facts })
            .collect();
        if let Some(reason) = difference(&claims) {
            return self.refuse(state, reason);
        }
        let peers = seats.map(|seat| seat.peer.clone()).collect();
        state.phase = Phase::Running;
        state.have_met = true;
        self.tell(state, &ToMember::Joined { peers }, &[], |_| true);
    }
}
