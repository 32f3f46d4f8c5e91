//! Runs of several processes learn what threads learn.

use crate::work::{Ended, Work, assert_same_files, wait};
use serde_json::Value;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Four ranks of a pipeline of four layers.
const DEEPER: &str = "--set model.llm.layers=4 --set output.final_samples=1 --set train.batch=8";

#[test]
fn processes_learn_what_threads_learn_bit_for_bit() {
    let work = Work::new();
    for (dp, pp) in [(1, 4), (2, 2), (4, 1)] {
        let train = format!("train tiny.toml {DEEPER} --dp {dp} --pp {pp}");
        let (threads, processes) = (format!("threads-{dp}"), format!("processes-{dp}"));
        work.ok(&format!("{train} --out {threads}"));
        let said = work.json(&format!("launch -n 4 -- {train} --out {processes}"));
        assert_eq!((&said["step"], &said["finished"]), (&Value::from(3), &Value::from(true)), "{said}");
        assert_eq!(work.metrics(&threads), work.metrics(&processes), "{dp} x {pp}");
        let last = "checkpoints/step-00000003";
        assert_same_files(&work.path(&threads).join(last), &work.path(&processes).join(last));
        assert_eq!(work.read(&format!("{threads}/eval.json")), work.read(&format!("{processes}/eval.json")));
    }
}

/// Each process decodes its own pictures only, and all leave out the same samples.
#[test]
fn processes_leave_out_the_same_samples() {
    let work = Work::new();
    for number in [1, 4] {
        // The header is whole, so that only decoding tells.
        let path = work.path(&format!("data/{number}.png"));
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 30]).unwrap();
    }
    let train = format!("train tiny.toml {DEEPER} --dp 2 --pp 2 --steps 6 --set data.on_error=skip");
    work.ok(&format!("{train} --out threads"));
    work.ok(&format!("launch -n 4 -- {train} --out processes"));
    let metrics = work.metrics("threads");
    assert!(
        metrics.iter().any(|step| step["skipped"].as_u64().is_some_and(|count| count > 0)),
        "{metrics:?}"
    );
    assert_eq!(metrics, work.metrics("processes"));
    let last = "checkpoints/step-00000006";
    assert_same_files(&work.path("threads").join(last), &work.path("processes").join(last));
}

/// Losses of five steps, whatever of four ranks are replicas and whatever are stages.
#[test]
fn losses_do_not_depend_on_the_layout() {
    let work = Work::new();
    let train = format!("train tiny.toml {DEEPER} --steps 5");
    work.ok(&format!("{train} --pp 1 --out alone"));
    let wanted = work.losses("alone");
    for (dp, pp) in [(1, 4), (2, 2), (4, 1)] {
        work.ok(&format!("launch -n 4 -- {train} --dp {dp} --pp {pp} --out run-{dp}"));
        for (loss, wanted) in work.losses(&format!("run-{dp}")).iter().zip(&wanted) {
            assert!((loss - wanted).abs() <= 1e-5 * wanted.abs(), "{dp} x {pp}: {loss} {wanted}");
        }
    }
}

/// The MPI of a folder that a variable names: its launcher, with what it is given beside the number of ranks, and its
/// library. None, with a word on it, where there is none; under CI there has to be one.
fn mpi(variable: &str, launcher: &[&str], library: &str) -> Option<(PathBuf, Vec<String>, PathBuf)> {
    let Ok(folder) = std::env::var(variable) else {
        assert!(std::env::var("CI").is_err(), "{variable} must name the folder of an MPI");
        eprintln!("SKIPPED: {variable} does not name the folder of an MPI");
        return None;
    };
    let folder = PathBuf::from(folder);
    let flags = launcher[1..].iter().map(|flag| (*flag).to_owned()).collect();
    Some((folder.join("bin").join(launcher[0]), flags, folder.join("lib").join(library)))
}

