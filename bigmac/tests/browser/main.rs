//! The page of `--timeline x.html` in a real browser: what it shows, what mouse, fingers and keys do to it, in light
//! and dark, and with 100,000 ops.

mod chromium;

use bigmac_close::{absolute, assert_close, relative};
use bigmac_schedule::render::{TimeUnit, Timeline, Trace, html};
use bigmac_schedule::{PerModule, Table};
use chromium::Browser;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const SHAPE: &str =
    "--schedule nested,monolithic --ranks 3 --microbatches 6 --cost F=1,B=1,W=1,Ef=3,Eb=6,Gf=3,Gb=6";

/// Comes true when what has changed is drawn.
const DRAWN: &str =
    "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))";

/// Draws timelines with the real command.
fn draw(arguments: &str, name: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join(name);
    let arguments = arguments.split_whitespace();
    let output = Command::new(env!("CARGO_BIN_EXE_bigmac"))
        .arg("simulate")
        .args(arguments)
        .arg("--timeline")
        .arg(&file)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    (folder, file)
}

fn open(arguments: &str) -> Option<Browser> {
    let mut browser = Browser::start()?;
    let (_folder, file) = draw(arguments, "steps.html");
    browser.open(&file);
    Some(browser)
}

/// Where a bar's middle is in the window.
fn locate(browser: &mut Browser, timeline: usize, rank: usize, index: usize) -> (f64, f64) {
    let place = browser.value(&format!("bigmac.locate({timeline}, {rank}, {index})"));
    (place["x"].as_f64().unwrap(), place["y"].as_f64().unwrap())
}

fn hover(browser: &mut Browser, at: (f64, f64)) -> Vec<String> {
    browser.mouse("mouseMoved", at, Value::Null);
    let lines = "[...document.querySelectorAll('#tip:not([hidden]) :is(strong, dt, dd)')].map((part) => part.textContent)";
    let lines = browser.value(lines);
    lines.as_array().unwrap().iter().map(|line| line.as_str().unwrap().to_owned()).collect()
}

/// The colour drawn at a point of a timeline's canvas, over the page's ground.
fn pixel(browser: &mut Browser, timeline: usize, (x, y): (f64, f64)) -> Value {
    browser.value(&format!(
        "(() => {{ const canvas = document.querySelectorAll('.plot canvas')[{timeline}];
           const box = canvas.getBoundingClientRect(), ratio = canvas.width / box.width;
           const at = [{x} - box.left, {y} - box.top].map((part) => Math.floor(part * ratio));
           const copy = new OffscreenCanvas(1, 1).getContext('2d', {{ willReadFrequently: true }});
           copy.drawImage(canvas, ...at, 1, 1, 0, 0, 1, 1);
           return [...copy.getImageData(0, 0, 1, 1).data].slice(0, 3); }})()"
    ))
}

fn view(browser: &mut Browser) -> (f64, f64) {
    (browser.number("bigmac.view().from"), browser.number("bigmac.view().to"))
}

/// The time under a point of the window.
fn time_at(browser: &mut Browser, x: f64) -> f64 {
    let (from, to) = view(browser);
    let (a, b) = (
        browser.number("bigmac.locateMemory(0, 0, bigmac.view().from).x"),
        browser.number("bigmac.locateMemory(0, 0, bigmac.view().to).x"),
    );
    from + (x - a) / (b - a) * (to - from)
}

#[track_caller]
fn close(one: f64, other: f64) {
    assert_close(one, other, relative(1e-6).or_absolute(1e-6));
}

