//! What Slurm says of a job's steps and nodes.

use super::number::{number, wrong};
use super::place::Master;
use super::{EnvironmentError, Var};

/// Steps from here on are not of srun: the shell of salloc, the batch script, and what Slurm runs for itself.
const FIRST_SPECIAL_STEP: u32 = 0xffff_fff0;

/// Whether srun started this process as a task. Inside sbatch and salloc there is a job, and no task.
pub(super) fn is_step(var: Var<'_>) -> bool {
    let step = var("SLURM_STEP_ID").or_else(|| var("SLURM_STEPID"));
    step.and_then(|step| step.trim().parse::<u32>().ok()).is_some_and(|step| step < FIRST_SPECIAL_STEP)
}

/// The number of tasks on this node; none where Slurm does not say which node this is.
pub(super) fn local_size(var: Var<'_>) -> Result<Option<usize>, EnvironmentError> {
    let name =
        ["SLURM_STEP_TASKS_PER_NODE", "SLURM_TASKS_PER_NODE"].into_iter().find(|name| var(name).is_some());
    let Some((name, value)) = name.and_then(|name| Some((name, var(name)?))) else { return Ok(None) };
    let node = number::<usize>(var, "SLURM_NODEID")?.unwrap_or(0);
    match tasks_of_node(&value, node) {
        Some(tasks) => Ok(Some(tasks)),
        None => Err(wrong(name, value, format!("tasks for each node, as in 2(x3),1, for node {node} too"))),
    }
}

/// The entry of `node` in a list as `2(x3),1`.
fn tasks_of_node(list: &str, node: usize) -> Option<usize> {
    let mut first = 0usize;
    for entry in list.trim().split(',') {
        let (tasks, nodes) = match entry.split_once("(x") {
            Some((tasks, nodes)) => (tasks, nodes.strip_suffix(')')?.parse().ok()?),
            None => (entry, 1usize),
        };
        first = first.checked_add(nodes)?;
        if node < first {
            return tasks.parse().ok();
        }
    }
    None
}

/// The first node of the step, where rank 0 runs, at a port that all tasks compute alike:
/// 20000 + (16 * SLURM_JOB_ID + SLURM_STEP_ID) mod 9500, so that jobs and steps that share nodes differ.
pub(super) fn master(var: Var<'_>) -> Result<Option<Master>, EnvironmentError> {
    let name = ["SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST", "SLURM_NODELIST"]
        .into_iter()
        .find(|n| var(n).is_some());
    let Some((name, list)) = name.and_then(|name| Some((name, var(name)?))) else { return Ok(None) };
    let job = match number::<u64>(var, "SLURM_JOB_ID")? {
        Some(job) => job,
        None => return Err(EnvironmentError::Half { given: name.into(), missing: "SLURM_JOB_ID".into() }),
    };
    let step = number::<u64>(var, "SLURM_STEP_ID")?.unwrap_or(0);
    let port = 20_000 + (job.wrapping_mul(16).wrapping_add(step) % 9_500) as u16;
    match first_node(&list) {
        Some(host) => Ok(Some(Master { host, port })),
        None => Err(wrong(name, list, "a list of nodes, as in node[001,007-015],h2")),
    }
}

/// The first of `node[001,007-015],h2` and the like; several brackets in a name are possible.
fn first_node(list: &str) -> Option<String> {
    let mut name = String::new();
    let mut rest = list.trim();
    loop {
        let end = rest.find(['[', ',']).unwrap_or(rest.len());
        name.push_str(&rest[..end]);
        if !rest[end..].starts_with('[') {
            break;
        }
        let (inside, after) = rest[end + 1..].split_once(']')?;
        let first = inside.split([',', '-']).next()?;
        if first.is_empty() || !first.bytes().all(|digit| digit.is_ascii_digit()) {
            return None;
        }
        name.push_str(first);
        rest = after;
    }
    let is_name = |c: char| c.is_alphanumeric() || ['-', '_', '.'].contains(&c);
    (!name.is_empty() && name.chars().all(is_name)).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_node_of_a_list_is_found() {
        let first = |list| first_node(list).unwrap_or_default();
        assert_eq!(first("node[001,007-015],h2"), "node001");
        assert_eq!(first("node[007-015]"), "node007");
        assert_eq!(first("h2,node[1-3]"), "h2");
        assert_eq!(first("single.cluster-1"), "single.cluster-1");
        assert_eq!(first("rack[2-3]node[04,05]"), "rack2node04");
        assert_eq!(first("a[1-2]-ib,b"), "a1-ib");
        for wrong in ["", ",a", "node[", "node[]", "node[a-b]", "node[-3]", "no de"] {
            assert_eq!(first_node(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn tasks_of_every_node_are_found() {
        let all: Vec<_> = (0..5).map(|node| tasks_of_node("2(x3),1", node)).collect();
        assert_eq!(all, [Some(2), Some(2), Some(2), Some(1), None]);
        assert_eq!(tasks_of_node("4", 0), Some(4));
        for wrong in ["", "x", "2(x3", "2(3)", "(x2)", "2(x99999999999999999999999)"] {
            assert_eq!(tasks_of_node(wrong, 0), None, "{wrong}");
        }
    }
}
