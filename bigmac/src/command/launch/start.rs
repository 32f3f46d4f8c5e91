//! One start of all ranks of this node, and of the control plane where it is this node's.

use super::TOKEN;
use super::children::Family;
use super::nodes::Nodes;
use anyhow::Context;
use bigmac_comm::control::{Hello, Hub, Job, LauncherMember, Limits, Token};
use bigmac_comm::environment::{self, Master};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// The ranks of this node, and their control plane.
pub(super) struct Started {
    pub family: Family,
    pub member: LauncherMember,
    /// On node 0.
    pub hub: Option<Hub>,
}

/// What is the same for all starts.
pub(super) struct Starter {
    nodes: Nodes,
    token: Token,
    limits: Limits,
    program: PathBuf,
    arguments: Vec<OsString>,
}

impl Starter {
    /// For ranks that run `program` with these arguments.
    pub fn new(
        program: PathBuf,
        nodes: Nodes,
        token: Token,
        silence: Duration,
        arguments: &[OsString],
    ) -> Starter {
        let limits = Limits { silence, ..Limits::default() };
        Starter { nodes, token, limits, program, arguments: arguments.to_vec() }
    }

    /// Starts the control plane, on node 0, and then the ranks. All end when they are dropped.
    pub fn start(&self, restart: u32) -> anyhow::Result<Started> {
        let hub = self.hub(restart)?;
        let master = match (&self.nodes.master, &hub) {
            (Some(master), _) => master.to_string(),
            (None, Some(hub)) => hub.address().to_string(),
            (None, None) => String::new(),
        };
        let member = LauncherMember::start(&master, self.hello(restart), self.limits)?;
        let mut family = Family::default();
        for local in 0..self.nodes.each {
            let rank = self.nodes.rank(local);
            let mut command = self.command(local, &master, restart);
            family.start(rank, &mut command).with_context(|| format!("cannot start rank {rank}"))?;
        }
        Ok(Started { family, member, hub })
    }

    /// What this launcher says of itself.
    fn hello(&self, restart: u32) -> Hello {
        Hello {
            rank: self.nodes.rank(0),
            world: self.nodes.world(),
            restart,
            host: environment::host(&|name| std::env::var(name).ok()),
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            token: self.token.clone(),
            facts: BTreeMap::new(),
        }
    }

    fn hub(&self, restart: u32) -> anyhow::Result<Option<Hub>> {
        if self.nodes.node > 0 {
            return Ok(None);
        }
        let address = self.nodes.master.as_ref().map_or("127.0.0.1:0".into(), listening);
        let job = Job { world: self.nodes.world(), restart, token: self.token.clone() };
        Ok(Some(Hub::bind(&address, job, self.limits)?))
    }

    fn command(&self, local: usize, master: &str, restart: u32) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .env("BIGMAC_RANK", self.nodes.rank(local).to_string())
            .env("BIGMAC_WORLD_SIZE", self.nodes.world().to_string())
            .env("BIGMAC_LOCAL_RANK", local.to_string())
            .env("BIGMAC_LOCAL_SIZE", self.nodes.each.to_string())
            .env("BIGMAC_MASTER", master)
            .env("BIGMAC_RESTART", restart.to_string())
            .env("BIGMAC_PEER_TIMEOUT", self.limits.silence.as_secs_f64().to_string())
            .env(TOKEN, self.token.expose());
        command
    }
}

/// Where to listen for those who know this node as `master`: on all of its addresses, since the name may be that of a
/// service in front of it, but on loopback where that is all that was asked for.
fn listening(master: &Master) -> String {
    let any = match master.host.as_str() {
        "localhost" => "127.0.0.1",
        host if host.starts_with("127.") => host,
        "::1" => "[::1]",
        host if host.parse::<Ipv6Addr>().is_ok() => "[::]",
        _ => "0.0.0.0",
    };
    format!("{any}:{}", master.port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_listened_on_at_all_addresses_and_loopback_stays_so() {
        let at = |text: &str| listening(&Master::parse(text).unwrap());
        assert_eq!(at("node0:29500"), "0.0.0.0:29500");
        assert_eq!(at("10.0.0.1:1"), "0.0.0.0:1");
        assert_eq!(at("[fe80::1]:1"), "[::]:1");
        assert_eq!(at("localhost:1"), "127.0.0.1:1");
        assert_eq!(at("127.0.0.1:1"), "127.0.0.1:1");
        assert_eq!(at("[::1]:1"), "[::1]:1");
    }
}
