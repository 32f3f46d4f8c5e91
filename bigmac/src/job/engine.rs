//! Connecting the ranks of a job through an engine, which carries tensors.

use super::{Job, JobError, last_words};
use crate::config::Engine;
use bigmac_comm::environment::Launcher;
use bigmac_comm::{ProcessCommunicator, TcpEngine};
use bigmac_runtime::Context;
use std::net::SocketAddr;
use std::sync::PoisonError;
use std::time::Duration;

impl Job {
    /// Connects all ranks through an engine. A loss of which the control plane tells ends its calls at once; `timeout`
    /// is how long they wait for a peer that lives.
    ///
    /// # Errors
    /// [`JobError::Local`] for threads; those of the engine and of the control plane.
    pub fn connect(
        &self,
        ctx: &Context,
        engine: Engine,
        timeout: Duration,
    ) -> Result<ProcessCommunicator, JobError> {
        let is_mpi = matches!(self.place.launcher, Launcher::OpenMpi | Launcher::Mpich);
        let comm = match engine {
            Engine::Local => return Err(JobError::Local { ranks: self.size() }),
            Engine::Auto if is_mpi => self.connect_mpi(ctx, timeout)?,
            Engine::Mpi => self.connect_mpi(ctx, timeout)?,
            Engine::Auto | Engine::Tcp => self.connect_tcp(ctx, timeout)?,
        };
        let failer = comm.failure_handle();
        self.member.watch(move |loss| failer.fail(loss.rank.unwrap_or(0), &loss.to_string()));
        Ok(comm)
    }

    fn connect_tcp(&self, ctx: &Context, timeout: Duration) -> Result<ProcessCommunicator, JobError> {
        // Where the control plane is reached from, other ranks reach this one.
        let listening = TcpEngine::listen(&self.member.local_address()?.to_string())?;
        let mine = listening.address().to_string().into_bytes();
        let all = self.member.gather("addresses of ranks", mine)?;
        let addresses = all.iter().zip(self.member.peers()).map(|(bytes, peer)| {
            let text = String::from_utf8_lossy(bytes);
            text.parse().map_err(|_| JobError::Address { rank: peer.rank, given: text.into_owned() })
        });
        let addresses = addresses.collect::<Result<Vec<SocketAddr>, _>>()?;
        Ok(listening.connect(ctx, self.rank(), addresses, &self.secret, timeout)?)
    }

    fn connect_mpi(&self, ctx: &Context, timeout: Duration) -> Result<ProcessCommunicator, JobError> {
        let mut started = self.mpi.lock().unwrap_or_else(PoisonError::into_inner);
        let engine = match started.take() {
            Some(engine) => engine,
            None => last_words::start_mpi()?,
        };
        let place = (engine.rank(), engine.size());
        if place != (self.rank(), self.size()) {
            return Err(JobError::OtherPlace { mpi: place, job: (self.rank(), self.size()) });
        }
        let comm = engine.communicator(ctx, timeout)?;
        *started = Some(engine);
        Ok(comm)
    }
}
