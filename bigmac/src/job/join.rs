//! Finding the other ranks.

use super::{Job, JobError, last_words};
use bigmac_comm::MpiEngine;
use bigmac_comm::control::{self, At, Hello, Hub, Limits, Loss, Member, Token};
use bigmac_comm::environment::{self, Given, Launcher, Place};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

/// Seconds after which a silent rank is lost: `bigmac launch --peer-timeout` sets it.
const PEER_TIMEOUT: &str = "BIGMAC_PEER_TIMEOUT";
/// Seconds in which all ranks have to come.
const JOIN_TIMEOUT: &str = "BIGMAC_JOIN_TIMEOUT";
/// The secret of the job.
const TOKEN: &str = "BIGMAC_TOKEN";

impl Job {
    /// Joins the job that the environment says this process is a rank of; none where it was started by hand, or alone.
    /// `facts` is what all ranks have to have in common: names and values.
    ///
    /// # Errors
    /// [`JobError`]: for an environment that cannot be, for ranks that do not agree or do not come.
    pub fn join(facts: BTreeMap<String, String>) -> Result<Option<Job>, JobError> {
        let var = |name: &str| std::env::var(name).ok();
        let Some(place) = environment::place(&Given::default(), &var)? else { return Ok(None) };
        if place.size == 1 {
            return Ok(None);
        }
        let limits = limits(&var)?;
        let host = environment::host(&var);
        let mut mpi = None;
        let Meeting { address, token, hub } = match &place.master {
            Some(master) => meet_at(&place, &master.to_string(), &var, limits)?,
            None if matches!(place.launcher, Launcher::OpenMpi | Launcher::Mpich) => {
                meet_over_mpi(&place, &host, mpi.insert(last_words::start_mpi()?), limits)?
            }
            None => return Err(JobError::NoMaster { launcher: place.launcher.to_string() }),
        };
        let hello = Hello {
            rank: place.rank,
            world: place.size,
            restart: place.restart,
            host: host.clone(),
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            token: token.clone(),
            facts,
        };
        let member = Member::join(&address, hello, limits)?;
        let loss = Arc::new(OnceLock::new());
        let secret = token.expose().as_bytes().to_vec();
        let job = Job { place, host, member, hub, mpi: Mutex::new(mpi), secret, loss };
        job.listen_for_loss();
        Ok(Some(job))
    }

    fn listen_for_loss(&self) {
        let (known, position) = (self.loss.clone(), self.position());
        let (rank, host) = (self.rank(), self.host.clone());
        self.member.watch(move |loss| {
            let _ = known.set(loss.clone());
            last_words::end_soon(ended(rank, host.clone(), position.get(), loss));
        });
    }

    pub(super) fn ended(&self, loss: &Loss) -> JobError {
        ended(self.rank(), self.host.clone(), self.position().get(), loss)
    }
}

fn ended(rank: usize, host: String, at: Option<At>, loss: &Loss) -> JobError {
    JobError::Ended { rank, host, at, loss: Box::new(loss.clone()) }
}

/// Where ranks meet.
struct Meeting {
    address: String,
    token: Token,
    /// Where this process is the one that listens.
    hub: Option<Hub>,
}

/// At the address that the launcher names. Where it is not ours, rank 0 listens there.
fn meet_at(
    place: &Place,
    address: &str,
    var: environment::Var<'_>,
    limits: Limits,
) -> Result<Meeting, JobError> {
    let token = token(place, address, var)?;
    let listens = place.rank == 0 && place.launcher != Launcher::Bigmac;
    let job = control::Job { world: place.size, restart: place.restart, token: token.clone() };
    let hub = listens.then(|| Hub::bind(address, job, limits)).transpose()?;
    Ok(Meeting { address: address.to_owned(), token, hub })
}

/// Rank 0 listens at a free port, and tells the others over MPI, with a secret of its own.
fn meet_over_mpi(
    place: &Place,
    host: &str,
    mpi: &mut MpiEngine,
    limits: Limits,
) -> Result<Meeting, JobError> {
    let mut hub = None;
    let mut told = Vec::new();
    if place.rank == 0 {
        let token = Token::random()?;
        let job = control::Job { world: place.size, restart: place.restart, token: token.clone() };
        let reachable = if place.local_size == place.size { "127.0.0.1" } else { host };
        let listening = Hub::bind(&format!("{reachable}:0"), job, limits)?;
        told = format!("{} {}", listening.address(), token.expose()).into_bytes();
        hub = Some(listening);
    }
    let told = mpi.share(told, limits.join)?;
    let told = String::from_utf8_lossy(&told);
    let (address, token) = told.split_once(' ').unwrap_or((&told, ""));
    Ok(Meeting { address: address.to_owned(), token: Token::new(token, "of rank 0")?, hub })
}

/// The secret that the environment gives; else what tells this job from others, which is no secret.
fn token(place: &Place, address: &str, var: environment::Var<'_>) -> Result<Token, JobError> {
    if let Some(token) = var(TOKEN) {
        return Ok(Token::new(&token, &format!("in {TOKEN}"))?);
    }
    let known =
        ["TORCHELASTIC_RUN_ID", "SLURM_JOB_ID", "SLURM_STEP_ID"].map(|name| var(name).unwrap_or_default());
    Ok(Token::new(&format!("{} {} {address}", place.launcher, known.join(" ")), "of the job")?)
}

fn limits(var: environment::Var<'_>) -> Result<Limits, JobError> {
    let usual = Limits::default();
    let silence = seconds(PEER_TIMEOUT, var)?.unwrap_or(usual.silence);
    let join = seconds(JOIN_TIMEOUT, var)?.unwrap_or(usual.join);
    Ok(Limits { join, silence, beat: usual.beat.min(silence / 4) })
}

fn seconds(name: &'static str, var: environment::Var<'_>) -> Result<Option<Duration>, JobError> {
    let Some(given) = var(name) else { return Ok(None) };
    let seconds = given.trim().parse::<f64>().ok().filter(|seconds| *seconds > 0.0 && *seconds <= 1e6);
    let seconds = seconds.ok_or(JobError::Seconds { name, given })?;
    Ok(Some(Duration::from_secs_f64(seconds)))
}
