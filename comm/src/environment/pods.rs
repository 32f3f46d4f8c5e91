//! Environments of pods: they number nodes, and only `bigmac launch` makes ranks of them.

use super::number::number;
use super::{EnvironmentError, Var};

/// One kind of environment of pods.
struct Kind {
    /// Numbers the pod.
    index: &'static str,
    /// Number of pods.
    count: &'static str,
    address: &'static str,
    port: Option<&'static str>,
}

const KINDS: [Kind; 4] = [
    Kind {
        index: "PET_NODE_RANK",
        count: "PET_NNODES",
        address: "PET_MASTER_ADDR",
        port: Some("PET_MASTER_PORT"),
    },
    Kind { index: "LWS_WORKER_INDEX", count: "LWS_GROUP_SIZE", address: "LWS_LEADER_ADDRESS", port: None },
    // Kubeflow's PyTorchJob sets the names of torchrun, once per pod.
    Kind { index: "RANK", count: "WORLD_SIZE", address: "MASTER_ADDR", port: Some("MASTER_PORT") },
    Kind { index: "JOB_COMPLETION_INDEX", count: "JOB_COMPLETIONS", address: "", port: None },
];

/// An error where a pod is one of several, which a single process cannot be a rank of.
pub(super) fn check(var: Var<'_>) -> Result<(), EnvironmentError> {
    for kind in &KINDS {
        let Some(value) = var(kind.index) else { continue };
        if number::<usize>(var, kind.count).is_ok_and(|count| count == Some(1)) {
            continue;
        }
        let or = |name: &str, or: &str| var(name).unwrap_or_else(|| or.into());
        let address = or(kind.address, "HOST-OF-NODE-0");
        let port = kind.port.map_or("29500".into(), |port| or(port, "29500"));
        let nodes = or(kind.count, "NODES");
        let command = format!(
            "bigmac launch -n RANKS-PER-NODE --nnodes {nodes} --node-rank {value} --master {address}:{port} -- train ..."
        );
        return Err(EnvironmentError::Pod { name: kind.index.into(), value, command });
    }
    Ok(())
}
