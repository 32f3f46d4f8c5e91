//! Tables as text and as CSV: what is written, what is read, and what is said of files that are none.

use super::{build, workload};
use crate::check::lower;
use crate::files::{Extent, FileError, Form, fits};
use crate::registry::LLM_SCHEDULES;
use crate::{Options, Table, UniformCosts, Workload};
use std::path::Path;

const NONE: [f64; 2] = [0.0, 0.0];

#[test]
fn text_reads_as_documented() {
    let w = workload(2, 1, [1.0, 1.0, 1.0], [2.0, 4.0], [2.0, 4.0], 0.0);
    let table = lower(&build("monolithic", &w, &Options::default()), &w).unwrap();
    let text = "rank 0: E0F[0.0,0.1] L0F0 send:hidden(0,1)>1 recv:hidden_grad(0,0)<1 L0B0 E0B[0.0,0.1] step\n\
                rank 1: recv:hidden(0,1)<0 L1F0 G0F[0.0,0.1] G0B[0.0,0.1] L1B0 send:hidden_grad(0,0)>0 step\n";
    assert_eq!(table.to_string(), text);
    assert_eq!(text.parse::<Table>().unwrap(), table);
    let commented = format!("# a note\n{}", text.replace(" L0F0", "\n  L0F0 # first\n "));
    assert_eq!(commented.parse::<Table>().unwrap(), table);
}

#[test]
fn text_that_is_no_table_is_refused() {
    for text in [
        "rank 1: step",
        "step",
        "rank 0: X0F1",
        "rank 0: L0F",
        "rank 0: L0Q1",
        "rank 0: E0F[]",
        "rank 0: L0F+1",
    ] {
        assert!(text.parse::<Table>().is_err(), "{text}");
    }
    let message = "rank 0: send:hiden(0,1)>1".parse::<Table>().unwrap_err().to_string();
    assert!(message.contains("hiden(0,1)") && message.contains("hidden_grad"), "{message}");
}

#[test]
fn text_errors_name_line_and_column() {
    for (text, line, column) in [
        ("rank 0: L0F0 L0Q0 step", 1, 14),
        ("rank 0:\u{2003}L0F0 L0Q0 step", 1, 14),
        ("# \u{e4}\u{f6}\n\nrank 0:\n   L0F0\tstop # x", 4, 9),
        ("# \u{e4}\nL0F0", 2, 1),
        ("rank 0: step\n  rank 2: step", 2, 3),
        ("rank 0: send:hidden(0,1)>x", 1, 9),
    ] {
        let error = text.parse::<Table>().unwrap_err();
        assert!(error.to_string().starts_with(&format!("line {line}, column {column}: '")), "{error}");
    }
}

/// Every order, several chunks too, comes back as it was written.
#[test]
fn llm_tables_go_through_torchs_csv() {
    for v in 1..=3 {
        let w = Workload::uniform(3, v, 7, 1, UniformCosts::default(), 0.0).unwrap();
        for llm in LLM_SCHEDULES {
            let options = Options { llm, ..Options::default() };
            let alone = crate::registry::schedule("llm").unwrap();
            let table = match alone.build(&alone.workload(&w, llm), &options) {
                Err(error) if error.is_about_the_layout() => continue,
                table => table.unwrap(),
            };
            let csv = Form::Csv.write(&table).unwrap();
            assert_eq!(Form::Csv.read(&csv).unwrap(), table, "{}", llm.name());
            assert_eq!(Form::Csv.read(&csv.replace('\n', ",,\r\n")).unwrap(), table, "{}", llm.name());
        }
    }
    let w = workload(2, 2, [1.0; 3], [1.0; 2], NONE, 0.0);
    let error = Form::Csv.write(&build("nested", &w, &Options::default())).unwrap_err();
    assert!(error.to_string().contains("'E0F[0.0]'"), "{error}");
}

#[test]
fn csv_errors_name_line_and_column() {
    for (text, line, column, cell) in [
        ("0F0\n0F1, 0X1", 2, 6, "0X1"),
        ("0F0,,F1", 1, 6, "F1"),
        ("0F", 1, 1, "0F"),
        ("0F0,0R0", 1, 5, "0R0"),
        ("0F0,0FB1", 1, 5, "0FB1"),
        ("0F0,0F1x", 1, 5, "0F1x"),
        ("0SEND_G1", 1, 1, "0SEND_G1"),
        ("0SEND_F", 1, 1, "0SEND_F"),
        ("0BW", 1, 1, "0BW"),
        ("0WB1", 1, 1, "0WB1"),
        ("0F+1", 1, 1, "0F+1"),
        ("rank 0: L0F0", 1, 1, "rank 0: L0F0"),
        ("0F99999999999999999999", 1, 1, "0F99999999999999999999"),
    ] {
        let text_error = Form::Csv.read(text).unwrap_err();
        let start = format!("line {line}, column {column}: '{cell}' is not a valid action");
        assert!(text_error.to_string().starts_with(&start), "{text_error}");
    }
    assert_eq!(Form::Csv.read(" \n\n"), Err(FileError::Empty));
}

#[test]
fn files_are_read_by_their_name_and_end_with_a_step() {
    assert_eq!([Form::of(Path::new("a.csv")), Form::of(Path::new("a.CSV"))], [Form::Csv; 2]);
    assert_eq!([Form::of(Path::new("a.txt")), Form::of(Path::new("csv"))], [Form::Text; 2]);
    let with = "rank 0: L0F0 L0B0 step\nrank 1: L1F0 L1B0 step\n";
    let without = with.replace(" step", "");
    for text in [with, &without] {
        assert_eq!(Form::Text.read(text).unwrap().to_string(), with);
    }
    let csv = Form::Csv.write(&with.parse().unwrap()).unwrap();
    assert_eq!(Form::Csv.read(&csv).unwrap().to_string(), with);
    for wrong in [Form::Text.read(&csv), Form::Csv.read(with)] {
        assert!(matches!(wrong, Err(FileError::Text { line: 1, column: 1, .. })), "{wrong:?}");
    }
    // A step that only some ranks have is a mistake, left for `validate` to name.
    let some = "rank 0: L0F0 L0B0 step\nrank 1: L1F0 L1B0\n";
    assert_eq!(Form::Text.read(some).unwrap().to_string(), some);
}

#[test]
fn a_table_of_another_size_is_told_from_a_wrong_one() {
    let w = Workload::uniform(2, 2, 3, 1, UniformCosts::default(), 0.0).unwrap();
    let options = Options { llm: crate::registry::llm_schedule("gpipe").unwrap(), ..Options::default() };
    let table = build("nested", &w, &options);
    assert_eq!(Extent::of(&table), Extent { ranks: 2, chunks: 4, microbatches: 3 });
    fits(&table, &w).unwrap();
    for (p, v, n) in [(3, 2, 3), (2, 1, 3), (2, 2, 4)] {
        let other = Workload::uniform(p, v, n, 1, UniformCosts::default(), 0.0).unwrap();
        let message = fits(&table, &other).unwrap_err().to_string();
        assert!(message.contains("for 2 ranks, 4 LLM chunks and 3 microbatches"), "{message}");
        assert!(message.contains(&format!("has {p} ranks, {} LLM chunks and {n} microbatches", p * v)));
    }
}