#[test]
fn the_page_says_what_ran_when() {
    let Some(mut browser) = open(SHAPE) else { return };
    browser.keep_screenshot("light");
    let words = browser.value("document.body.innerText");
    let words = words.as_str().unwrap();
    for said in [
        "nested",
        "monolithic",
        "time",
        "bubble",
        "encoder forward",
        "LLM backward",
        "generator backward",
        "idle",
    ] {
        assert!(words.contains(said), "{said} is not in {words}");
    }
    assert!(!words.contains("weight gradient"), "the legend names what does not occur");
    assert_eq!(browser.value("document.title"), "nested · monolithic");
    let labels =
        "[...document.querySelectorAll('canvas[role]')].map((canvas) => canvas.getAttribute('aria-label'))";
    let labels = browser.value(labels);
    assert!(labels[1].as_str().unwrap().starts_with("monolithic: 3 ranks, time "), "{labels}");

    // Rank 1 gets its first hidden states when rank 0 is through encoder (3) and LLM (1).
    let at = locate(&mut browser, 1, 1, 0);
    let tip = hover(&mut browser, at);
    let wanted = [
        "LLM chunk 1 forward",
        "works on",
        "microbatch 0",
        "rank",
        "1",
        "start",
        "4",
        "end",
        "5",
        "lasts",
        "1",
    ];
    assert_eq!(tip, wanted);
    browser.keep_screenshot("hover");

    // Every bar says what the trace of the same step says, and is where its time is.
    let (_folder, file) = draw(SHAPE, "steps.json");
    let trace: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let spans = trace["traceEvents"].as_array().unwrap().iter().filter(|event| event["ph"] == "X");
    let mut seen = std::collections::HashMap::new();
    for (number, span) in spans.enumerate() {
        let (timeline, rank) =
            (span["pid"].as_u64().unwrap() as usize, span["tid"].as_u64().unwrap() as usize);
        let index = seen.entry((timeline, rank)).or_insert(0);
        *index += 1;
        if number % 5 > 0 {
            continue;
        }
        let at = locate(&mut browser, timeline, rank, *index - 1);
        let tip = hover(&mut browser, at);
        let (operation, work) = span["args"]["op"].as_str().unwrap().split_once(" · ").unwrap();
        let (start, length) = (span["ts"].as_f64().unwrap() / 1e3, span["dur"].as_f64().unwrap() / 1e3);
        assert_eq!([&tip[0], &tip[2]], [operation, work]);
        close(tip[6].parse().unwrap(), start);
        close(tip[8].parse().unwrap(), start + length);
        let middle = time_at(&mut browser, at.0);
        close(middle, start + length / 2.0);
    }
    for ((timeline, rank), bars) in seen {
        assert_eq!(browser.value(&format!("bigmac.bars({timeline}, {rank})")), bars);
    }
    browser.mouse("mouseMoved", (5.0, 5.0), Value::Null);
    assert_eq!(browser.value("document.getElementById('tip').hidden"), true);
    assert_eq!(browser.complaints, [""; 0]);
    let elsewhere = |address: &&String| !address.starts_with("file:") && !address.starts_with("data:");
    assert_eq!(browser.requests.iter().filter(elsewhere).count(), 0, "{:?}", browser.requests);
}

#[test]
fn bars_and_memory_are_drawn_and_microbatches_light_up() {
    let Some(mut browser) = open(SHAPE) else { return };
    let corner = |browser: &mut Browser, timeline, rank, index| {
        let place = browser.value(&format!("bigmac.locate({timeline}, {rank}, {index})"));
        pixel(
            browser,
            timeline,
            (place["left"].as_f64().unwrap() + 3.0, place["top"].as_f64().unwrap() + 3.0),
        )
    };
    let forward = json!([0xa6, 0xc6, 0xee]);
    assert_eq!(corner(&mut browser, 1, 0, 0), json!([0xf2, 0xcc, 0x69]));
    assert_eq!(
        (corner(&mut browser, 1, 0, 1), corner(&mut browser, 1, 1, 0)),
        (forward.clone(), forward.clone())
    );

    // The middle of the step, just above the floor of a rank's memory: the LLM's activations.
    let lane = browser.value("bigmac.locateMemory(0, 0, 12)");
    let floor = (lane["x"].as_f64().unwrap(), lane["y"].as_f64().unwrap() + 12.0);
    assert_eq!(pixel(&mut browser, 0, floor), forward);
    let tip = hover(&mut browser, floor);
    assert!(tip[0].starts_with("rank 0 keeps at 12") && tip[0].ends_with("in microbatches"), "{tip:?}");
    assert_eq!((tip[1].as_str(), tip[3].as_str()), ("LLM", "encoder"));
    assert!(tip[2].parse::<f64>().unwrap() >= 1.0, "{tip:?}");

    // Microbatch 0 stands out on every rank while one of its ops is pointed at; others fade.
    let at = locate(&mut browser, 1, 1, 0);
    hover(&mut browser, at);
    browser.wait(DRAWN);
    assert_eq!(corner(&mut browser, 1, 0, 1), forward);
    assert_ne!(corner(&mut browser, 1, 1, 1), forward, "microbatch 1 has to fade");
    assert_eq!(browser.complaints, [""; 0]);
}

