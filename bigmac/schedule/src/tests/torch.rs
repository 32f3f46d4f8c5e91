//! Tables as torch.distributed.pipelining writes them, in both of its forms and conventions.

use crate::check::{lower, validate};
use crate::clock::memory::peak_microbatches;
use crate::clock::{simulate, work_bound};
use crate::files::{Form, placement_of};
use crate::render::{Format, Timeline, html, svg};
use crate::{Chunk, ChunkPlacement, Limits, Rank, Table, UniformCosts, Workload};
use std::path::PathBuf;

const UNIT: UniformCosts = UniformCosts {
    backward: None,
    forward: 1.0,
    backward_input: 1.0,
    backward_weight: 1.0,
    encoder_forward: 0.0,
    encoder_backward: 0.0,
    generator_forward: 0.0,
    generator_backward: 0.0,
};

fn llm(p: usize, v: usize, n: usize) -> Workload {
    Workload::uniform(p, v, n, 1, UNIT, 0.0).unwrap()
}

fn read(csv: &str) -> Table {
    Form::Csv.read(csv).unwrap()
}

/// A table of PyTorch's own tests of pipelining; `None` where they are not beside this repository.
pub(super) fn artifact(name: &str) -> Option<String> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/cases/torch-csv").join(name);
    let text = std::fs::read_to_string(&path).ok();
    if text.is_none() {
        eprintln!("skipped: {} is not there", path.display());
    }
    text
}

/// Two stages per rank, idle cells, both kinds of backward: as torch writes its zero-bubble schedules.
#[test]
fn compute_cells_are_read() {
    let csv = "0F0,0F1,2F0,,2F1,2I0,2W0,2B1,0I0,0W0,0B1\r\n,1F0,1F1,3F0,3I0,3F1,3I1,3W0,1B0,3W1,1B1\r\n";
    let table = read(csv);
    assert_eq!(
        table.to_string(),
        "rank 0: L0F0 L0F1 L2F0 L2F1 L2I0 L2W0 L2B1 L0I0 L0W0 L0B1 step\n\
         rank 1: L1F0 L1F1 L3F0 L3I0 L3F1 L3I1 L3W0 L1B0 L3W1 L1B1 step\n"
    );
    validate(&table, &llm(2, 2, 2), &Limits::default()).unwrap();
}

/// Older tables call the whole backward BW and the input gradient B; a B without a W is whole in both conventions.
#[test]
fn a_b_beside_a_w_is_the_input_gradient() {
    let table = read("0F0,0F1,0F2,0B0,0BW1,0W0,0B2\n");
    assert_eq!(table.to_string(), "rank 0: L0F0 L0F1 L0F2 L0I0 L0B1 L0W0 L0B2 step\n");
    validate(&table, &llm(1, 1, 3), &Limits::default()).unwrap();
    // What is too much is still found, under the name that says what it is.
    for (csv, fault) in [
        ("0F0,0BW0,0W0", "L0W0 (op 2 of rank 0) is needless: the unit's whole backward"),
        ("0F0,0BW0,0B0", "L0B0 (op 2 of rank 0) repeats the work of L0B0 (op 1 of rank 0)"),
        ("0F0,0I0,0W0,0B0", "L0B0 (op 3 of rank 0) is needless: the unit has an input gradient"),
        ("0F0,0BW0,0B0,0W0", "L0B0 (op 1 of rank 0) is needless: the unit has an input gradient"),
    ] {
        let error = validate(&read(csv), &llm(1, 1, 1), &Limits::default()).unwrap_err().to_string();
        assert!(error.starts_with(fault), "{csv}: {error}");
    }
}

