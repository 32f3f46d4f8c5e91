//! A working directory for each test, with a small data set in it, and the command run there under a time limit.

use image::{Rgb, RgbImage};
use serde_json::Value;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Far beyond what any test needs, so that only a hang meets it.
const LIMIT: Duration = Duration::from_secs(300);

/// A model of some 20,000 parameters over the data set that [`Work::new`] writes.
const TINY: &str = r#"
[data]
path = "data"
[model.encoder]
width = 16
layers = 1
heads = 2
mlp = 32
image_size = 16
patch = 8
[model.llm]
width = 16
layers = 3
heads = 2
kv_heads = 1
head_dim = 8
mlp = 32
[model.generator]
layers = 1
heads = 2
head_dim = 8
image_size = 16
patch = 4
rope_axes = [4, 2, 2]
sample_steps = 2
[train]
steps = 3
batch = 4
microbatches = 2
tokens_per_microbatch = 128
lr = 1e-3
warmup = 2
[pipeline]
timeout = 60
[output]
checkpoint_every = 0
sample_every = 0
samples = 2
final_samples = 2
"#;

/// Colours of the pictures: number `i` is `data/i.png`, named by lines `i + 1` and `i + 7` of `data/train.jsonl`.
pub const COLORS: [(&str, [u8; 3]); 6] = [
    ("red", [220, 40, 40]),
    ("green", [40, 180, 60]),
    ("blue", [40, 60, 220]),
    ("yellow", [230, 210, 40]),
    ("orange", [240, 140, 30]),
    ("purple", [140, 50, 170]),
];

/// A working directory.
pub struct Work {
    folder: TempDir,
}

