//! The timeline in the Chrome trace event format, for ui.perfetto.dev: a process per timeline, a thread per rank, a
//! counter of live activations per rank.

use super::words::describe;
use super::{TimeUnit, Timeline};
use serde_json::{Value, json};

/// Draws timelines as processes of one trace.
pub fn perfetto(timelines: &[Timeline]) -> String {
    let mut events = Vec::new();
    for (process, timeline) in timelines.iter().enumerate() {
        events.push(name("process_name", process, 0, &timeline.title));
        let microseconds = match timeline.unit {
            TimeUnit::Cost => 1e3,
            TimeUnit::Seconds => 1e6,
        };
        for (rank, bars) in timeline.ranks.iter().enumerate() {
            events.push(name("thread_name", process, rank, &format!("rank {rank}")));
            events.extend(bars.iter().map(|bar| {
                let mut args = json!({ "op": describe(&bar.op) });
                if let Some(bytes) = bar.bytes {
                    args["bytes"] = bytes.into();
                }
                json!({
                    "name": bar.op.to_string(), "ph": "X", "pid": process, "tid": rank,
                    "ts": bar.start * microseconds, "dur": (bar.end - bar.start) * microseconds,
                    "args": args,
                })
            }));
        }
        let unit = timeline.memory_unit.name();
        for (rank, points) in timeline.memory.iter().enumerate() {
            events.extend(points.iter().map(|(time, live)| {
                json!({
                    "name": format!("live {unit}, rank {rank}"), "ph": "C", "pid": process,
                    "ts": time * microseconds,
                    "args": { "encoder": live.encoder, "llm": live.llm, "generator": live.generator },
                })
            }));
        }
    }
    json!({ "traceEvents": events, "displayTimeUnit": "ms" }).to_string()
}

fn name(what: &str, process: usize, thread: usize, name: &str) -> Value {
    json!({ "name": what, "ph": "M", "pid": process, "tid": thread, "args": { "name": name } })
}
