//! Charts of results as SVG, readable on light and dark ground, with labels beside the marks instead of a legend.

use std::fmt::Write;

/// Whether a mark is what the chart is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Emphasis {
    /// Drawn in the colour that the eye goes to.
    Strong,
    /// Drawn in grey, to be compared with.
    Weak,
}

impl Emphasis {
    fn class(self) -> &'static str {
        match self {
            Emphasis::Strong => "strong",
            Emphasis::Weak => "weak",
        }
    }
}

/// Title and what stands below it.
#[derive(Clone, Debug)]
pub struct Heading {
    /// One sentence that says what the chart shows.
    pub title: String,
    /// What was measured, and on what.
    pub subtitle: String,
}

/// A line through points, x ascending.
#[derive(Clone, Debug)]
pub struct Line {
    /// Its label, at its last point.
    pub name: String,
    /// x and y of each point.
    pub points: Vec<(f64, f64)>,
    /// How it is drawn.
    pub emphasis: Emphasis,
}

/// A bar from zero.
#[derive(Clone, Debug)]
pub struct Bar {
    /// Its label, on its left.
    pub name: String,
    /// Its length.
    pub value: f64,
    /// What is written after the value.
    pub note: String,
    /// How it is drawn.
    pub emphasis: Emphasis,
}

