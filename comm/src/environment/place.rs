//! A process's place among the ranks.

use std::fmt;

/// Where one process stands among the ranks of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its number, below `size`.
    pub rank: usize,
    /// The number of ranks.
    pub size: usize,
    /// Its number among the ranks of its host; 0 where nothing says it.
    pub local_rank: usize,
    /// The number of ranks on its host; 1 where nothing says it.
    pub local_size: usize,
    /// Where the control plane listens, as far as the launcher says.
    pub master: Option<Master>,
    /// Who says so.
    pub launcher: Launcher,
    /// How often the job was started again before: the same on all ranks.
    pub restart: u32,
}

/// Who started the ranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Launcher {
    /// Flags of the command line.
    Flags,
    /// `bigmac launch`, or variables set by hand.
    Bigmac,
    /// PyTorch's launcher.
    Torchrun,
    /// Slurm.
    Srun,
    /// Open MPI's mpirun.
    OpenMpi,
    /// MPICH's mpiexec, or another that speaks PMI.
    Mpich,
}

impl fmt::Display for Launcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Launcher::Flags => "the command line",
            Launcher::Bigmac => "bigmac launch",
            Launcher::Torchrun => "torchrun",
            Launcher::Srun => "srun",
            Launcher::OpenMpi => "Open MPI",
            Launcher::Mpich => "MPICH",
        })
    }
}

/// Where the control plane listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Master {
    /// A name or an address; that of IPv6 without brackets.
    pub host: String,
    /// The TCP port.
    pub port: u16,
}

impl Master {
    /// From `HOST:PORT` or `[IPv6]:PORT`.
    pub fn parse(text: &str) -> Option<Master> {
        let (host, port) = text.trim().rsplit_once(':')?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = bare.unwrap_or(host);
        // Without brackets the last part of an address of IPv6 would be taken for the port.
        let is_host = !host.is_empty() && (bare.is_some() || !host.contains([':', '[', ']', ' ', '/']));
        let port = port.parse().ok().filter(|&port| port > 0)?;
        is_host.then(|| Master { host: host.into(), port })
    }
}

impl fmt::Display for Master {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// What the command line says of the process's place.
#[derive(Clone, Debug, Default)]
pub struct Given {
    /// `--rank`.
    pub rank: Option<usize>,
    /// `--world-size`.
    pub size: Option<usize>,
    /// `--local-rank`.
    pub local_rank: Option<usize>,
    /// `--local-size`.
    pub local_size: Option<usize>,
    /// `--master`.
    pub master: Option<Master>,
}
