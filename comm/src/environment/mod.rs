//! Which rank this process is, as the launcher that started it says in the environment.
//!
//! Sources, the first that is complete counts: flags of the command line; `BIGMAC_*`; torchrun (`RANK` with
//! `LOCAL_RANK`); srun (`SLURM_PROCID` with `SLURM_STEP_ID`); Open MPI (`OMPI_COMM_WORLD_*`); MPICH and other users of
//! PMI (`PMI_*`). Two that contradict each other are an error, except where one started a single process on each node
//! and that process started the ranks, as in `srun torchrun ...`.

mod error;
mod number;
mod place;
mod pods;
mod slurm;
mod sources;
#[cfg(test)]
mod tests;

pub use error::EnvironmentError;
pub use place::{Given, Launcher, Master, Place};
pub use pods::Pods;

use sources::Claim;

/// The value of a variable of the environment.
pub type Var<'a> = &'a dyn Fn(&str) -> Option<String>;

/// This host's name, as others would look for it.
pub fn host(var: Var<'_>) -> String {
    let named = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let named = named.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty());
    named.or_else(|| var("HOSTNAME")).unwrap_or_else(|| "localhost".into())
}

/// This process's place among the ranks; none when it was started by hand, as one process. `given` is what the command
/// line says itself, `var` the environment, as in `|name| std::env::var(name).ok()`; an empty value is no value.
///
/// # Errors
/// [`EnvironmentError`]: half an environment, values that cannot be, sources that contradict each other, and
/// environments of pods, which say what node this is but not what rank.
pub fn place(given: &Given, var: Var<'_>) -> Result<Option<Place>, EnvironmentError> {
    let var: Var<'_> = &|name| var(name).filter(|value| !value.trim().is_empty());
    let claims = sources::claims(given, var)?;
    let Some(chosen) = choose(&claims)? else {
        pods::check(var)?;
        return Ok(None);
    };
    let mut place = chosen.place.clone();
    if let Some(master) = sources::master(given, var)? {
        place.master = Some(master);
    }
    Ok(Some(place))
}

/// The claim that counts: the first one of those that started the ranks.
fn choose(claims: &[Claim]) -> Result<Option<&Claim>, EnvironmentError> {
    let started_ranks = |claim: &&Claim| !claims.iter().any(|other| claim.is_around(other));
    let mut inner = claims.iter().filter(started_ranks);
    let Some(first) = inner.next() else { return Ok(None) };
    // An explicit flag overrules everything.
    if first.place.launcher == Launcher::Flags {
        return Ok(Some(first));
    }
    match inner.find_map(|other| first.contradiction(other)) {
        Some(error) => Err(error),
        None => Ok(Some(first)),
    }
}
