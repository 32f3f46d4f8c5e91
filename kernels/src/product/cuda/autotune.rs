//! Times the kernels that can do a problem, when asked to, and remembers which was the fastest.

use super::variant::Variant;
use super::variants;
use super::{Output, Problem, launch};
use bigmac_gpu::Gpu;
use bigmac_gpu::cache::Cache;
use bigmac_runtime::memory::scopes;
use bigmac_runtime::{Context, Error, Result, Tensor, fs};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

/// The variable that, set to anything but 0, has kernels timed when a problem of a new kind first comes up. What was found is kept
/// beside the compiled kernels, in a file for each kind of device.
pub const AUTOTUNE: &str = "BIGMAC_AUTOTUNE";

/// What a kernel took.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// The kernel.
    pub variant: &'static Variant,
    /// Seconds of device time for one launch, or two where the sum is split.
    pub seconds: f64,
}

/// Times every kernel that can do the problem, with the sums cut in `splits` parts, fastest first. The problem's output is left as it is.
///
/// # Errors
/// Those of allocating workspace, of launching and of the driver.
pub fn measure(ctx: &Context, problem: &Problem<'_>, splits: usize) -> Result<Vec<Timing>> {
    const RUNS: usize = 10;
    let Some(gpu) = ctx.gpu() else {
        return Err(Error::argument(problem.op, "kernels can't be timed in a context on the CPU"));
    };
    let marked = || gpu.driver().mark().map_err(|e| gpu.error("autotune", e));
    let spec = problem.out_span();
    let mut scratch = Tensor::zeros(&ctx.in_scope(scopes::WORKSPACE), &[spec], problem.out.tensor.dtype())?;
    let mut timings = Vec::new();
    for variant in variants::variants().iter().filter(|v| v.takes(ctx, problem)) {
        let out = Output { tensor: &mut scratch, offset: 0, leading: problem.out.leading };
        let mut trial = Problem { out, ..*problem };
        // The first run may compile it.
        launch::launch(ctx, variant, splits, &mut trial)?;
        let from = marked()?;
        for _ in 0..RUNS {
            launch::launch(ctx, variant, splits, &mut trial)?;
        }
        let to = marked()?;
        let seconds = gpu.driver().seconds_between(from, to).map_err(|e| gpu.error("autotune", e));
        for mark in [from, to] {
            gpu.driver().forget(mark);
        }
        timings.push(Timing { variant, seconds: seconds? / RUNS as f64 });
    }
    timings.sort_by(|x, y| x.seconds.total_cmp(&y.seconds));
    Ok(timings)
}

/// The fastest kernel of the rule's family for the problem, when kernels are to be timed; `None` when they aren't. Another family might
/// give other bits than the rule's does.
///
/// # Errors
/// As [`measure`]; those of reading and writing the file.
pub(super) fn chosen(
    ctx: &Context,
    problem: &Problem<'_>,
    splits: usize,
) -> Result<Option<&'static Variant>> {
    static ASKED: OnceLock<bool> = OnceLock::new();
    static CHOICES: Mutex<BTreeMap<PathBuf, Choices>> = Mutex::new(BTreeMap::new());
    let asked = || std::env::var_os(AUTOTUNE).is_some_and(|v| !v.is_empty() && v != "0");
    let Some(gpu) = ctx.gpu().filter(|_| *ASKED.get_or_init(asked)) else { return Ok(None) };
    let cache = Cache::open().map_err(|e| gpu.error("autotune", e))?;
    let path = cache.directory().join(Choices::file(gpu));
    // Held while kernels are timed: other ranks' work in between would be timed with them.
    let mut all = CHOICES.lock().unwrap_or_else(PoisonError::into_inner);
    if !all.contains_key(&path) {
        all.insert(path.clone(), Choices::read(&path)?);
    }
    let Some(choices) = all.get_mut(&path) else { return Ok(None) };
    choices.choose(ctx, problem, splits, &path).map(Some)
}

/// Numbers of the fastest kernels by what problems are like.
#[derive(Debug, Default)]
struct Choices(BTreeMap<String, u32>);