const STYLE: &str = "<style>
text{font-family:ui-sans-serif,system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif;font-size:13px}
.bg{fill:#fff}.ink{fill:#1f2937}.dim{fill:#5b6472}.grid{stroke:#d9dde3}.mark{stroke:#1f2937;stroke-dasharray:4 3}
.strong{fill:#2f70d0;stroke:#2f70d0}.weak{fill:#9aa4b2;stroke:#9aa4b2}.title{font-size:17px;font-weight:650}
text.strong,text.weak{stroke:none;font-weight:600}text.weak{fill:#5b6472}path{fill:none;stroke-width:2.5}rect.strong,rect.weak{stroke:none}
@media (prefers-color-scheme:dark){.bg{fill:#0f141b}.ink{fill:#e6e9ee}.dim,text.weak{fill:#9aa4b2}.grid{stroke:#2a323e}
.mark{stroke:#e6e9ee}.strong{fill:#5b9bf5;stroke:#5b9bf5}}
</style>";

const WIDTH: f64 = 720.0;

fn begin(height: f64, heading: &Heading) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" role=\"img\" \
         aria-label=\"{0}\">{STYLE}<rect class=\"bg\" width=\"100%\" height=\"100%\"/>\n\
         <text class=\"ink title\" x=\"24\" y=\"34\">{0}</text><text class=\"dim\" x=\"24\" y=\"56\">{1}</text>\n",
        escape(&heading.title),
        escape(&heading.subtitle)
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}

/// A round step that divides `most` into about `count` parts.
fn round_step(most: f64, count: f64) -> f64 {
    let raw = most / count;
    let power = 10f64.powf(raw.log10().floor());
    [1.0, 2.0, 5.0, 10.0].map(|step| step * power).into_iter().find(|step| *step >= raw).unwrap_or(raw)
}

/// Lines over one pair of axes that begin at zero, a tick at every x that a point has. `units` are those of x and y.
pub fn lines(heading: &Heading, units: [&str; 2], lines: &[Line]) -> String {
    let [left, right, top, bottom, height] = [64.0, 600.0, 108.0, 354.0, 408.0];
    let points = || lines.iter().flat_map(|line| line.points.iter());
    let most = |of: fn(&(f64, f64)) -> f64| points().map(of).fold(f64::MIN_POSITIVE, f64::max);
    let (most_x, most_y) = (most(|p| p.0), most(|p| p.1));
    let step = round_step(most_y, 4.0);
    let end = (most_y / step).ceil() * step;
    let x = |value: f64| left + (right - left) * value / most_x;
    let y = |value: f64| bottom - (bottom - top) * value / end;
    let mut svg = begin(height, heading);
    // Writing to a String cannot fail, so the results of write! carry nothing.
    for i in 0..=(end / step).round() as usize {
        let (value, at) = (i as f64 * step, y(i as f64 * step));
        let _ = writeln!(
            svg,
            "<line class=\"grid\" x1=\"{left}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
             <text class=\"dim\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{value}</text>",
            left - 8.0,
            at + 4.5
        );
    }
    let mut ticks: Vec<f64> = points().map(|p| p.0).collect();
    ticks.sort_by(f64::total_cmp);
    ticks.dedup();
    for tick in ticks {
        let _ = writeln!(
            svg,
            "<text class=\"dim\" x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{tick}</text>",
            x(tick),
            bottom + 20.0
        );
    }
    let _ = writeln!(
        svg,
        "<text class=\"dim\" x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text><text class=\"dim\" x=\"24\" y=\"{}\">{}</text>",
        (left + right) / 2.0,
        bottom + 42.0,
        escape(units[0]),
        top - 16.0,
        escape(units[1])
    );
    for line in lines {
        let class = line.emphasis.class();
        let path: Vec<String> =
            line.points.iter().map(|(px, py)| format!("{:.1} {:.1}", x(*px), y(*py))).collect();
        let _ = writeln!(svg, "<path class=\"{class}\" d=\"M{}\"/>", path.join("L"));
        for (px, py) in &line.points {
            let _ = write!(
                svg,
                "<circle class=\"{class}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"3.5\"/>",
                x(*px),
                y(*py)
            );
        }
        if let Some((px, py)) = line.points.last() {
            let _ = writeln!(
                svg,
                "<text class=\"{class}\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                x(*px) + 12.0,
                y(*py) + 4.5,
                escape(&line.name)
            );
        }
    }
    svg + "</svg>\n"
}

/// Horizontal bars in the given order, and a dashed line at `mark` with a label.
pub fn bars(heading: &Heading, bars: &[Bar], mark: (f64, &str)) -> String {
    let [left, right, top, row] = [176.0, 520.0, 100.0, 30.0];
    let most = bars.iter().map(|bar| bar.value).fold(mark.0, f64::max);
    let x = |value: f64| left + (right - left) * value / most;
    let bottom = top + row * bars.len() as f64;
    let mut svg = begin(bottom + 24.0, heading);
    for (i, bar) in bars.iter().enumerate() {
        let (at, class) = (top + row * i as f64, bar.emphasis.class());
        let end = x(bar.value);
        let _ = writeln!(
            svg,
            "<text class=\"ink\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
             <rect class=\"{class}\" x=\"{left}\" y=\"{:.1}\" width=\"{:.1}\" height=\"20\" rx=\"2\"/>\
             <text class=\"ink\" x=\"{:.1}\" y=\"{:.1}\">{} <tspan class=\"dim\">{}</tspan></text>",
            left - 10.0,
            at + 19.5,
            escape(&bar.name),
            at + 5.0,
            end - left,
            end + 8.0,
            at + 19.5,
            round(bar.value),
            escape(&bar.note)
        );
    }
    let at = x(mark.0);
    let _ = writeln!(
        svg,
        "<line class=\"mark\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{}\" y2=\"{bottom}\"/>\
         <text class=\"ink\" x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{} {}</text>",
        top - 6.0,
        top - 12.0,
        escape(mark.1),
        round(mark.0)
    );
    svg + "</svg>\n"
}

/// One decimal, none where it is zero.
fn round(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heading() -> Heading {
        Heading { title: "a < b".into(), subtitle: "\"c\" & d".into() }
    }

    #[test]
    fn text_is_escaped_and_marks_lie_inside() {
        let line = |name: &str, y| Line {
            name: name.into(),
            points: vec![(8.0, 1.0), (64.0, y)],
            emphasis: Emphasis::Weak,
        };
        let svg = lines(&heading(), ["x", "y"], &[line("up", 367.0), line("flat", 1.0)]);
        assert!(
            svg.contains("a &lt; b") && svg.contains("&quot;c&quot; &amp; d") && svg.ends_with("</svg>\n")
        );
        assert!(svg.contains(">400<") && !svg.contains(">500<"), "the axis ends at the next round number");
        let bar = |value| Bar { name: "n".into(), value, note: String::new(), emphasis: Emphasis::Strong };
        let svg = bars(&heading(), &[bar(960.0), bar(2304.0)], (960.0, "bound"));
        assert!(svg.contains("width=\"344.0\"") && svg.contains("bound 960"), "{svg}");
    }

    #[test]
    fn steps_are_round() {
        assert_eq!([367.0, 9.0, 0.04, 1000.0].map(|most| round_step(most, 4.0)), [100.0, 5.0, 0.01, 500.0]);
    }
}
