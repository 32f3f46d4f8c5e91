//! Runs of several processes learn what threads learn.

use crate::alone::alone;
use crate::ranks::{random, ranks};
use crate::work::{Work, assert_same_files, signal, wait, wait_until};
use serde_json::Value;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// Four ranks of a pipeline of four layers.
const DEEPER: &str = "--set model.llm.layers=4 --set output.final_samples=1 --set train.batch=8";

#[test]
fn processes_learn_what_threads_learn_bit_for_bit() {
    let _alone = alone();
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
    let _alone = alone();
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

/// How many bytes a process has read so far.
fn bytes_read(pid: i32) -> u64 {
    let io = std::fs::read_to_string(format!("/proc/{pid}/io")).unwrap();
    io.lines().find_map(|line| line.strip_prefix("rchar: ")?.parse().ok()).unwrap()
}

/// Pictures are large here, so that the bytes that are read count how many were decoded.
#[test]
fn each_process_reads_the_pictures_of_its_own_items() {
    let _alone = alone();
    let work = Work::new();
    let mut seed = 1;
    for number in 0..6 {
        let noise =
            image::RgbImage::from_fn(400, 400, |_, _| image::Rgb([0; 3].map(|_| random(&mut seed) as u8)));
        noise.save(work.path(&format!("data/{number}.png"))).unwrap();
    }
    let train = format!("train tiny.toml {DEEPER} --pp 2 --steps 100000");
    let after_20_steps = |start: &str, run: &str, processes: &dyn Fn(&Child) -> Vec<i32>| -> Vec<u64> {
        let mut child = work.command(&format!("{start}{train} --out {run}")).spawn().unwrap();
        let metrics = work.path(&format!("{run}/metrics.jsonl"));
        wait_until(&mut child, || {
            std::fs::read_to_string(&metrics).is_ok_and(|text| text.lines().count() >= 20)
        });
        let read = processes(&child).into_iter().map(bytes_read).collect();
        signal(&child, libc::SIGTERM);
        assert!(wait(child).status.success());
        read
    };
    let alone = after_20_steps("", "threads", &|child| vec![child.id() as i32])[0] as f64;
    let both = after_20_steps("launch -n 2 -- ", "processes", &|child| ranks(child).into_values().collect());
    // Noise does not compress: 20 steps of 8 samples, most with a picture of 480 kB.
    assert!(alone > 20.0 * 4.0 * 480e3, "{alone}");
    // Messages between ranks, and steps that were prepared when the bytes were counted, come on top.
    let sum: f64 = both.iter().map(|read| *read as f64).sum();
    assert!(sum < 1.4 * alone, "{both:?} bytes where one process reads {alone}");
    assert!(both.iter().all(|read| (*read as f64) < 0.9 * alone), "{both:?} bytes where one reads {alone}");
}

/// Losses of five steps, whatever of four ranks are replicas and whatever are stages.
#[test]
fn losses_do_not_depend_on_the_layout() {
    let _alone = alone();
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
    let _alone = alone();
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
    let _alone = alone();
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
