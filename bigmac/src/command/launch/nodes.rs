//! The nodes of the job, from flags and from what pods are told.

use super::super::exit::BadInput;
use super::LaunchArgs;
use bigmac_comm::control::MOST_RANKS;
use bigmac_comm::environment::{Master, Pods, Var};

/// Which node this is, of which.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Nodes {
    /// Ranks on each node.
    pub each: usize,
    pub nodes: usize,
    pub node: usize,
    /// None for one node without a given address.
    pub master: Option<Master>,
}

impl Nodes {
    /// Flags come first. What is taken from elsewhere is said, in the second part.
    pub fn resolve(args: &LaunchArgs, var: Var<'_>) -> Result<(Nodes, Option<String>), BadInput> {
        let var: Var<'_> = &|name| var(name).filter(|value| !value.trim().is_empty());
        let pods = Pods::of(var);
        let mut taken = Vec::new();
        let mut number = |flag: &str, given: Option<usize>, name: Option<&str>, default| {
            let found = name.and_then(|name| Some((name, var(name)?)));
            let (Some((name, value)), None) = (found, given) else { return Ok(given.unwrap_or(default)) };
            let number = value.trim().parse().map_err(|_| {
                BadInput(format!("{name} is '{value}'; expected a number, or {flag} on the command line"))
            })?;
            taken.push(format!("{flag} {number} from {name}"));
            Ok::<usize, BadInput>(number)
        };
        let nodes = number("--nnodes", args.nnodes, pods.map(|pods| pods.nodes), 1)?;
        let node = number("--node-rank", args.node_rank, pods.map(|pods| pods.node), 0)?;
        let found = pods.and_then(|pods| Some((pods, pods.address?, var(pods.address?)?)));
        let master = match (&args.master, found) {
            (Some(given), _) => Some(given.clone()),
            (None, Some((pods, name, address))) if nodes > 1 => {
                let port = pods.port.and_then(var).unwrap_or(Pods::PORT.into());
                let brackets = if address.contains(':') { ("[", "]") } else { ("", "") };
                let address = format!("{}{}{}:{port}", brackets.0, address.trim(), brackets.1);
                taken.push(format!("--master {address} from {name}"));
                Some(address)
            }
            _ => None,
        };
        let nodes = Nodes { each: args.n, nodes, node, master: master.as_deref().map(parse).transpose()? };
        nodes.check()?;
        Ok((nodes, (!taken.is_empty()).then(|| taken.join(", "))))
    }

    fn check(&self) -> Result<(), BadInput> {
        let Nodes { each, nodes, node, .. } = self;
        if *nodes == 0 {
            return Err(BadInput("--nnodes is 0; expected the number of nodes, 1 or more".into()));
        }
        if node >= nodes {
            return Err(BadInput(format!(
                "--node-rank is {node} and --nnodes is {nodes}; expected a node below the number of nodes, from 0"
            )));
        }
        if *nodes > 1 && self.master.is_none() {
            return Err(BadInput(format!(
                "--nnodes {nodes} needs --master HOST:PORT, the same on all nodes: a name of node 0 that all of them \
                 reach, and a free port there"
            )));
        }
        match each.checked_mul(*nodes) {
            Some(world) if world <= MOST_RANKS => Ok(()),
            _ => Err(BadInput(format!(
                "-n {each} with --nnodes {nodes}: expected at most {MOST_RANKS} ranks in all"
            ))),
        }
    }

    /// The number of ranks.
    pub fn world(&self) -> usize {
        self.each * self.nodes
    }

    /// The rank of this node's process of that number.
    pub fn rank(&self, local: usize) -> usize {
        self.node * self.each + local
    }
}

fn parse(text: &str) -> Result<Master, BadInput> {
    let wrong = || {
        BadInput(format!(
            "--master is '{text}'; expected HOST:PORT, with brackets around an address of IPv6, as in node0:{}",
            Pods::PORT
        ))
    };
    Master::parse(text).ok_or_else(wrong)
}
