//! Worlds of ranks that are threads of this process and connected over TCP, as if they were processes.

use bigmac_comm::{CommError, Communicator, ProcessCommunicator, TcpEngine};
use bigmac_runtime::Context;
use std::net::SocketAddr;
use std::time::Duration;

/// What all ranks of the tests know.
pub const TOKEN: &[u8] = b"token of the tests";

/// Runs `f` once per rank of a new world, each on a thread of its own with an engine of its own, and returns what they
/// returned, in rank order. A rank that returns an error tells the others.
pub fn tcp_ranks<R: Send>(
    size: usize,
    timeout: Duration,
    f: impl Fn(&Context, &ProcessCommunicator) -> Result<R, CommError> + Sync,
) -> Vec<std::thread::Result<Result<R, CommError>>> {
    let listening: Vec<_> = (0..size).map(|_| TcpEngine::listen("127.0.0.1").unwrap()).collect();
    let addresses: Vec<SocketAddr> = listening.iter().map(|listening| listening.address()).collect();
    std::thread::scope(|scope| {
        let start = |(rank, listening): (usize, bigmac_comm::Listening)| {
            let (addresses, f) = (addresses.clone(), &f);
            scope.spawn(move || {
                let ctx = Context::cpu(rank, 1)?;
                let comm = listening.connect(&ctx, rank, addresses, TOKEN, timeout).unwrap();
                f(&ctx, &comm).inspect_err(|error| comm.abort(&error.to_string()))
            })
        };
        let threads: Vec<_> = listening.into_iter().enumerate().map(start).collect();
        threads.into_iter().map(|thread| thread.join()).collect()
    })
}