#[test]
fn a_measured_step_is_told_in_seconds_and_bytes() {
    let Some(mut browser) = Browser::start() else { return };
    let table: Table = "rank 0: E0F[0.0] L0F0 L0B0 E0B[0.0] step\n".parse().unwrap();
    let held = |encoder, llm| PerModule { encoder, llm, generator: 0 };
    let trace = Trace {
        spans: vec![(0.0, 0.02), (0.02, 0.05), (0.06, 0.09), (0.09, 0.11), (0.11, 0.11)],
        held: vec![held(3 << 20, 0), held(3 << 20, 512), held(3 << 20, 0), held(0, 0), held(0, 0)],
    };
    let measured = Timeline::measured("step 3, measured", &table, &[trace]);
    let simulated = Timeline { title: "another".to_owned(), ..measured.clone() };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("timeline.html");
    std::fs::write(&file, html(&[measured, simulated.scaled(0.5, TimeUnit::Seconds)])).unwrap();
    browser.open(&file);
    browser.keep_screenshot("measured");
    let words = browser.value("document.body.innerText");
    assert!(words.as_str().unwrap().contains("time 110 ms"), "{words}");
    let at = locate(&mut browser, 0, 0, 0);
    let tip = hover(&mut browser, at);
    assert_eq!(
        tip[2..],
        ["item 0.0", "rank", "0", "start", "0 s", "end", "20 ms", "lasts", "20 ms", "saves", "3 MiB"]
    );
    let at = locate(&mut browser, 1, 0, 2);
    let tip = hover(&mut browser, at);
    assert_eq!(tip[5..], ["start", "30 ms", "end", "45 ms", "lasts", "15 ms", "frees", "512 B"]);
    let lane = browser.value("bigmac.locateMemory(0, 0, 0.055)");
    let at = (lane["x"].as_f64().unwrap(), lane["y"].as_f64().unwrap());
    let tip = hover(&mut browser, at);
    assert_eq!(tip[1..], ["LLM", "512 B", "encoder", "3 MiB"]);
    assert_eq!(browser.complaints, [""; 0]);
}

