//! Ranks that are shell scripts: how they are watched, ended and started again.

use super::children::Family;
use super::signals::Signals;
use super::start::Starter;
use super::supervise::{Patience, supervise};
use super::verdict::{End, Failure};
use super::*;
use bigmac_comm::control::{Hello, Hub, Job, LauncherMember, Limits};
use clap::Parser;
use std::process::Command;
use std::sync::mpsc::{Sender, channel};
use std::time::Instant;

/// Long enough for scripts on a busy machine to start; who hangs, hangs longer.
const PATIENCE: Patience = Patience { own: Duration::from_secs(2), term: Duration::from_secs(2) };
/// Far longer than anything here takes.
const LONG: Duration = Duration::from_secs(60);

fn family(scripts: &[&str]) -> Family {
    let mut family = Family::default();
    for (rank, script) in scripts.iter().enumerate() {
        family.start(rank + 1, Command::new("sh").args(["-c", script])).unwrap();
    }
    family
}

/// A control plane for ranks 1, 2, ..., and this launcher's end of it.
fn job(ranks: usize) -> (Hub, LauncherMember) {
    let token = Token::new("sesame", "in a test").unwrap();
    let job = Job { world: ranks + 1, restart: 0, token: token.clone() };
    let hub = Hub::bind("127.0.0.1:0", job, Limits::default()).unwrap();
    let hello = Hello {
        rank: 1,
        world: ranks + 1,
        restart: 0,
        host: "here".into(),
        pid: 1,
        version: "1".into(),
        token,
        facts: Default::default(),
    };
    let member = LauncherMember::start(&hub.address().to_string(), hello, Limits::default()).unwrap();
    (hub, member)
}

/// Watches scripts as ranks 1, 2, ...; `signals` sends what comes to the launcher.
fn watch(scripts: &[&str], send: impl FnOnce(Sender<i32>) + Send + 'static) -> End {
    let begun = Instant::now();
    let (tell, signals) = channel();
    let (_hub, member) = job(scripts.len());
    let family = family(scripts);
    std::thread::spawn(move || send(tell));
    let end = supervise(family, &mut Signals::from_channel(signals), PATIENCE, &member).unwrap();
    assert!(begun.elapsed() < LONG, "somebody hung");
    end
}

