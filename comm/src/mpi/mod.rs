//! Frames over MPI: a real one, loaded at run time, so that nothing of it is needed to build or to run without it. It
//! brings the networks of clusters (InfiniBand, Slingshot) with it.
//!
//! One thread of this process makes every call of MPI, from `MPI_Init_thread` to `MPI_Finalize`, and owns every
//! request. MPI moves data between hosts only inside its calls, so a thread must call it while others compute; and one
//! thread alone needs no more than `MPI_THREAD_SERIALIZED`, the best tested level.

mod abi;
mod engine;
mod library;
mod receive;
mod request;
mod send;
mod share;

use crate::mailbox::{Failure, Mailbox};
use crate::process::{Arrivals, EngineError, Frame, ProcessCommunicator, Transport};
use bigmac_runtime::Context;
use engine::{Command, Engine};
pub use library::MPI;
use library::Mpi;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

/// What the thread says once MPI is started.
struct Started {
    rank: usize,
    size: usize,
    library: String,
}

/// How the thread came to its end.
type Finished = Result<(), EngineError>;

/// An MPI that is started. There is one per process and per life of the process: MPI starts only once.
#[derive(Debug)]
pub struct MpiEngine {
    rank: usize,
    size: usize,
    library: String,
    commands: Sender<Command>,
    finished: Receiver<Finished>,
    taken: AtomicBool,
}

impl MpiEngine {
    /// Loads the library that `BIGMAC_LIBMPI` names, else MPI's standard ABI (`libmpi_abi.so.1`) or Open MPI
    /// (`libmpi.so.40`), and starts it; waits at most for `limit`.
    ///
    /// # Errors
    /// [`EngineError`], each in a sentence that says what to do. After [`EngineError::Late`] the thread that starts MPI
    /// lives on: end the process with `_exit`.
    pub fn start(limit: Duration) -> Result<MpiEngine, EngineError> {
        // Here, so that an error of the library needs no thread.
        let mpi = Mpi::load()?;
        let (commands, received) = channel();
        let (say_started, started) = channel();
        let (say_finished, finished) = channel();
        // Whoever gave up on an answer is not there to hear it.
        let run = move || match Engine::start(mpi) {
            Err(error) => drop(say_started.send(Err(error))),
            Ok((engine, begun)) => {
                drop(say_started.send(Ok(begun)));
                drop(say_finished.send(engine.run(&received)));
            }
        };
        let wrong = |source| EngineError::Io { what: "cannot start the thread for MPI".into(), source };
        std::thread::Builder::new().name("mpi".into()).spawn(run).map_err(wrong)?;
        let advice = "check that all processes were started by one mpirun, and that hosts reach each other; end the process with _exit";
        let late = |_| EngineError::Late { what: "start", seconds: limit.as_secs_f64(), advice };
        let Started { rank, size, library } = started.recv_timeout(limit).map_err(late)??;
        Ok(MpiEngine { rank, size, library, commands, finished, taken: AtomicBool::new(false) })
    }

    /// This process's rank, as MPI numbers them.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// How many processes MPI has started.
    pub fn size(&self) -> usize {
        self.size
    }

    /// What the library says of itself.
    pub fn library(&self) -> &str {
        &self.library
    }

    /// Rank 0's bytes, 1022 at most, on all ranks: enough for them to find each other elsewhere. Waits at most for
    /// `limit`. Before there is a communicator.
    ///
    /// # Errors
    /// [`EngineError::Late`], [`EngineError::Mpi`]; [`EngineError::Taken`] once there is a communicator.
    pub fn share(&self, mine: Vec<u8>, limit: Duration) -> Result<Vec<u8>, EngineError> {
        if self.taken.load(Ordering::SeqCst) {
            return Err(EngineError::Taken);
        }
        let (answer, answered) = channel();
        // A thread that has ended is one that failed: no one answers.
        let _ = self.commands.send(Command::Share(mine, Instant::now() + limit, answer));
        let advice = "check that all processes were started by one mpirun, and that hosts reach each other; end the process with _exit";
        let late = || EngineError::Late { what: "connect ranks", seconds: limit.as_secs_f64(), advice };
        answered.recv_timeout(limit * 2).map_err(|_| late())??.ok_or_else(late)
    }

    /// The communicator of all processes. What arrives is counted in the memory of `ctx`. A call that waits longer than
    /// `timeout` for a peer fails.
    ///
    /// # Errors
    /// [`EngineError::Taken`] at the second call.
    pub fn communicator(&self, ctx: &Context, timeout: Duration) -> Result<ProcessCommunicator, EngineError> {
        if self.taken.swap(true, Ordering::SeqCst) {
            return Err(EngineError::Taken);
        }
        let mailbox = Arc::new(Mailbox::new(self.rank, self.size, timeout));
        // A thread that has ended is one that failed: the calls find no one who answers, and time out.
        let _ = self.commands.send(Command::Open(Arrivals::new(mailbox.clone(), ctx)));
        let transport = Commands { mailbox: mailbox.clone(), commands: self.commands.clone() };
        Ok(ProcessCommunicator::over(Box::new(transport), mailbox, self.size))
    }

    /// Waits, at most for `limit`, until MPI is finalized, which takes that all ranks have dropped their communicators.
    ///
    /// # Errors
    /// [`EngineError::NotFinalized`] at once when some rank has failed, [`EngineError::Late`]: MPI is not finalized
    /// then, and `exit` may wait for ranks that are gone. End the process with `_exit`, once it has said what it has to
    /// say and its peers had the time to: a launcher ends all processes at the first one that leaves so.
    pub fn finish(self, limit: Duration) -> Result<(), EngineError> {
        drop(self.commands);
        let advice = "some rank has not ended; end the process with _exit";
        match self.finished.recv_timeout(limit) {
            Ok(finished) => finished,
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                Err(EngineError::Late { what: "stop", seconds: limit.as_secs_f64(), advice })
            }
        }
    }
}

/// The way to the thread.
struct Commands {
    mailbox: Arc<Mailbox>,
    commands: Sender<Command>,
}

impl Transport for Commands {
    fn send(&self, to: usize, frame: Frame) {
        // A thread that has ended sends nothing: what it can't send is dropped, and its failure is known.
        let unsent = self.commands.send(Command::Send(to, frame));
        if unsent.is_err() {
            drop(unsent);
            self.mailbox.nudge();
        }
    }

    fn close(&self, limit: Duration) {
        let (say_sent, sent) = channel();
        if self.commands.send(Command::Close(Instant::now() + limit, say_sent)).is_ok() {
            // The thread answers when all was sent; it may itself be held up inside MPI.
            let _ = sent.recv_timeout(limit);
        }
    }
}

impl From<Failure> for EngineError {
    fn from(Failure { rank, reason }: Failure) -> Self {
        EngineError::NotFinalized { rank, reason }
    }
}
