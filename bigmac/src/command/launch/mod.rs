//! `bigmac launch`: starts the ranks of this node as processes, watches them, and starts them again.

mod children;
mod nodes;
mod output;
mod restart;
mod signals;
mod start;
mod supervise;
#[cfg(test)]
mod tests;
mod verdict;

use super::exit::BadInput;
use super::note;
use anyhow::Context;
use bigmac_comm::control::Token;
use clap::Args;
use nodes::Nodes;
use signals::Signals;
use start::Starter;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

const EXAMPLES: &str = "Examples:
  bigmac launch -n 4 -- train configs/shapes.toml
  bigmac launch -n 4 --restarts 3 -- train configs/shapes.toml --resume auto    (goes on by itself, and after a requeue)
  bigmac launch -n 8 --nnodes 2 --node-rank 0 --master node0:29500 --token-file ~/token -- train run.toml
                                                      (on node0; on the other node with --node-rank 1)

Standard output is that of rank 0; everything else comes on standard error, each line with the rank it is from, as in
[r2]. SIGINT, SIGTERM, SIGHUP, SIGUSR1 and SIGUSR2 are passed on to the ranks, which save and end; a second Ctrl-C ends
them at once.

Exit codes: 0 all ranks are done, or stopped on request with everything saved; that of the rank that failed first
otherwise, 128 and the signal's number if a signal ended it; 2 a command line that cannot be; 75 a rank was lost; 130 a
second Ctrl-C. --restarts starts all ranks again after 1, 75, 101 and after signals, never after 0, 2 or 130; they go
on from the newest checkpoint.

In pods --nnodes, --node-rank and --master come from PET_* or from RANK without LOCAL_RANK (Kubeflow), or from LWS_*
(LeaderWorkerSet), where they are not given. A job of several nodes needs a token that all of them know: --token-file, or BIGMAC_TOKEN.";

/// The variable that hands a token to launch and from launch to the ranks. It never is an argument, which others can
/// see.
const TOKEN: &str = "BIGMAC_TOKEN";

/// Start the ranks of a job as processes.
///
/// Each of the N ranks of this node is a process that runs the command after `--`. When one of them fails, stops
/// answering or is lost, all are ended, on every node; with --restarts they are then started again.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct LaunchArgs {
    /// Ranks on this node
    #[arg(short, value_name = "N")]
    n: usize,
    /// Nodes of the job, each with a launcher of its own [default: 1]
    #[arg(long, value_name = "M")]
    nnodes: Option<usize>,
    /// Which of them this is, from 0 [default: 0]
    #[arg(long, value_name = "R")]
    node_rank: Option<usize>,
    /// Where the launcher of node 0 listens, as all nodes reach it [default: a free port, for one node]
    #[arg(long, value_name = "HOST:PORT")]
    master: Option<String>,
    /// How often the ranks may be started again
    #[arg(long, value_name = "K", default_value_t = 0)]
    restarts: u32,
    /// File with a secret text that is the same on all nodes [default: BIGMAC_TOKEN; for one node, random]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// How long a rank may be silent before it is lost
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    peer_timeout: Duration,
    /// What each rank runs: train, and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// What ranks can run.
const COMMANDS: &[&str] = &["train"];

/// Before the first start again.
const PAUSE: Duration = Duration::from_secs(1);

/// Shorter limits would take a busy machine for a dead one.
const SHORTEST_PEER_TIMEOUT: Duration = Duration::from_secs(1);

/// Runs the command.
pub(super) fn run(args: LaunchArgs) -> anyhow::Result<()> {
    let var = |name: &str| std::env::var(name).ok();
    args.check()?;
    let (nodes, said) = Nodes::resolve(&args, &var)?;
    if let Some(said) = said {
        note(&format!("note: {said}"));
    }
    let token = args.token(&nodes, &var)?;
    let program = std::env::current_exe().context("cannot find the program that the ranks are to run")?;
    let starter = Starter::new(program, nodes, token, args.peer_timeout, &args.command);
    restart::run(&starter, &mut Signals::listen()?, args.restarts, PAUSE)
}

impl LaunchArgs {
    fn check(&self) -> Result<(), BadInput> {
        let first = self.command.first().map(|word| word.to_string_lossy().into_owned()).unwrap_or_default();
        if !COMMANDS.contains(&first.as_str()) {
            return Err(BadInput(format!(
                "ranks cannot run '{first}'; expected {} after --, as in `bigmac launch -n 4 -- train run.toml`",
                COMMANDS.join(" or ")
            )));
        }
        if self.n == 0 {
            return Err(BadInput("-n is 0; expected the number of ranks on this node, 1 or more".into()));
        }
        if self.peer_timeout < SHORTEST_PEER_TIMEOUT {
            return Err(BadInput(format!(
                "--peer-timeout is {}; expected 1s or more: a busy rank may be silent for a moment",
                humantime::format_duration(self.peer_timeout)
            )));
        }
        Ok(())
    }

    /// The secret of the job: given, or random where no one else has to know it.
    fn token(&self, nodes: &Nodes, var: bigmac_comm::environment::Var<'_>) -> anyhow::Result<Token> {
        if let Some(path) = &self.token_file {
            return Ok(Token::from_file(path)?);
        }
        match var(TOKEN) {
            Some(token) => Ok(Token::new(&token, &format!("in {TOKEN}"))?),
            None if nodes.nodes == 1 => Ok(Token::random()?),
            None => Err(BadInput(format!(
                "{} nodes need a token that all of them know: give --token-file FILE or {TOKEN}; `head -c 32 \
                 /dev/urandom | base64 > FILE` makes one",
                nodes.nodes
            ))
            .into()),
        }
    }
}
