//! Colours: a hue per module (amber, blue, green), darker for backwards, darkest and hatched for weight gradients; a
//! recomputation is a hatched forward. Every two of them stay apart under all common kinds of colour blindness, and
//! what is written on them is readable: the tests below measure both.

use super::Timeline;
use crate::step::{ModuleKind, Op, Phase};
use std::collections::HashSet;
use std::fmt::Write;

/// Ink on light fills, and on dark ones.
pub(super) const INKS: [&str; 2] = ["#111827", "#ffffff"];

/// A kind of bar.
pub(super) struct Style {
    /// CSS class.
    pub class: &'static str,
    /// The module of these bars.
    pub kind: ModuleKind,
    /// Their phase.
    pub phase: Phase,
    /// Colour, `#rrggbb`; the same on light and dark ground.
    pub fill: &'static str,
}

const fn style(class: &'static str, kind: ModuleKind, phase: Phase, fill: &'static str) -> Style {
    Style { class, kind, phase, fill }
}

/// In the order of the legend.
pub(super) const STYLES: [Style; 15] = [
    style("ef", ModuleKind::Encoder, Phase::Forward, "#f2cc69"),
    style("er", ModuleKind::Encoder, Phase::Recompute, "#f2cc69"),
    style("eb", ModuleKind::Encoder, Phase::Backward, "#e8951b"),
    style("ei", ModuleKind::Encoder, Phase::BackwardInput, "#e8951b"),
    style("ew", ModuleKind::Encoder, Phase::BackwardWeight, "#87550f"),
    style("lf", ModuleKind::Llm, Phase::Forward, "#a6c6ee"),
    style("lr", ModuleKind::Llm, Phase::Recompute, "#a6c6ee"),
    style("lb", ModuleKind::Llm, Phase::Backward, "#2f70d0"),
    style("li", ModuleKind::Llm, Phase::BackwardInput, "#2f70d0"),
    style("lw", ModuleKind::Llm, Phase::BackwardWeight, "#123c9c"),
    style("gf", ModuleKind::Generator, Phase::Forward, "#84e2bb"),
    style("gr", ModuleKind::Generator, Phase::Recompute, "#84e2bb"),
    style("gb", ModuleKind::Generator, Phase::Backward, "#33a867"),
    style("gi", ModuleKind::Generator, Phase::BackwardInput, "#33a867"),
    style("gw", ModuleKind::Generator, Phase::BackwardWeight, "#04663c"),
];

impl Style {
    /// Whether stripes tell the fill from that of another phase.
    pub fn hatched(&self) -> bool {
        matches!(self.phase, Phase::BackwardWeight | Phase::Recompute)
    }

    /// Whether dark ink is the readable one on the fill.
    pub fn is_light(&self) -> bool {
        contrast(self.fill, INKS[0]) >= contrast(self.fill, INKS[1])
    }

    /// The ink that is readable on the fill.
    pub fn ink(&self) -> &'static str {
        INKS[usize::from(!self.is_light())]
    }
}

/// The styles of an op's bar, from above; none for what is not computation. What runs at once shares a bar.
pub(super) fn styles_of(op: &Op) -> impl Iterator<Item = &'static Style> {
    let of = |(kind, phase): (ModuleKind, Phase)| {
        STYLES.iter().find(move |style| style.kind == kind && style.phase == phase)
    };
    let looks = match op {
        Op::Compute { module, phase, .. } => [Some((module.kind(), *phase)), None],
        Op::Overlap { forward, backward, phase } => {
            [Some((forward.module.kind(), Phase::Forward)), Some((backward.module.kind(), *phase))]
        }
        Op::Send { .. } | Op::Recv { .. } | Op::Step => [None; 2],
    };
    looks.into_iter().flatten().filter_map(of)
}

