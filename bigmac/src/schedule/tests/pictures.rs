//! Pictures and exchange formats.

use super::{build, workload};
use crate::schedule::render::{Format, Timeline, perfetto, svg};
use crate::schedule::simulate::simulate;
use crate::schedule::{Op, Options, Table, Workload};

fn shape() -> Workload {
    workload(3, 4, [1.0; 3], [3.0, 6.0], [3.0, 3.0], 0.0)
}

fn timeline(name: &str) -> (Table, Timeline) {
    let w = shape();
    let table = build(name, &w, &Options::default());
    let timeline = Timeline::simulated(name, &table, &w, &simulate(&table, &w).unwrap());
    (table, timeline)
}

fn computes(table: &Table) -> usize {
    table.iter().filter(|(_, op)| matches!(op, Op::Compute { .. })).count()
}

/// Opening and closing tags pair up: an image viewer refuses anything else.
fn is_well_formed(xml: &str) -> bool {
    let mut open = Vec::new();
    for tag in xml.split('<').skip(1) {
        let Some((tag, _)) = tag.split_once('>') else { return false };
        let name = tag.split([' ', '/']).find(|word| !word.is_empty()).unwrap_or_default();
        if tag.starts_with('/') {
            if open.pop() != Some(name) {
                return false;
            }
        } else if !tag.ends_with('/') {
            open.push(name);
        }
    }
    open.is_empty()
}

#[test]
fn the_svg_shows_every_op_of_every_schedule() {
    let ((monolithic, first), (nested, second)) = (timeline("monolithic"), timeline("nested"));
    let picture = svg(&[first, second]);
    assert!(is_well_formed(&picture));
    assert_eq!(picture.matches("<rect class=\"bar ").count(), computes(&monolithic) + computes(&nested));
    for said in
        ["monolithic", "nested", "L2B3 · LLM chunk 2 backward · microbatch 3", "generator forward", "rank 2"]
    {
        assert!(picture.contains(said), "{said}");
    }
    assert!(!picture.contains("NaN") && !picture.contains("inf"));
}

#[test]
fn bars_lie_where_the_clock_says() {
    let (_, timeline) = timeline("monolithic");
    let end = timeline.end();
    let first = timeline.ranks[0][1].clone();
    assert_eq!((first.start, first.end), (3.0, 4.0));
    let x = 72.0 + 3.0 * (1440.0 - 72.0 - 40.0) / end;
    assert!(svg(&[timeline]).contains(&format!("<rect class=\"bar lf\" data-m=\"0\" x=\"{x:.2}\"")));
}

#[test]
fn pictures_of_nothing_are_pictures() {
    let idle =
        Timeline { title: "a<b & \"c\"".to_owned(), ranks: vec![Vec::new(); 2], ..Timeline::default() };
    for timelines in [&[][..], &[idle]] {
        assert!(is_well_formed(&svg(timelines)));
        assert!(Format::Html.draw(timelines).ends_with("</html>\n"));
    }
}

#[test]
fn the_trace_has_an_event_per_op_and_names() {
    let (table, timeline) = timeline("nested");
    let end = timeline.end();
    let trace: serde_json::Value = serde_json::from_str(&perfetto(&[timeline])).unwrap();
    let events = trace["traceEvents"].as_array().unwrap();
    let spans: Vec<_> = events.iter().filter(|event| event["ph"] == "X").collect();
    assert_eq!(spans.len(), computes(&table));
    let last = spans.iter().map(|span| span["ts"].as_f64().unwrap() + span["dur"].as_f64().unwrap());
    assert_eq!(last.fold(0.0, f64::max), end * 1e3);
    assert!(events.iter().any(|event| event["name"] == "thread_name" && event["args"]["name"] == "rank 2"));
    assert!(events.iter().any(|event| event["ph"] == "C" && event["args"]["encoder"].as_f64() > Some(0.0)));
}
