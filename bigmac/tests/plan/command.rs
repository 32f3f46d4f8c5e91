//! `bigmac plan` as a user runs it.

use bigmac::config;
use bigmac_close::{absolute, assert_close};
use bigmac_schedule::registry;
use serde_json::Value;
use std::io::Write;
use std::process::{Command, Output};

fn plan(arguments: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bigmac"));
    command.arg("plan").args(arguments.split_whitespace()).output().unwrap()
}

fn text(arguments: &str) -> String {
    let output = plan(arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn json(arguments: &str) -> Value {
    serde_json::from_str(&text(&format!("{arguments} --json"))).unwrap()
}

fn error(arguments: &str) -> String {
    let output = plan(arguments);
    assert!(!output.status.success() && output.stdout.is_empty(), "{arguments}");
    String::from_utf8(output.stderr).unwrap()
}

/// A file that ends in .toml.
fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

/// A small dense model that this runtime has.
const SMALL: &str = r#"summary = "small"
sequence = 256
images = 2
drawings = 1
[bytes]
value = 4
[encoder]
width = 48
layers = 2
heads = 4
mlp = 96
patch = 8
image_size = 32
[llm]
width = 64
layers = 4
heads = 4
kv_heads = 2
head_dim = 16
vocabulary = 300
mlp = 128
[generator]
layers = 2
heads = 2
head_dim = 16
channels = 48
latents = 64
text = 20
"#;

#[test]
fn plans_come_fastest_first_with_what_they_take() {
    let all = json("--devices 32 --batch 128 --ranks 8 --top 3");
    let plans = all["plans"].as_array().unwrap();
    assert!(plans.len() >= 2);
    let time = |plan: &Value| plan["time"].as_f64().unwrap();
    assert!(plans.windows(2).all(|pair| time(&pair[0]) <= time(&pair[1])));
    for plan in plans {
        let memory = plan["memory"].as_array().unwrap();
        assert_eq!(memory.len() as u64, plan["ranks"].as_u64().unwrap());
        assert!(memory.iter().all(|rank| rank["total"].as_f64() <= all["memory"].as_f64()));
        let mfu = plan["mfu"].as_f64().unwrap();
        assert!(mfu > 0.0 && mfu < 1.0);
    }
    assert_eq!(all["parameters"]["llm"], 30_532_122_624u64);
}

#[test]
fn the_printed_configuration_is_one() {
    let model = file(SMALL);
    let all = json(&format!("--model {} --devices 4 --batch 8 --ranks 2", model.path().display()));
    let best = &all["plans"][0];
    let written = file(best["config"].as_str().unwrap());
    let config = config::read(Some(written.path()), &[]).unwrap();
    assert_eq!(config.pipeline.schedule, best["schedule"]);
    assert_eq!(config.pipeline.ranks as u64, best["ranks"]);
    assert_eq!((config.train.batch, config.train.tokens_per_microbatch), (4, 256));
    assert_eq!(
        (config.model.llm.width, config.model.encoder.mlp, config.model.generator.layers),
        (64, 96, 2)
    );
    assert_eq!((config.model.generator.image_size, config.model.generator.patch), (32, 4));
    // What people read ends with the same.
    let read = text(&format!("--model {} --devices 4 --batch 8 --ranks 2", model.path().display()));
    assert!(read.ends_with(best["config"].as_str().unwrap()), "{read}");
}

/// A profile of [`SMALL`]: every phase of a unit takes `fixed` seconds and `per_gop` more for a billion operations of
/// its forward.
fn profile(units: &[(&str, usize, &str, f64, f64)]) -> String {
    let spread = |seconds: f64| {
        format!("{{ median = {seconds:e}, lower = 0.0, upper = 1.0, least = 0.0, most = 1.0 }}")
    };
    let mut text = format!(
        "[taken]\ndate = ''\nversion = ''\nprocessor = ''\nprocessors = 1\nranks = 2\nthreads = 1\nchunks = 1\n\
         schedules = []\nsteps = 1\nrounds = 1\n[around]\nhidden_bytes = 1000\nlatency = {}\nhidden = {}\n\
         reduce = {}\noptimizer = {}\n[model.encoder]\nwidth = 48\nlayers = 2\nheads = 4\nmlp = 96\npatch = 8\n\
         image_size = 32\n[model.llm]\nwidth = 64\nlayers = 4\nheads = 4\nkv_heads = 2\nhead_dim = 16\nmlp = 128\n\
         [model.generator]\nlayers = 2\nheads = 2\nhead_dim = 16\n",
        spread(0.0),
        spread(0.0),
        spread(0.25),
        spread(0.5)
    );
    for (module, chunk, phase, fixed, per_gop) in units {
        text += &format!(
            "[[unit]]\nmodule = '{module}'\nchunk = {chunk}\nphase = '{phase}'\ncount = 1\ngop = 1.0\nfixed = {fixed:e}\n\
             per_gop = {per_gop:e}\nseconds = {}\n",
            spread(1.0)
        );
    }
    text
}

#[test]
fn a_profile_gives_the_times() {
    let phases = ["forward", "backward-input", "backward-weight"];
    let llm = |chunk| phases.map(|phase| ("llm", chunk, phase, 1.0 + chunk as f64, 0.0));
    let items = ["encoder", "generator"];
    let items = items.map(|module| ["forward", "backward"].map(|phase| (module, 0, phase, 0.0, 0.0)));
    let units: Vec<_> = items.into_iter().flatten().chain(llm(0)).chain(llm(1)).collect();
    let (model, measured) = (file(SMALL), file(&profile(&units)));
    let given = format!("--model {} --ranks 2 --devices 2 --chunks 1", model.path().display());
    let ours =
        format!("{given} --batch 4 --schedule nested --llm 1f1b --profile {}", measured.path().display());
    let plan = &json(&ours)["plans"][0];
    // Stages of 3 and 6 seconds, items for nothing: the first forward, four pairs on the second stage, the last
    // backward.
    assert_eq!(plan["seconds"]["pipeline"], 1.0 + 4.0 * 6.0 + 2.0);
    assert_eq!((&plan["seconds"]["reduction"], &plan["seconds"]["update"]), (&0.25.into(), &0.5.into()));
    // Without times of the generator, or for another model, there is no plan.
    let few = file(&profile(&units.iter().copied().filter(|unit| unit.0 != "generator").collect::<Vec<_>>()));
    let said = error(&format!("{given} --profile {}", few.path().display()));
    assert!(said.contains("no times of the generator's forward"), "{said}");
    let other = file(&SMALL.replace("mlp = 128", "mlp = 130"));
    let said = error(&format!("--model {} --profile {}", other.path().display(), measured.path().display()));
    assert!(said.contains("llm.mlp = 130, expected 128"), "{said}");
}

#[test]
fn the_paper_is_redone_for_both_models() {
    let tables = json("--paper --devices 16 --batch 32");
    let tables = tables.as_array().unwrap();
    assert_eq!(tables.len(), 2);
    for table in tables {
        let lines = table["schedules"].as_array().unwrap();
        let line = |name: &str| lines.iter().find(|line| line["schedule"] == name).unwrap();
        assert_eq!(lines.len(), registry::SCHEDULES.iter().filter(|schedule| schedule.is_whole()).count());
        let cost =
            |name: &str| line(name)["pipeline"].as_f64().unwrap() * line(name)["devices"].as_f64().unwrap();
        for name in ["monolithic", "disaggregated", "phased"] {
            let ratio = line(name)["nested_speedup"].as_f64().unwrap();
            assert_close(ratio, cost(name) / cost("nested"), absolute(1e-12));
            assert!(ratio >= 1.0, "{name} {ratio}");
        }
        assert!(line("disaggregated")["devices"].as_u64() > Some(16));
        assert!(line("nested")["activations"].as_u64() < line("phased")["activations"].as_u64());
    }
    // The generator's 20.4 billion weights and gradients are split over eight devices: 15 GB on each instead of 122.
    let nested = |table: &Value| {
        let lines = table["schedules"].as_array().unwrap();
        lines.iter().find(|line| line["schedule"] == "nested").unwrap()["memory"].as_f64().unwrap()
    };
    assert!(nested(&tables[1]) < 220e9, "{}", nested(&tables[1]));
    let read = text("--paper --devices 16 --batch 32 --model qwen3-30b-a3b-vit");
    assert!(read.contains("nested-fill over the others") && read.contains("1.08x to 1.9x"), "{read}");
}

#[test]
fn wrong_descriptions_say_where() {
    let cases = [
        (SMALL.replace("width = 64", "width = "), ":15:9: "),
        (SMALL.replace("kv_heads = 2", "kv_haeds = 2"), ":18:1: unknown field `kv_haeds`"),
        (SMALL.replace("kv_heads = 2", "kv_haeds = 2"), "did you mean 'kv_heads'?"),
        (SMALL.replace("sequence = 256", "sequence = -1"), ":2:12: "),
        (SMALL.replace("mlp = 128", "mlp = 0"), "llm.mlp = 0"),
        (
            SMALL.replace("kv_heads = 2", "kv_heads = 3"),
            "llm.kv_heads = 3, expected a divisor of llm.heads = 4",
        ),
        (SMALL.replace("images = 2", "images = 99"), "images = 99"),
        (SMALL.replace("mlp = 128", "mlp = 99999999999"), "llm.mlp = 99999999999, expected at most 10000000"),
        (
            SMALL.replace("layers = 4\nheads = 4\nkv", "layers = 9999999\nheads = 9999998\nkv"),
            "parameters, expected at most 1e15: smaller sizes",
        ),
        (SMALL.replace("images = 2", "images = []"), "images = []"),
        (
            SMALL.replace("patch = 8", "patch = 9"),
            "encoder.patch = 9, expected a divisor of encoder.image_size = 32",
        ),
    ];
    for (text, wanted) in cases {
        let model = file(&text);
        let said = error(&format!("--model {} --devices 2", model.path().display()));
        assert!(said.contains(wanted) && said.lines().count() == 1, "{said} lacks {wanted}");
    }
    for (from, to, wanted) in [
        ("peak = 989.4e12", "peak = nan", "peak = NaN"),
        ("memory = 85.9e9", "memory = -1.0", "memory = -1"),
        ("dense = 0.70", "dense = 1.5", "efficiency.dense = 1.5, expected a share above 0, at most 1"),
        ("reserved = 6e9", "reserved = 9e12", "less than memory"),
    ] {
        let shipped = std::fs::read_to_string(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../configs/plan/devices/h100.toml"
        ));
        let device = file(&shipped.unwrap().replace(from, to));
        let said = error(&format!("--device {}", device.path().display()));
        assert!(said.contains(wanted), "{said} lacks {wanted}");
    }
}

#[test]
fn impossible_requests_say_what_would_do() {
    for (arguments, wanted) in [
        ("--model qwen3-30b-a3b-vitt", "did you mean 'qwen3-30b-a3b-vit'?"),
        ("--device h10", "did you mean 'h100'?"),
        ("--schedule nestd", "did you mean 'nested'?"),
        ("--schedule llm", "leaves encoder and generator out"),
        ("--model none.toml", "none.toml"),
        ("--devices 0", "devices = 0, expected at least 1"),
        ("--chunks 0", "chunks = 0, expected at least 1"),
        ("--devices 8 --ranks 3 --schedule nested", "3 ranks do not divide 8 devices"),
        (
            "--devices 8 --ranks 2 --batch 7 --schedule nested",
            "a batch of 7 does not divide over the 4 replicas",
        ),
        ("--devices 32 --ranks 8 --schedule nested-fill --budget encoder=0.01mb", "needs at least"),
        ("--devices 32 --budget encoder=2", "expected a number and its unit"),
        ("--paper --devices 12", "8 ranks do not divide 12 devices"),
        ("--devices 64 --ranks 32 --chunks 2", "48 layers cannot be cut into 32 x 2 chunks"),
        ("--devices 4", "the least that any of"),
        ("--images 40", "images = 40"),
        ("--drawings 9", "drawings = 9, expected 0 without [generator]"),
        ("--devices 99999999999", "devices = 99999999999, expected at most 10000000"),
        ("--sequence 9999999 --batch 9999999 --devices 1", "batch = 9999999, expected at most 1000000"),
        (
            "--model mmdit-1b --schedule nested",
            "--schedule nested needs an [llm] to cut into pipeline stages",
        ),
        ("--model mmdit-1b --llm 1f1b", "leave --llm out"),
        ("--model mmdit-1b --ranks 2", "ranks = 2, expected 1 for a model without an [llm]"),
        ("--model mmdit-1b --sequence 4096", "sequence = 4096, expected none without an [llm]"),
        ("--model mmdit-1b --budget generator=1mb", "budget = generator=1mb, expected none"),
        ("--model mmdit-1b --paper", "a schedule needs an [llm]"),
        (
            "--model qwen3-30b-a3b-vit-mmdit --drawings 99999999999",
            "drawings = 99999999999, expected at most 10000000",
        ),
    ] {
        let said = error(arguments);
        assert!(said.contains(wanted) && said.lines().count() == 1, "{said} lacks {wanted}");
    }
}

#[test]
fn a_model_without_an_llm_is_planned_as_replicas() {
    let all = json("--model mmdit-1b --device h200 --devices 8 --batch 16");
    let best = &all["plans"][0];
    assert_eq!((&all["parameters"]["llm"], &all["sequence"]), (&0.into(), &Value::Null));
    assert_eq!(
        (&best["schedule"], &best["llm"], &best["config"]),
        (&Value::Null, &Value::Null, &Value::Null)
    );
    assert_eq!(
        (&best["ranks"], &best["replicas"], &best["bubble_rate"]),
        (&1.into(), &8.into(), &0.0.into())
    );
    let number = |key: &str| best[key].as_f64().unwrap();
    assert!(number("mfu") > 0.3 && number("mfu") < 0.8, "{best}");
    assert_close(number("tokens_per_second") * number("time") / (16.0 * 8192.0), 1.0, absolute(1e-12));
    let memory = best["memory"][0]["total"].as_f64().unwrap();
    assert!(memory > 6.0 * 1.04e9 && memory < all["memory"].as_f64().unwrap(), "{memory}");
    let read = text("--model mmdit-1b --device h200 --devices 8 --batch 16");
    for wanted in
        ["generator 1.0B", "batch 16 of 2 drawings", "no pipeline to schedule", "batch/s", "no configuration"]
    {
        assert!(read.contains(wanted), "{read} lacks {wanted}");
    }
}

#[test]
fn the_models_of_a_billion_parameters_are_planned_on_one_device() {
    for model in ["qwen3-1.7b", "llama-1b"] {
        let all = json(&format!("--model {model} --device h200 --devices 1 --batch 2 --top 1"));
        let mfu = all["plans"][0]["mfu"].as_f64().unwrap();
        assert!(mfu > 0.3 && mfu < 0.7, "{model}: {mfu}");
    }
}
