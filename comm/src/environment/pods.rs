//! Environments of pods: they number nodes, and only `bigmac launch` makes ranks of them.

use super::number::number;
use super::{EnvironmentError, Var};

/// The variables of one kind of pod, each of which is a node of a job.
#[derive(Debug)]
pub struct Pods {
    /// Numbers the node.
    pub node: &'static str,
    /// The number of nodes.
    pub nodes: &'static str,
    /// Where the first node is, as far as the kind says.
    pub address: Option<&'static str>,
    /// The port there, as far as the kind says.
    pub port: Option<&'static str>,
    /// Where this is set, the others number ranks.
    ranks: Option<&'static str>,
}

const KINDS: [Pods; 4] = [
    Pods {
        node: "PET_NODE_RANK",
        nodes: "PET_NNODES",
        address: Some("PET_MASTER_ADDR"),
        port: Some("PET_MASTER_PORT"),
        ranks: None,
    },
    Pods {
        node: "LWS_WORKER_INDEX",
        nodes: "LWS_GROUP_SIZE",
        address: Some("LWS_LEADER_ADDRESS"),
        port: None,
        ranks: None,
    },
    // Kubeflow's PyTorchJob sets the names of torchrun, once per pod.
    Pods {
        node: "RANK",
        nodes: "WORLD_SIZE",
        address: Some("MASTER_ADDR"),
        port: Some("MASTER_PORT"),
        ranks: Some("LOCAL_RANK"),
    },
    // Pods of an Indexed Job may as well have nothing to do with each other.
    Pods { node: "JOB_COMPLETION_INDEX", nodes: "JOB_COMPLETIONS", address: None, port: None, ranks: None },
];

impl Pods {
    /// PyTorch's default.
    pub const PORT: &'static str = "29500";

    /// The first kind of which the environment holds something, among those that say where the first node is.
    pub fn of(var: Var<'_>) -> Option<&'static Pods> {
        KINDS.iter().filter(|kind| kind.address.is_some() && kind.numbers_nodes(var)).find(|kind| {
            let is_set = |name| var(name).is_some();
            is_set(kind.nodes) || is_set(kind.node)
        })
    }

    fn numbers_nodes(&self, var: Var<'_>) -> bool {
        self.ranks.and_then(var).is_none()
    }
}

/// An error where a pod is one of several, which a single process cannot be a rank of.
pub(super) fn check(var: Var<'_>) -> Result<(), EnvironmentError> {
    for kind in KINDS.iter().filter(|kind| kind.numbers_nodes(var)) {
        let Some(value) = var(kind.node) else { continue };
        if number::<usize>(var, kind.nodes).is_ok_and(|count| count == Some(1)) {
            continue;
        }
        let or = |name: Option<&str>, or: &str| name.and_then(var).unwrap_or_else(|| or.into());
        let address = or(kind.address, "HOST-OF-NODE-0");
        let port = or(kind.port, Pods::PORT);
        let nodes = or(Some(kind.nodes), "NODES");
        let command = format!(
            "bigmac launch -n RANKS-PER-NODE --nnodes {nodes} --node-rank {value} --master {address}:{port} -- train ..."
        );
        return Err(EnvironmentError::Pod { name: kind.node.into(), value, command });
    }
    Ok(())
}
