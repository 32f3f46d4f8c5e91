//! `borrowed.sh` with programs and tools that only pretend, some of which hang, die or fail: what that costs, and
//! what is left.

mod fakes;

use fakes::{Fakes, Run, script};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

const PARTS: [&str; 13] = [
    "environment",
    "smoke",
    "products",
    "attention",
    "operators",
    "timings",
    "step",
    "peer",
    "twin",
    "profile",
    "memcheck",
    "training",
    "memory",
];

fn state<'a>(run: &'a Run, part: &str) -> (&'a str, &'a str) {
    let (state, note) =
        run.parts.get(part).unwrap_or_else(|| panic!("nothing is said of {part}: {}", run.stdout));
    (state, note)
}

/// The summary is there, whole and short enough, and few enough files are left to be carried back.
fn check_summary(run: &Run) {
    let summary = &run.files["summary.txt"];
    assert!(
        run.stdout.ends_with(summary.as_str()),
        "the summary is not the last that is printed: {}",
        run.stdout
    );
    assert!(summary.len() <= 10_000, "{} characters", summary.len());
    assert!(run.files.len() <= 8, "{:?}", run.files.keys());
    for part in run.parts.keys() {
        assert!(summary.contains(part), "{part} is not in the summary:\n{summary}");
    }
}

#[test]
fn every_part_passes_and_leaves_its_results() {
    let run = Fakes::new().run("out", "", &[("BUDGET", "900")]);
    assert_eq!(run.code, Some(0), "{}", run.stdout);
    for part in PARTS {
        assert_eq!(state(&run, part), ("passed", ""), "{part}");
    }
    check_summary(&run);
    assert_eq!(run.files["step.jsonl"].lines().count(), 3 + 5, "three models, and their twins");
    assert_eq!(run.files["kernels.jsonl"].lines().count(), 4 + 1, "{}", run.files["kernels.jsonl"]);
    assert!(run.files["ncu.txt"].contains("DRAM Throughput"), "{}", run.files["ncu.txt"]);
    assert!(run.files["environment.txt"].contains("NVIDIA H200"));
    let log = &run.files["log.txt"];
    for said in ["passed  product-102", "passed  memory-exhausted", "ok on cuda", "ERROR SUMMARY: 0"] {
        assert!(log.contains(said), "{said} is not in the log");
    }
    // Those without clusters come first, each in a process of its own.
    let order =
        ["product-101", "product-102", "product-anywhere"].map(|name| log.find(&format!("passed  {name}")));
    assert!(order.is_sorted() && order[0].is_some(), "{order:?}");
}

/// What is made to go wrong, the part that it belongs to, and what is still there of that part.
const FAULTS: [(&str, &str, &str); 13] = [
    ("nvidia-smi", "environment", "NVRTC 13.0"),
    ("product-101", "products", "passed  product-102"),
    ("attention-128", "attention", "passed  attention-64"),
    ("adamw", "operators", "==== operators/gelu: status 0"),
    ("lab-gemm", "timings", "==== timings/attention: status 0"),
    ("step-qwen3-1.7b", "step", "==== step/llama-1b: status 0"),
    ("peer", "peer", ""),
    ("twin", "twin", ""),
    ("ncu", "profile", ""),
    ("memcheck", "memcheck", ""),
    ("step-tests", "training", "passed  command-train"),
    ("kernel-changed", "memory", "passed  memory-exhausted"),
    ("command-train", "training", "passed  step-text"),
];

#[test]
fn a_part_that_is_killed_faults_or_fails_leaves_the_others() {
    let fakes = Fakes::new();
    for how in ["kill", "fault", "fail"] {
        std::thread::scope(|scope| {
            for (what, part, left) in FAULTS {
                let fakes = &fakes;
                scope.spawn(move || {
                    let name = format!("{how}-{what}");
                    let run = fakes.run(&name, &format!("{what}:{how}"), &[("BUDGET", "900")]);
                    assert_eq!(run.code, Some(1), "{name}: {}", run.stdout);
                    for other in PARTS {
                        let wanted = if other == part { "FAILED" } else { "passed" };
                        assert_eq!(state(&run, other).0, wanted, "{name}, {other}: {}", run.stdout);
                    }
                    check_summary(&run);
                    let log = &run.files["log.txt"];
                    assert!(
                        log.contains(left) || run.files["environment.txt"].contains(left),
                        "{name}: {left}"
                    );
                    let summary = &run.files["summary.txt"];
                    let said = match how {
                        "kill" => "killed, or over its time limit",
                        "fault" => "signal 11",
                        _ => "it is 1, expected 2",
                    };
                    assert!(summary.contains(said), "{name}: {summary}");
                    // The device is tried after it, except where only the machine's own tools were asked.
                    let tried = log.contains(&format!("smoke test after {part}"));
                    assert!(tried || ["environment", "twin"].contains(&part), "{name}: no smoke test");
                });
            }
        });
    }
}

#[test]
fn a_part_that_hangs_costs_its_own_time() {
    let fakes = Fakes::new();
    std::thread::scope(|scope| {
        for (what, part, left) in FAULTS {
            let fakes = &fakes;
            scope.spawn(move || {
                let began = Instant::now();
                let name = format!("hang-{what}");
                let variables = [("BUDGET", "60"), ("PARTS", part)];
                let run = fakes.run(&name, &format!("{what}:hang"), &variables);
                let seconds = began.elapsed().as_secs();
                assert!(seconds <= 64, "{name}: {seconds} s of a budget of 60");
                assert_eq!(run.code, Some(1), "{name}: {}", run.stdout);
                check_summary(&run);
                let (state, note) = state(&run, part);
                assert_eq!(state, "FAILED", "{name}: {note}");
                // A process that may take as long as its part leaves nothing for those after it, which is said.
                let there =
                    run.files["log.txt"].contains(left) || run.files["environment.txt"].contains(left);
                assert!(there || note.contains("no time left"), "{name}: {note}");
            });
        }
    });
}

