//! The timeline as a self-contained SVG: a row per rank, below it a strip of what the rank keeps alive, all schedules
//! on one time axis. Works as an image and inline; hovering a bar names it.

use super::memory::{STACK, peaks};
use super::palette::{Style, css, legend, memory_class, occurring, pattern, styles_of};
use super::words::{amount, describe, duration, microbatches, number};
use super::{Bar, MemoryUnit, Timeline};
use crate::step::{Op, PerModule};
use std::fmt::Write;

const WIDTH: f64 = 1440.0;
const LEFT: f64 = 72.0;
const RIGHT: f64 = 40.0;
const ROW: f64 = 26.0;
const STRIP: f64 = 18.0;
const GAP: f64 = 7.0;
const HEADING: f64 = 44.0;
const AXIS: f64 = 34.0;

/// Where things are on the picture.
struct Layout {
    /// Pixels per unit of time.
    scale: f64,
    /// What a full memory strip is, in microbatches and in bytes.
    peaks: [f64; 2],
    /// Distance of the axis ticks.
    tick: f64,
}

/// Draws timelines under each other.
pub fn svg(timelines: &[Timeline]) -> String {
    let end = timelines.iter().map(Timeline::end).fold(0.0, f64::max);
    let peaks = peaks(timelines);
    let plot = WIDTH - LEFT - RIGHT;
    let layout =
        Layout { scale: if end > 0.0 { plot / end } else { 0.0 }, peaks, tick: nice_step(end / 12.0) };
    let mut body = String::new();
    let mut y = draw_legend(&mut body, timelines, peaks);
    for timeline in timelines {
        y = draw(&mut body, timeline, &layout, y);
    }
    let mut out = String::new();
    let height = number(y + 8.0);
    // Writing to a String cannot fail, so the results of write! carry nothing.
    let _ = writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
         height=\"{height}\" role=\"img\" aria-label=\"pipeline timeline\"><style>{}</style>\
         <rect class=\"bg\" width=\"100%\" height=\"100%\"/>",
        css()
    );
    out.push_str(&body);
    out.push_str("</svg>\n");
    out
}

/// Draws one timeline from `y` down and returns where it ends.
fn draw(out: &mut String, timeline: &Timeline, layout: &Layout, y: f64) -> f64 {
    let _ = writeln!(
        out,
        "<text class=\"ink\" x=\"{LEFT}\" y=\"{}\" font-size=\"17\" font-weight=\"650\">{}\
         <tspan class=\"dim\" dx=\"12\" font-size=\"13\" font-weight=\"400\">{}</tspan></text>",
        number(y + 26.0),
        escape(&timeline.title),
        escape(&timeline.note)
    );
    let top = y + HEADING;
    let row = ROW + GAP + if timeline.memory.is_empty() { 0.0 } else { STRIP + 2.0 };
    let bottom = top + row * timeline.ranks.len() as f64 - GAP;
    let end = timeline.end();
    grid(out, timeline, layout, top, bottom);
    for (rank, bars) in timeline.ranks.iter().enumerate() {
        let at = top + row * rank as f64;
        let _ = writeln!(
            out,
            "<text class=\"dim\" x=\"{}\" y=\"{}\" font-size=\"12\" text-anchor=\"end\">rank {rank}</text>\
             <rect class=\"track\" x=\"{LEFT}\" y=\"{}\" width=\"{}\" height=\"{ROW}\" rx=\"2\"/>",
            LEFT - 10.0,
            number(at + ROW / 2.0 + 4.0),
            number(at),
            number(end * layout.scale)
        );
        bars.iter().for_each(|bar| draw_bar(out, bar, timeline, layout, at));
        if let Some(points) = timeline.memory.get(rank) {
            draw_memory(out, timeline, points, layout, at + ROW + 2.0 + STRIP);
        }
    }
    let x = number(LEFT + end * layout.scale);
    let (from, to) = (number(top - 6.0), number(bottom + 4.0));
    let _ = writeln!(out, "<line class=\"end\" x1=\"{x}\" x2=\"{x}\" y1=\"{from}\" y2=\"{to}\"/>");
    bottom + AXIS
}

fn grid(out: &mut String, timeline: &Timeline, layout: &Layout, top: f64, bottom: f64) {
    let mut index = 0;
    loop {
        let time = layout.tick * f64::from(index);
        let x = LEFT + time * layout.scale;
        if layout.tick <= 0.0 || x > WIDTH - RIGHT + 0.5 {
            return;
        }
        let _ = writeln!(
            out,
            "<line class=\"grid\" x1=\"{x:.2}\" x2=\"{x:.2}\" y1=\"{}\" y2=\"{}\"/>\
             <text class=\"dim\" x=\"{x:.2}\" y=\"{}\" font-size=\"11\" text-anchor=\"middle\">{}</text>",
            number(top - 4.0),
            number(bottom + 4.0),
            number(bottom + 18.0),
            duration(time, timeline.unit)
        );
        index += 1;
    }
}

/// Draws a bar; one of two passes that run at once has half of its height for each.
fn draw_bar(out: &mut String, bar: &Bar, timeline: &Timeline, layout: &Layout, y: f64) {
    let styles: Vec<&Style> = styles_of(&bar.op).filter(|_| bar.end > bar.start).collect();
    let names: Vec<Vec<String>> = match &bar.op {
        Op::Overlap { forward, backward, .. } => {
            [forward, backward].map(|unit| vec![unit.microbatch().0.to_string()]).to_vec()
        }
        op => vec![microbatches(op).iter().map(usize::to_string).collect()],
    };
    let height = ROW / styles.len().max(1) as f64;
    for (index, (style, names)) in styles.iter().zip(&names).enumerate() {
        draw_pass(out, bar, (style, names), timeline, layout, (y + height * index as f64, height));
    }
}