#[test]
fn communication_is_read_checked_and_written() {
    let csv = "0F0,0SEND_F0,0RECV_B0,0B0\n1RECV_F0,1F0,1B0,1SEND_B0\n";
    let table = read(csv);
    assert_eq!(
        table.to_string(),
        "rank 0: L0F0 send:hidden(0,1)>1 recv:hidden_grad(0,0)<1 L0B0 step\n\
         rank 1: recv:hidden(0,1)<0 L1F0 L1B0 send:hidden_grad(0,0)>0 step\n"
    );
    assert_eq!(Form::Csv.write(&table).unwrap(), csv);
    let w = llm(2, 1, 1);
    validate(&table, &w, &Limits::default()).unwrap();
    assert_eq!(table, lower(&read("0F0,0B0\n1F0,1B0\n"), &w).unwrap());
    // Parameters are neither sharded nor reduced before the step.
    let around = "0UNSHARD,0F0,0SEND_F0,0RECV_B0,0B0,0REDUCE_GRAD,0RESHARD\n1RECV_F0,1F0,1B0,1SEND_B0\n\n";
    assert_eq!(read(around), table);
    for (cells, fault) in [
        (csv.replace(",0SEND_F0", ""), "hidden(0,1) is made on rank 0 and read on rank 1, but never sent"),
        (csv.replace("1RECV_F0,1F0", "1F0,1RECV_F0"), "received after it is read"),
        (csv.replace("0RECV_B0,0B0", "0RECV_B0,0B0,0SEND_F0"), "moves it again"),
        (csv.replace("1B0,1SEND_B0", "1SEND_B0,1B0"), "sent before it is made"),
        (csv.replace("0F0,0SEND_F0,0RECV_B0", "0F0,0RECV_B0,0SEND_F0"), "deadlock"),
    ] {
        let error = validate(&read(&cells), &w, &Limits::default()).unwrap_err().to_string();
        assert!(error.contains(fault), "{cells}: {error}");
    }
}

#[test]
fn communication_with_nobody_is_refused() {
    for (csv, message) in [
        ("0F0,0SEND_F0", "line 1, column 5: '0SEND_F0' communicates with stage 1, which no row computes"),
        ("1F0\n0SEND_B0", "line 2, column 1: '0SEND_B0' communicates before the first stage"),
        ("0RECV_F0", "line 1, column 1: '0RECV_F0' communicates before the first stage"),
        ("0F0,18446744073709551615RECV_B0", "names a stage that is too large"),
        ("0F0\n1F0,0UNSHARD", "line 2, column 5: '0UNSHARD' moves parameters of stage 0"),
        ("0F0,7REDUCE_GRAD", "line 1, column 5: '7REDUCE_GRAD' moves parameters of stage 7"),
    ] {
        let error = Form::Csv.read(csv).unwrap_err().to_string();
        assert!(error.contains(message), "{csv}: {error}");
    }
    let far = read("0F18446744073709551615");
    assert!(crate::files::fits(&far, &llm(1, 1, 1)).is_err());
}

/// Both forms of a zero-bubble table: 2 ranks, 2 stages each, 8 microbatches.
#[test]
fn torchs_zero_bubble_tables_run() {
    let w = llm(2, 2, 8);
    for name in ["zb1p_2rank_2stagep_compute.csv", "zb1p_2rank_2stagep_comms.csv"] {
        let Some(csv) = artifact(name) else { return };
        let table = read(&csv);
        validate(&table, &w, &Limits::default()).unwrap();
        let time = simulate(&table, &w).unwrap().time();
        assert_eq!(table.is_lowered(), name.contains("comms"));
        // Every rank computes for 8 x 3; the second starts after a chunk's forward and ends last.
        assert!((24.0..27.0).contains(&time), "{name}: {time}");
        let again = read(&Form::Csv.write(&table).unwrap());
        assert_eq!(again, table, "{name}");
    }
}

/// A table whose last stage is on the first rank says so itself.
#[test]
fn a_v_is_known_by_where_its_stages_are() {
    let csv = "0F0,3F0,3I0,3W0,0I0,0W0\n1F0,2F0,2I0,2W0,1I0,1W0\n";
    let table = read(csv);
    assert_eq!(placement_of(&table), ChunkPlacement::V);
    for (p2p, time) in [(0.0, 5.0), (1.0, 9.0)] {
        let w = Workload::uniform(2, 2, 1, 1, UNIT, p2p).unwrap().with_placement(ChunkPlacement::V);
        validate(&table, &w, &Limits::default()).unwrap();
        // Between stages 1 and 2, which are both on rank 1, nothing crosses.
        assert_eq!(simulate(&table, &w).unwrap().time(), time);
        let lowered = lower(&table, &w).unwrap();
        let words = lowered.to_string();
        assert!(!words.contains("hidden(0,2)") && !words.contains("hidden_grad(0,1)"), "{words}");
        assert_eq!(read(&Form::Csv.write(&lowered).unwrap()), lowered);
        validate(&lowered, &w, &Limits::default()).unwrap();
    }
    let text = table.to_string();
    assert_eq!(placement_of(&text.parse().unwrap()), ChunkPlacement::V);
    assert_eq!(placement_of(&read("0F0,2F0\n1F0,3F0")), ChunkPlacement::Loop);
    // One chunk per rank is both.
    assert_eq!(placement_of(&read("0F0\n1F0")), ChunkPlacement::Loop);
    let odd = read(&csv.replace("2W0,1I0", "2W0,0W0,1I0"));
    let w = llm(2, 2, 1).with_placement(placement_of(&odd));
    let error = validate(&odd, &w, &Limits::default()).unwrap_err().to_string();
    assert_eq!(error, "L0W0 (op 4 of rank 1) is on the wrong rank: its weights are on rank 0");
}

