//! What each launcher says.

use super::number::{number, wrong};
use super::place::{Given, Launcher, Master, Place};
use super::{EnvironmentError, Var, slurm};

/// What one source says, and under which names.
pub(super) struct Claim {
    pub place: Place,
    rank_name: &'static str,
    size_name: &'static str,
}

impl Claim {
    /// Whether this one started the processes that started the ranks of `other`: one on each node, and fewer.
    pub fn is_around(&self, other: &Claim) -> bool {
        self.place.launcher != Launcher::Flags
            && self.place.local_size == 1
            && self.place.size < other.place.size
            && self.place.rank <= other.place.rank
    }

    /// What two sources that should say the same say otherwise.
    pub fn contradiction(&self, other: &Claim) -> Option<EnvironmentError> {
        let differs = |first_name: &str, first, second_name: &str, second| {
            (first != second).then(|| EnvironmentError::Contradiction {
                first_name: first_name.into(),
                first,
                second_name: second_name.into(),
                second,
            })
        };
        let (a, b) = (&self.place, &other.place);
        differs(self.size_name, a.size, other.size_name, b.size)
            .or_else(|| differs(self.rank_name, a.rank, other.rank_name, b.rank))
    }
}

/// The names of rank, number of ranks, and both on the host.
struct Names {
    launcher: Launcher,
    rank: &'static str,
    size: &'static str,
    local_rank: &'static str,
    local_size: &'static str,
}

/// The four numbers under these names.
struct Numbers {
    rank: Option<usize>,
    size: Option<usize>,
    local_rank: Option<usize>,
    local_size: Option<usize>,
}

const FLAGS: Names = Names {
    launcher: Launcher::Flags,
    rank: "--rank",
    size: "--world-size",
    local_rank: "--local-rank",
    local_size: "--local-size",
};
const BIGMAC: Names = Names {
    launcher: Launcher::Bigmac,
    rank: "BIGMAC_RANK",
    size: "BIGMAC_WORLD_SIZE",
    local_rank: "BIGMAC_LOCAL_RANK",
    local_size: "BIGMAC_LOCAL_SIZE",
};
const TORCHRUN: Names = Names {
    launcher: Launcher::Torchrun,
    rank: "RANK",
    size: "WORLD_SIZE",
    local_rank: "LOCAL_RANK",
    local_size: "LOCAL_WORLD_SIZE",
};
const OPEN_MPI: Names = Names {
    launcher: Launcher::OpenMpi,
    rank: "OMPI_COMM_WORLD_RANK",
    size: "OMPI_COMM_WORLD_SIZE",
    local_rank: "OMPI_COMM_WORLD_LOCAL_RANK",
    local_size: "OMPI_COMM_WORLD_LOCAL_SIZE",
};
const MPICH: Names = Names {
    launcher: Launcher::Mpich,
    rank: "PMI_RANK",
    size: "PMI_SIZE",
    local_rank: "MPI_LOCALRANKID",
    local_size: "MPI_LOCALNRANKS",
};

/// What all sources say, in the order in which they count.
pub(super) fn claims(given: &Given, var: Var<'_>) -> Result<Vec<Claim>, EnvironmentError> {
    let flags = Numbers {
        rank: given.rank,
        size: given.size,
        local_rank: given.local_rank,
        local_size: given.local_size,
    };
    let flags = claim(&FLAGS, flags)?;
    // What is overruled is not even looked at: flags are the way out of an environment that is wrong.
    if flags.is_some() {
        return Ok(flags.into_iter().collect());
    }
    let all = [bigmac(var)?, torchrun(var)?, srun(var)?, variables(&OPEN_MPI, var)?, variables(&MPICH, var)?];
    Ok(all.into_iter().flatten().collect())
}

/// The address that was given explicitly, whoever started the ranks.
pub(super) fn master(given: &Given, var: Var<'_>) -> Result<Option<Master>, EnvironmentError> {
    const NAME: &str = "BIGMAC_MASTER";
    if given.master.is_some() {
        return Ok(given.master.clone());
    }
    let Some(value) = var(NAME) else { return Ok(None) };
    let master = Master::parse(&value);
    master.map(Some).ok_or_else(|| wrong(NAME, value, "HOST:PORT, with brackets around an address of IPv6"))
}

fn variables(names: &Names, var: Var<'_>) -> Result<Option<Claim>, EnvironmentError> {
    let numbers = Numbers {
        rank: number(var, names.rank)?,
        size: number(var, names.size)?,
        local_rank: number(var, names.local_rank)?,
        local_size: number(var, names.local_size)?,
    };
    claim(names, numbers)
}

