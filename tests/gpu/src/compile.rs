//! Kernels that do not compile, and kernels that change while the program runs.

use crate::bench::{Bench, Outcome};
use anyhow::{Context as _, bail, ensure};
use bigmac_gpu::{KERNEL_DIR, Launch, Source, Variants};
use bigmac_runtime::{DType, Tensor};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

static BROKEN: Source = Source::new(
    "gpu_tests/broken.cu",
    "#include \"bigmac.cuh\"\nKERNEL void f(float* x) {\n    x[0] = undeclared;\n}\n",
);
static SCALE: Source = Source::new(
    "gpu_tests/scale.cu",
    "#include \"bigmac.cuh\"\nKERNEL void scale(const float* x, float* y) {\n    y[threadIdx.x] = 2.0f * x[threadIdx.x];\n}\n",
);
/// What of these tests' kernels compiles.
pub fn variants() -> Variants {
    Variants::new(&SCALE).elements(&[])
}

/// Sources are looked at again after less than this.
const LOOKED_AT: Duration = Duration::from_millis(400);

fn scaled(bench: &Bench) -> anyhow::Result<f32> {
    let x = Tensor::from_slice(&bench.ctx, &[1f32; 32], &[32])?;
    let mut y = Tensor::empty(&bench.ctx, &[32], DType::F32)?;
    bench.ctx.launch(&Launch::new(&SCALE, "scale"), &[x.arg()?, y.arg_mut()?])?;
    let y = y.to_vec::<f32>(&bench.ctx)?;
    ensure!(y.iter().all(|v| *v == y[0]), "{y:?}");
    Ok(y[0])
}

/// An error with file, line and the compiler's words, after which others still compile.
///
/// # Errors
/// When it is not.
pub fn broken(bench: &Bench) -> anyhow::Result<Outcome> {
    let mut x = Tensor::empty(&bench.ctx, &[1], DType::F32)?;
    let launched = bench.ctx.launch(&Launch::new(&BROKEN, "f"), &[x.arg_mut()?]);
    let Err(error) = launched else { bail!("a kernel with an undeclared name compiled") };
    let text = error.to_string();
    // NVRTC writes a line's number in parentheses, others behind a colon.
    let named = ["gpu_tests/broken.cu:3", "gpu_tests/broken.cu(3)"].iter().any(|place| text.contains(place));
    ensure!(named && text.contains("undeclared"), "{text}");
    ensure!(scaled(bench)? == 2.0, "another kernel does not run any more");
    Ok(Outcome::Passed(text.lines().next().unwrap_or_default().to_owned()))
}

/// A source in the directory of [`KERNEL_DIR`] is compiled again when it changes, in a process that was started with
/// it.
///
/// # Errors
/// When it is not.
pub fn changed(bench: &Bench) -> anyhow::Result<Outcome> {
    let directory = tempfile::tempdir()?;
    let program = std::env::current_exe().context("this program's own path")?;
    let mut child = Command::new(program);
    child.args(["--device", &bench.gpu.device().to_string(), "--kernels-in"]).arg(directory.path());
    let ended =
        child.env(KERNEL_DIR, directory.path()).output().context("cannot start this program again")?;
    ensure!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    Ok(Outcome::Passed("the program's own, another, a broken one and a mended one".into()))
}

/// The part of [`changed`] in the process whose [`KERNEL_DIR`] is `directory`.
///
/// # Errors
/// When a change is not seen.
pub fn in_directory(bench: &Bench, directory: &Path) -> anyhow::Result<()> {
    let path = directory.join(SCALE.file);
    let folder = path.parent().context("a source lies in a folder")?;
    let write = |text: &str| -> anyhow::Result<()> {
        std::fs::write(&path, text)?;
        std::thread::sleep(LOOKED_AT);
        Ok(())
    };
    std::fs::create_dir_all(folder)?;
    for factor in ["3.0f", "5.0f"] {
        write(&SCALE.text.replace("2.0f", factor))?;
        let wanted: f32 = factor.trim_end_matches('f').parse()?;
        let given = scaled(bench)?;
        ensure!(given == wanted, "with a factor of {wanted} in the source, 1 became {given}");
    }
    write(&SCALE.text.replace("2.0f", "missing"))?;
    let Err(error) = scaled(bench) else { bail!("a source that was broken meanwhile still compiles") };
    ensure!(format!("{error:#}").contains(&path.display().to_string()), "{error:#}");
    write(&SCALE.text.replace("2.0f", "7.0f"))?;
    ensure!(scaled(bench)? == 7.0, "a source that was mended is not compiled");
    Ok(())
}
