//! Runs whose schedule is built on measured times.

use crate::work::Work;
use bigmac_close::{absolute, assert_close};

const PROFILE: &str = "profile tiny.toml --ranks 2 --rounds 2 --steps 4 --out p.toml";

#[test]
fn a_run_on_measured_times_learns_the_same() {
    let work = Work::new();
    work.ok(PROFILE);
    work.ok("train tiny.toml --ranks 2 --out counted");
    let counted = work.losses("counted");
    for (name, layout) in [
        ("nested", "--schedule nested"),
        ("split", "--schedule nested --set pipeline.llm=zb-h1"),
        ("chain", "--schedule monolithic-balanced"),
    ] {
        work.ok(&format!("train tiny.toml --ranks 2 --set pipeline.profile=p.toml {layout} --out {name}"));
        let losses = work.losses(name);
        assert_eq!(losses.len(), counted.len());
        for (a, b) in counted.iter().zip(&losses) {
            assert_close(*b, *a, absolute(1e-4 * a.abs()));
        }
    }
}

#[test]
fn a_profile_that_does_not_fit_is_named_and_nothing_is_begun() {
    let work = Work::new();
    work.error("train tiny.toml --set pipeline.profile=none.toml", &["pipeline.profile", "none.toml"]);
    work.ok(PROFILE);
    let train = "train tiny.toml --set pipeline.profile=p.toml";
    work.error(&format!("{train} --ranks 3"), &["pipeline.profile", "p.toml", "pipeline.ranks = 2", "3"]);
    work.error(&format!("{train} --ranks 2 --set model.llm.mlp=48"), &["p.toml", "model.llm"]);
    assert!(!work.path("runs").exists());
}

/// Whatever a rank holds of the LLM, whole backwards are measured, and their parts.
#[test]
fn whole_and_split_backwards_are_both_measured() {
    let work = Work::new();
    for layout in ["", "--set pipeline.chunks=2 --set pipeline.llm=interleaved --set model.llm.layers=4"] {
        let profile = work.json(&format!("{PROFILE} {layout}"));
        let units = profile["unit"].as_array().unwrap();
        for phase in ["forward", "backward", "backward-input", "backward-weight"] {
            let found = units.iter().filter(|unit| unit["module"] == "llm" && unit["phase"] == phase);
            let chunks = if layout.is_empty() { 2 } else { 4 };
            assert_eq!(found.count(), chunks, "{phase} with '{layout}'");
        }
    }
}