impl Choices {
    /// The name of the file for a device.
    fn file(gpu: &Gpu) -> String {
        let device = format!("{} {}", gpu.driver().name(), gpu.driver().target());
        let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
        format!("products-{}.txt", device.chars().map(plain).collect::<String>())
    }

    /// What the file holds, nothing when there is none. Lines that aren't understood are left out, so that they are measured anew.
    fn read(path: &Path) -> Result<Choices> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(Error::io(path, error)),
        };
        let line = |line: &str| {
            let (problem, number) = line.rsplit_once(": ")?;
            Some((problem.to_owned(), number.parse().ok()?))
        };
        Ok(Choices(text.lines().filter_map(line).collect()))
    }

    /// What kernels are told apart by.
    fn key(problem: &Problem<'_>, splits: usize) -> Result<String> {
        let stored = |transposed: bool| if transposed { 't' } else { 'n' };
        let form = [problem.a.transposed, problem.b.transposed].map(stored);
        Ok(format!(
            "{}{} {} to {} {}x{}x{} by {} in {splits} {:?}{}",
            form[0],
            form[1],
            problem.dtype(),
            problem.out.tensor.dtype(),
            problem.m,
            problem.n,
            problem.k,
            problem.batch.count,
            problem.epilogue.activation,
            if problem.is_aligned()? { "" } else { " unaligned" }
        ))
    }

    /// The kernel for a problem, timed when it isn't known.
    fn choose(
        &mut self,
        ctx: &Context,
        problem: &Problem<'_>,
        splits: usize,
        path: &Path,
    ) -> Result<&'static Variant> {
        let key = Choices::key(problem, splits)?;
        let ruled = variants::choose(ctx, problem, splits)?;
        let fits = |v: &&Variant| v.family == ruled.family && v.takes(ctx, problem);
        let known =
            self.0.get(&key).and_then(|&number| variants::variants().iter().find(|v| v.number == number));
        if let Some(variant) = known.filter(fits) {
            return Ok(variant);
        }
        let timings = measure(ctx, problem, splits)?;
        let fastest = timings.into_iter().map(|t| t.variant).find(fits).unwrap_or(ruled);
        self.0.insert(key, fastest.number);
        fs::write_atomically(path, |file| {
            self.0.iter().try_for_each(|(problem, number)| writeln!(file, "{problem}: {number}"))
        })?;
        Ok(fastest)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Batch, Epilogue, Factor};
    use super::*;
    use crate::check::gpus;
    use bigmac_runtime::DType;

    #[test]
    fn what_was_timed_is_found_again() {
        let Some(gpu) = gpus().unwrap().first() else { return };
        let ctx = Context::on_gpu(0, 1, gpu).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(Choices::file(gpu));
        let tensor = |len: usize| Tensor::zeros(&ctx, &[len], DType::F32).unwrap();
        let (a, b, mut c) = (tensor(12), tensor(20), tensor(15));
        let (x, y) = (Factor::new(&a, 3, 4), Factor::new(&b, 4, 5));
        let epilogue = Epilogue { accumulate: true, ..Epilogue::default() };
        let problem = Problem::new("test", x, y, Output::new(&mut c, 5), epilogue, Batch::ONE).unwrap();
        let timings = measure(&ctx, &problem, 1).unwrap();
        assert!(timings.len() > 1 && timings.iter().all(|t| t.seconds > 0.0));
        let fastest = Choices::default().choose(&ctx, &problem, 1, &path).unwrap();
        let mut read = Choices::read(&path).unwrap();
        assert_eq!(read.0.values().copied().collect::<Vec<_>>(), [fastest.number]);
        // The file decides, unless what it says can't be.
        let key = Choices::key(&problem, 1).unwrap();
        let other =
            variants::variants().iter().find(|v| v.family == fastest.family && *v != fastest).unwrap();
        read.0.insert(key.clone(), other.number);
        assert_eq!(read.choose(&ctx, &problem, 1, &path).unwrap(), other);
        read.0.insert(key, 0);
        assert_eq!(read.choose(&ctx, &problem, 1, &path).unwrap().family, fastest.family);
        std::fs::write(&path, "no choice\nmore: less\n").unwrap();
        assert!(Choices::read(&path).unwrap().0.is_empty());
    }
}
