//! `bigmac simulate` as a user runs it.

use serde_json::Value;
use std::process::{Command, Output};

fn simulate(arguments: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bigmac"));
    command.arg("simulate").args(arguments.split_whitespace()).output().unwrap()
}

fn json(arguments: &str) -> Value {
    let output = simulate(&format!("{arguments} --json"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn error(arguments: &str) -> String {
    let output = simulate(arguments);
    assert!(!output.status.success() && output.stdout.is_empty());
    String::from_utf8(output.stderr).unwrap()
}

const SHAPE: &str = "--ranks 4 --microbatches 16 --cost F=1,B=1,W=1,Ef=2,Eb=4,Gf=0,Gb=0";

#[test]
fn json_is_one_object_per_schedule() {
    let nested = json(&format!("--schedule nested --llm 1f1b {SHAPE}"));
    assert_eq!((&nested["ideal"], &nested["bound"]), (&81.0.into(), &72.0.into()));
    assert!(nested["time"].as_f64() <= Some(81.0));
    assert!(nested["bubble_rate"].as_f64() < Some(0.12));
    let ranks = nested["ranks"].as_array().unwrap();
    assert_eq!(ranks.len(), 4);
    assert!(ranks.iter().all(|rank| rank["busy"] == 72.0 && rank["peak"]["encoder"].as_f64() <= Some(2.0)));
    assert_eq!(ranks[0]["peak"]["llm"], 4.0);
    let both = json(&format!("--schedule monolithic,phased {SHAPE}"));
    let times: Vec<&Value> = both.as_array().unwrap().iter().map(|one| &one["time"]).collect();
    assert_eq!(times, [&Value::from(144.0), &Value::from(81.0)]);
}

#[test]
fn without_a_schedule_it_is_the_llm_alone() {
    let llm = json(&format!("{SHAPE} --p2p 0.5"));
    assert_eq!(llm["schedule"], "llm");
    // (N + p - 1) R + c [2 (p - 1) N / p + 2 (p - 2)]
    assert_eq!(llm["time"], 57.0 + 0.5 * (24.0 + 4.0));
    assert_eq!((&llm["ideal"], &llm["bound"]), (&llm["time"], &48.0.into()));
}

#[test]
fn files_are_written_in_the_format_of_their_name() {
    let directory = tempfile::tempdir().unwrap();
    for (name, start) in [("a.svg", "<svg"), ("a.html", "<!doctype html>"), ("a.json", "{\"")] {
        let path = directory.path().join(name);
        json(&format!("--schedule monolithic,nested {SHAPE} --timeline {}", path.display()));
        assert!(std::fs::read_to_string(path).unwrap().starts_with(start), "{name}");
    }
    let path = directory.path().join("table.txt");
    json(&format!("--schedule nested {SHAPE} --table {} --lowered", path.display()));
    let table: bigmac_schedule::Table = std::fs::read_to_string(&path).unwrap().parse().unwrap();
    assert!(table.is_lowered());
    let path = directory.path().join("table.csv");
    json(&format!("{SHAPE} --table {}", path.display()));
    assert!(std::fs::read_to_string(&path).unwrap().starts_with("0F0,0F1,0F2,0F3,0B0,"));
}

#[test]
fn a_table_from_a_file_runs_as_the_schedule_that_wrote_it() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name).display().to_string();
    let (text, csv) = (file("nested.txt"), file("zb.csv"));
    let nested = json(&format!("--schedule nested {SHAPE} --table {text} --lowered"));
    let zb = json(&format!("--llm zb-h1 {SHAPE} --table {csv}"));
    for (path, written, shape) in [(&text, nested, SHAPE), (&csv, zb, &SHAPE.replace(",Ef=2,Eb=4", ""))] {
        let read = json(&format!("--from {path} {shape}"));
        assert_eq!((&read["schedule"], &read["llm"]), (&Value::from(path.as_str()), &Value::Null));
        for what in ["time", "ideal", "bubble_rate", "ranks"] {
            assert_eq!(read[what], written[what], "{what} of {path}");
        }
    }
    // With its communication too, and with chunks where the order has them, which the file alone tells.
    let both = file("dualpipe.csv");
    let shape = "--ranks 2 --microbatches 5 --chunks 2 --overlap 0.5";
    let written = json(&format!("--llm dualpipe-v {shape} --table {both} --lowered"));
    let cells = std::fs::read_to_string(&both).unwrap();
    assert!(cells.contains(",(0F3;3B1)OVERLAP_F_B,") && cells.contains(",3SEND_B1,"), "{cells}");
    let read = json(&format!("--from {both} {shape}"));
    for what in ["time", "bound", "bubble_rate", "ranks"] {
        assert_eq!(read[what], written[what], "{what}");
    }
    // Anybody's table: two ranks, nothing but compute.
    let torch = file("torch.csv");
    std::fs::write(&torch, "0F0,0F1,,0I0,0W0,0B1\r\n,1F0,1I0,1F1,1B1,1W0\r\n").unwrap();
    let read = json(&format!("--from {torch} --ranks 2 --microbatches 2 --cost F=1,B=1,W=1"));
    assert_eq!(read["time"], 8.0);
}

#[test]
fn a_file_that_does_not_fit_is_told_why() {
    let directory = tempfile::tempdir().unwrap();
    let from = |name: &str, content: &str, arguments: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, content).unwrap();
        let message = error(&format!("--from {} --ranks 2 {arguments}", path.display()));
        message.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let one = "--microbatches 1";
    let good = "rank 0: L0F0 L0B0\nrank 1: L1F0 L1B0\n";
    assert!(from("a.csv", "0F0,0B0\n1F0,0Z0", one).contains("line 2, column 5: '0Z0' is not a valid action"));
    assert!(
        from("a.txt", &good.replace("L1F0", "L1X0"), one)
            .contains("line 2, column 9: 'L1X0' is not a valid op")
    );
    let misfit = from("a.txt", good, "--microbatches 4");
    assert!(misfit.contains(
        "for 2 ranks, 2 LLM chunks and 1 microbatches, but the step has 2 ranks, 2 LLM chunks and 4"
    ));
    assert!(from("a.txt", &good.replace("L1F0 L1B0", "L1B0 L1F0"), one).contains("needs L1F0"));
    assert!(
        from("a.txt", good, &format!("{one} --cost F=1,B=1,W=1,Ef=1"))
            .contains("E0 on item 0.0 has no forward")
    );
    assert!(from("a.txt", good, "--schedule nested").contains("cannot be used with"));
    assert!(error("--from nowhere.txt").contains("could not read nowhere.txt"));
}