#[test]
fn processes_of_mpi_learn_what_threads_learn_bit_for_bit() {
    let work = Work::new();
    let open_mpi = ["mpirun", "--oversubscribe", "--mca", "pml", "ob1", "--mca", "btl", "self,tcp"];
    let both = [
        mpi("BIGMAC_OPENMPI", &open_mpi, "libmpi.so.40"),
        mpi("BIGMAC_MPICH", &["mpiexec"], "libmpi_abi.so.1"),
    ];
    for (number, (launcher, flags, library)) in both.into_iter().flatten().enumerate() {
        let train = format!("train tiny.toml {DEEPER} --dp 2 --pp 2");
        let run = format!("mpi-{number}");
        let (threads, inside) = (format!("threads-{number}"), work.command(&format!("{train} --out {run}")));
        work.ok(&format!("{train} --out {threads}"));
        let mut command = Command::new(launcher);
        command.args(["-n", "4"]).args(flags).arg(inside.get_program()).args(inside.get_args());
        command.current_dir(work.path("")).env("BIGMAC_LIBMPI", library);
        // In containers everybody is root.
        command.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let ended = wait(command.spawn().unwrap());
        assert!(ended.status.success(), "{}{}", ended.stdout, ended.stderr);
        assert_eq!(work.metrics(&threads), work.metrics(&run));
        let last = "checkpoints/step-00000003";
        assert_same_files(&work.path(&threads).join(last), &work.path(&run).join(last));
    }
}

#[test]
fn a_run_of_processes_goes_on_with_other_processes() {
    let work = Work::new();
    let train = format!("train tiny.toml {DEEPER} --steps 4 --set output.checkpoint_every=2");
    work.ok(&format!("{train} --pp 4 --out whole"));
    work.ok(&format!("launch -n 4 -- {train} --pp 4 --out run"));
    work.ok("launch -n 4 -- train --resume run/checkpoints/step-00000002 --out branch");
    assert_eq!(work.metrics("branch"), work.metrics("whole"));
    // Another layout: the same up to rounding.
    work.ok("launch -n 2 -- train --resume run/checkpoints/step-00000002 --dp 2 --pp 1 --out other");
    let (losses, others) = (work.losses("whole"), work.losses("other"));
    assert_eq!(losses[..2], others[..2]);
    for (loss, other) in losses.iter().zip(&others) {
        assert!((loss - other).abs() < 1e-4 * loss.abs(), "{losses:?} {others:?}");
    }
}

