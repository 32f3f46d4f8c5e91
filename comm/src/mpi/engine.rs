//! The thread that makes all calls of MPI.

use super::Started;
use super::abi::{Handle, PEER_ERRORS, PENDING};
use super::library::Mpi;
use super::receive::{Receiving, Trouble};
use super::request::{Fault, Line, Request};
use super::send::Lane;
use super::share::share;
use crate::mailbox::Mailbox;
use crate::process::{Arrivals, EngineError, Frame, GRACE};
use std::ffi::c_int;
use std::mem::{forget, take};
use std::ptr::null_mut;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::time::{Duration, Instant};

/// What the thread is told.
pub enum Command {
    /// Frames come in here from now on.
    Open(Arrivals),
    /// These bytes of rank 0 are wanted on all ranks by that time.
    Share(Vec<u8>, Instant, Sender<Result<Option<Vec<u8>>, EngineError>>),
    /// A frame is to be sent to that rank.
    Send(usize, Frame),
    /// No more frames: answer when all were sent, or at that time.
    Close(Instant, Sender<()>),
}

/// How long a revoked communicator's last frames, which say why, are given to arrive.
const LAST_FRAMES: Duration = Duration::from_millis(200);

/// What MPI said of a lost peer.
struct Suspicion {
    since: Instant,
    rank: usize,
    reason: String,
    /// Whether MPI goes on without the dead, so that the communicator can be revoked.
    survives: bool,
    told: bool,
    /// Receives of which one fails for the dead rank, when MPI has not named it.
    probes: Vec<(usize, Request)>,
}

/// MPI, started, and everything on its way.
pub struct Engine {
    mpi: Mpi,
    comm: Handle,
    rank: usize,
    lanes: Vec<Lane>,
    /// Ranks that MPI does not reach any more.
    unreachable: Vec<bool>,
    /// Once it is open.
    incoming: Option<(Arrivals, Option<Receiving>)>,
    suspicion: Option<Suspicion>,
    closing: Option<(Instant, Option<Sender<()>>)>,
    /// No one can send commands any more.
    orphaned: bool,
}

/// Waiting without keeping a processor from those who compute: a transfer in progress is asked for often, then less.
struct Pace {
    moved: Instant,
}

impl Pace {
    /// Other threads are let in from here on.
    const SPIN: Duration = Duration::from_micros(5);
    /// The thread sleeps from here on.
    const YIELD: Duration = Duration::from_micros(100);
    /// How long it sleeps, unless a command comes; the system adds some 50 us.
    const SLEEP: Duration = Duration::from_micros(50);

    /// Waits for the next look, and returns a command that came meanwhile.
    fn rest(&mut self, moved: bool, commands: &Receiver<Command>) -> Option<Command> {
        if moved {
            self.moved = Instant::now();
            return None;
        }
        let idle = self.moved.elapsed();
        if idle < Self::SPIN {
            std::hint::spin_loop();
        } else if idle < Self::YIELD {
            std::thread::yield_now();
        } else {
            return match commands.recv_timeout(Self::SLEEP) {
                Ok(command) => Some(command),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => {
                    std::thread::sleep(Self::SLEEP);
                    None
                }
            };
        }
        None
    }
}

impl Engine {
    /// Starts MPI, in the thread that makes all later calls.
    pub fn start(mpi: Mpi) -> Result<(Engine, Started), EngineError> {
        mpi.init()?;
        let (mut comm, mut rank, mut size) = (null_mut(), 0, 0);
        let (functions, world) = (&mpi.functions, mpi.constants.comm_world);
        // SAFETY: MPI is started; the results are variables of the right types. All ranks make a copy of the world, so
        // that no one else's messages come in between.
        unsafe {
            mpi.check(
                "MPI_Comm_set_errhandler",
                (functions.comm_set_errhandler)(world, mpi.constants.errors_return),
            )?;
            mpi.check("MPI_Comm_rank", (functions.comm_rank)(world, &mut rank))?;
            mpi.check("MPI_Comm_size", (functions.comm_size)(world, &mut size))?;
            mpi.check("MPI_Comm_dup", (functions.comm_dup)(world, &mut comm))?;
            mpi.check(
                "MPI_Comm_set_errhandler",
                (functions.comm_set_errhandler)(comm, mpi.constants.errors_return),
            )?;
        }
        let number = |value: c_int| usize::try_from(value).unwrap_or_default();
        let (rank, size) = (number(rank), number(size));
        mpi.check_launcher(size)?;
        let library = mpi.version.clone();
        let engine = Engine {
            mpi,
            comm,
            rank,
            lanes: (0..size).map(|_| Lane::default()).collect(),
            unreachable: vec![false; size],
            incoming: None,
            suspicion: None,
            closing: None,
            orphaned: false,
        };
        Ok((engine, Started { rank, size, library }))
    }

