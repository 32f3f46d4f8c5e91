//! Training on a GPU, replayed on the CPU, against training on the CPU; and devices and kernels that are not there or
//! do not compile.

use crate::work::{Work, assert_same_files, ended_with, wait};
use bigmac_close::{absolute, assert_close};

const TRAIN: &str = "train tiny.toml --steps 4 --set output.checkpoint_every=2";

fn close(name: &str, given: &[f64], wanted: &[f64], allowed: f64) {
    assert_eq!(given.len(), wanted.len(), "{name}");
    for (a, b) in given.iter().zip(wanted) {
        assert_close(*a, *b, absolute(allowed * b.abs()));
    }
}

#[test]
fn a_gpu_trains_as_the_cpu_does_and_goes_on_bit_for_bit() {
    let work = Work::new();
    for (dtype, allowed) in [("f32", 1e-4), ("bf16", 2e-2)] {
        let train = format!("{TRAIN} --set model.dtype={dtype}");
        let (cpu, gpu, on) = (format!("cpu-{dtype}"), format!("gpu-{dtype}"), format!("on-{dtype}"));
        work.ok(&format!("{train} --out {cpu}"));
        work.ok(&format!("{train} --device replay --out {gpu}"));
        close(dtype, &work.losses(&gpu), &work.losses(&cpu), allowed);
        work.ok(&format!("train --resume {gpu}/checkpoints/step-00000002 --out {on}"));
        assert_eq!(work.metrics(&on), work.metrics(&gpu));
        let last = "checkpoints/step-00000004";
        assert_same_files(&work.path(&gpu).join(last), &work.path(&on).join(last));
        assert_eq!(work.read(&format!("{on}/eval.json")), work.read(&format!("{gpu}/eval.json")));
        // A run may change places.
        let moved = format!("moved-{dtype}");
        work.ok(&format!("train --resume {gpu}/checkpoints/step-00000002 --device cpu --out {moved}"));
        close("moved to the CPU", &work.losses(&moved), &work.losses(&gpu), allowed);
    }
    let there = work.json("eval gpu-f32 --samples 2");
    let here = work.json("eval gpu-f32 --samples 2 --device cpu");
    let loss = |summary: &serde_json::Value| summary["loss"].as_f64().unwrap();
    close("evaluated", &[loss(&there)], &[loss(&here)], 1e-5);
    work.ok("imagine gpu-bf16 --out there.png small-red-circle");
    work.ok("caption gpu-bf16 data/0.png");
}

#[test]
fn a_device_that_is_not_there_is_refused_with_what_to_do() {
    let work = Work::new();
    work.error(&format!("{TRAIN} --device gpu7"), &["pipeline.device", "gpu7", "'cuda:N'"]);
    let mut command = work.command(&format!("{TRAIN} --device cuda"));
    command.env("BIGMAC_LIBCUDA", "/nowhere/libcuda.so.1");
    ended_with(1, &wait(command.spawn().unwrap()), &["cuda:0", "/nowhere/libcuda.so.1"]);
    let mut command = work.command(&format!("{TRAIN} --device replay"));
    command.env("BIGMAC_CXX", "/nowhere/g++");
    ended_with(1, &wait(command.spawn().unwrap()), &["C++ compiler", "/nowhere/g++", "BIGMAC_CXX"]);
}

#[test]
fn a_kernel_that_does_not_compile_is_an_error_with_its_file_and_line() {
    let work = Work::new();
    std::fs::create_dir_all(work.path("kernels/rms_norm")).unwrap();
    let broken = "#include \"bigmac.cuh\"\nKERNEL void rms_norm_forward(const T* x) {\n    nonsense;\n}\n";
    std::fs::write(work.path("kernels/rms_norm/kernel.cu"), broken).unwrap();
    let mut command = work.command(&format!("{TRAIN} --device replay"));
    command.env("BIGMAC_KERNEL_DIR", "kernels");
    let ended = wait(command.spawn().unwrap());
    assert!(!ended.status.success());
    assert!(
        ended.stderr.contains("kernels/rms_norm/kernel.cu:3") && ended.stderr.contains("nonsense"),
        "{}",
        ended.stderr
    );
    let mut command = work.command(&format!("{TRAIN} --device replay"));
    command.env("BIGMAC_KERNEL_DIR", "missing");
    ended_with(1, &wait(command.spawn().unwrap()), &["BIGMAC_KERNEL_DIR", "missing"]);
}
