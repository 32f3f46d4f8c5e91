//! Schedules that are run for real, and times that spread.

use crate::work::Work;
use bigmac_close::{assert_close, relative};
use serde_json::Value;

const SCHEDULES: &str = "monolithic,phased,nested,nested-fill";

fn number(value: &Value, path: &str) -> f64 {
    value.pointer(path).and_then(Value::as_f64).unwrap_or_else(|| panic!("no number at {path} of {value}"))
}

/// Arguments that the command line itself refuses.
fn usage(work: &Work, arguments: &str, wanted: &str) {
    let ended = work.run(arguments);
    assert_eq!(ended.status.code(), Some(2), "{arguments}: {}", ended.stderr);
    assert!(ended.stderr.contains(wanted), "{arguments}: {}", ended.stderr);
}

/// More ranks than processors, with an LLM that has a layer for each.
#[test]
fn one_op_at_a_time_runs_on_any_number_of_ranks() {
    let work = Work::new();
    let ranks = 2 * std::thread::available_parallelism().map_or(1, usize::from).max(2);
    let found = work.json(&format!(
        "compare tiny.toml --measure --one-at-a-time --ranks {ranks} --rounds 2 --schedule {SCHEDULES} \
         --set model.llm.layers={ranks} --timeline all.json"
    ));
    assert_eq!((number(&found, "/ranks"), &found["one_at_a_time"]), (ranks as f64, &Value::Bool(true)));
    // They cannot all be busy at once.
    assert!(found["contention"]["factor"].is_null());
    let rows = found["schedules"].as_array().unwrap();
    assert_eq!(rows.len(), 4);
    for row in rows {
        assert!(row.get("parallel").is_none() && row.get("contended").is_none(), "{row}");
        let seconds = number(row, "/measured/seconds/median");
        assert!(seconds > 0.0 && number(row, "/simulated/seconds") > 0.0);
        let busy = row.pointer("/measured/busy").and_then(Value::as_array).unwrap();
        assert_eq!(busy.len(), ranks);
        for (rank, peaks) in row["peak_bytes"].as_array().unwrap().iter().enumerate() {
            // No rank is busy for longer than the step takes.
            assert!(number(&busy[rank], "/least") <= number(row, "/measured/seconds/most"));
            assert!(number(peaks, "/llm") > 0.0, "{row}");
        }
        assert_eq!(row["peak_bytes"].as_array().map(Vec::len), Some(ranks));
    }
    // All at once they would wait for processors: that is said.
    let ended = work.run(&format!(
        "compare tiny.toml --measure --ranks {ranks} --rounds 1 --schedule nested --set model.llm.layers={ranks} --json"
    ));
    assert!(ended.status.success() && ended.stderr.contains("--one-at-a-time"), "{}", ended.stderr);
    let ratio = |name: &str| {
        let row = rows.iter().find(|row| row["schedule"] == name).unwrap();
        number(row, "/measured/ratio/median")
    };
    assert_eq!(ratio("nested"), 1.0);
}

/// One rank: nothing to wait for, so ops one at a time add up to what the rank takes.
#[test]
fn one_at_a_time_and_in_parallel_stand_side_by_side() {
    let work = Work::new();
    let arguments = "compare tiny.toml --measure --one-at-a-time --ranks 1 --rounds 3 --schedule nested";
    let found = work.json(arguments);
    let row = &found["schedules"][0];
    let total = number(row, "/measured/busy/0/median");
    assert_close(number(row, "/measured/seconds/median"), total, relative(0.05));
    assert!(number(&found, "/contention/factor") > 0.0);
    for path in
        ["/parallel/seconds/median", "/parallel/measured_over_parallel/median", "/contended/seconds/median"]
    {
        assert!(number(row, path) > 0.0);
    }
    let text = work.ok(arguments);
    assert!(text.contains("in parallel") && text.contains("corrected"), "{text}");
    // Ops that run one at a time are for --measure, and costs that are typed are not measured.
    usage(&work, "compare tiny.toml --one-at-a-time", "--measure");
    usage(&work, "compare tiny.toml --cost F=1,B=1,W=1", "--cost");
}

#[test]
fn jitter_asks_what_a_schedule_loses_by_it() {
    let work = Work::new();
    let step = "simulate --schedule nested --ranks 4 --microbatches 8 --cost F=1,B=1,W=1,Ef=2,Eb=4";
    let plain = work.json(step);
    assert!(plain.get("jitter").is_none());
    let of = |jitter: &str| work.json(&format!("{step} --jitter {jitter}"));
    let none = of("0");
    for figure in ["median", "q1", "q3"] {
        assert_eq!(number(&none["jitter"], &format!("/{figure}")), number(&plain, "/time"));
    }
    let [small, large] = ["0.05", "0.3"].map(|sigma| number(&of(sigma)["jitter"], "/median"));
    assert!(number(&plain, "/time") < small && small < large, "{small} {large}");
    // The same draws everywhere; other ones with another seed.
    assert_eq!(of("0.1,7,20")["jitter"], of("0.1,7,20")["jitter"]);
    assert_ne!(of("0.1,7,20")["jitter"], of("0.1,8,20")["jitter"]);
    let text = work.ok(&format!("{step} --jitter 0.1"));
    assert!(text.contains("100 draws") && text.contains("nested"), "{text}");
    for (jitter, wanted) in [
        ("x", "SIGMA"),
        ("-1", "SIGMA"),
        ("nan", "SIGMA"),
        ("9", "SIGMA"),
        ("0.1,x", "SEED"),
        ("0.1,1,0", "DRAWS"),
        ("0.1,1,99999", "DRAWS"),
        ("0.1,1,2,3", "more than"),
    ] {
        usage(&work, &format!("{step} --jitter={jitter}"), wanted);
    }
    work.error("simulate --ranks 8 --microbatches 20000 --jitter 0.1,0,10000", &["too many", "fewer draws"]);
}