#[test]
fn errors_say_what_to_do() {
    assert!(
        error("--schedule nestd").contains("did you mean 'nested'?); expected one of: llm, monolithic, ")
    );
    assert!(error("--llm zb").contains("'zb' is not a valid LLM schedule"));
    assert!(error("--llm zb-v").contains("runs 2 LLM chunks per rank"));
    assert!(error("--overlap 1.5").contains("must be a number from 0 to 1"));
    assert!(error("--timeline a.png").contains("'a.png' does not say how to draw"));
    assert!(error("--cost F=1,B=1").contains("W is missing"));
    assert!(error("--cost F=1,B=1,W=1,X=2").contains("'X' is not a valid cost; expected F, B, W"));
    assert!(error("--ranks 0 --items 1").contains("the number of ranks is 0: it must be at least 1"));
    assert!(error("--chunks 2").contains("'1f1b' runs 1 LLM chunk per rank, but the workload has 2"));
    assert!(error("--schedule monolithic,nested --table t").contains("holds one schedule"));
    assert!(
        error(&format!("--schedule phased {SHAPE} --budget encoder=2mb")).contains("peak at 4mb on rank 0")
    );
    assert!(error(&format!("--schedule nested {SHAPE} --budget encoder=1GiB")).contains("is not known"));
    assert!(error(&format!("--schedule nested {SHAPE} --group 0")).contains("at least 1"));
    json(&format!("--schedule nested {SHAPE} --budget encoder=1GiB --saved encoder=512MiB"));
}