/// How a process ended and what it wrote.
pub struct Ended {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Work {
    /// With `tiny.toml`, and `data/` of 6 captions, 6 drawings and 2 texts, and 2 captions and 2 drawings held out.
    pub fn new() -> Work {
        let work = Work { folder: tempfile::tempdir().unwrap() };
        fs::write(work.path("tiny.toml"), TINY).unwrap();
        fs::create_dir(work.path("data")).unwrap();
        let (mut captions, mut drawings) = (Vec::new(), Vec::new());
        for (i, (name, color)) in COLORS.into_iter().enumerate() {
            RgbImage::from_pixel(16, 16, Rgb(color)).save(work.path(&format!("data/{i}.png"))).unwrap();
            captions.push(format!(r#"{{"text": "<image>all {name}", "images": ["{i}.png"]}}"#));
            drawings.push(format!(r#"{{"prompt": "small {name} circle center", "draw": "{i}.png"}}"#));
        }
        let texts = ["red and blue", "green is a colour"].map(|text| format!(r#"{{"text": "{text}"}}"#));
        let heldout = [&captions[..2], &drawings[..2]].concat();
        work.write_lines("data/train.jsonl", [&captions[..], &drawings, &texts].concat());
        work.write_lines("data/heldout.jsonl", heldout);
        work
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write_lines<S: AsRef<str>>(&self, name: &str, lines: impl IntoIterator<Item = S>) {
        let text: String = lines.into_iter().map(|line| line.as_ref().to_owned() + "\n").collect();
        fs::write(self.path(name), text).unwrap();
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    /// Names in a folder, sorted.
    pub fn names(&self, folder: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(folder)).unwrap_or_else(|e| panic!("{folder}: {e}"));
        let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// The command with arguments cut at white space, its output caught.
    pub fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bigmac"));
        command.args(arguments.split_whitespace()).current_dir(self.folder.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub fn run(&self, arguments: &str) -> Ended {
        wait(self.command(arguments).spawn().unwrap())
    }

    /// What a run that has to succeed writes to standard output.
    pub fn ok(&self, arguments: &str) -> String {
        let ended = self.run(arguments);
        assert!(ended.status.success(), "bigmac {arguments}: {}\n{}", ended.status, ended.stderr);
        ended.stdout
    }

    pub fn json(&self, arguments: &str) -> Value {
        let stdout = self.ok(&format!("{arguments} --json"));
        serde_json::from_str(&stdout).unwrap_or_else(|e| panic!("bigmac {arguments}: {e}:\n{stdout}"))
    }

    /// The error of input that has to be refused: code 2, nothing on standard output, one paragraph with all of
    /// `wanted` in it.
    pub fn error(&self, arguments: &str, wanted: &[&str]) -> String {
        refused(&self.run(arguments), wanted)
    }

    /// The same of a run that has to fail: code 1.
    pub fn failure(&self, arguments: &str, wanted: &[&str]) -> String {
        ended_with(1, &self.run(arguments), wanted)
    }

    /// The steps of a run's metrics, without what no two runs have in common: times, and peaks that depend on them.
    pub fn metrics(&self, run: &str) -> Vec<Value> {
        let timed = ["seconds", "tokens_per_second", "images_per_second", "peak_bytes"];
        let text = self.read(&format!("{run}/metrics.jsonl"));
        let line = |line| {
            let mut value: Value = serde_json::from_str(line).unwrap();
            let object = value.as_object_mut().unwrap();
            timed.iter().for_each(|key| assert!(object.remove(*key).is_some(), "{key}"));
            value
        };
        text.lines().map(line).collect()
    }

    /// The numbers of a run's steps.
    pub fn steps(&self, run: &str) -> Vec<u64> {
        self.metrics(run).iter().map(|step| step["step"].as_u64().unwrap()).collect()
    }

    /// The losses of a run's steps.
    pub fn losses(&self, run: &str) -> Vec<f64> {
        self.metrics(run).iter().map(|step| step["loss"].as_f64().unwrap()).collect()
    }
}

/// See [`Work::error`].
pub fn refused(ended: &Ended, wanted: &[&str]) -> String {
    ended_with(2, ended, wanted)
}

/// The error of a process that has to end with that code.
pub fn ended_with(code: i32, ended: &Ended, wanted: &[&str]) -> String {
    let Ended { status, stdout, stderr } = ended;
    assert_eq!(status.code(), Some(code), "{status}\n{stdout}{stderr}");
    assert!(stdout.is_empty(), "{stdout}");
    let error = stderr.split_once("error: ").unwrap_or_else(|| panic!("no error in {stderr}")).1;
    assert_eq!(error.lines().count(), 1, "more than a paragraph: {error}");
    for wanted in wanted {
        assert!(error.contains(wanted), "'{wanted}' is not in: {error}");
    }
    error.to_owned()
}

/// Waits for a process, reading what it writes. One that panicked or goes on for ever fails the test.
pub fn wait(mut child: Child) -> Ended {
    let (stdout, stderr) = (reader(child.stdout.take()), reader(child.stderr.take()));
    let began = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if began.elapsed() > LIMIT {
            child.kill().unwrap();
            panic!("the process hangs; it wrote:\n{}", stderr.join().unwrap());
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    let ended = Ended { status, stdout: stdout.join().unwrap(), stderr: stderr.join().unwrap() };
    assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
    ended
}

fn reader(pipe: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut text = String::new();
        if let Some(mut pipe) = pipe {
            pipe.read_to_string(&mut text).unwrap();
        }
        text
    })
}

/// Waits until `met`; a process that ends before fails the test.
pub fn wait_until(child: &mut Child, met: impl Fn() -> bool) {
    let began = Instant::now();
    while !met() {
        assert!(child.try_wait().unwrap().is_none(), "the process ended early");
        assert!(began.elapsed() < LIMIT, "the process does not get there");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Sends a signal.
pub fn signal(child: &Child, signal: libc::c_int) {
    // SAFETY: kill takes any number; the child is not waited for yet, so its number is no other process's.
    assert_eq!(unsafe { libc::kill(child.id() as libc::pid_t, signal) }, 0);
}

/// Every file below a folder with its contents, by its path there.
pub fn contents(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
        let path = entry.unwrap().path();
        let name = PathBuf::from(path.file_name().unwrap());
        if path.is_dir() {
            files.extend(contents(&path).into_iter().map(|(below, bytes)| (name.join(below), bytes)));
        } else {
            files.push((name, fs::read(&path).unwrap()));
        }
    }
    files.sort();
    files
}

/// Fails unless two folders hold the same files with the same bytes.
pub fn assert_same_files(a: &Path, b: &Path) {
    let (a, b) = (contents(a), contents(b));
    let names = |files: &[(PathBuf, Vec<u8>)]| files.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&a), names(&b));
    for ((name, a), (_, b)) in a.iter().zip(&b) {
        assert!(a == b, "{} differs", name.display());
    }
}

/// Copies a folder.
pub fn copy(from: &Path, to: &Path) {
    for (name, bytes) in contents(from) {
        let path = to.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}
