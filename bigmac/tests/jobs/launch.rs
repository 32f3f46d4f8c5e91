//! `bigmac launch`: what it refuses, and how it passes on what ranks say and how they end.

use crate::alone::alone;
use crate::work::Work;

/// A configuration that no rank can read.
const BROKEN: &str = "launch -n 2 --restarts 3 -- train missing.toml --resume auto";

#[test]
fn bad_input_of_the_ranks_is_passed_on_and_not_started_again() {
    let _alone = alone();
    let work = Work::new();
    let ended = work.run(BROKEN);
    assert_eq!(ended.status.code(), Some(2), "{}", ended.stderr);
    assert!(ended.stderr.contains("] error: ") && ended.stderr.contains("missing.toml"), "{}", ended.stderr);
    let last = ended.stderr.lines().last().unwrap();
    assert!(last.starts_with("error: rank ") && last.contains(" ended with exit code 2"), "{last}");
    assert!(!ended.stderr.contains("starting the ranks of this node again"), "{}", ended.stderr);
    assert_eq!(ended.stdout, "");
}

#[test]
fn standard_output_is_that_of_rank_0() {
    let _alone = alone();
    let work = Work::new();
    let alone = work.ok("train --help");
    let ended = work.run("launch -n 2 -- train --help");
    assert!(ended.status.success());
    assert_eq!(ended.stdout, alone);
    let other: String = alone.lines().map(|line| format!("[r1] {line}\n")).collect();
    assert_eq!(ended.stderr, other);
}

#[test]
fn launches_that_cannot_be_are_bad_input() {
    let _alone = alone();
    let work = Work::new();
    for (arguments, expected) in [
        ("launch -n 0 -- train", "error: -n is 0; expected the number of ranks on this node"),
        ("launch -n 2 -- eval run", "error: ranks cannot run 'eval'; expected train after --"),
        ("launch -n 2 --nnodes 2 -- train", "error: --nnodes 2 needs --master HOST:PORT"),
        (
            "launch -n 2 --nnodes 2 --master localhost:1 -- train",
            "error: 2 nodes need a token that all of them know: give --token-file FILE or BIGMAC_TOKEN",
        ),
        ("launch -n 1 --token-file missing -- train", "error: cannot read the token from missing: "),
    ] {
        let mut command = work.command(arguments);
        command.env_remove("BIGMAC_TOKEN");
        let output = command.output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.starts_with(expected), "{arguments}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
}

#[test]
fn a_taken_port_is_named() {
    let _alone = alone();
    let work = Work::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let ended = work.run(&format!("launch -n 1 --master {address} -- train"));
    assert_eq!(ended.status.code(), Some(2));
    assert!(
        ended.stderr.contains(&format!("cannot listen on {address}: the port is taken")),
        "{}",
        ended.stderr
    );
}
