//! Who is there, and how the job stands. Everything that happens to a member comes here.

mod admit;

pub(super) use admit::Admitted;

use super::Job;
use super::gather::Gatherings;
use crate::control::frame;
use crate::control::loss::{At, Loss, Peer};
use crate::control::outgoing::Outgoing;
use crate::control::silence::Watched;
use crate::control::wire::ToMember;
use crate::control::words::{ranks, seconds};
use crate::control::{GREETING, Limits};
use std::collections::BTreeMap;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// How the job stands.
enum Phase {
    /// Ranks are missing.
    Joining {
        until: Instant,
    },
    Running,
    /// The ranks do not agree.
    Refused(String),
    Lost(Loss),
}

/// A member.
struct Seat {
    peer: Peer,
    version: String,
    facts: BTreeMap<String, String>,
    at: Option<At>,
    /// None once nothing more is said to it.
    out: Option<Outgoing>,
    stream: TcpStream,
    watched: Watched,
    has_left: bool,
}

/// A launcher, which is told how the job stands.
struct Launcher {
    /// None once nothing more is said to it.
    out: Option<Outgoing>,
    stream: TcpStream,
}

struct State {
    phase: Phase,
    /// All ranks have come and agree, whatever happened since.
    have_met: bool,
    seats: Vec<Option<Seat>>,
    /// By their connections' numbers.
    launchers: BTreeMap<u64, Launcher>,
    /// How many launchers have connected so far.
    connected: u64,
    gatherings: Gatherings,
    /// Who claimed a rank with another token, and when somebody did so last.
    impostors: BTreeMap<usize, String>,
    last_impostor: Instant,
    /// Members whose connection is open.
    open: usize,
    closing: bool,
}

/// The hub's state, which its threads share.
pub(super) struct Roster {
    pub job: Job,
    pub limits: Limits,
    address: SocketAddr,
    state: Mutex<State>,
    changed: Condvar,
}