fn draw_pass(
    out: &mut String,
    bar: &Bar,
    (style, names): (&Style, &[String]),
    timeline: &Timeline,
    layout: &Layout,
    (y, height): (f64, f64),
) {
    let (x, width) = (LEFT + bar.start * layout.scale, (bar.end - bar.start) * layout.scale);
    // A hair of track between bars keeps neighbours of one colour apart.
    let drawn = if width > 3.0 { width - 0.8 } else { width };
    let _ = write!(
        out,
        "<rect class=\"bar {}\" data-m=\"{}\" x=\"{x:.2}\" y=\"{}\" width=\"{drawn:.2}\" height=\"{height}\" rx=\"{}\">\
         <title>{} · {}\n{} – {} ({})</title></rect>",
        style.class,
        names.join(" "),
        number(y),
        if width > 6.0 { 2 } else { 0 },
        escape(&bar.op.to_string()),
        escape(&describe(&bar.op)),
        duration(bar.start, timeline.unit),
        duration(bar.end, timeline.unit),
        duration(bar.end - bar.start, timeline.unit)
    );
    let label = names.join(",");
    if width > 3.5 + 6.3 * label.len() as f64 {
        let ink = if style.is_light() { "t" } else { "u" };
        let (x, y) = (x + drawn / 2.0, number(y + height / 2.0 + 4.0));
        let _ = write!(out, "<text class=\"{ink}\" x=\"{x:.2}\" y=\"{y}\">{label}</text>");
    }
    out.push('\n');
}

/// Stacked areas of the live activations, upwards from `base`.
fn draw_memory(
    out: &mut String,
    timeline: &Timeline,
    points: &[(f64, PerModule<f64>)],
    layout: &Layout,
    base: f64,
) {
    let (end, unit) = (timeline.end(), timeline.memory_unit);
    let peak = layout.peaks[unit as usize];
    let scale = if peak > 0.0 { STRIP / peak } else { 0.0 };
    let mut below = vec![0.0; points.len()];
    for kind in STACK {
        if points.iter().all(|(_, live)| live[kind] <= 0.0) {
            continue;
        }
        let above: Vec<f64> =
            below.iter().zip(points).map(|(below, (_, live))| below + live[kind].max(0.0)).collect();
        let x = |index: usize| LEFT + points.get(index).map_or(end, |point| point.0) * layout.scale;
        let y = |level: f64| base - level * scale;
        let mut path = format!("M{:.2} {:.2}", x(0), y(above[0]));
        for index in 0..points.len() {
            let next = above.get(index + 1).or(below.last()).copied().unwrap_or_default();
            let _ = write!(path, "H{:.2}V{:.2}", x(index + 1), y(next));
        }
        for index in (0..points.len()).rev() {
            let next = index.checked_sub(1).map_or(above[0], |before| below[before]);
            let _ = write!(path, "H{:.2}V{:.2}", x(index), y(next));
        }
        let highest = points.iter().map(|(_, live)| live[kind]).fold(0.0, f64::max);
        let _ = writeln!(
            out,
            "<path class=\"{}\" d=\"{path}Z\"><title>{} activations on this rank: at most {}</title></path>",
            memory_class(kind),
            kind.words(),
            amount(highest, unit)
        );
        below = above;
    }
}

/// Draws the legend, and returns where it ends.
fn draw_legend(out: &mut String, timelines: &[Timeline], peaks: [f64; 2]) -> f64 {
    let (mut x, mut y) = (LEFT, 14.0);
    let mut place = |width: f64| {
        if x > LEFT && x + width > WIDTH - RIGHT {
            (x, y) = (LEFT, y + 24.0);
        }
        x += width;
        (x - width, y)
    };
    let styles = occurring(timelines);
    for style in styles.iter().filter(|style| style.hatched()) {
        let _ = write!(out, "<defs>{}</defs>", pattern(style));
    }
    for (style, label) in legend(&styles) {
        let (x, y) = place(44.0 + 6.9 * label.len() as f64);
        let _ = write!(
            out,
            "<rect class=\"{}\" x=\"{}\" y=\"{}\" width=\"14\" height=\"14\" rx=\"2\"/>\
             <text class=\"ink\" x=\"{}\" y=\"{}\" font-size=\"12.5\">{label}</text>",
            style.class,
            number(x),
            number(y),
            number(x + 20.0),
            number(y + 11.5)
        );
    }
    let full =
        [MemoryUnit::Microbatches, MemoryUnit::Bytes].into_iter().filter(|unit| peaks[*unit as usize] > 0.0);
    let full: Vec<String> = full.map(|unit| amount(peaks[unit as usize], unit)).collect();
    if !full.is_empty() {
        let note = format!("strips below the ranks: live activations, full height {}", full.join(" or "));
        let (_, y) = place(6.6 * note.len() as f64);
        let _ = write!(
            out,
            "<text class=\"dim\" x=\"{}\" y=\"{}\" font-size=\"12.5\" text-anchor=\"end\">{note}</text>",
            WIDTH - RIGHT,
            number(y + 11.5)
        );
    }
    out.push('\n');
    y + 26.0
}

/// The smallest of 1, 2, 5 times a power of ten that is at least `step`.
fn nice_step(step: f64) -> f64 {
    if step.is_nan() || step <= 0.0 {
        return 0.0;
    }
    let power = 10f64.powf(step.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|factor| factor * power).find(|nice| *nice >= step).unwrap_or(step)
}

/// Text as XML content.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