    /// Moves frames until the rank and all its peers have ended, and finalizes MPI; or until something has failed.
    pub fn run(mut self, commands: &Receiver<Command>) -> Result<(), EngineError> {
        let mut pace = Pace { moved: Instant::now() };
        while !self.is_over() {
            let mut moved = false;
            loop {
                match commands.try_recv() {
                    Ok(command) => self.obey(command),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => {
                        self.orphaned = true;
                        break;
                    }
                }
                moved = true;
            }
            moved |= self.advance();
            self.look_after_suspicion();
            if let Some(command) = pace.rest(moved, commands) {
                self.obey(command);
            }
        }
        self.end()
    }

    fn mailbox(&self) -> Option<&Mailbox> {
        self.incoming.as_ref().map(|(arrivals, _)| arrivals.mailbox())
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Open(arrivals) => {
                let line = Line { mpi: &self.mpi, comm: self.comm };
                match Receiving::start(&line, self.lanes.len()) {
                    Ok(receiving) => self.incoming = Some((arrivals, Some(receiving))),
                    Err(fault) => {
                        self.incoming = Some((arrivals, None));
                        self.suspect(&fault);
                    }
                }
            }
            Command::Share(mine, until, answer) => {
                let line = Line { mpi: &self.mpi, comm: self.comm };
                let shared = share(&line, self.rank, self.lanes.len(), &mine, until);
                let shared = shared.or_else(|fault| self.mpi.check(fault.call, fault.code).map(|()| None));
                // Whoever gave up on the answer is not there to hear it.
                drop(answer.send(shared));
            }
            Command::Send(to, frame) => self.push(to, frame),
            Command::Close(until, answer) => self.closing = Some((until, Some(answer))),
        }
    }

    fn push(&mut self, to: usize, frame: Frame) {
        if self.unreachable[to] {
            drop(frame);
            self.nudge();
        } else {
            self.lanes[to].push(frame);
        }
    }

    /// Calls that wait for something to leave look again.
    fn nudge(&self) {
        if let Some(mailbox) = self.mailbox() {
            mailbox.nudge();
        }
    }

    /// Moves everything on; whether anything happened.
    fn advance(&mut self) -> bool {
        let mut moved = false;
        for to in 0..self.lanes.len() {
            let line = Line { mpi: &self.mpi, comm: self.comm };
            if self.lanes[to].is_empty() {
                continue;
            }
            match self.lanes[to].advance(&line, to) {
                Ok(true) => {
                    moved = true;
                    self.nudge();
                }
                Ok(false) => {}
                Err(fault) => {
                    // MPI may still read what it was given.
                    forget(take(&mut self.lanes[to]));
                    self.unreachable[to] = true;
                    self.suspect(&fault);
                }
            }
        }
        moved | self.receive()
    }

    fn receive(&mut self) -> bool {
        let Some((arrivals, Some(receiving))) = &mut self.incoming else { return false };
        let line = Line { mpi: &self.mpi, comm: self.comm };
        let trouble = match receiving.advance(&line, arrivals) {
            Ok(moved) => return moved,
            Err(trouble) => trouble,
        };
        if let Trouble::Fault(fault) = &trouble
            && fault.code == PENDING
            && let Some(acknowledge) = self.mpi.functions.comm_failure_ack
        {
            // SAFETY: the communicator is open. Receives from anybody go on after this, without the dead.
            let acknowledged = unsafe { acknowledge(self.comm) } == 0;
            self.suspect(fault);
            self.ask_who_is_dead();
            return acknowledged;
        }
        if let Some((_, receiving)) = &mut self.incoming {
            // MPI may still write to what it was given.
            forget(receiving.take());
        }
        match trouble {
            Trouble::Fault(fault) => self.suspect(&fault),
            Trouble::Malformed(from, malformed) => self.blame(from, &malformed.to_string()),
            Trouble::NoMemory(bytes) => {
                let reason = format!("no memory for {bytes} bytes of a message that there was no room for");
                self.blame(self.rank, &reason);
            }
        }
        true
    }

    /// A call failed: a peer may be lost. Somebody else may know why, and says so first.
    fn suspect(&mut self, fault: &Fault) {
        if self.suspicion.is_some() {
            return;
        }
        let Fault { call, code, peer } = *fault;
        let reason =
            format!("{call} failed on rank {}: {} (error {code})", self.rank, self.mpi.message(code));
        let (since, rank) = (Instant::now(), peer.unwrap_or(self.rank));
        let survives = PEER_ERRORS.contains(&code);
        self.suspicion = Some(Suspicion { since, rank, reason, survives, told: false, probes: Vec::new() });
    }

    fn ask_who_is_dead(&mut self) {
        let line = Line { mpi: &self.mpi, comm: self.comm };
        let Some(suspicion) = &mut self.suspicion else { return };
        for rank in (0..self.lanes.len()).filter(|rank| *rank != self.rank) {
            match line.probe(rank) {
                Ok(probe) => suspicion.probes.push((rank, probe)),
                Err(_) => suspicion.rank = rank,
            }
        }
    }

    /// Blames what MPI reported once no one else has said more, and then ends the communicator for all.
    fn look_after_suspicion(&mut self) {
        let Some(suspicion) = &mut self.suspicion else { return };
        let waited = suspicion.since.elapsed();
        let line = Line { mpi: &self.mpi, comm: self.comm };
        if let Some(found) = suspicion.probes.iter_mut().position(|(_, probe)| line.test(probe).is_err()) {
            suspicion.rank = suspicion.probes[found].0;
            suspicion.probes.clear();
        }
        if !suspicion.told {
            let explained = match &self.incoming {
                Some((arrivals, _)) => arrivals.explained(suspicion.rank, Duration::ZERO),
                None => true,
            };
            if explained || waited >= GRACE {
                suspicion.told = true;
                suspicion.since = Instant::now();
                let (rank, reason) = (suspicion.rank, suspicion.reason.clone());
                if !explained {
                    self.blame(rank, &reason);
                }
            }
        } else if suspicion.survives && waited >= LAST_FRAMES {
            suspicion.survives = false;
            if let Some(revoke) = self.mpi.functions.comm_revoke {
                // SAFETY: the communicator is open. What it answers changes nothing any more.
                unsafe { revoke(self.comm) };
            }
        }
    }

    fn blame(&mut self, rank: usize, reason: &str) {
        if self.mailbox().is_some_and(|mailbox| mailbox.fail(rank, reason)) {
            let own = self.rank;
            for to in (0..self.lanes.len()).filter(|&to| to != own && to != rank) {
                self.push(to, Frame::failed(rank, reason));
            }
        }
    }

    /// Whether there is nothing left to do; answers whoever waits for the end of sending.
    fn is_over(&mut self) -> bool {
        let failed = self.mailbox().is_some_and(|mailbox| mailbox.failure().is_some());
        let sent = self.lanes.iter().all(Lane::is_empty);
        let Some((until, answer)) = &mut self.closing else { return self.orphaned };
        let late = Instant::now() >= *until;
        if (sent || late)
            && let Some(answer) = answer.take()
        {
            // Whoever gave up on the answer is not there to hear it.
            let _ = answer.send(());
        }
        if failed {
            return sent || late;
        }
        let rank = self.rank;
        sent && self.mailbox().is_none_or(|mailbox| mailbox.settled(|other| other != rank, Duration::ZERO))
    }

    /// Finalizes MPI, unless something has failed: then that would wait for ranks that are gone.
    fn end(mut self) -> Result<(), EngineError> {
        if let Some(failure) = self.mailbox().and_then(Mailbox::failure) {
            // MPI may still use what it was given.
            forget(self);
            return Err(failure.into());
        }
        let line = Line { mpi: &self.mpi, comm: self.comm };
        if let Some((_, Some(receiving))) = &mut self.incoming {
            let fault = |fault: Fault| self.mpi.check(fault.call, fault.code);
            let mut stopped = receiving.stop(&line).map(|()| false);
            while let Ok(false) = stopped {
                std::thread::sleep(Pace::SLEEP);
                stopped = receiving.stopped(&line);
            }
            if let Err(error) = stopped {
                let outcome = fault(error);
                forget(self);
                return outcome;
            }
        }
        // SAFETY: no request is left, and this is the last call.
        let status = unsafe { (self.mpi.functions.finalize)() };
        self.mpi.check("MPI_Finalize", status)
    }
}
