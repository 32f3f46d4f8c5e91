//! A bundle of programs that only pretend, and the tools of a GPU's machine likewise: what they do is a variable's to
//! say.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// What every pretender begins with. `FAKES` lists words `what:how`: where a program is called for `what`, it hangs,
/// dies, or fails.
const BEGIN: &str = r#"#!/usr/bin/env bash
act() {
    case " ${FAKES:-} " in
    *" $1:hang "*) exec sleep 1000 ;;
    *" $1:kill "*) kill -KILL $$ ;;
    *" $1:fault "*) kill -SEGV $$ ;;
    *" $1:illegal "*) kill -ILL $$ ;;
    *" $1:fail "*) echo "FAILED  $1 (0.1 s): it is 1, expected 2"; exit 1 ;;
    esac
}
after() {
    local wanted="$1"
    shift
    while [ $# -gt 0 ]; do
        if [ "$1" = "$wanted" ]; then echo "$2"; return; fi
        shift
    done
}
"#;

const GPU_TESTS: &str = r#"
if [ "$1" = --list ]; then
    act list
    printf '%s\n' kernel-broken memory-budget product-anywhere product-101 product-102 attention-128 attention-64 step-text command-train \
        kernel-changed memory-exhausted
    exit
fi
only="$(after --only "$@")"
if [ "$only" = kernel-broken,memory-budget ]; then act smoke; fi
for name in ${only//,/ }; do act "$name"; echo "passed  $name (0.1 s): pretended on $(after --device "$@")"; done
"#;
const BENCH: &str = r#"
case "$1" in
kernels)
    op="$(after --op "$@")"
    act "lab-${op%%,*}"
    if [[ "$*" == *--choice* ]] && [ -n "$(after --out "$@")" ]; then act peer; fi
    if [ -n "$(after --out "$@")" ]; then echo "{\"op\":\"${op%%,*}\"}" >>"$(after --out "$@")"; fi
    ;;
step)
    act "step-$(after --model "$@")"
    echo "{\"model\":\"$(after --model "$@")\",\"tokens_per_second\":1}"
    ;;
summary) shift; echo "rows: $(cat "$@" | wc -l)" ;;
esac
"#;
const KERNEL_TESTS: &str = r#"
if [ "$1" = --list ]; then
    for module in add adamw gelu; do echo "$module::tests::works: test"; echo "$module::tests::is_refused: test"; done
    exit
fi
act "${1%%::*}"
echo "test result: ok on $BIGMAC_CHECK_DEVICE"
"#;
const STEP_TESTS: &str = "act step-tests\necho ok\n";
const BIGMAC: &str = "act doctor\necho 'NVRTC 13.0 and a driver'\n";
const SMI: &str = "act nvidia-smi\necho 'NVIDIA H200, 580.1'\n";
const NCU: &str =
    "act ncu\necho '  product_hopper (1, 1, 1)x(384, 1, 1)'\necho '    DRAM Throughput  %  42.00'\n";
const SANITIZER: &str = "act memcheck\necho '========= ERROR SUMMARY: 0 errors'\n";
const PYTHON: &str = r#"
if [ "$1" = -c ]; then act torch; echo 'PyTorch 2.11'; exit; fi
act twin
echo "{\"model\":\"$(basename "$(after --model "$@")")\",\"framework\":\"torch\",\"tokens_per_second\":1}"
"#;

/// A bundle's folder and a folder of tools, made of pretenders.
pub struct Fakes {
    folder: tempfile::TempDir,
}

/// What a run of the script left.
pub struct Run {
    /// Its exit code.
    pub code: Option<i32>,
    /// What it printed.
    pub stdout: String,
    /// How each part ended, and what is said of it.
    pub parts: BTreeMap<String, (String, String)>,
    /// The files in its folder of results.
    pub files: BTreeMap<String, String>,
}

fn program(path: &Path, text: &str) {
    fs::write(path, format!("{BEGIN}{text}")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

impl Fakes {
    /// All of them.
    pub fn new() -> Fakes {
        let fakes = Fakes { folder: tempfile::tempdir().unwrap() };
        let (bundle, tools) = (fakes.bundle(), fakes.tools());
        for folder in [&bundle, &tools, &bundle.join("cache"), &bundle.join("models")] {
            fs::create_dir_all(folder).unwrap();
        }
        fs::write(bundle.join("VERSION"), "commit abc\n").unwrap();
        fs::write(bundle.join("cache/one.cubin"), "compiled").unwrap();
        for (name, text) in [
            ("gpu-tests", GPU_TESTS),
            ("bigmac-bench", BENCH),
            ("kernel-tests", KERNEL_TESTS),
            ("step-tests", STEP_TESTS),
            ("bigmac", BIGMAC),
        ] {
            program(&bundle.join(name), text);
        }
        for (name, text) in
            [("nvidia-smi", SMI), ("ncu", NCU), ("compute-sanitizer", SANITIZER), ("python3", PYTHON)]
        {
            program(&tools.join(name), text);
        }
        fakes
    }

    /// The bundle's folder.
    pub fn bundle(&self) -> PathBuf {
        self.folder.path().join("bundle")
    }

    /// The folder of tools, which is first on the path.
    pub fn tools(&self) -> PathBuf {
        self.folder.path().join("tools")
    }

    /// Runs the script on a device that is not there either, with these words in `FAKES`.
    pub fn run(&self, name: &str, fakes: &str, variables: &[(&str, &str)]) -> Run {
        let out = self.folder.path().join(name);
        let path = format!("{}:{}", self.tools().display(), std::env::var("PATH").unwrap());
        let mut command = script();
        command.args([self.bundle(), out.clone()]).env("PATH", path).env("FAKES", fakes);
        command.envs(variables.iter().copied());
        read(&command.output().unwrap(), &out)
    }
}

/// The script, without the variables that it reads.
pub fn script() -> Command {
    let mut command = Command::new("bash");
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("borrowed.sh"));
    for variable in ["PARTS", "BUDGET", "BIGMAC_GPU_TIMEOUT", "CUDA_HOME"] {
        command.env_remove(variable);
    }
    command
}

/// What a run left in `out`.
pub fn read(output: &Output, out: &Path) -> Run {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(out).into_iter().flatten().flatten() {
        let text = String::from_utf8_lossy(&fs::read(entry.path()).unwrap()).into_owned();
        files.insert(entry.file_name().into_string().unwrap(), text);
    }
    let rows = files.get("parts.tsv").map_or("", String::as_str).lines();
    let parts = rows.map(|row| {
        let cells: Vec<&str> = row.split('\t').collect();
        (cells[0].to_owned(), (cells[1].to_owned(), cells[3].to_owned()))
    });
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    Run { code: output.status.code(), stdout, parts: parts.collect(), files }
}