/// A whole place, from two or four numbers.
fn claim(names: &Names, numbers: Numbers) -> Result<Option<Claim>, EnvironmentError> {
    let whole = |rank_name: &str, rank, size_name: &str, size| match (rank, size) {
        (Some(rank), Some(size)) if rank < size => Ok(Some((rank, size))),
        (Some(rank), Some(size)) => Err(EnvironmentError::Range {
            rank_name: rank_name.into(),
            rank,
            size_name: size_name.into(),
            size,
        }),
        (Some(_), None) => Err(EnvironmentError::Half { given: rank_name.into(), missing: size_name.into() }),
        (None, Some(_)) => Err(EnvironmentError::Half { given: size_name.into(), missing: rank_name.into() }),
        (None, None) => Ok(None),
    };
    let local = whole(names.local_rank, numbers.local_rank, names.local_size, numbers.local_size)?;
    let Some((rank, size)) = whole(names.rank, numbers.rank, names.size, numbers.size)? else {
        return match local {
            Some(_) => {
                Err(EnvironmentError::Half { given: names.local_rank.into(), missing: names.rank.into() })
            }
            None => Ok(None),
        };
    };
    let (local_rank, local_size) = local.unwrap_or((0, 1));
    let launcher = names.launcher;
    let place = Place { rank, size, local_rank, local_size, master: None, launcher, restart: 0 };
    Ok(Some(Claim { place, rank_name: names.rank, size_name: names.size }))
}

fn bigmac(var: Var<'_>) -> Result<Option<Claim>, EnvironmentError> {
    let Some(mut claim) = variables(&BIGMAC, var)? else { return Ok(None) };
    claim.place.restart = number(var, "BIGMAC_RESTART")?.unwrap_or(0);
    Ok(Some(claim))
}

/// torchrun sets `LOCAL_RANK`; operators of Kubernetes set `RANK` and `WORLD_SIZE` without it, and count pods.
fn torchrun(var: Var<'_>) -> Result<Option<Claim>, EnvironmentError> {
    if var(TORCHRUN.local_rank).is_none() {
        return Ok(None);
    }
    let Some(mut claim) = variables(&TORCHRUN, var)? else { return Ok(None) };
    let address = match (var("MASTER_ADDR"), number::<u16>(var, "MASTER_PORT")?) {
        (Some(host), Some(port)) => Some((host, port)),
        (Some(_), None) => return Err(half("MASTER_ADDR", "MASTER_PORT")),
        (None, Some(_)) => return Err(half("MASTER_PORT", "MASTER_ADDR")),
        (None, None) => None,
    };
    if let Some((host, port)) = address {
        // The agent itself listens at MASTER_PORT then.
        let is_held =
            var("TORCHELASTIC_USE_AGENT_STORE").is_some_and(|value| value.eq_ignore_ascii_case("true"));
        let port = port.checked_add(is_held.into()).ok_or_else(|| {
            let expected = "a port below 65535: the agent of torchrun holds it, and the next one is used";
            wrong("MASTER_PORT", port.to_string(), expected)
        })?;
        claim.place.master = Some(Master { host, port });
    }
    // An agent counts the failures of its own node only: over several nodes the counts differ.
    if number::<usize>(var, "GROUP_WORLD_SIZE")?.is_none_or(|nodes| nodes == 1) {
        claim.place.restart = number(var, "TORCHELASTIC_RESTART_COUNT")?.unwrap_or(0);
    }
    Ok(Some(claim))
}

fn half(given: &str, missing: &str) -> EnvironmentError {
    EnvironmentError::Half { given: given.into(), missing: missing.into() }
}

fn srun(var: Var<'_>) -> Result<Option<Claim>, EnvironmentError> {
    if !slurm::is_step(var) {
        return Ok(None);
    }
    let size = if var("SLURM_STEP_NUM_TASKS").is_some() { "SLURM_STEP_NUM_TASKS" } else { "SLURM_NTASKS" };
    let names = Names {
        launcher: Launcher::Srun,
        rank: "SLURM_PROCID",
        size,
        local_rank: "SLURM_LOCALID",
        local_size: "SLURM_TASKS_PER_NODE",
    };
    let rank = number(var, names.rank)?;
    if rank.is_none() {
        // A step whose launcher is none of Slurm's tasks: no one's rank.
        return Ok(None);
    }
    let numbers = Numbers {
        rank,
        size: number(var, size)?,
        local_rank: number(var, names.local_rank)?,
        local_size: slurm::local_size(var)?,
    };
    let Some(mut claim) = claim(&names, numbers)? else { return Ok(None) };
    claim.place.master = slurm::master(var)?;
    claim.place.restart = number(var, "SLURM_RESTART_COUNT")?.unwrap_or(0);
    Ok(Some(claim))
}
