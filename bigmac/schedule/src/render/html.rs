//! Timelines as a self-contained page: data as JSON, a style sheet and the scripts that draw it, all in one file that
//! needs no network. Headings, the legend and the figures per rank are plain HTML.

use super::Timeline;
use super::memory::{STACK, peaks};
use super::palette::{INKS, Style, legend, memory_fills, occurring, styles_of};
use super::svg::escape;
use super::words::{amount, duration, microbatches, operation, work_of};
use crate::step::{ModuleKind, Phase};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fmt::Write;
use std::hash::Hash;

const CSS: &str = include_str!("page/timeline.css");
const SCRIPTS: [&str; 4] = [
    include_str!("page/data.js"),
    include_str!("page/scene.js"),
    include_str!("page/draw.js"),
    include_str!("page/timeline.js"),
];

/// Draws timelines under each other on a page.
pub fn html(timelines: &[Timeline]) -> String {
    let styles = occurring(timelines);
    let titles: Vec<&str> = timelines.iter().map(|timeline| timeline.title.as_str()).collect();
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>{}</title>\n<link rel=\"icon\" href=\"data:,\">\n<style>\n{CSS}</style>\n</head>\n<body>\n",
        escape(if titles.is_empty() { "Pipeline timeline".to_owned() } else { titles.join(" · ") }.as_str())
    );
    head(&mut page, &styles);
    page.push_str("<main>\n");
    for (index, timeline) in timelines.iter().enumerate() {
        section(&mut page, index, timeline);
    }
    page.push_str(
        "</main>\n<div id=\"tip\" role=\"tooltip\" hidden></div>\n\
         <div id=\"live\" class=\"unseen\" aria-live=\"polite\"></div>\n",
    );
    // Inside a script element only `<` could end the data.
    let data = data(timelines, &styles).to_string().replace('<', "\\u003c");
    let _ = writeln!(
        page,
        "<script type=\"application/json\" id=\"data\">{data}</script>\n<script>\n\"use strict\";"
    );
    SCRIPTS.iter().for_each(|script| page.push_str(script));
    page.push_str("</script>\n</body>\n</html>\n");
    page
}

