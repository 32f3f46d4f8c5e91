//! The hub: where all members are connected.

mod gather;
mod greet;
mod roster;
mod watch;

use super::error::ControlError;
use super::loss::Loss;
use super::outgoing::spawn;
use super::token::Token;
use super::{GREETING, Limits};
use roster::Roster;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The most ranks that a job may have.
pub const MOST_RANKS: usize = 1 << 16;

/// What a hub is for.
#[derive(Clone, Debug)]
pub struct Job {
    /// The number of ranks.
    pub world: usize,
    /// How often the job was started again before: ranks of another start do not belong to it.
    pub restart: u32,
    /// The secret of the job.
    pub token: Token,
}

/// How long a hub that closes waits for its last messages to be taken.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The centre of the control plane: it has threads of its own, and ends the job on every member when it is dropped.
pub struct Hub {
    roster: Arc<Roster>,
    address: SocketAddr,
    /// None once it is closed.
    threads: Option<[std::thread::JoinHandle<()>; 2]>,
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hub").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Hub {
    /// Listens on `address`, `host:port`; port 0 is any that is free.
    ///
    /// # Errors
    /// [`ControlError::Refused`] for no rank, or more than [`MOST_RANKS`]; [`ControlError::PortTaken`], [`ControlError::Listen`], [`ControlError::System`].
    pub fn bind(address: &str, job: Job, limits: Limits) -> Result<Hub, ControlError> {
        if job.world == 0 || job.world > MOST_RANKS {
            let world = job.world;
            return Err(ControlError::Refused(format!(
                "the number of ranks is {world}; expected 1 to {MOST_RANKS}"
            )));
        }
        let listener = TcpListener::bind(address).map_err(|error| match error.kind() {
            ErrorKind::AddrInUse => ControlError::PortTaken { address: address.into() },
            _ => ControlError::Listen { address: address.into(), cause: error.to_string() },
        })?;
        let address = listener.local_addr().map_err(ControlError::system("a socket's address"))?;
        let roster = Arc::new(Roster::new(job, limits, address));
        let watching = roster.clone();
        let watch = spawn("control-watch", move || watch::watch(&watching))
            .map_err(ControlError::system("a thread"))?;
        let greeting = roster.clone();
        let accept =
            spawn("control-accept", move || greet::accept(&greeting, &listener)).map_err(|error| {
                roster.close();
                ControlError::System { what: "a thread", cause: error.to_string() }
            })?;
        Ok(Hub { roster, address, threads: Some([watch, accept]) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether all ranks have come, and agreed, whatever happened since.
    pub fn have_met(&self) -> bool {
        self.roster.have_met()
    }

    /// The first loss, which every member is told.
    pub fn failure(&self) -> Option<Loss> {
        self.roster.failure()
    }

    /// Waits until every member has left or the job has failed, `patience` long at most, and closes. To be called by
    /// whoever is a member itself, after its own farewell: with its process the hub would end for all others too.
    pub fn finish(mut self, patience: Duration) -> Option<Loss> {
        self.roster.wait_for_all_to_leave(Instant::now() + patience);
        self.close();
        self.failure()
    }

    fn close(&mut self) {
        let Some([watch, accept]) = self.threads.take() else { return };
        self.roster.close();
        // Only a connection wakes the thread that accepts. Where there can be none, it sleeps on for nothing.
        if TcpStream::connect_timeout(&reachable(self.address), GREETING).is_ok() {
            let _ = accept.join();
        }
        self.roster.wait_for_closed_connections(Instant::now() + LAST_WORDS);
        let _ = watch.join();
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.close();
    }
}

/// An address under which this machine reaches its own listener.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}
