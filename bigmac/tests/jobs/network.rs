//! Two nodes between which the network fails: first one that forwards nothing any more without closing anything, then, where
//! the system lets a test make network namespaces, two hosts whose link goes down.

use crate::alone::alone;
use crate::proxy::Proxy;
use crate::ranks::{SOON, all_have_ended, ranks};
use crate::work::{Ended, Work, assert_same_files, wait, wait_until};
use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

const LIMIT: &str = "2s";

/// A run of four ranks on two nodes, to be begun by each node's launcher.
fn launch(node: usize, master: &str, train: &str) -> String {
    format!(
        "launch -n 2 --nnodes 2 --node-rank {node} --master {master} --token-file token --peer-timeout {LIMIT} -- {train}"
    )
}

fn train(steps: usize) -> String {
    format!(
        "train tiny.toml --set model.llm.layers=4 --set train.batch=8 --dp 2 --pp 2 --steps {steps} --out run \
         --set output.checkpoint_every=20 --set output.final_samples=1 --resume auto"
    )
}

/// Waits until both nodes are in the middle of their steps; their ranks.
fn both_run(work: &Work, nodes: &mut [Child; 2]) -> [BTreeMap<usize, i32>; 2] {
    let metrics = work.path("run/metrics.jsonl");
    wait_until(&mut nodes[0], || fs::read_to_string(&metrics).is_ok_and(|text| text.lines().count() > 25));
    [ranks(&nodes[0]), ranks(&nodes[1])]
}

/// Both nodes end soon, with every rank's word on why.
fn both_end(nodes: [Child; 2], ranks: &[BTreeMap<usize, i32>; 2], causes: [&str; 2]) {
    let began = Instant::now();
    let ended: Vec<Ended> = nodes.into_iter().map(wait).collect();
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    for ((ended, ranks), cause) in ended.iter().zip(ranks).zip(causes) {
        assert_eq!(ended.status.code(), Some(75), "{}", ended.stderr);
        all_have_ended(ended, ranks, &[], cause);
    }
}

#[test]
fn a_network_that_forwards_nothing_ends_the_job_on_both_sides() {
    let _alone = alone();
    let work = Work::new();
    fs::write(work.path("token"), "between us").unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let proxy = Proxy::to(port).unwrap();
    let first = work.command(&launch(0, &port.to_string(), &train(100_000))).spawn().unwrap();
    let second = work.command(&launch(1, &proxy.address().to_string(), &train(100_000))).spawn().unwrap();
    let mut nodes = [first, second];
    let ranks = both_run(&work, &mut nodes);
    proxy.cut();
    // Node 1 hears nothing of the control plane any more, or from node 0's ranks that one of its own is lost.
    both_end(nodes, &ranks, ["lost rank ", ""]);
}

/// Two hosts with a cable between them.
struct Hosts;

const NAMES: [&str; 2] = ["bigmac-a", "bigmac-b"];

fn ip(arguments: &str) -> bool {
    let status = Command::new("ip")
        .args(arguments.split_whitespace())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    status.is_ok_and(|status| status.success())
}

impl Hosts {
    /// None where the system does not let us.
    fn new() -> Option<Hosts> {
        let hosts = Hosts;
        let [a, b] = NAMES;
        let commands = [
            format!("netns add {a}"),
            format!("netns add {b}"),
            format!("-n {a} link add cable type veth peer name cable netns {b}"),
            format!("-n {a} address add 10.213.7.1/24 dev cable"),
            format!("-n {b} address add 10.213.7.2/24 dev cable"),
            format!("-n {a} link set cable up"),
            format!("-n {b} link set cable up"),
            format!("-n {a} link set lo up"),
            format!("-n {b} link set lo up"),
        ];
        commands.iter().all(|command| ip(command)).then_some(hosts)
    }

    /// A launcher on one of them.
    fn launch(&self, work: &Work, node: usize, train: &str) -> Child {
        let inside = work.command(&launch(node, "10.213.7.1:29533", train));
        let mut command = Command::new("ip");
        // `ip netns exec` becomes the program that it starts.
        command.args(["netns", "exec", NAMES[node]]).arg(inside.get_program()).args(inside.get_args());
        command.current_dir(inside.get_current_dir().unwrap());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for name in NAMES {
            ip(&format!("netns del {name}"));
        }
    }
}

#[test]
fn a_cable_that_is_cut_ends_the_job_and_it_goes_on_when_it_is_whole() {
    let _alone = alone();
    let Some(hosts) = Hosts::new() else {
        drop(Hosts);
        eprintln!("SKIPPED: this needs root and iproute2, to make network namespaces");
        return;
    };
    let work = Work::new();
    fs::write(work.path("token"), "between us").unwrap();
    let train = train(400);
    let start = || [0, 1].map(|node| hosts.launch(&work, node, &train));
    let mut nodes = start();
    let ranks = both_run(&work, &mut nodes);
    assert!(ip(&format!("-n {} link set cable down", NAMES[0])));
    both_end(nodes, &ranks, ["lost rank ", "control plane at 10.213.7.1"]);
    assert!(ip(&format!("-n {} link set cable up", NAMES[0])));
    assert!(work.steps("run").len() < 400);
    // The same commands go on, to where an undisturbed run of threads comes.
    for ended in start().map(wait) {
        assert!(ended.status.success(), "{}", ended.stderr);
    }
    work.ok(&train.replace("--out run", "--out whole"));
    let last = "checkpoints/step-00000400";
    assert_same_files(&work.path("whole").join(last), &work.path("run").join(last));
    assert_eq!(work.metrics("run"), work.metrics("whole"));
}