fn failure(scripts: &[&str]) -> (usize, u8) {
    match watch(scripts, drop) {
        End::Failed(failure) => (failure.rank, failure.code()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn ranks_that_are_done_are_a_success() {
    assert!(matches!(watch(&["exit 0", "sleep 0.2"], drop), End::Done));
}

#[test]
fn the_first_failure_ends_the_others_and_gives_the_code() {
    assert_eq!(failure(&["sleep 1000", "exit 3", "sleep 1000"]), (2, 3));
    assert_eq!(failure(&["sleep 1000", "kill -9 $$"]), (2, 137));
    // Who ignores SIGTERM, is stopped, or has started others is killed.
    assert_eq!(failure(&["trap '' TERM; sleep 1000; sleep 1000", "exit 1"]), (2, 1));
    assert_eq!(failure(&["kill -STOP $$; sleep 1000", "sleep 0.3; exit 1"]), (2, 1));
}

#[test]
fn the_cause_is_the_rank_that_did_not_lose_another() {
    assert_eq!(failure(&["exit 75", "sleep 0.5; exit 2"]), (2, 2));
    assert_eq!(failure(&["exit 75", "sleep 0.5; exit 75"]), (1, 75));
    // Stopped, so that others have lost it; it ends by what it gets from here.
    assert_eq!(failure(&["exit 75", "kill -STOP $$"]), (1, 75));
    assert_eq!(failure(&["exit 75", "trap 'exit 143' TERM; while :; do sleep 0.1; done"]), (1, 75));
}

#[test]
fn a_rank_that_ends_before_it_joins_is_told_to_the_others() {
    let ends_with = |script: &str| {
        let (hub, member) = job(1);
        let (_tell, signals) = channel();
        supervise(family(&[script]), &mut Signals::from_channel(signals), PATIENCE, &member).unwrap();
        member.end();
        hub
    };
    let loss = ends_with("echo 'error: no such device' >&2; exit 1").failure().unwrap();
    assert_eq!(
        loss.to_string(),
        "lost rank 1 on here: it ended with exit code 1 (no such device), before it joined the job"
    );
    // It lost another one itself.
    assert_eq!(ends_with("exit 75").failure(), None);
    // Input that cannot be ends the job as such.
    assert_eq!(ends_with("exit 2").failure(), None);
}

#[test]
fn ranks_that_do_not_notice_the_end_of_the_job_are_ended() {
    let (hub, member) = job(1);
    let (_tell, signals) = channel();
    let family = family(&["kill -STOP $$; sleep 1000"]);
    let dropped = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        member.gone(0, "it ended".into(), false);
        let end = supervise(family, &mut Signals::from_channel(signals), PATIENCE, &member).unwrap();
        assert!(matches!(&end, End::Lost(loss) if loss.rank == Some(0)), "{end:?}");
    });
    dropped.join().unwrap();
    drop(hub);
}

#[test]
fn a_request_to_stop_is_passed_on_once() {
    let waits = |signal: &str| format!("trap 'exit 0' {signal}; while :; do sleep 0.1; done");
    for (signal, name) in [(libc::SIGINT, "INT"), (libc::SIGUSR1, "USR1"), (libc::SIGTERM, "TERM")] {
        let script = waits(name);
        let end = watch(&[&script, &script], move |tell| {
            std::thread::sleep(Duration::from_millis(500));
            tell.send(signal).unwrap();
            std::thread::sleep(LONG);
        });
        assert!(matches!(end, End::Done), "{name}: {end:?}");
    }
}

#[test]
fn a_second_interrupt_kills() {
    let end = watch(&["trap '' INT; while :; do sleep 0.1; done"], |tell| {
        std::thread::sleep(Duration::from_millis(500));
        tell.send(libc::SIGINT).unwrap();
        tell.send(libc::SIGINT).unwrap();
        std::thread::sleep(LONG);
    });
    assert!(matches!(end, End::Interrupted), "{end:?}");
}

#[test]
fn what_is_dropped_is_killed_with_what_it_started() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().display().to_string();
    let family = family(&[&format!("while :; do echo x >> {path}; sleep 0.05; done & wait")]);
    let begun = Instant::now();
    while std::fs::metadata(&path).unwrap().len() == 0 {
        assert!(begun.elapsed() < LONG);
        std::thread::sleep(Duration::from_millis(20));
    }
    drop(family);
    std::thread::sleep(Duration::from_millis(100));
    let length = std::fs::metadata(&path).unwrap().len();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(std::fs::metadata(&path).unwrap().len(), length);
}

/// Runs a script as the ranks of a launch that takes these flags; what it ended with, and what the ranks wrote to $OUT.
fn launch(flags: &[&str], restarts: u32, script: &str) -> (u8, Vec<String>) {
    let out = tempfile::NamedTempFile::new().unwrap();
    let args = parse(flags);
    let (nodes, _) = Nodes::resolve(&args, &|_| None).unwrap();
    let token = Token::new("sesame", "in a test").unwrap();
    let script = format!("OUT={}; {script}", out.path().display());
    let arguments = ["-c".into(), script.into()];
    let starter = Starter::new("sh".into(), nodes, token, args.peer_timeout, &arguments);
    // The sender lives as long as the launch.
    let (_tell, signals) = channel();
    let mut signals = Signals::from_channel(signals);
    let result = restart::run(&starter, &mut signals, restarts, Duration::from_millis(10));
    let code = result.err().map_or(0, |error| super::super::exit::code(&error));
    let text = std::fs::read_to_string(out.path()).unwrap();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.sort();
    (code, lines)
}