impl Roster {
    pub fn new(job: Job, limits: Limits, address: SocketAddr) -> Self {
        let now = Instant::now();
        let state = State {
            phase: Phase::Joining { until: now + limits.join },
            have_met: false,
            seats: (0..job.world).map(|_| None).collect(),
            launchers: BTreeMap::new(),
            connected: 0,
            gatherings: Gatherings::default(),
            impostors: BTreeMap::new(),
            last_impostor: now,
            open: 0,
            closing: false,
        };
        Roster { job, limits, address, state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Every critical section leaves the state whole, so a panic elsewhere does not matter.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a message to every member that has not left, of those that `is_meant`.
    fn tell(&self, state: &State, message: &ToMember, tail: &[u8], is_meant: impl Fn(usize) -> bool) {
        // What is said here can be written as JSON.
        let Ok(frame) = frame::encode(message, tail) else { return };
        let frame: Arc<[u8]> = frame.into();
        for seat in state.seats.iter().flatten().filter(|seat| is_meant(seat.peer.rank)) {
            if let Some(out) = &seat.out {
                out.put(&frame);
            }
        }
    }

    /// Sends a message to every member that has not left, and to every launcher.
    fn announce(&self, state: &State, message: &ToMember) {
        self.tell(state, message, &[], |_| true);
        let Ok(frame) = frame::encode(message, &[]) else { return };
        let frame: Arc<[u8]> = frame.into();
        let launchers = state.launchers.values().filter_map(|launcher| launcher.out.as_ref());
        launchers.for_each(|out| out.put(&frame));
    }

    fn refuse(&self, state: &mut State, reason: String) {
        self.announce(state, &ToMember::Refused { reason: reason.clone() });
        state.phase = Phase::Refused(reason);
        self.changed.notify_all();
    }

    /// The first loss is the one that counts: what follows from it is not told.
    fn lose(&self, state: &mut State, loss: Loss) {
        if matches!(state.phase, Phase::Joining { .. } | Phase::Running) {
            self.announce(state, &ToMember::Lost(loss.clone()));
            state.phase = Phase::Lost(loss);
            self.changed.notify_all();
        }
    }

    fn lose_rank(&self, state: &mut State, rank: usize, cause: &str) {
        let seat = state.seats[rank].as_ref().filter(|seat| !seat.has_left);
        if let Some(loss) = seat.map(|seat| Loss::peer(&seat.peer, seat.at.clone(), cause)) {
            self.lose(state, loss);
        }
    }

    /// A member said where it is.
    pub fn at(&self, rank: usize, at: Option<At>) {
        if let Some(seat) = self.lock().seats[rank].as_mut() {
            seat.at = at;
        }
    }

    /// A member's part of a gather came.
    pub fn gather(&self, rank: usize, number: u64, what: String, part: Vec<u8>) {
        let mut state = self.lock();
        match state.gatherings.add(self.job.world, rank, number, what, part) {
            Err(cause) => self.lose_rank(&mut state, rank, &cause),
            Ok(None) => self.check_absent(&mut state),
            Ok(Some(parts)) => {
                let lengths = parts.iter().map(Vec::len).collect();
                self.tell(&state, &ToMember::Gathered { number, lengths }, &parts.concat(), |_| true);
            }
        }
    }

    /// No one is to wait for a part of a rank that has left.
    fn check_absent(&self, state: &mut State) {
        let seats = state.seats.iter().flatten();
        let gone: Vec<usize> = seats.filter(|seat| seat.has_left).map(|seat| seat.peer.rank).collect();
        let Some((what, rank)) = state.gatherings.waits_for(&gone) else { return };
        let cause = format!("it left the job while other ranks gather {what:?}");
        if let Some(seat) = &state.seats[rank] {
            let loss = Loss::peer(&seat.peer, seat.at.clone(), cause);
            self.lose(state, loss);
        }
    }

    /// A member says that it failed.
    pub fn fail(&self, rank: usize, reason: String, at: Option<At>) {
        self.at(rank, at);
        self.lose_rank(&mut self.lock(), rank, &reason);
    }

    /// A member says its farewell.
    pub fn leave(&self, rank: usize) {
        let mut state = self.lock();
        self.tell(&state, &ToMember::Farewell, &[], |to| to == rank);
        if let Some(seat) = state.seats[rank].as_mut() {
            seat.has_left = true;
            seat.out = None;
        }
        self.check_absent(&mut state);
        self.changed.notify_all();
    }

    /// A member's connection ended.
    pub fn closed(&self, rank: usize, cause: &str) {
        let mut state = self.lock();
        self.lose_rank(&mut state, rank, cause);
        if let Some(seat) = state.seats[rank].as_mut() {
            // What was put is still sent.
            seat.out = None;
        }
        state.open -= 1;
        self.changed.notify_all();
    }

    /// A launcher says that one of its processes has ended. Of a rank that has joined, its connection tells.
    pub fn gone(&self, host: &str, rank: usize, cause: &str, is_input: bool) {
        let mut state = self.lock();
        let is_missing = state.seats.get(rank).is_some_and(Option::is_none);
        if !is_missing || !matches!(state.phase, Phase::Joining { .. }) {
            return;
        }
        let cause = format!("{cause}, before it joined the job");
        if is_input {
            return self.refuse(&mut state, format!("rank {rank} on {host}: {cause}"));
        }
        let loss = Loss { rank: Some(rank), host: host.into(), position: None, cause };
        self.lose(&mut state, loss);
    }

    /// A launcher's connection ended.
    pub fn launcher_closed(&self, number: u64) {
        let mut state = self.lock();
        state.launchers.remove(&number);
        state.open -= 1;
        self.changed.notify_all();
    }

    /// Whether all ranks have come, and agreed.
    pub fn have_met(&self) -> bool {
        self.lock().have_met
    }

    /// Gives a sign of life to all, and looks for those who gave none and for those who did not come.
    pub fn tick(&self) {
        let mut state = self.lock();
        self.announce(&state, &ToMember::Beat);
        let limit = seconds(self.limits.silence);
        // All are asked: asking is what keeps their clocks.
        let silent: Vec<usize> = state
            .seats
            .iter()
            .flatten()
            .filter(|seat| seat.watched.lapsed() && seat.out.is_some())
            .map(|seat| seat.peer.rank)
            .collect();
        for rank in silent {
            let cause =
                format!("did not answer for {limit}: it is stopped, or its host is cut off or overloaded");
            self.lose_rank(&mut state, rank, &cause);
            if let Some(seat) = &state.seats[rank] {
                // Ends the thread that reads from it. What was put is still sent: it may go on, and is to know then.
                let _ = seat.stream.shutdown(Shutdown::Read);
            }
        }
        let now = Instant::now();
        if let Phase::Joining { until } = state.phase {
            self.check_joining(&mut state, until, now);
        }
    }

    fn check_joining(&self, state: &mut State, until: Instant, now: Instant) {
        let missing: Vec<usize> = (0..self.job.world).filter(|&rank| state.seats[rank].is_none()).collect();
        // Members of another job at the same port are no reason to end this one, as long as its own may come.
        let all_impostors = missing.iter().all(|rank| state.impostors.contains_key(rank));
        let all_impostors = all_impostors && now.saturating_duration_since(state.last_impostor) >= GREETING;
        let first = missing.first().and_then(|rank| state.impostors.get(rank)).cloned();
        if let Some(reason) = first.filter(|_| all_impostors) {
            return self.refuse(state, reason);
        }
        if now >= until {
            let also = match state.impostors.values().next() {
                Some(impostor) => format!(" ({impostor})"),
                None => String::new(),
            };
            let cause = format!(
                "{} of {} ranks came within {}, missing: {}{also}; see what these printed, and whether their hosts can \
                 connect to this address",
                self.job.world - missing.len(),
                self.job.world,
                seconds(self.limits.join),
                ranks(&missing)
            );
            self.lose(state, Loss::control(self.address, cause));
        }
    }

    pub fn failure(&self) -> Option<Loss> {
        match &self.lock().phase {
            Phase::Lost(loss) => Some(loss.clone()),
            _ => None,
        }
    }

    pub fn is_closing(&self) -> bool {
        self.lock().closing
    }

    /// False at once when the hub closes.
    pub fn sleep_until(&self, end: Instant) -> bool {
        !self.wait(end, |state| state.closing)
    }

    pub fn wait_for_all_to_leave(&self, end: Instant) {
        self.wait(end, |state| match state.phase {
            Phase::Joining { .. } => false,
            Phase::Running => state.seats.iter().flatten().all(|seat| seat.has_left),
            Phase::Refused(_) | Phase::Lost(_) => true,
        });
    }

    /// Waits for the members to close; who has not done so then is cut off.
    pub fn wait_for_closed_connections(&self, end: Instant) {
        self.wait(end, |state| state.open == 0);
        let state = self.lock();
        let streams = state.seats.iter().flatten().map(|seat| &seat.stream);
        for stream in streams.chain(state.launchers.values().map(|launcher| &launcher.stream)) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Whether `is_met` came true before `end`.
    fn wait(&self, end: Instant, is_met: impl Fn(&State) -> bool) -> bool {
        let mut state = self.lock();
        while !is_met(&state) {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Ends the job on every member that has not left.
    pub fn close(&self) {
        let mut state = self.lock();
        if state.seats.iter().flatten().any(|seat| !seat.has_left) {
            self.lose(&mut state, Loss::control(self.address, "it was closed before all ranks had left"));
        }
        self.announce(&state, &ToMember::Farewell);
        state.closing = true;
        state.launchers.values_mut().for_each(|launcher| launcher.out = None);
        for seat in state.seats.iter_mut().flatten() {
            // What was put is still sent.
            seat.out = None;
        }
        self.changed.notify_all();
    }
}