#[test]
fn a_v_goes_there_and_back() {
    let homes = |placement: ChunkPlacement, p, count: usize| -> Vec<usize> {
        (0..count).map(|chunk| placement.rank_of(Chunk(chunk), p).0).collect()
    };
    assert_eq!(homes(ChunkPlacement::V, 3, 9), [0, 1, 2, 2, 1, 0, 0, 1, 2]);
    assert_eq!(homes(ChunkPlacement::Loop, 3, 9), [0, 1, 2, 0, 1, 2, 0, 1, 2]);
    assert_eq!(homes(ChunkPlacement::V, 1, 3), [0, 0, 0]);
    let w = llm(3, 2, 1).with_placement(ChunkPlacement::V);
    assert_eq!((w.rank_of(Chunk(0)), w.rank_of(w.last_chunk())), (Rank(0), Rank(0)));
}

const OVERLAPPED: &str = "0F0,0F1,(0F2;0B0)OVERLAP_F_B,0B1,0B2\n1F0,1B0,1F1,1B1,1F2,1B2\n";

#[test]
fn overlapped_cells_are_read_and_written() {
    let table = read(OVERLAPPED);
    let text = "rank 0: L0F0 L0F1 (L0F2;L0B0) L0B1 L0B2 step\nrank 1: L1F0 L1B0 L1F1 L1B1 L1F2 L1B2 step\n";
    assert_eq!(table.to_string(), text);
    assert_eq!(text.parse::<Table>().unwrap(), table);
    assert_eq!(Form::Csv.write(&table).unwrap(), OVERLAPPED);
    assert_eq!(read(&OVERLAPPED.replace("(0F2;0B0)", "(0B0; 0F2)")), table);
    // The backward's other half elsewhere makes it the input gradient.
    let split = read(&OVERLAPPED.replace("0B1,0B2", "0B1,0W0,0B2"));
    assert!(split.to_string().contains("(L0F2;L0I0) L0B1 L0W0"), "{split}");
    for cell in
        ["(0F2;0W0)OVERLAP_F_B", "(0F2)OVERLAP_F_B", "(0F2;0F3)OVERLAP_F_B", "(0F2;0B0)", "()OVERLAP_F_B"]
    {
        let error =
            Form::Csv.read(&OVERLAPPED.replace("(0F2;0B0)OVERLAP_F_B", cell)).unwrap_err().to_string();
        assert!(error.starts_with(&format!("line 1, column 9: '{cell}' is not a valid action")), "{error}");
    }
    for word in ["(L0F2;L0W0)", "(L0B0;L0F2)", "(L0F2)", "(L0F2;E0B[0.0,0.1])", "(step;L0B0)"] {
        assert!(text.replace("(L0F2;L0B0)", word).parse::<Table>().is_err(), "{word}");
    }
}

/// Both start once both can, and what both make is there at the end.
#[test]
fn an_overlap_takes_from_the_longer_to_both() {
    let table = read(OVERLAPPED);
    let w = llm(2, 1, 3);
    validate(&table, &w, &Limits::default()).unwrap();
    // F 1, B 2: rank 0 idles until rank 1's first gradient at 4, and rank 1 until the third forward.
    for (overlap, end) in [(0.0, 7.0), (0.5, 6.5), (1.0, 6.0)] {
        let w = w.clone().with_overlap(overlap).unwrap();
        let simulation = simulate(&table, &w).unwrap();
        assert_eq!((simulation.spans[0][2].start, simulation.spans[0][2].end), (4.0, end));
        // Rank 1's third forward reads what the overlap makes.
        assert_eq!(simulation.spans[1][4].start, 7.0f64.max(end));
        let lowered = lower(&table, &w).unwrap();
        validate(&lowered, &w, &Limits::default()).unwrap();
        assert_eq!(simulate(&lowered, &w).unwrap().time(), simulation.time());
        assert!(simulation.time() >= work_bound(&w));
    }
    assert_eq!(work_bound(&w.clone().with_overlap(1.0).unwrap()), 6.0);
    for wrong in [-0.1, 1.1, f64::NAN] {
        assert!(w.clone().with_overlap(wrong).unwrap_err().to_string().contains("from 0 to 1"));
    }
    // In the overlap the new microbatch is live beside the one that it frees.
    assert_eq!(peak_microbatches(&table, &w).iter().map(|peak| peak.llm).collect::<Vec<_>>(), [3.0, 1.0]);
    let apart = table.clone().without_overlaps();
    assert!(apart.to_string().contains("L0F1 L0F2 L0B0 L0B1"), "{apart}");
    validate(&apart, &w, &Limits::default()).unwrap();
    assert_eq!(peak_microbatches(&apart, &w), peak_microbatches(&table, &w));
}

