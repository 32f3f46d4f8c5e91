//! Frames over TCP, with nothing installed: each rank listens, and a connection carries frames one way, opened by the
//! sender at the first frame for that peer. So a rank that ends closes only what it has read or written to the end.

mod incoming;
mod outgoing;

use crate::mailbox::Mailbox;
use crate::process::{Arrivals, EngineError, Frame, GRACE, ProcessCommunicator, Transport};
use bigmac_runtime::Context;
use outgoing::Outgoing;
use sha2::{Digest, Sha256};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What a connection begins with: protocol and its version.
const MAGIC: [u8; 8] = *b"BIGMACT1";
/// Magic, SHA-256 of the token, rank of the sender.
const HELLO: usize = 8 + 32 + 4;
/// How long a peer may take to say who it is, and to answer a request for a connection.
const PATIENCE: Duration = Duration::from_secs(10);

/// The engine over TCP.
#[derive(Debug)]
pub struct TcpEngine;

/// A rank that can be reached, and does not know the others' addresses yet.
#[derive(Debug)]
pub struct Listening {
    listener: TcpListener,
    address: SocketAddr,
}

impl TcpEngine {
    /// Listens on a free port of that interface, given by a name or an address; `0.0.0.0` and `::` are all of them.
    ///
    /// # Errors
    /// [`EngineError::Io`].
    pub fn listen(host: &str) -> Result<Listening, EngineError> {
        let wrong = |source| EngineError::Io { what: format!("cannot listen on {host}"), source };
        let listener = TcpListener::bind((host, 0)).map_err(wrong)?;
        let address = listener.local_addr().map_err(wrong)?;
        Ok(Listening { listener, address })
    }
}

impl Listening {
    /// Where this rank listens; on all interfaces when it was told so, and then peers need another host with this port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The communicator of rank `rank` in the world of the ranks that listen at `addresses`, in rank order. All ranks
    /// give the same addresses and the same secret `token`; connections that do not know it are dropped. What arrives
    /// is counted in the memory of `ctx`. A call that waits longer than `timeout` for a peer fails.
    ///
    /// # Errors
    /// [`EngineError::NoSuchRank`]; [`EngineError::Io`] when a thread can't be started.
    pub fn connect(
        self,
        ctx: &Context,
        rank: usize,
        addresses: Vec<SocketAddr>,
        token: &[u8],
        timeout: Duration,
    ) -> Result<ProcessCommunicator, EngineError> {
        let size = addresses.len();
        if rank >= size {
            return Err(EngineError::NoSuchRank { rank, size });
        }
        let mailbox = Arc::new(Mailbox::new(rank, size, timeout));
        let shared = Arc::new(Shared {
            rank,
            addresses,
            own: self.address,
            secret: Sha256::digest(token).into(),
            arrivals: Arrivals::new(mailbox.clone(), ctx),
            outgoing: Outgoing::new(size),
            streams: Mutex::default(),
            known: (0..size).map(|_| AtomicBool::new(false)).collect(),
            closed: AtomicBool::new(false),
        });
        let (accepting, listener) = (shared.clone(), self.listener);
        spawn(format!("tcp-accept-{rank}"), move || incoming::accept(&accepting, &listener))?;
        Ok(ProcessCommunicator::over(Box::new(Tcp(shared)), mailbox, size))
    }
}

/// The rank's end of all connections.
struct Tcp(Arc<Shared>);

/// What the threads of a rank share.
struct Shared {
    rank: usize,
    addresses: Vec<SocketAddr>,
    /// Where this rank listens.
    own: SocketAddr,
    /// SHA-256 of the token.
    secret: [u8; 32],
    arrivals: Arrivals,
    outgoing: Outgoing,
    /// Every connection, to be shut down.
    streams: Mutex<Vec<TcpStream>>,
    /// The ranks whose connection has come.
    known: Vec<AtomicBool>,
    closed: AtomicBool,
}

fn spawn(name: String, f: impl FnOnce() + Send + 'static) -> Result<(), EngineError> {
    let wrong = |source| EngineError::Io { what: "cannot start a thread for connections".into(), source };
    std::thread::Builder::new().name(name).spawn(f).map(drop).map_err(wrong)
}

impl Shared {
    fn hello(&self) -> [u8; HELLO] {
        let mut hello = [0; HELLO];
        hello[..8].copy_from_slice(&MAGIC);
        hello[8..40].copy_from_slice(&self.secret);
        hello[40..].copy_from_slice(&(self.rank as u32).to_le_bytes());
        hello
    }

    fn streams(&self) -> MutexGuard<'_, Vec<TcpStream>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a handle on a connection, so that closing ends whoever waits for it.
    fn register(&self, stream: &TcpStream) -> std::io::Result<()> {
        let handle = stream.try_clone()?;
        self.streams().push(handle);
        if self.closed.load(Ordering::SeqCst) {
            stream.shutdown(Shutdown::Both)?;
        }
        Ok(())
    }

    fn send(self: &Arc<Self>, to: usize, frame: Frame) {
        outgoing::send(self, to, frame);
    }

    /// The way to or from rank `rank` is lost. Somebody else may know why, and says so first; else the connection is
    /// blamed, and the other ranks, which may have none with that one, are told.
    fn lost(self: &Arc<Self>, rank: usize, reason: &str) {
        if self.closed.load(Ordering::SeqCst) || self.arrivals.explained(rank, GRACE) {
            return;
        }
        self.blame(rank, reason);
    }

    fn blame(self: &Arc<Self>, rank: usize, reason: &str) {
        if self.arrivals.mailbox().fail(rank, reason) {
            let others = (0..self.addresses.len()).filter(|&to| to != self.rank && to != rank);
            others.for_each(|to| self.send(to, Frame::failed(rank, reason)));
        }
    }
}

impl Transport for Tcp {
    fn send(&self, to: usize, frame: Frame) {
        self.0.send(to, frame);
    }

    fn close(&self, limit: Duration) {
        self.0.outgoing.finish(limit);
        self.0.closed.store(true, Ordering::SeqCst);
        for stream in self.0.streams().drain(..) {
            // One that is closed already is as it should be.
            let _ = stream.shutdown(Shutdown::Both);
        }
        // The accepting thread wakes up by a connection. Where that fails, it waits on without harm.
        let _ = TcpStream::connect_timeout(&self.0.own, PATIENCE);
    }
}
