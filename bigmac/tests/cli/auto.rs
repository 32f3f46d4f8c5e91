//! `pipeline.schedule = "auto"`: chosen once, when a run begins.

use crate::work::Work;

/// The schedule in a run's configuration.
fn schedule(work: &Work, run: &str) -> String {
    let config: toml::Table = work.read(&format!("{run}/config.toml")).parse().unwrap();
    config["pipeline"]["schedule"].as_str().unwrap().to_owned()
}

#[test]
fn the_choice_is_printed_and_kept() {
    let work = Work::new();
    let ended = work.run("train tiny.toml --ranks 2 --out run");
    assert!(ended.status.success(), "{}", ended.stderr);
    let chosen = schedule(&work, "run");
    assert!(["nested", "nested-fill"].contains(&&*chosen), "{chosen}");
    let said =
        format!("pipeline.schedule = auto: the run gets '{chosen}'; in simulation of the first 8 steps");
    assert!(ended.stderr.contains(&said), "{}", ended.stderr);
    // Named, it is the same run.
    let named = work.run(&format!("train tiny.toml --ranks 2 --schedule {chosen} --out named"));
    assert!(named.status.success() && !named.stderr.contains("auto"), "{}", named.stderr);
    assert_eq!(work.metrics("run"), work.metrics("named"));
    // On one rank there is nothing to gain.
    work.ok("train tiny.toml --ranks 1 --schedule auto --out alone");
    assert_eq!(schedule(&work, "alone"), "nested");
}

/// Whatever would be chosen by now.
#[test]
fn a_run_goes_on_with_the_schedule_it_began_with() {
    let work = Work::new();
    work.ok("train tiny.toml --ranks 2 --schedule phased --steps 2 --out run");
    let ended = work.run("train tiny.toml --ranks 2 --steps 3 --resume auto --out run");
    assert!(ended.status.success() && !ended.stderr.contains("auto:"), "{}", ended.stderr);
    assert_eq!(schedule(&work, "run"), "phased");
    work.ok("train --resume run --steps 4");
    assert_eq!(schedule(&work, "run"), "phased");
    // Asked for again, it is chosen again.
    work.ok("train --resume run --steps 5 --schedule auto");
    assert_ne!(schedule(&work, "run"), "phased");
    assert_eq!(work.metrics("run").len(), 5);
}

#[test]
fn other_commands_take_names_alone() {
    let work = Work::new();
    for command in ["simulate --schedule auto", "compare --schedule auto"] {
        work.error(command, &["auto", "nested-fill"]);
    }
    work.error("train tiny.toml --schedule aut", &["'aut' is not a valid schedule", "did you mean 'auto'?"]);
}