#[test]
fn mouse_fingers_and_keys_move_through_time() {
    let Some(mut browser) = open(SHAPE) else { return };
    browser.prefer("prefers-reduced-motion", "reduce");
    let whole = browser.number("bigmac.view().whole");
    assert_eq!(view(&mut browser), (0.0, whole));

    // The wheel zooms about the pointer, which it knows in whole pixels.
    let at = locate(&mut browser, 0, 1, 5);
    let at = (at.0.floor(), at.1);
    let before = time_at(&mut browser, at.0);
    browser.mouse("mouseWheel", at, json!({ "deltaX": 0, "deltaY": -600 }));
    browser.wait(&format!("bigmac.view().to - bigmac.view().from < {}", whole * 0.6));
    let after = time_at(&mut browser, at.0);
    close(after, before);
    let tip = hover(&mut browser, at);
    assert!(tip.len() >= 11, "{tip:?}");
    browser.keep_screenshot("zoomed");

    // A drag moves what is under the pointer with it, and leaves the scale.
    let (from, to) = view(&mut browser);
    let grabbed = time_at(&mut browser, 700.0);
    let press = json!({ "button": "left", "buttons": 1, "clickCount": 1 });
    browser.mouse("mousePressed", (700.0, at.1), press.clone());
    for x in [690.0, 660.0, 600.0] {
        browser.mouse("mouseMoved", (x, at.1), press.clone());
    }
    browser.mouse("mouseReleased", (600.0, at.1), press.clone());
    let dropped = time_at(&mut browser, 600.0);
    close(dropped, grabbed);
    let moved = view(&mut browser);
    close(moved.1 - moved.0, to - from);
    assert!(moved.0 > from);

    // A double click shows the whole again.
    for count in [1, 2] {
        let press = json!({ "button": "left", "buttons": 1, "clickCount": count });
        browser.mouse("mousePressed", (600.0, at.1), press.clone());
        browser.mouse("mouseReleased", (600.0, at.1), press);
    }
    browser.wait(&format!("bigmac.view().from === 0 && bigmac.view().to === {whole}"));

    // Keys zoom about the middle, move, and show the whole.
    browser.key("+", false);
    close(view(&mut browser).1 - view(&mut browser).0, whole / 1.5);
    browser.key("+", false);
    let (from, to) = view(&mut browser);
    close((from + to) / 2.0, whole / 2.0);
    browser.key("ArrowRight", false);
    let right = view(&mut browser);
    close(right.0 - from, 0.15 * (to - from));
    browser.key("ArrowLeft", false);
    close(view(&mut browser).0, from);
    browser.key("-", false);
    close(view(&mut browser).1 - view(&mut browser).0, whole / 1.5);
    browser.key("0", false);
    assert_eq!(view(&mut browser), (0.0, whole));

    // Shift with arrows goes from op to op, says what it is, and Escape lets go.
    browser.key("Escape", false);
    browser.value("document.querySelectorAll('canvas[role]')[1].focus()");
    for _ in 0..2 {
        browser.key("ArrowRight", true);
    }
    let said = "document.getElementById('live').textContent";
    assert_eq!(
        browser.value(said),
        "LLM chunk 0 forward, works on microbatch 0, rank 0, start 3, end 4, lasts 1"
    );
    browser.key("ArrowDown", true);
    assert!(browser.value(said).as_str().unwrap().contains("rank 1"));
    browser.key("Escape", false);
    assert_eq!(
        (browser.value(said), browser.value("document.getElementById('tip').hidden")),
        ("".into(), true.into())
    );

    // Two fingers that part zoom in about the point between them.
    browser.call("Emulation.setTouchEmulationEnabled", json!({ "enabled": true, "maxTouchPoints": 2 }));
    let between = time_at(&mut browser, 600.0);
    let mut touch = |kind: &str, spread: &[f64]| {
        let points: Vec<Value> =
            spread.iter().enumerate().map(|(id, x)| json!({ "x": x, "y": at.1, "id": id })).collect();
        browser.call("Input.dispatchTouchEvent", json!({ "type": kind, "touchPoints": points }));
    };
    touch("touchStart", &[550.0, 650.0]);
    for step in 1..=10 {
        let spread = 10.0 * f64::from(step);
        touch("touchMove", &[550.0 - spread, 650.0 + spread]);
    }
    touch("touchEnd", &[]);
    let (from, to) = view(&mut browser);
    assert!((0.3..0.4).contains(&((to - from) / whole)), "{} of the whole", (to - from) / whole);
    assert_close(time_at(&mut browser, 600.0), between, absolute(0.02 * whole));
    assert_eq!(browser.complaints, [""; 0]);
}

