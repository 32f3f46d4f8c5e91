//! A run that goes on is the run that was never interrupted, bit for bit; with other ranks it is the same within
//! rounding.

use crate::work::{Work, assert_same_files, signal, wait, wait_until};
use bigmac_close::{absolute, assert_close};
use std::fs::OpenOptions;
use std::io::Write;

const STEPS: usize = 40;
const LAST: &str = "checkpoints/step-00000040";

fn goes_on_bit_for_bit(dtype: &str) {
    let work = Work::new();
    let train = format!(
        "train tiny.toml --steps {STEPS} --set model.dtype={dtype} --set output.checkpoint_every=4 --set output.keep=3 --out"
    );
    work.ok(&format!("{train} whole"));
    let whole = work.metrics("whole");
    assert_eq!(whole.len(), STEPS);

    // Killed, with a line half written and a checkpoint half saved.
    let mut child = work.command(&format!("{train} killed")).spawn().unwrap();
    wait_until(&mut child, || work.path("killed/checkpoints/step-00000004").exists());
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!work.path("killed").join(LAST).exists(), "the run was over before it was killed");
    let mut file = OpenOptions::new().append(true).open(work.path("killed/metrics.jsonl")).unwrap();
    file.write_all(br#"{"step":39,"loss":1.2"#).unwrap();
    std::fs::create_dir_all(work.path("killed/checkpoints/step-00000002.tmp/generator")).unwrap();
    work.ok("train --resume killed");

    // Asked to stop.
    let mut child = work.command(&format!("{train} stopped")).spawn().unwrap();
    wait_until(&mut child, || work.path("stopped/checkpoints/step-00000004").exists());
    signal(&child, libc::SIGTERM);
    assert!(wait(child).stdout.contains("Stopped after step"));
    assert!(!work.path("stopped").join(LAST).exists(), "the run was over before it was stopped");
    work.ok("train --resume stopped");

    // From an older checkpoint, in a directory of its own.
    work.ok("train --resume whole/checkpoints/step-00000036 --out again");

    for run in ["killed", "stopped", "again"] {
        assert_same_files(&work.path("whole").join(LAST), &work.path(run).join(LAST));
        assert_eq!(work.metrics(run), whole, "{run}");
        assert_eq!(work.read(&format!("{run}/eval.json")), work.read("whole/eval.json"));
    }
    assert_eq!(
        work.names("killed/checkpoints"),
        ["step-00000032", "step-00000036", "step-00000040"],
        "the half-saved checkpoint is gone, three are kept"
    );
}

#[test]
fn f32_goes_on_bit_for_bit() {
    goes_on_bit_for_bit("f32");
}

#[test]
fn bf16_goes_on_bit_for_bit_from_its_fp32_masters() {
    goes_on_bit_for_bit("bf16");
}

/// Layouts that put layers elsewhere than the one that a run began with.
const LAYOUTS: [(&str, &str); 5] = [
    ("one", "--ranks 1 --schedule phased"),
    ("three", "--ranks 3 --schedule recompute"),
    ("chunks", "--ranks 1 --schedule nested --set pipeline.llm=interleaved --set pipeline.chunks=2"),
    ("balanced", "--ranks 2 --schedule monolithic-balanced"),
    ("apart", "--ranks 2 --schedule disaggregated"),
];

#[test]
fn other_layouts_go_on_with_the_same_losses() {
    let work = Work::new();
    for (dtype, allowed) in [("f32", 1e-4), ("bf16", 2e-2)] {
        let whole = format!("whole-{dtype}");
        work.ok(&format!(
            "train tiny.toml --steps 8 --set model.dtype={dtype} --set output.checkpoint_every=4 --out {whole}"
        ));
        let losses = work.losses(&whole);
        let close = |run: &str, wanted: &[f64], given: &[f64]| {
            assert_eq!(wanted.len(), given.len(), "{run}");
            for (a, b) in wanted.iter().zip(given) {
                assert_close(*b, *a, absolute(allowed * a.abs()));
            }
        };
        for (name, layout) in LAYOUTS {
            let run = format!("{whole}-{name}");
            work.ok(&format!("train --resume {whole}/checkpoints/step-00000004 {layout} --out {run}"));
            close(&run, &losses, &work.losses(&run));
        }
        // And back, from checkpoints that other layouts wrote.
        for (name, layout) in &LAYOUTS[2..] {
            let (begun, run) = (format!("{dtype}-{name}-begun"), format!("{dtype}-{name}-back"));
            work.ok(&format!(
                "train tiny.toml --steps 8 --set model.dtype={dtype} --set output.checkpoint_every=4 {layout} --out \
                 {begun}"
            ));
            close(&begun, &losses, &work.losses(&begun));
            work.ok(&format!(
                "train --resume {begun}/checkpoints/step-00000004 --ranks 2 --schedule nested --set \
                 pipeline.llm=1f1b --set pipeline.chunks=1 --out {run}"
            ));
            close(&run, &losses, &work.losses(&run));
        }
    }
}

/// Under a schedule whose table does not depend on costs: another table adds gradients up in another order.
#[test]
fn layers_may_be_computed_again_from_any_step_on() {
    let work = Work::new();
    let train = "train tiny.toml --steps 4 --schedule monolithic --set output.checkpoint_every=2 --out";
    let again = ["encoder", "llm", "generator"].map(|module| format!("--set model.{module}.recompute=true"));
    let again = again.join(" ");
    work.ok(&format!("{train} plain"));
    work.ok(&format!("{train} again {again}"));
    work.ok(&format!("train --resume plain/checkpoints/step-00000002 {again} --out later"));
    let weights = |run: &str| {
        std::fs::read(work.path(&format!("{run}/checkpoints/step-00000004/model.safetensors"))).unwrap()
    };
    assert_eq!(work.losses("again"), work.losses("plain"));
    assert_eq!(work.losses("later"), work.losses("plain"));
    assert!(weights("again") == weights("plain") && weights("later") == weights("plain"));
    let saved = |run: &str| work.metrics(run)[0]["saved_bytes"]["llm"].as_u64().unwrap();
    assert!(saved("again") < saved("plain"));
}

#[test]
fn bf16_learns_as_f32_does() {
    let work = Work::new();
    for dtype in ["f32", "bf16"] {
        work.ok(&format!(
            "train tiny.toml --steps 8 --set model.dtype={dtype} --set train.lr=1e-2 --out {dtype}"
        ));
    }
    let (full, half) = (work.losses("f32"), work.losses("bf16"));
    assert_ne!(full, half);
    assert!(full[7] < 0.9 * full[0], "nothing was learned: {full:?}");
    for (a, b) in full.iter().zip(&half) {
        assert_close(*b, *a, absolute(0.03 * a));
    }
}

#[test]
fn a_new_run_begins_with_the_weights_of_another() {
    let work = Work::new();
    work.ok("train tiny.toml --out run");
    work.ok("train tiny.toml --steps 0 --set model.from=run --out copy");
    let weights = |run: &str, step| {
        std::fs::read(work.path(&format!("{run}/checkpoints/step-0000000{step}/model.safetensors"))).unwrap()
    };
    assert!(weights("run", 3) == weights("copy", 0));
    work.ok("train tiny.toml --steps 1 --set model.from=run --set model.dtype=bf16 --out half");
    work.error(
        "train tiny.toml --set model.from=run --set model.llm.mlp=64 --out other",
        &["model.llm.mlp is 32"],
    );
    assert!(!work.path("other").exists());
}