/// The styles that timelines need.
pub(super) fn occurring(timelines: &[Timeline]) -> Vec<&'static Style> {
    let bars = timelines.iter().flat_map(|timeline| timeline.ranks.iter().flatten());
    let classes: HashSet<&str> = bars.flat_map(|bar| styles_of(&bar.op)).map(|style| style.class).collect();
    STYLES.iter().filter(|style| classes.contains(style.class)).collect()
}

/// An entry per look among styles, and what it stands for: `LLM weight gradient`.
pub(super) fn legend(styles: &[&'static Style]) -> Vec<(&'static Style, String)> {
    let mut entries: Vec<(&'static Style, String)> = Vec::new();
    for style in styles {
        let alike = |other: &Style| (other.fill, other.hatched()) == (style.fill, style.hatched());
        match entries.iter_mut().find(|(other, _)| alike(other)) {
            Some((_, name)) => *name = format!("{name}, {}", style.phase.words()),
            None => entries.push((style, format!("{} {}", style.kind.words(), style.phase.words()))),
        }
    }
    entries
}

/// CSS class of a module's memory area.
pub(super) fn memory_class(kind: ModuleKind) -> &'static str {
    match kind {
        ModuleKind::Encoder => "me",
        ModuleKind::Llm => "ml",
        ModuleKind::Generator => "mg",
    }
}

/// The fill and the darker edge of a module's memory area.
pub(super) fn memory_fills(kind: ModuleKind) -> [&'static str; 2] {
    let of = |phase| STYLES.iter().find(|style| style.kind == kind && style.phase == phase);
    [Phase::Forward, Phase::Backward].map(|phase| of(phase).map_or(INKS[0], |style| style.fill))
}

/// The style sheet of an SVG, and the stripes that it refers to. Fills come with the ink that is readable on them:
/// `.t` is dark ink, `.u` light.
pub(super) fn css() -> String {
    let mut css = String::from(
        "
.bg{fill:#fff}.ink{fill:#1f2937}.dim{fill:#5b6472}.track{fill:#eef0f3}.grid{stroke:#d9dde3;stroke-width:1}
.end{stroke:#1f2937;stroke-width:1.5;stroke-dasharray:3 3}
",
    );
    // Writing to a String cannot fail, so the results of write! carry nothing.
    for style in &STYLES {
        let _ = match style.hatched() {
            true => write!(css, ".{0}{{fill:url(#{0})}}", style.class),
            false => write!(css, ".{}{{fill:{}}}", style.class, style.fill),
        };
    }
    for kind in ModuleKind::ALL {
        let _ = write!(css, ".{}{{fill:{}}}", memory_class(kind), memory_fills(kind)[0]);
    }
    let _ = write!(
        css,
        "
text{{font-family:ui-sans-serif,system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif}}
.t,.u{{font-size:11px;text-anchor:middle;pointer-events:none;font-variant-numeric:tabular-nums}}
.t{{fill:{}}}.u{{fill:{}}}
@media (prefers-color-scheme:dark){{.bg{{fill:#0f141b}}.ink{{fill:#e6e9ee}}.dim{{fill:#9aa4b2}}.track{{fill:#1b222c}}
.grid{{stroke:#2a323e}}.end{{stroke:#e6e9ee}}}}
",
        INKS[0], INKS[1]
    );
    css
}

/// The stripes of a hatched style, for an SVG's `defs`.
pub(super) fn pattern(style: &Style) -> String {
    format!(
        "<pattern id=\"{}\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\" patternTransform=\"rotate(45)\">\
         <rect width=\"6\" height=\"6\" fill=\"{}\"/><rect width=\"1.5\" height=\"6\" fill=\"{}\" fill-opacity=\".4\"/>\
         </pattern>",
        style.class,
        style.fill,
        style.ink()
    )
}

/// Linear red, green and blue of `#rrggbb`.
fn linear(colour: &str) -> [f64; 3] {
    let hex = u32::from_str_radix(colour.trim_start_matches('#'), 16).unwrap_or_default();
    [hex >> 16, hex >> 8, hex].map(|channel| {
        let value = f64::from(channel & 255) / 255.0;
        if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
    })
}

/// Contrast ratio of two colours (WCAG 2.2), from 1 to 21.
fn contrast(one: &str, other: &str) -> f64 {
    let luminance = |colour| {
        let [red, green, blue] = linear(colour);
        0.2126 * red + 0.7152 * green + 0.0722 * blue
    };
    let (one, other) = (luminance(one), luminance(other));
    (one.max(other) + 0.05) / (one.min(other) + 0.05)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Full dichromacy (Machado, Oliveira and Fernandes, 2009, severity 1), on linear RGB.
    const BLINDNESS: [(&str, [[f64; 3]; 3]); 4] = [
        ("none", [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]),
        (
            "protanopia",
            [
                [0.152286, 1.052583, -0.204868],
                [0.114503, 0.786281, 0.099216],
                [-0.003882, -0.048116, 1.051998],
            ],
        ),
        (
            "deuteranopia",
            [
                [0.367322, 0.860646, -0.227968],
                [0.280085, 0.672501, 0.047413],
                [-0.011820, 0.042940, 0.968881],
            ],
        ),
        (
            "tritanopia",
            [
                [1.255528, -0.076749, -0.178779],
                [-0.078411, 0.930809, 0.147602],
                [0.004733, 0.691367, 0.303900],
            ],
        ),
    ];

    /// CIELAB of a colour as someone with that blindness sees it.
    fn seen(colour: &str, blindness: &[[f64; 3]; 3]) -> [f64; 3] {
        let light = linear(colour);
        let [red, green, blue] =
            blindness.map(|row| (row[0] * light[0] + row[1] * light[1] + row[2] * light[2]).clamp(0.0, 1.0));
        let f = |t: f64| if t > 216.0 / 24389.0 { t.cbrt() } else { (24389.0 / 27.0 * t + 16.0) / 116.0 };
        let x = f((0.4124 * red + 0.3576 * green + 0.1805 * blue) / 0.95047);
        let y = f(0.2126 * red + 0.7152 * green + 0.0722 * blue);
        let z = f((0.0193 * red + 0.1192 * green + 0.9505 * blue) / 1.08883);
        [116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)]
    }

    /// Differences of 2.3 in CIELAB are just noticeable; these have to be told apart at a glance, also when small.
    #[test]
    fn colours_stay_apart_under_every_blindness() {
        let look = |style: &Style| (style.fill, style.hatched());
        for (name, blindness) in &BLINDNESS {
            for (i, one) in STYLES.iter().enumerate() {
                for other in STYLES[..i].iter().filter(|other| other.fill != one.fill) {
                    let (a, b) = (seen(one.fill, blindness), seen(other.fill, blindness));
                    let distance = (0..3).map(|axis| (a[axis] - b[axis]).powi(2)).sum::<f64>().sqrt();
                    assert!(distance > 18.0, "{name}: {} and {}: {distance}", one.class, other.class);
                }
                // A whole backward and an input gradient of one module do not occur in the same schedule, and share
                // an entry of the legend.
                let same = |other: &&Style| look(other) == look(one);
                let twins: Vec<Phase> = STYLES.iter().filter(same).map(|style| style.phase).collect();
                assert!(
                    twins == [one.phase] || twins == [Phase::Backward, Phase::BackwardInput],
                    "{}: {twins:?}",
                    one.class
                );
            }
        }
    }

    #[test]
    fn what_is_written_on_a_bar_is_readable() {
        for style in &STYLES {
            let ratio = contrast(style.fill, style.ink());
            assert!(ratio >= 4.5, "{}: {ratio}", style.class);
        }
        assert_eq!((contrast("#000000", "#ffffff"), contrast("#777777", "#777777")), (21.0, 1.0));
    }
}