fn head(page: &mut String, styles: &[&'static Style]) {
    page.push_str("<header>\n<ul id=\"legend\" aria-label=\"Colours\">\n");
    for (style, name) in legend(styles) {
        let _ = writeln!(
            page,
            "<li><i style=\"background-color:{}{}\"></i>{}</li>",
            style.fill,
            if style.hatched() {
                format!(
                    ";background-image:repeating-linear-gradient(135deg,{}66 0 1.5px,transparent 1.5px 5px)",
                    style.ink()
                )
            } else {
                String::new()
            },
            name
        );
    }
    page.push_str("<li><i class=\"bubble\"></i>idle</li>\n</ul>\n");
    page.push_str(
        "<p>Numbers on bars are microbatches; E marks the encoder, G the generator.</p>\n\
         <p id=\"help\">Wheel or <kbd>+</kbd> <kbd>−</kbd> zoom · drag or <kbd>←</kbd> <kbd>→</kbd> move · \
         double click or <kbd>0</kbd> shows all · <kbd>Shift</kbd> with arrows goes from op to op, \
         <kbd>Esc</kbd> lets go</p>\n</header>\n\
         <div id=\"axis\" aria-hidden=\"true\"><canvas></canvas><output></output></div>\n",
    );
}

fn section(page: &mut String, index: usize, timeline: &Timeline) {
    let (title, note) = (escape(&timeline.title), escape(&timeline.note));
    let _ = writeln!(
        page,
        "<section aria-labelledby=\"title-{index}\">\n<h2 id=\"title-{index}\">{title} <small>{note}</small></h2>\n\
         <div class=\"plot\"><canvas tabindex=\"0\" role=\"application\" aria-roledescription=\"timeline\" \
         aria-label=\"{title}: {} ranks, {note}\" aria-describedby=\"help\"></canvas><b class=\"cursor\"></b></div>",
        timeline.ranks.len()
    );
    figures(page, timeline);
    page.push_str("</section>\n");
}

/// The table of figures per rank.
fn figures(page: &mut String, timeline: &Timeline) {
    let end = timeline.end();
    let modules: &[ModuleKind] = if timeline.memory.is_empty() { &[] } else { &ModuleKind::ALL };
    page.push_str("<details><summary>Figures per rank</summary><table>\n<tr><th>rank</th><th>ops</th><th>computes</th><th>busy</th>");
    for kind in modules {
        let _ = write!(page, "<th>most {} activations</th>", kind.words());
    }
    page.push_str("</tr>\n");
    for (rank, bars) in timeline.ranks.iter().enumerate() {
        let busy: f64 = bars.iter().map(|bar| bar.end - bar.start).sum();
        let share = if end > 0.0 { 100.0 * busy / end } else { 0.0 };
        let _ = write!(
            page,
            "<tr><th>{rank}</th><td>{}</td><td>{}</td><td>{share:.1} %</td>",
            bars.len(),
            duration(busy, timeline.unit)
        );
        for kind in modules {
            let points = timeline.memory.get(rank).into_iter().flatten();
            let most = points.map(|(_, live)| live[*kind]).fold(0.0, f64::max);
            let _ = write!(page, "<td>{}</td>", amount(most, timeline.memory_unit));
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</table></details>\n");
}

/// What the scripts draw. Bars are columns of numbers that refer to lists of words, so that 100,000 of them stay small.
fn data(timelines: &[Timeline], styles: &[&Style]) -> Value {
    let modules = STACK.map(|kind| {
        let [fill, edge] = memory_fills(kind);
        json!({ "name": kind.words(), "key": kind.name(), "fill": fill, "edge": edge })
    });
    let peaks = peaks(timelines);
    json!({
        "styles": styles.iter().map(|style| json!({
            "fill": style.fill, "ink": style.ink(), "hatched": style.hatched(),
            "mark": match style.kind {
                ModuleKind::Encoder => "E",
                ModuleKind::Llm => "",
                ModuleKind::Generator => "G",
            },
            "moves": if matches!(style.phase, Phase::Forward | Phase::Recompute) { "saves" } else { "frees" },
        })).collect::<Vec<_>>(),
        "inks": INKS,
        "modules": modules,
        "end": timelines.iter().map(Timeline::end).fold(0.0, f64::max),
        "timelines": timelines.iter().map(|timeline| columns(timeline, styles, peaks)).collect::<Vec<_>>(),
    })
}

/// Words, each once.
struct Words<K> {
    numbers: HashMap<K, usize>,
    words: Vec<Value>,
}

impl<K: Hash + Eq> Words<K> {
    fn new() -> Words<K> {
        Words { numbers: HashMap::new(), words: Vec::new() }
    }

    /// The number of a word, which is made where it is new.
    fn number(&mut self, key: K, word: impl FnOnce() -> Value) -> usize {
        let words = &mut self.words;
        *self.numbers.entry(key).or_insert_with(|| {
            words.push(word());
            words.len() - 1
        })
    }
}

fn columns(timeline: &Timeline, styles: &[&Style], peaks: [f64; 2]) -> Value {
    let (mut kinds, mut works) = (Words::new(), Words::new());
    let round = Rounding::to(timeline.end());
    let mut ranks = Vec::with_capacity(timeline.ranks.len());
    for bars in &timeline.ranks {
        let (mut start, mut end, mut bytes) = (Vec::new(), Vec::new(), Vec::new());
        let (mut kind, mut work) = (Vec::new(), Vec::new());
        for bar in bars.iter().filter(|bar| bar.end > bar.start) {
            let number = |own: &Style| styles.iter().position(|style| style.class == own.class);
            let looks: Vec<usize> = styles_of(&bar.op).filter_map(number).collect();
            let Some(style) = looks.first() else { continue };
            start.push(round.apply(bar.start));
            end.push(round.apply(bar.end));
            let words = operation(&bar.op);
            kind.push(kinds.number(words.clone(), || json!([words, style, looks.get(1)])));
            let words = work_of(&bar.op);
            work.push(works.number(words.clone(), || json!([words, microbatches(&bar.op)])));
            bytes.push(bar.bytes);
        }
        let bytes: Option<Vec<u64>> = bytes.into_iter().collect();
        ranks.push(json!({ "start": start, "end": end, "kind": kind, "work": work, "bytes": bytes }));
    }
    let level = Rounding::to(peaks[timeline.memory_unit as usize]);
    let memory = timeline.memory.iter().map(|points| {
        let column = |kind| points.iter().map(|(_, live)| level.apply(live[kind])).collect();
        let columns: Vec<Vec<f64>> = STACK.into_iter().map(column).collect();
        json!({ "time": points.iter().map(|(time, _)| round.apply(*time)).collect::<Vec<_>>(), "live": columns })
    });
    json!({
        "title": timeline.title,
        "unit": timeline.unit.name(),
        "end": timeline.end(),
        "kinds": kinds.words,
        "works": works.words,
        "ranks": ranks,
        "memory": memory.collect::<Vec<_>>(),
        "memoryUnit": timeline.memory_unit.name(),
        "memoryPeak": peaks[timeline.memory_unit as usize],
    })
}

/// Leaves nine digits of the largest number: far finer than a pixel at the deepest zoom, and short to write.
struct Rounding(f64);

impl Rounding {
    fn to(largest: f64) -> Rounding {
        let digits = if largest > 0.0 { 9.0 - largest.log10().ceil() } else { 0.0 };
        Rounding(10f64.powf(digits))
    }

    fn apply(&self, value: f64) -> f64 {
        (value * self.0).round() / self.0
    }
}
