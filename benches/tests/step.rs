//! The step benchmark as a user runs it: on the CPU and on a replay, at sizes that take seconds.

use bigmac::plan::{Description, Model};
use serde_json::Value;
use std::process::{Command, Output};

const MODELS: [&str; 3] = ["qwen3-1.7b", "llama-1b", "mmdit-1b"];

fn step(args: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bigmac-bench"));
    command.arg("step").args(args.split_whitespace()).env_remove("BIGMAC_KERNEL_DIR").output().unwrap()
}

fn json(args: &str) -> Value {
    let output = step(&format!("{args} --json"));
    assert!(output.status.success(), "{args}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

fn number(row: &Value, key: &str) -> f64 {
    row[key].as_f64().unwrap_or_else(|| panic!("no number {key} in {row}"))
}

/// What `bigmac plan` counts for the step that `row` is of.
fn planned(row: &Value) -> (Model, f64) {
    let model: Model = serde_json::from_value(row["sizes"].clone()).unwrap();
    model.check().unwrap();
    // A microbatch of a description is one sequence of an LLM, and all drawings of a generator.
    let sequences = if model.llm.is_some() { number(row, "tokens") / number(row, "sequence") } else { 1.0 };
    let flops = model.flops((sequences * number(row, "microbatches")) as usize);
    (model, flops)
}

fn phases(row: &Value, operator: &str) -> Vec<String> {
    let lines = row["operators"].as_array().unwrap().iter().filter(|line| line["operator"] == operator);
    let mut phases: Vec<String> = lines.map(|line| line["phase"].as_str().unwrap().to_owned()).collect();
    phases.sort();
    phases
}

fn check(row: &Value, model: &str) {
    let (described, flops) = planned(row);
    let parameters: u64 =
        bigmac_schedule::ModuleKind::ALL.map(|kind| described.parameters(kind)).iter().sum();
    assert_eq!((row["model"].as_str(), row["parameters"].as_u64()), (Some(model), Some(parameters)));
    // What was run is what the plan counts, to the last operation: sums of whole numbers are exact.
    assert_eq!(number(row, "flops"), flops, "{model}");
    let lines = row["operators"].as_array().unwrap();
    let sum = |key: &str| lines.iter().map(|line| number(line, key)).sum::<f64>();
    assert!(
        (sum("flops") / flops - 1.0).abs() < 1e-12
            && (sum("bytes") / number(row, "bytes") - 1.0).abs() < 1e-12
    );
    assert!((sum("seconds") / number(row, "observed_seconds") - 1.0).abs() < 1e-9);
    assert!(number(row, "ideal_bytes") > 0.0 && number(row, "bytes") > number(row, "ideal_bytes"), "{row}");
    let median = number(&row["seconds"], "median");
    assert!(median > 0.0 && number(&row["seconds"], "lower") <= median);
    let tokens = number(row, "tokens") * number(row, "microbatches");
    assert!((number(row, "tokens_per_second") * median / tokens - 1.0).abs() < 1e-12);
    assert!((number(row, "mfu") * median * 989e12 / flops - 1.0).abs() < 1e-9);
    assert!(number(row, "idle_seconds") >= 0.0 && number(row, "issue_seconds") > 0.0);
    assert_eq!(phases(row, "gradient norm"), ["optimizer"]);
    assert_eq!(phases(row, "linear"), ["forward", "input_gradient", "weight_gradient"]);
    assert_eq!(phases(row, "attention"), ["forward", "input_gradient"]);
    for key in ["date", "dtype", "device", "framework", "version"] {
        assert!(row[key].as_str().is_some_and(|text| !text.is_empty()), "{key}: {row}");
    }
    // It learns: the data is the same in every step.
    let losses = row["losses"].as_array().unwrap();
    assert_eq!(losses.len() as u64, row["steps"].as_u64().unwrap());
    let loss = |at: usize| losses[at].as_f64().unwrap();
    assert!(loss(losses.len() - 1) < loss(0), "{losses:?}");
}

#[test]
fn steps_on_the_cpu_count_what_the_plan_counts() {
    for model in MODELS {
        // One sequence; then several, in two microbatches, of more layers than a small model has.
        let one = json(&format!("--model {model} --device cpu --small --sequence 64 --steps 2 --warmup 0"));
        check(&one, model);
        assert!(one["launches"].is_null() && one["dtype"] == "f32", "{one}");
        let several = format!(
            "--model {model} --device cpu --small --layers 3 --tokens 96 --sequence 48 --microbatches 2 --steps 2"
        );
        let several = json(&several);
        check(&several, model);
        assert_eq!((number(&several, "tokens"), number(&several, "microbatches")), (96.0, 2.0));
    }
    // Random targets over a vocabulary of V words: a loss of ln V at first.
    let row = json("--model llama-1b --device cpu --small --vocabulary 1000 --steps 1 --warmup 0");
    let loss = row["losses"][0].as_f64().unwrap();
    assert!((loss - 1000f64.ln()).abs() < 0.5, "{loss}");
    assert_eq!(row["sizes"]["llm"]["vocabulary"], 1000);
}

#[test]
fn steps_on_a_replay_launch_kernels_in_bf16() {
    if let Err(message) = bigmac_gpu::replay::find_compiler() {
        assert!(std::env::var_os("CI").is_none(), "{message}");
        eprintln!("SKIPPED: no step is replayed. {message}");
        return;
    }
    for model in MODELS {
        let args =
            format!("--model {model} --device replay --small --layers 1 --tokens 32 --sequence 32 --steps 2");
        let row = json(&format!("{args} --warmup 0"));
        check(&row, model);
        assert_eq!((&row["device"], &row["dtype"]), (&"replay of kernels on the CPU".into(), &"bf16".into()));
        // Every application is a kernel at least, views aside.
        let applied = row["operators"].as_array().unwrap().iter().filter(|line| number(line, "bytes") > 0.0);
        let applied: f64 = applied.map(|line| number(line, "calls")).sum();
        assert!(number(&row, "launches") >= 0.8 * applied, "{} {applied}", row["launches"]);
    }
    // Where both gradients of the loss come from one computation, they are one line.
    let args = "--device replay --small --layers 1 --tokens 32 --steps 1 --warmup 0";
    assert_eq!(phases(&json(args), "linear cross-entropy"), ["forward", "gradients"]);
}

#[test]
fn what_is_printed_can_be_read() {
    let output = step("--model mmdit-1b --device cpu --small --steps 2 --warmup 0 --peak 1");
    let text = String::from_utf8(output.stdout).unwrap();
    for wanted in
        ["mmdit-1b", "tokens/s", "% of 1 TFLOP/s", "launches  - per step", "weight gradient", "adamw"]
    {
        assert!(text.contains(wanted), "{text} lacks {wanted}");
    }
}

#[test]
fn what_does_not_fit_is_said() {
    for (args, wanted) in [
        ("--model qwen", "'qwen' is not a valid model"),
        ("--model qwen3-30b-a3b-vit", "an LLM or of a generator alone"),
        ("--tokens 100 --sequence 64", "--tokens 100 is not a multiple of --sequence 64"),
        ("--tokens 0", "not a multiple"),
        ("--model mmdit-1b --vocabulary 7", "--vocabulary is of an LLM"),
        ("--model mmdit-1b --tokens 8 --sequence 1", "too short"),
        ("--layers 0", "llm.layers = 0, expected at least 1"),
        ("--steps 0", "a whole number above 0"),
        ("--dtype f64", "expected bf16 or f32"),
        ("--peak 0", "--peak 0"),
        ("--device gpu7", "'cuda:N'"),
        ("--device cuda:99", "cuda:99"),
    ] {
        let output = step(args);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(wanted), "{args}: {said}");
    }
}
