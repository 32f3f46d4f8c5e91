//! One pool of threads per rank, and loops over it whose split never depends on how many threads there are.

use crate::error::{Error, Result};
use rayon::prelude::*;
use std::ops::Range;
use std::sync::Arc;

/// A pool of threads. With one thread everything runs inline in the caller.
///
/// Every loop is cut into blocks whose size the caller fixes from the problem alone, so results are the same, bit for
/// bit, for any number of threads.
#[derive(Clone, Debug)]
pub struct Threads {
    pool: Option<Arc<rayon::ThreadPool>>,
}

impl Threads {
    /// A pool of `count` threads.
    ///
    /// # Errors
    /// [`Error::Argument`] when `count` is 0 or the system refuses the threads.
    pub fn new(count: usize) -> Result<Self> {
        match count {
            0 => Err(Error::argument("threads", "expected at least 1 thread, got 0")),
            1 => Ok(Threads { pool: None }),
            _ => rayon::ThreadPoolBuilder::new()
                .num_threads(count)
                .thread_name(|i| format!("bigmac-pool-{i}"))
                .build()
                .map(|pool| Threads { pool: Some(Arc::new(pool)) })
                .map_err(|e| Error::argument("threads", format!("cannot start {count} threads: {e}"))),
        }
    }

    /// How many threads the pool has.
    pub fn count(&self) -> usize {
        self.pool.as_ref().map_or(1, |p| p.current_num_threads())
    }

    /// Calls `f(block index, range)` for each block of `block` consecutive indices of `0..len`.
    pub fn blocks(&self, len: usize, block: usize, f: impl Fn(usize, Range<usize>) + Sync) {
        self.map_blocks(len, block, f);
    }

    /// As [`Threads::blocks`], and returns what `f` returned, in the order of the blocks.
    pub fn map_blocks<R: Send>(
        &self,
        len: usize,
        block: usize,
        f: impl Fn(usize, Range<usize>) -> R + Sync,
    ) -> Vec<R> {
        let block = block.max(1);
        let count = len.div_ceil(block);
        let run = |i: usize| f(i, i * block..((i + 1) * block).min(len));
        match &self.pool {
            Some(pool) if count > 1 => pool.install(|| (0..count).into_par_iter().map(run).collect()),
            _ => (0..count).map(run).collect(),
        }
    }

    /// Cuts `out` into chunks of `chunk` elements (the last may be shorter) and calls `f(chunk index, chunk)`.
    pub fn chunks_mut<T: Send>(&self, out: &mut [T], chunk: usize, f: impl Fn(usize, &mut [T]) + Sync) {
        let chunk = chunk.max(1);
        match &self.pool {
            Some(pool) if out.len() > chunk => {
                pool.install(|| out.par_chunks_mut(chunk).enumerate().for_each(|(i, c)| f(i, c)));
            }
            _ => out.chunks_mut(chunk).enumerate().for_each(|(i, c)| f(i, c)),
        }
    }

    /// As [`Threads::chunks_mut`] over two slices cut side by side into the same number of chunks.
    pub fn chunks2_mut<T: Send, U: Send>(
        &self,
        a: (&mut [T], usize),
        b: (&mut [U], usize),
        f: impl Fn(usize, &mut [T], &mut [U]) + Sync,
    ) {
        let (chunk_a, chunk_b) = (a.1.max(1), b.1.max(1));
        match &self.pool {
            Some(pool) if a.0.len() > chunk_a => pool.install(|| {
                a.0.par_chunks_mut(chunk_a)
                    .zip(b.0.par_chunks_mut(chunk_b))
                    .enumerate()
                    .for_each(|(i, (x, y))| f(i, x, y));
            }),
            _ => {
                for (i, (x, y)) in a.0.chunks_mut(chunk_a).zip(b.0.chunks_mut(chunk_b)).enumerate() {
                    f(i, x, y);
                }
            }
        }
    }
}
