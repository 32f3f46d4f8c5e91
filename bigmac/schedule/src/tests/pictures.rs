//! Pictures of what ran when.

use super::{build, workload};
use crate::clock::memory::peak_bytes;
use crate::clock::simulate;
use crate::render::{Format, MemoryUnit, TimeUnit, Timeline, Trace, html, perfetto, svg};
use crate::{ItemSize, MicrobatchSizes, ModuleKind, Op, Options, PerModule, Phase, Table, Workload};
use bigmac_close::{absolute, assert_close};
use std::slice::from_ref;

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
fn the_note_says_what_the_simulation_says() {
    for name in ["nested", "monolithic", "recompute"] {
        let w = shape();
        let table = build(name, &w, &Options::default());
        let simulation = simulate(&table, &w).unwrap();
        let wanted = format!(
            "time {} · bubble {:.1} % · ranks compute {:.0} % of the time",
            simulation.time(),
            100.0 * simulation.bubble_rate(),
            100.0 * simulation.utilization()
        );
        assert_eq!(Timeline::simulated(name, &table, &w, &simulation).note, wanted);
    }
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

/// The data that a page draws.
fn data_of(page: &str) -> serde_json::Value {
    let (_, rest) = page.split_once("<script type=\"application/json\" id=\"data\">").unwrap();
    serde_json::from_str(rest.split_once("</script>").unwrap().0).unwrap()
}

#[test]
fn the_page_holds_every_bar_and_level_and_nothing_from_elsewhere() {
    let (_, timeline) = timeline("nested");
    let page = html(&[Timeline { title: "</script><b>".to_owned(), ..timeline.clone() }]);
    assert!(!page.contains("://") && !page.contains("</script><b>") && !page.contains("@import"));
    assert!(page.contains("&lt;/script&gt;&lt;b&gt;"));
    let data = data_of(&page);
    let drawn = &data["timelines"][0];
    assert_eq!((&drawn["title"], &drawn["unit"]), (&"</script><b>".into(), &"cost".into()));
    assert_eq!((&drawn["memoryUnit"], &drawn["end"]), (&"microbatches".into(), &timeline.end().into()));
    for (rank, bars) in timeline.ranks.iter().enumerate() {
        let columns = &drawn["ranks"][rank];
        for (index, bar) in bars.iter().enumerate() {
            assert_close(columns["start"][index].as_f64().unwrap(), bar.start, absolute(1e-8));
            assert_close(columns["end"][index].as_f64().unwrap(), bar.end, absolute(1e-8));
            let number = |column: &str| columns[column][index].as_u64().unwrap() as usize;
            let kind = &drawn["kinds"][number("kind")];
            let Op::Compute { module, phase, .. } = bar.op else { panic!("{bar:?}") };
            let name = kind[0].as_str().unwrap().to_lowercase();
            assert!(
                name.contains(module.kind().name()) && name.contains(&format!("{phase:?}").to_lowercase())
            );
            let style = &data["styles"][kind[1].as_u64().unwrap() as usize];
            assert_eq!(style["moves"], if phase == Phase::Forward { "saves" } else { "frees" });
            let microbatches: Vec<usize> = bar.op.units().map(|unit| unit.microbatch().0).collect();
            assert_eq!(drawn["works"][number("work")][1], serde_json::json!(microbatches));
        }
        assert_eq!(columns["start"].as_array().unwrap().len(), bars.len());
        assert!(columns["bytes"].is_null());
        let (points, lane) = (&timeline.memory[rank], &drawn["memory"][rank]);
        assert_eq!(lane["time"].as_array().unwrap().len(), points.len());
        for (index, (_, live)) in points.iter().enumerate() {
            for (layer, level) in [live.llm, live.encoder, live.generator].into_iter().enumerate() {
                assert_close(lane["live"][layer][index].as_f64().unwrap(), level, absolute(1e-8));
            }
        }
    }
}

/// Sizes of the shape's units: an encoder item 8 bytes, an LLM chunk 100, a generator item 16.
fn sized() -> Workload {
    let item = |saved| ItemSize { saved, ..ItemSize::default() };
    let sizes = MicrobatchSizes {
        encoder: vec![item(8); 3],
        generator: vec![item(16); 3],
        llm: vec![100; 3],
        hidden: 1,
    };
    shape().with_sizes(vec![sizes; 4]).unwrap()
}

#[test]
fn known_sizes_make_memory_bytes() {
    let w = sized();
    let table = build("nested", &w, &Options::default());
    let timeline = Timeline::simulated("nested", &table, &w, &simulate(&table, &w).unwrap());
    assert_eq!(timeline.memory_unit, MemoryUnit::Bytes);
    let bars = || timeline.ranks.iter().flatten();
    assert_eq!(bars().filter(|bar| bar.bytes == Some(100)).count(), 3 * 4 * 2);
    assert!(bars().all(|bar| bar.bytes.is_some_and(|bytes| bytes > 0)));
    for (rank, points) in timeline.memory.iter().enumerate() {
        let peak = peak_bytes(&table, &w, |unit| w.saved(unit).unwrap())[rank];
        let most = |kind| points.iter().map(|(_, live)| live[kind]).fold(0.0, f64::max) as u64;
        assert_eq!(ModuleKind::ALL.map(most), [peak.encoder, peak.llm, peak.generator]);
        assert_eq!(points.last().unwrap().1, PerModule::default());
    }
    let data = data_of(&html(from_ref(&timeline)));
    assert_eq!(data["timelines"][0]["memoryUnit"], "bytes");
    assert!(data["timelines"][0]["ranks"][0]["bytes"].is_array());
    assert!(svg(from_ref(&timeline)).contains(" B</text>"));
    let trace = perfetto(&[timeline]);
    assert!(trace.contains("\"bytes\":100") && trace.contains("live bytes, rank 2"));
}

#[test]
fn a_measured_step_shows_what_was_held() {
    let table: Table = "rank 0: E0F[0.0] L0F0 L0B0 E0B[0.0] step\n".parse().unwrap();
    let held = |encoder, llm| PerModule { encoder, llm, generator: 0 };
    let trace = Trace {
        spans: vec![(0.0, 0.001), (0.001, 0.003), (0.004, 0.006), (0.006, 0.007), (0.007, 0.007)],
        held: vec![held(3 << 20, 0), held(3 << 20, 512), held(3 << 20, 0), held(0, 0), held(0, 0)],
    };
    let read: Trace = serde_json::from_str(&serde_json::to_string(&trace).unwrap()).unwrap();
    assert_eq!(read, trace);
    let measured = Timeline::measured("step 3", &table, &[trace]);
    assert_eq!((measured.unit, measured.memory_unit), (TimeUnit::Seconds, MemoryUnit::Bytes));
    assert_eq!(measured.note, "time 7 ms · bubble 14.3 % · ranks compute 86 % of the time");
    let bytes: Vec<_> = measured.ranks[0].iter().map(|bar| bar.bytes).collect();
    assert_eq!(bytes, [3 << 20, 512, 512, 3 << 20].map(Some));
    let moments: Vec<f64> = measured.memory[0].iter().map(|point| point.0).collect();
    assert_eq!(moments, [0.001, 0.003, 0.006, 0.007]);
    let picture = svg(from_ref(&measured));
    assert!(picture.contains("full height 3 MiB") && picture.contains("at most 512 B"), "{picture}");
    let later = measured.clone().scaled(2.0, TimeUnit::Cost);
    assert_eq!((later.end(), later.memory[0][3].0, later.unit), (0.014, 0.014, TimeUnit::Cost));
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
