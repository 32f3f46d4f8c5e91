//! Every kernel compiled into the cache, so that a machine that has the GPU compiles nothing.

use anyhow::{Context as _, bail};
use bigmac_gpu::cache::Cache;
use bigmac_gpu::nvidia::Compiler;
use bigmac_gpu::{Knobs, Program, Source, Variants};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// Compiles every program that launches on `architecture` can ask for into the kernel cache, on all processors.
///
/// # Errors
/// When NVRTC is not found or too old for the architecture, no kernel is for that architecture, or one does not
/// compile.
pub fn compile(architecture: &str) -> anyhow::Result<()> {
    let compiler = Compiler::open()?;
    compiler.check_target(architecture)?;
    let cache = Cache::open()?;
    let work = programs(architecture);
    if work.is_empty() {
        bail!("no kernel is listed for {architecture}; the listed architectures are sm_80 and sm_90a");
    }
    println!(
        "{} programs for {architecture} by NVRTC {} ({}) into {}",
        work.len(),
        compiler.version(),
        compiler.file().display(),
        cache.directory().display()
    );
    let began = Instant::now();
    let (next, errors) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let take = || {
        while let Some((source, knobs)) = work.get(next.fetch_add(1, Ordering::Relaxed)) {
            let compiled = compiler.compile_cached(architecture, &Program { source, knobs }, &cache);
            if let Err(error) = compiled {
                errors.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(error);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(take);
        }
    });
    let errors = errors.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    let count = errors.len();
    if let Some(first) = errors.into_iter().next() {
        return Err(first)
            .with_context(|| format!("{count} of {} programs do not compile; the first", work.len()));
    }
    println!("compiled, or found there, in {:.0} s", began.elapsed().as_secs_f64());
    Ok(())
}

/// The programs of every source for an architecture: those of operators, and of what else launches kernels.
fn programs(architecture: &str) -> Vec<(&'static Source, Knobs)> {
    let mut lists: Vec<Variants> = bigmac_kernels::programs::programs();
    lists.push(crate::compile::variants());
    let here = lists.iter().filter(|list| list.architectures().contains(&architecture));
    here.flat_map(|list| list.programs().into_iter().map(|knobs| (list.source(), knobs))).collect()
}