#[test]
fn ranks_learn_their_places_from_the_environment() {
    let script = "echo $BIGMAC_RANK $BIGMAC_WORLD_SIZE $BIGMAC_LOCAL_RANK $BIGMAC_LOCAL_SIZE $BIGMAC_RESTART \
                  $BIGMAC_TOKEN $BIGMAC_PEER_TIMEOUT >> $OUT";
    let expected = ["0 2 0 2 0 sesame 30", "1 2 1 2 0 sesame 30"];
    assert_eq!(launch(&["-n", "2"], 0, script), (0, expected.map(str::to_owned).into()));
    let second = ["-n", "2", "--nnodes", "3", "--node-rank", "1", "--master", "a:7", "--peer-timeout", "5s"];
    let script = format!("{script}; echo $BIGMAC_MASTER >> $OUT");
    let expected = ["2 6 0 2 0 sesame 5", "3 6 1 2 0 sesame 5", "a:7", "a:7"];
    assert_eq!(launch(&second, 0, &script), (0, expected.map(str::to_owned).into()));
}

#[test]
fn failures_that_may_pass_are_started_again() {
    let at = |code: &str| format!("echo $BIGMAC_RESTART >> $OUT; [ $BIGMAC_RESTART = 2 ] || {code}");
    let thrice = vec!["0".to_owned(), "1".into(), "2".into()];
    for code in ["exit 1", "exit 75", "exit 101", "kill -9 $$"] {
        assert_eq!(launch(&["-n", "1"], 5, &at(code)), (0, thrice.clone()), "{code}");
    }
    assert_eq!(launch(&["-n", "1"], 1, &at("exit 75")), (75, thrice[..2].to_vec()));
    for (code, ended) in [("exit 2", 2), ("exit 130", 130), ("exit 7", 7)] {
        assert_eq!(launch(&["-n", "1"], 5, &at(code)), (ended, vec!["0".to_owned()]), "{code}");
    }
}

#[derive(Debug, Parser)]
struct Cli {
    #[command(flatten)]
    launch: LaunchArgs,
}

fn parse(flags: &[&str]) -> LaunchArgs {
    let words = ["launch"].iter().chain(flags).chain(&["--", "train"]);
    Cli::try_parse_from(words).unwrap().launch
}

fn resolve(flags: &str, table: &str) -> Result<(Nodes, Option<String>), String> {
    let args = parse(&flags.split(' ').collect::<Vec<_>>());
    let pairs: Vec<_> = table.split_whitespace().filter_map(|pair| pair.split_once('=')).collect();
    let var = |name: &str| pairs.iter().find(|(known, _)| *known == name).map(|(_, value)| value.to_string());
    args.check().and_then(|()| Nodes::resolve(&args, &var)).map_err(|error| error.to_string())
}

#[test]
fn nodes_come_from_flags_and_then_from_pods() {
    let nodes = |each, nodes, node, master: &str| Nodes {
        each,
        nodes,
        node,
        master: bigmac_comm::environment::Master::parse(master),
    };
    assert_eq!(resolve("-n 4", "").unwrap(), (nodes(4, 1, 0, ""), None));
    let given = resolve("-n 4 --nnodes 2 --node-rank 1 --master [::1]:7", "").unwrap();
    assert_eq!(given, (nodes(4, 2, 1, "[::1]:7"), None));
    let pet = "PET_NNODES=2 PET_NODE_RANK=1 PET_MASTER_ADDR=job-0 PET_MASTER_PORT=29501";
    let said = "--nnodes 2 from PET_NNODES, --node-rank 1 from PET_NODE_RANK, --master job-0:29501 from PET_MASTER_ADDR";
    assert_eq!(resolve("-n 4", pet).unwrap(), (nodes(4, 2, 1, "job-0:29501"), Some(said.into())));
    let lws = "LWS_GROUP_SIZE=3 LWS_WORKER_INDEX=2 LWS_LEADER_ADDRESS=leader.svc";
    let (found, said) = resolve("-n 4 --nnodes 5", lws).unwrap();
    assert_eq!(found, nodes(4, 5, 2, "leader.svc:29500"));
    assert_eq!(
        said.unwrap(),
        "--node-rank 2 from LWS_WORKER_INDEX, --master leader.svc:29500 from LWS_LEADER_ADDRESS"
    );
    // Kubeflow's older operator numbers pods by what torchrun numbers ranks by.
    let pytorch = "WORLD_SIZE=2 RANK=1 MASTER_ADDR=job-0 MASTER_PORT=23456";
    assert_eq!(resolve("-n 4", pytorch).unwrap().0, nodes(4, 2, 1, "job-0:23456"));
    let torchrun = format!("{pytorch} LOCAL_RANK=1");
    assert_eq!(resolve("-n 4", &torchrun).unwrap(), (nodes(4, 1, 0, ""), None));
    // Pods of an Indexed Job may have nothing to do with each other.
    assert_eq!(resolve("-n 4", "JOB_COMPLETION_INDEX=3").unwrap(), (nodes(4, 1, 0, ""), None));
}

