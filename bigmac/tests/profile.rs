//! `bigmac profile`, and `bigmac compare` on what it measured, as a user runs them.

use bigmac::cost::Spread;
use bigmac::profile::Profile;
use bigmac_close::{absolute, assert_close};
use bigmac_schedule::ModuleKind;
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};

/// A small model on few pictures.
const SMALL: &[&str] = &[
    "--set",
    "data.shapes=24",
    "--set",
    "train.batch=12",
    "--set",
    "train.microbatches=3",
    "--set",
    "model.encoder.layers=1",
    "--set",
    "model.llm.layers=2",
    "--set",
    "model.generator.layers=1",
];

/// A folder that runs write into, with a profile of the small model.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Place {
        let place = Place { folder: tempfile::tempdir().unwrap() };
        place.good("profile", &["--steps", "1", "--rounds", "2", "--out", "small.toml"]);
        place
    }

    fn run(&self, command: &str, arguments: &[&str]) -> Output {
        let mut bigmac = Command::new(env!("CARGO_BIN_EXE_bigmac"));
        bigmac.current_dir(self.folder.path()).arg(command).args(SMALL).args(arguments).output().unwrap()
    }

    fn good(&self, command: &str, arguments: &[&str]) -> String {
        let output = self.run(command, arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn error(&self, command: &str, arguments: &[&str]) -> String {
        let output = self.run(command, arguments);
        assert!(!output.status.success() && output.stdout.is_empty());
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(!error.contains("panicked"), "{error}");
        error
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self) -> String {
        std::fs::read_to_string(self.path("small.toml")).unwrap()
    }
}

fn in_order(spread: &Spread) -> bool {
    let Spread { least, lower, median, upper, most } = *spread;
    0.0 < least && least <= lower && lower <= median && median <= upper && upper <= most
}

#[test]
fn a_profile_has_every_kind_of_op_and_compare_runs_on_it() {
    let place = Place::new();
    let profile = Profile::read(&place.path("small.toml")).unwrap();
    let keys: Vec<(ModuleKind, usize, &str)> = profile
        .unit
        .iter()
        .map(|unit| {
            let (module, chunk, phase) = unit.key();
            assert!(in_order(&unit.seconds) && unit.count >= 6, "{unit:?}");
            assert!(unit.fixed > 0.0 || unit.per_gop > 0.0, "{unit:?}");
            (module, chunk, phase.name())
        })
        .collect();
    let (whole, split) = (["forward", "backward"], ["backward-input", "backward-weight"]);
    let wanted =
        [(ModuleKind::Encoder, 0), (ModuleKind::Llm, 0), (ModuleKind::Llm, 1), (ModuleKind::Generator, 0)];
    for (module, chunk) in wanted {
        let split = split.iter().filter(|_| module == ModuleKind::Llm);
        for phase in whole.iter().chain(split) {
            assert!(keys.contains(&(module, chunk, phase)), "{module} {chunk} {phase}: {keys:?}");
        }
    }
    assert_eq!(keys.len(), 12, "{keys:?}");
    assert_eq!((profile.taken.ranks, profile.taken.threads, profile.taken.rounds), (2, 1, 2));
    assert_eq!(profile.taken.schedules, ["nested on 1f1b", "nested on zb-h1", "phased on 1f1b"]);
    assert!(in_order(&profile.around.latency.unwrap()) && in_order(&profile.around.optimizer));
    // What is written is what is read, and nothing is left beside it.
    let again = place.path("again.toml");
    profile.write(&again).unwrap();
    assert_eq!(std::fs::read_to_string(&again).unwrap(), place.text());
    let left = std::fs::read_dir(place.folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
    let left = left.filter(|name| Path::new(name).extension().is_some_and(|end| end == "tmp"));
    assert_eq!(left.count(), 0);
    measured(&place);
    simulated(&place);
}

/// Every schedule runs for real, and holds the bytes that were predicted.
fn measured(place: &Place) {
    let arguments =
        ["--profile", "small.toml", "--measure", "--rounds", "3", "--timeline", "all.html", "--json"];
    let all: Value = serde_json::from_str(&place.good("compare", &arguments)).unwrap();
    let lines = all["schedules"].as_array().unwrap();
    let line = |name: &str| lines.iter().find(|line| line["schedule"] == name).unwrap();
    for name in ["monolithic", "phased", "recompute", "bubble-fill", "nested"] {
        let line = line(name);
        let (simulated, measured) = (&line["simulated"], &line["measured"]);
        let seconds: Spread = serde_json::from_value(measured["seconds"].clone()).unwrap();
        assert!(in_order(&seconds), "{line}");
        let error = seconds.median / simulated["seconds"].as_f64().unwrap() - 1.0;
        assert_close(measured["error"].as_f64().unwrap(), error, absolute(1e-12));
        for module in ["encoder", "llm", "generator"] {
            let peak = &measured["peak_bytes"][module];
            assert!(peak["measured"].as_u64() > Some(0) && peak["measured"] == peak["predicted"], "{line}");
        }
        // A rank is busy for no longer than the slowest rank's step takes.
        let busy = measured["busy"].as_array().unwrap();
        assert_eq!(busy.len(), 2);
        assert!(busy.iter().all(|busy| busy["median"].as_f64() <= Some(seconds.most)), "{line}");
    }
    let nested = line("nested");
    assert_eq!(
        (&nested["simulated"]["ratio"], &nested["measured"]["ratio"]["most"]),
        (&1.0.into(), &1.0.into())
    );
    let drawn = std::fs::read_to_string(place.path("all.html")).unwrap();
    assert!(drawn.contains("nested, measured") && drawn.contains("nested, simulated"));
}

/// On the clock alone, and what does not exist is listed with the reason.
fn simulated(place: &Place) {
    let text = place.good("compare", &["--profile", "small.toml", "--schedule", "disaggregated,phased"]);
    let of = |name: &str| text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
    assert!(of("disaggregated").contains("none: with ranks of its own"), "{text}");
    assert!(of("phased").contains(" ms") && of("nested").contains("1.000"), "{text}");
}

#[test]
fn a_damaged_or_foreign_profile_is_named_with_its_place() {
    let place = Place::new();
    let good = place.text();
    let line_of = |needle: &str| good.lines().position(|line| line.starts_with(needle)).unwrap() + 1;
    let replaced = |needle: &str, by: &str| {
        let line = line_of(needle);
        good.lines()
            .enumerate()
            .map(|(i, text)| if i + 1 == line { by } else { text }.to_owned() + "\n")
            .collect()
    };
    let cut: String = good.lines().take(line_of("per_gop")).map(|line| line.to_owned() + "\n").collect();
    let without: String = good
        .split("[[unit]]")
        .filter(|unit| !unit.contains("module = \"generator\""))
        .collect::<Vec<_>>()
        .join("[[unit]]");
    let at = |needle: &str, column: usize| format!("bad.toml:{}:{column}: ", line_of(needle));
    for (text, wanted) in [
        (replaced("per_gop", "per_gop = -1.5"), at("per_gop", 11) + "got -1.5, expected a finite number"),
        (replaced("per_gop", "per_gop = nan"), at("per_gop", 11) + "got NaN, expected a finite number"),
        (replaced("median", "median = inf"), at("median", 10) + "got inf, expected a finite number"),
        (replaced("per_gop", "per_gop = 'fast'"), at("per_gop", 11) + "invalid type: string"),
        (replaced("per_gop", "per_gop = "), at("per_gop", 11)),
        (replaced("per_gop", "per_gpo = 1"), at("per_gop", 1) + "unknown field `per_gpo`"),
        (replaced("phase", "phase = 'sideways'"), at("phase", 9) + "unknown variant `sideways`"),
        (cut, "missing field `seconds`".to_owned()),
        (without, "the profile has no times of the generator's forward".to_owned()),
        (
            replaced("ranks", "ranks = 4"),
            "taken with pipeline.ranks = 4, but the configuration has 2".to_owned(),
        ),
        (String::new(), "bad.toml:1:1: missing field".to_owned()),
    ] {
        std::fs::write(place.path("bad.toml"), &text).unwrap();
        let error = place.error("compare", &["--profile", "bad.toml"]);
        assert!(error.contains(&wanted), "wanted {wanted}\n{error}");
    }
    let other = place.error("compare", &["--profile", "small.toml", "--set", "model.llm.width=48"]);
    assert!(other.contains("model.llm"), "{other}");
    let missing = place.error("compare", &["--profile", "no.toml"]);
    assert!(missing.contains("could not read no.toml"), "{missing}");
}

#[test]
fn arguments_that_do_not_fit_are_refused() {
    let place = Place { folder: tempfile::tempdir().unwrap() };
    for (command, arguments, wanted) in [
        ("compare", &["--measure", "--microbatches", "2"][..], "cannot be used with"),
        ("compare", &["--one-at-a-time"], "--measure"),
        ("compare", &["--rounds", "2"], "--measure"),
        ("compare", &["--measure", "--rounds", "0"], "'0' is not a whole number from 1"),
        ("compare", &["--schedule", "nestd"], "did you mean 'nested'?"),
        ("compare", &["--schedule", "nested", "--llm", "zb"], "'zb' is not a valid LLM schedule"),
        ("profile", &[], "--out"),
        ("profile", &["--out", "p.toml", "--steps", "0"], "'0' is not a whole number from 1"),
        ("profile", &["--out", "p.toml", "--ranks", "0"], "pipeline.ranks = 0"),
        ("profile", &["--out", "no/such/folder/p.toml", "--steps", "1", "--rounds", "1"], "no/such/folder"),
    ] {
        let error = place.error(command, arguments);
        assert!(error.contains(wanted), "{arguments:?}: {error}");
    }
}