#[test]
fn it_is_readable_in_light_in_dark_and_on_paper() {
    let Some(mut browser) = open(SHAPE) else { return };
    let contrast = "(() => {
        const light = (colour) => { const part = colour.match(/[\\d.]+/g).slice(0, 3).map((value) => value / 255);
            return part.map((value) => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4)
                .reduce((sum, value, i) => sum + value * [0.2126, 0.7152, 0.0722][i], 0); };
        const ratio = (a, b) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        const ground = (element) => { const colour = getComputedStyle(element).backgroundColor;
            return colour === 'rgba(0, 0, 0, 0)' && element.parentElement ? ground(element.parentElement) : colour; };
        const words = document.querySelectorAll('h2, small, p, kbd, li, summary, th, td, output, #tip');
        const least = Math.min(...[...words].map((word) => ratio(light(getComputedStyle(word).color), light(ground(word)))));
        return [words.length, least]; })()";
    let mut grounds = Vec::new();
    for scheme in ["light", "dark"] {
        browser.prefer("prefers-color-scheme", scheme);
        browser.wait(&format!("matchMedia('(prefers-color-scheme: {scheme})').matches"));
        let least = browser.value(contrast);
        assert!(least[0].as_u64() > Some(20) && least[1].as_f64() >= Some(4.5), "{scheme}: {least}");
        grounds.push(browser.value("getComputedStyle(document.body).backgroundColor"));
        // The canvas follows: the track of rank 0 where the last rank works alone.
        browser.wait(DRAWN);
        let idle =
            browser.value("(({ right, top }) => ({ x: right + 8, y: top + 8 }))(bigmac.locate(1, 1, 0))");
        let at = (idle["x"].as_f64().unwrap(), idle["y"].as_f64().unwrap());
        let track = if scheme == "light" { json!([0xee, 0xf0, 0xf3]) } else { json!([0x1b, 0x22, 0x2c]) };
        assert_eq!(pixel(&mut browser, 1, at), track);
        browser.keep_screenshot(scheme);
    }
    assert_eq!(grounds, ["rgb(255, 255, 255)", "rgb(15, 20, 27)"]);
    // Paper is white, whatever the screen is.
    browser.value("dispatchEvent(new Event('beforeprint'))");
    let idle = browser.value("(({ right, top }) => ({ x: right + 8, y: top + 8 }))(bigmac.locate(1, 1, 0))");
    let at = (idle["x"].as_f64().unwrap(), idle["y"].as_f64().unwrap());
    assert_eq!(pixel(&mut browser, 1, at), json!([0xee, 0xf0, 0xf3]));
    browser.value("dispatchEvent(new Event('afterprint'))");
    assert_eq!(pixel(&mut browser, 1, at), json!([0x1b, 0x22, 0x2c]));
    let paper = browser.call("Page.printToPDF", json!({ "landscape": true, "printBackground": true }));
    assert!(paper["data"].as_str().unwrap().starts_with("JVBERi"), "a PDF begins with %PDF-");
    assert_eq!(browser.complaints, [""; 0]);
}

#[test]
fn a_hundred_thousand_ops_stay_smooth() {
    let Some(mut browser) = Browser::start() else { return };
    let shape = "--schedule nested --ranks 8 --microbatches 2100 --cost F=1,B=1,W=1,Ef=2,Eb=4,Gf=2,Gb=4";
    let (_folder, file) = draw(shape, "steps.html");
    let begin = Instant::now();
    browser.open(&file);
    let opened = begin.elapsed();
    let bars = browser
        .number("Array.from({ length: 8 }, (_, rank) => bigmac.bars(0, rank)).reduce((a, b) => a + b)");
    assert!(bars > 1e5, "{bars}");
    assert!(opened < Duration::from_secs(10), "{opened:?}");
    browser.keep_screenshot("many");
    // What is thinner than a pixel is merged: no more shapes than kinds of ops per pixel of a row.
    let (shapes, first) =
        (browser.number("bigmac.drawn().shapes"), browser.number("bigmac.drawn().milliseconds"));
    assert!(shapes < 8.0 * 6.0 * 1280.0, "{shapes} shapes");
    // Every frame of a zoom to single ops.
    let mut slowest = first;
    let at = locate(&mut browser, 0, 3, 6000);
    for _ in 0..12 {
        let frames = browser.number("bigmac.drawn().frames");
        browser.mouse("mouseWheel", at, json!({ "deltaX": 0, "deltaY": -500 }));
        browser.wait(&format!("bigmac.drawn().frames > {frames}"));
        slowest = slowest.max(browser.number("bigmac.drawn().milliseconds"));
    }
    let tip = hover(&mut browser, at);
    assert!(tip.len() >= 11, "{tip:?}");
    assert!(browser.number("bigmac.drawn().shapes") < 2000.0);
    assert!(slowest < 1000.0, "a frame took {slowest} ms");
    println!("{bars} bars: open {opened:?}, first frame {first} ms, slowest {slowest} ms, {shapes} shapes");
    browser.keep_screenshot("many-zoomed");
    assert_eq!(browser.complaints, [""; 0]);
}