#[test]
fn launches_that_cannot_be_are_refused() {
    for (flags, table, expected) in [
        ("-n 0", "", "-n is 0; expected the number of ranks on this node, 1 or more"),
        ("-n 1 --nnodes 0", "", "--nnodes is 0; expected the number of nodes, 1 or more"),
        ("-n 1 --node-rank 1", "", "--node-rank is 1 and --nnodes is 1; expected a node below"),
        ("-n 1 --nnodes 2", "", "--nnodes 2 needs --master HOST:PORT"),
        ("-n 1 --master x", "", "--master is 'x'; expected HOST:PORT"),
        ("-n 1", "PET_NNODES=1:4", "PET_NNODES is '1:4'; expected a number, or --nnodes on the command line"),
        ("-n 1 --peer-timeout 10ms", "", "--peer-timeout is 10ms; expected 1s or more"),
        (
            "-n 9999999999999999999 --nnodes 9 --master a:1",
            "",
            "-n 9999999999999999999 with --nnodes 9: expected at most 65536 ranks in all",
        ),
        ("-n 65537", "", "-n 65537 with --nnodes 1: expected at most 65536 ranks in all"),
    ] {
        let error = resolve(flags, table).unwrap_err();
        assert!(error.starts_with(expected), "{flags}: {error}");
    }
    let other =
        Cli::try_parse_from(["launch", "-n", "1", "--", "eval", "run"]).unwrap().launch.check().unwrap_err();
    assert!(other.to_string().starts_with("ranks cannot run 'eval'; expected train after --"), "{other}");
    assert!(Cli::try_parse_from(["launch", "-n", "1"]).is_err());
}

#[test]
fn several_nodes_need_a_token_that_all_know() {
    let args = parse(&["-n", "1", "--nnodes", "2", "--master", "a:1"]);
    let (nodes, _) = Nodes::resolve(&args, &|_| None).unwrap();
    let error = args.token(&nodes, &|_| None).unwrap_err();
    assert!(
        error.to_string().starts_with("2 nodes need a token that all of them know: give --token-file"),
        "{error}"
    );
    let var = |name: &str| (name == TOKEN).then(|| "sesame".to_owned());
    assert_eq!(args.token(&nodes, &var).unwrap().expose(), "sesame");
    let one = Nodes { each: 1, nodes: 1, node: 0, master: None };
    assert_eq!(args.token(&one, &|_| None).unwrap().expose().len(), 64);
}

#[test]
fn a_failure_is_said_with_what_the_control_plane_knows() {
    use bigmac_comm::control::Loss;
    use std::os::unix::process::ExitStatusExt;
    let failure = |raw| Failure { rank: 2, status: std::process::ExitStatus::from_raw(raw) };
    assert_eq!(
        failure(1 << 8).said(None),
        "rank 2 ended with exit code 1; its own messages, marked [r2], are above"
    );
    let loss = Loss { rank: Some(1), host: "h".into(), position: None, cause: "gone".into() };
    assert!(failure(9).said(Some(&loss)).starts_with("rank 2 was ended by signal 9 (SIGKILL: "));
    assert!(failure(9).said(Some(&loss)).ends_with(" (lost rank 1 on h: gone)"));
}