#[test]
fn what_cannot_be_a_job_is_refused() {
    let work = Work::new();
    let train = "train tiny.toml --out run --set train.batch=8";
    for (arguments, wanted) in [
        (format!("launch -n 3 -- {train} --pp 2"), &["2 ranks", "3 processes"][..]),
        (format!("launch -n 4 -- {train} --pp 2 --dp 3"), &["6 ranks", "4 processes"]),
        (
            format!("launch -n 2 -- {train} --pp 2 --set pipeline.engine=local"),
            &["pipeline.engine = local", "2 processes"],
        ),
        (format!("{train} --ranks 2 --pp 3"), &["--ranks 2", "--pp 3"]),
        (format!("{train} --dp 5"), &["train.microbatches"]),
    ] {
        let ended = work.run(&arguments);
        assert_eq!(ended.status.code(), Some(2), "{arguments}: {}", ended.stderr);
        wanted.iter().for_each(|wanted| assert!(ended.stderr.contains(wanted), "{wanted}: {}", ended.stderr));
        assert!(!work.path("run").exists(), "{arguments}");
    }
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A rank as torchrun starts it.
fn rank(work: &Work, rank: usize, size: usize, port: u16, arguments: &str) -> Command {
    let mut command = work.command(arguments);
    for (name, value) in
        [("RANK", rank), ("LOCAL_RANK", rank), ("WORLD_SIZE", size), ("LOCAL_WORLD_SIZE", size)]
    {
        command.env(name, value.to_string());
    }
    command.env("MASTER_ADDR", "127.0.0.1").env("MASTER_PORT", port.to_string());
    command.env("BIGMAC_JOIN_TIMEOUT", "20").env_remove("BIGMAC_TOKEN");
    command
}

fn run_all(commands: impl IntoIterator<Item = Command>) -> Vec<Ended> {
    let children: Vec<_> = commands.into_iter().map(|mut command| command.spawn().unwrap()).collect();
    children.into_iter().map(wait).collect()
}

/// Each rank ends with that code and one sentence in which all of `wanted` is.
fn all_say(ended: &[Ended], code: i32, wanted: &[&str]) {
    for (rank, ended) in ended.iter().enumerate() {
        assert_eq!(ended.status.code(), Some(code), "rank {rank}: {}", ended.stderr);
        assert_eq!(ended.stderr.lines().count(), 1, "rank {rank}: {}", ended.stderr);
        for wanted in wanted {
            assert!(ended.stderr.contains(wanted), "rank {rank}: '{wanted}' is not in {}", ended.stderr);
        }
    }
}

#[test]
fn ranks_that_were_told_different_things_say_which() {
    let work = Work::new();
    let port = free_port();
    let train = |seed: usize| format!("train tiny.toml --out run --seed {seed}");
    let ended = run_all((0..3).map(|r| rank(&work, r, 3, port, &train(usize::from(r == 2)))));
    all_say(&ended, 2, &["run.seed", "0", "1", "rank 2"]);
    let ended = run_all((0..2).map(|r| rank(&work, r, 2 + r, port, &train(1))));
    assert!(ended.iter().all(|ended| ended.status.code() == Some(2)), "{}", ended[0].stderr);
    assert!(!work.path("run").exists());
}

#[test]
fn strangers_and_late_ranks_are_named() {
    let work = Work::new();
    let port = free_port();
    let train = "train tiny.toml --out run";
    // Another token: neither belongs to the other's job, and the job lacks a rank.
    let mut others = (0..2).map(|r| {
        let mut command = rank(&work, r, 2, port, train);
        command.env("BIGMAC_TOKEN", format!("secret{r}")).env("BIGMAC_JOIN_TIMEOUT", "3");
        command
    });
    let ended = run_all(&mut others);
    for ended in &ended {
        assert!([Some(2), Some(75)].contains(&ended.status.code()), "{}", ended.stderr);
        assert!(ended.stderr.contains("token"), "{}", ended.stderr);
        assert!(!ended.stderr.contains("secret"), "{}", ended.stderr);
    }
    // A rank that never comes.
    let mut lonely = rank(&work, 0, 2, port, train);
    lonely.env("BIGMAC_JOIN_TIMEOUT", "2");
    all_say(&run_all([lonely]), 75, &["rank 1"]);
    // Another job listens there.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    all_say(&run_all([rank(&work, 0, 2, port, train)]), 2, &["port is taken"]);
}

#[test]
fn an_mpi_library_that_cannot_be_loaded_is_named() {
    let work = Work::new();
    std::fs::write(work.path("text.so"), "not a library").unwrap();
    // A library that surely is there, cut short: opening it would kill the process.
    let whole = std::fs::read("/proc/self/exe").unwrap();
    std::fs::write(work.path("short.so"), &whole[..4000]).unwrap();
    for (file, wanted) in [("missing.so", "missing.so"), ("text.so", "text.so"), ("short.so", "cut off")] {
        let port = free_port();
        let ended = run_all((0..2).map(|r| {
            let mut command = rank(&work, r, 2, port, "train tiny.toml --set pipeline.engine=mpi --out run");
            command.env("BIGMAC_LIBMPI", Path::new(&work.path(file)));
            command
        }));
        assert!(ended.iter().any(|ended| ended.status.code() == Some(2)), "{}", ended[0].stderr);
        let said: Vec<&str> = ended.iter().map(|ended| ended.stderr.as_str()).collect();
        assert!(said.iter().any(|said| said.contains(wanted)), "{said:?}");
        let _ = std::fs::remove_dir_all(work.path("run"));
    }
}