/// Both halves are to be seen, one above the other, in one bar of a trace.
#[test]
fn pictures_show_both_halves() {
    let (table, w) = (read(OVERLAPPED), llm(2, 1, 3));
    let timeline = Timeline::simulated("overlapped", &table, &w, &simulate(&table, &w).unwrap());
    let words = "LLM chunk 0 forward at once with LLM chunk 0 backward · microbatches 2, 0";
    let picture = svg(std::slice::from_ref(&timeline));
    assert_eq!(picture.matches("<rect class=\"bar ").count(), 12);
    assert_eq!(picture.matches(words).count(), 2);
    let halves = picture.lines().filter(|line| line.contains(words));
    let halves: Vec<bool> = halves.map(|line| line.contains("height=\"13\"")).collect();
    assert_eq!(halves, [true, true]);
    let page = html(std::slice::from_ref(&timeline));
    let both = "[\"LLM chunk 0 forward at once with LLM chunk 0 backward\",0,1]";
    assert!(page.contains(both) && page.contains("[\"LLM chunk 0 forward\",0,null]"), "{page}");
    let trace = Format::Perfetto.draw(&[timeline]);
    assert!(trace.contains("\"name\":\"(L0F2;L0B0)\"") && trace.contains(words));
}

#[test]
fn overlaps_that_cannot_be_are_told_why() {
    let w = llm(2, 1, 3);
    for (pair, fault) in [
        ("(L0F2;L0B2) L0B0", "needs (L0F2;L0B2) (op 2 of rank 0) before it on the same rank"),
        ("(L0F2;L0B1)", "repeats the work of (L0F2;L0B1) (op 2 of rank 0)"),
        ("(L0F2;E0B[0.0])", "makes no sense: only chunks of the LLM overlap"),
    ] {
        let text = read(OVERLAPPED).to_string();
        let text = text.replace("(L0F2;L0B0)", pair).replace("L0B0 L0B1 L0B2", "L0B0 L0B1");
        let error = validate(&text.parse().unwrap(), &w, &Limits::default()).unwrap_err().to_string();
        assert!(error.contains(fault), "{pair}: {error}");
    }
    // Rank 1 makes the gradient of microbatch 0 only after it has read the forward of 1, which waits for it.
    let circle = "0F0,(0F1;0B0)OVERLAP_F_B,0B1\n1F0,1F1,1B0,1B1\n";
    let error = validate(&read(circle), &llm(2, 1, 2), &Limits::default()).unwrap_err().to_string();
    assert!(error.contains("cannot go on") && error.contains("(L0F1;L0B0)"), "{error}");
    // One after the other they can run.
    validate(&read(circle).without_overlaps(), &llm(2, 1, 2), &Limits::default()).unwrap();
}

/// PyTorch's DualPipeV: 4 ranks, 8 stages, 10 microbatches.
#[test]
fn torchs_dualpipe_v_table_runs() {
    let Some(csv) = artifact("dualpipev_4rank_10mb.csv") else { return };
    let table = read(&csv);
    let w = llm(4, 2, 10).with_placement(placement_of(&table));
    assert_eq!(w.placement(), ChunkPlacement::V);
    validate(&table, &w, &Limits::default()).unwrap();
    let lowered = lower(&table, &w).unwrap();
    validate(&lowered, &w, &Limits::default()).unwrap();
    for table in [&table, &lowered] {
        assert_eq!(read(&Form::Csv.write(table).unwrap()), *table);
        assert_eq!(&table.to_string().parse::<Table>().unwrap(), table);
    }
    assert_eq!(Form::Csv.write(&table).unwrap(), csv.replace('\r', ""));
}
