//! Jobs that cannot be: a sentence each, every process gone in time, and its port free again.

use crate::alone::alone;
use crate::ranks::{all_say, free_port, is_free, rank, run_all};
use crate::work::Work;
use std::net::TcpListener;
use std::path::Path;

#[test]
fn what_cannot_be_a_job_is_refused() {
    let _alone = alone();
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

#[test]
fn ranks_that_were_told_different_things_say_which() {
    let _alone = alone();
    let work = Work::new();
    let port = free_port();
    let train = |seed: usize| format!("train tiny.toml --out run --seed {seed}");
    let ended = run_all((0..3).map(|r| rank(&work, r, 3, port, &train(usize::from(r == 2)))));
    all_say(&ended, 2, &["run.seed", "0", "1", "rank 2"]);
    let ended = run_all((0..2).map(|r| rank(&work, r, 2 + r, port, &train(1))));
    assert!(ended.iter().all(|ended| ended.status.code() == Some(2)), "{}", ended[0].stderr);
    assert!(!work.path("run").exists() && is_free(port));
}

#[test]
fn strangers_and_late_ranks_are_named() {
    let _alone = alone();
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
    assert!(is_free(port));
    // A rank that never comes.
    let mut lonely = rank(&work, 0, 2, port, train);
    lonely.env("BIGMAC_JOIN_TIMEOUT", "2");
    all_say(&run_all([lonely]), 75, &["rank 1"]);
    assert!(is_free(port));
    // Another job listens there.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    all_say(&run_all([rank(&work, 0, 2, port, train)]), 2, &["port is taken"]);
}

#[test]
fn an_mpi_library_that_cannot_be_loaded_is_named() {
    let _alone = alone();
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
        assert!(is_free(port));
        let _ = std::fs::remove_dir_all(work.path("run"));
    }
}