#[test]
fn the_second_test_that_hangs_ends_its_part_and_the_next_part_runs() {
    let run = Fakes::new().run(
        "out",
        "product-101:hang product-102:hang",
        &[("PARTS", "products,attention"), ("BUDGET", "120")],
    );
    let (state_of, note) = state(&run, "products");
    assert_eq!(state_of, "FAILED");
    assert!(note.contains("product-102, the second to hang"), "{note}");
    assert!(!run.files["log.txt"].contains("passed  product-anywhere"));
    assert_eq!(state(&run, "attention").0, "passed");
}

#[test]
fn nothing_runs_on_a_device_that_does_not_answer() {
    let fakes = Fakes::new();
    let run = fakes.run("smoke", "smoke:fail", &[("BUDGET", "60")]);
    assert_eq!(state(&run, "smoke").0, "FAILED");
    assert_eq!(state(&run, "products"), ("not run", "the smoke test did not pass"));
    check_summary(&run);
    // A processor that the binaries are not for.
    let run = fakes.run("illegal", "list:illegal", &[("BUDGET", "60")]);
    let (state, note) = state(&run, "smoke");
    assert_eq!(state, "not run");
    assert!(note.contains("do not run on this machine (illegal instruction"), "{note}");
    check_summary(&run);
}

#[test]
fn what_does_not_fit_the_budget_is_not_run_and_said() {
    let run = Fakes::new().run("out", "", &[("BUDGET", "40"), ("PARTS", "products,training,memory")]);
    assert_eq!(state(&run, "memory").0, "passed");
    let (state, note) = state(&run, "training");
    assert_eq!(state, "not run");
    assert!(note.contains("of the budget, it takes 90"), "{note}");
    assert_eq!(run.code, Some(1));
}

#[test]
fn tools_that_are_not_there_are_said() {
    let fakes = Fakes::new();
    for tool in ["ncu", "compute-sanitizer"] {
        fs::remove_file(fakes.tools().join(tool)).unwrap();
    }
    let run = fakes.run("out", "torch:fail", &[("BUDGET", "900")]);
    for (part, said) in [
        ("peer", "python3 has no PyTorch"),
        ("twin", "python3 has no PyTorch"),
        ("profile", "ncu is not there"),
        ("memcheck", "compute-sanitizer is not there"),
    ] {
        let (state, note) = state(&run, part);
        assert!(state == "skipped" && note.contains(said), "{part}: {state}, {note}");
    }
    assert_eq!(run.code, Some(0), "{}", run.stdout);
}

#[test]
fn what_was_compiled_there_comes_back() {
    let fakes = Fakes::new();
    let path = fakes.bundle().join("step-tests");
    let text = fs::read_to_string(&path).unwrap() + "sleep 1.1; echo new >\"$BIGMAC_CACHE_DIR/two.cubin\"\n";
    fs::write(&path, text).unwrap();
    let run = fakes.run("out", "", &[("PARTS", "training"), ("BUDGET", "200")]);
    assert_eq!(state(&run, "training").0, "passed");
    assert!(run.files.contains_key("cache.tar.gz"));
    assert!(!fakes.bundle().join("cache/two.cubin").exists(), "the bundle itself was written to");
    let run = fakes.run("none", "", &[("PARTS", "memory"), ("BUDGET", "200")]);
    assert!(!run.files.contains_key("cache.tar.gz"), "nothing was compiled");
}

#[test]
fn an_interrupted_run_still_says_what_it_has() {
    let fakes = Fakes::new();
    let out = fakes.bundle().with_file_name("interrupted");
    let path = format!("{}:{}", fakes.tools().display(), std::env::var("PATH").unwrap());
    let mut command = script();
    command.arg(fakes.bundle()).arg(&out).env("PATH", path);
    command
        .env("FAKES", "attention-128:hang")
        .env("PARTS", "products,attention")
        .stdout(std::process::Stdio::piped());
    let child = command.spawn().unwrap();
    let log = out.join("log.txt");
    let began = Instant::now();
    while !fs::read_to_string(&log).unwrap_or_default().contains("attention/attention-128: ") {
        assert!(began.elapsed() < Duration::from_secs(60), "the part was never begun");
        std::thread::sleep(Duration::from_millis(20));
    }
    let killed =
        std::process::Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let output = child.wait_with_output().unwrap();
    let run = fakes::read(&output, &out);
    assert_eq!(state(&run, "products").0, "passed");
    assert!(run.files["summary.txt"].contains("products"), "{}", run.stdout);
}

#[test]
fn wrong_arguments_are_told() {
    let fakes = Fakes::new();
    for (variable, value, said) in [
        ("PARTS", "products,nonsense", "'nonsense'"),
        ("BUDGET", "soon", "'soon'"),
        ("BUDGET", "3", "30 at least"),
    ] {
        let out = fakes.bundle().with_file_name("wrong");
        let output = script().arg(fakes.bundle()).arg(out).env(variable, value).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && text.contains(said), "{variable}={value}: {text}");
    }
    let output = script().args(["no/such/bundle", "out"]).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("bundle.sh makes one"));
    assert!(!Path::new("out").exists());
    assert_eq!(script().output().unwrap().status.code(), Some(2));
    let listed = script().arg("--list").output().unwrap();
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(listed.status.success() && PARTS.iter().all(|part| text.contains(part)), "{text}");
}
