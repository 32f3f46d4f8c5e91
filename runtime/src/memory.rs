//! Memory scopes, which count bytes, and the cache of freed blocks.

use crate::error::{Error, Result};
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Locks, also after a panic elsewhere: every critical section here leaves its data whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The names under which BigMac counts memory; activations have one scope per module, `activations.NAME`.
pub mod scopes {
    /// Weights in the dtype that is computed with.
    pub const PARAMETERS: &str = "parameters";
    /// Gradients of the weights.
    pub const GRADIENTS: &str = "gradients";
    /// Moments and master weights.
    pub const OPTIMIZER: &str = "optimizer";
    /// What is computed once and read by many operations, such as tables of rotary angles.
    pub const TABLES: &str = "tables";
    /// Values sent and not yet received.
    pub const MESSAGES: &str = "messages";
    /// Everything that lives within one operation.
    pub const WORKSPACE: &str = "workspace";
    /// Copies on the CPU of what lies on a GPU.
    pub const HOST: &str = "host";
}

#[derive(Debug)]
struct Counters {
    name: String,
    rank: usize,
    current: AtomicUsize,
    peak: AtomicUsize,
    budget: AtomicUsize,
}

/// A named count of bytes of one rank: current, peak, and a budget. Cloning gives another handle on the same count.
#[derive(Clone, Debug)]
pub struct MemoryScope(Arc<Counters>);

impl MemoryScope {
    /// The scope's name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Bytes in use now.
    pub fn current(&self) -> usize {
        self.0.current.load(Ordering::Relaxed)
    }

    /// The most bytes that were in use at once since [`MemoryScope::reset_peak`].
    pub fn peak(&self) -> usize {
        self.0.peak.load(Ordering::Relaxed)
    }

    /// Starts a new measurement of the peak, from what is in use now.
    pub fn reset_peak(&self) {
        self.0.peak.store(self.current(), Ordering::Relaxed);
    }

    /// Allows at most `bytes` in use at once; `None` lifts the limit.
    pub fn set_budget(&self, bytes: Option<usize>) {
        self.0.budget.store(bytes.unwrap_or(usize::MAX), Ordering::Relaxed);
    }

    /// True when both are handles on the same count.
    pub fn same(&self, other: &MemoryScope) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Counts `bytes` more.
    pub(crate) fn charge(&self, bytes: usize) -> Result<()> {
        let c = &*self.0;
        let before = c.current.fetch_add(bytes, Ordering::Relaxed);
        let allowed = c.budget.load(Ordering::Relaxed);
        if before + bytes > allowed {
            c.current.fetch_sub(bytes, Ordering::Relaxed);
            return Err(Error::Budget {
                scope: c.name.clone(),
                rank: c.rank,
                asked: bytes,
                current: before,
                allowed,
            });
        }
        c.peak.fetch_max(before + bytes, Ordering::Relaxed);
        Ok(())
    }

    /// Counts `bytes` less.
    pub(crate) fn release(&self, bytes: usize) {
        self.0.current.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// One cache line: the unit of allocation, so that every block is aligned for any element type and vector width.
#[repr(C, align(64))]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
pub(crate) struct Line([u8; 64]);

/// Freed blocks, by their number of lines.
type Cache = Mutex<HashMap<usize, Vec<Vec<Line>>>>;

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Line")
    }
}

/// A block of CPU memory; it goes back to the cache it came from.
#[derive(Debug)]
pub(crate) struct Block {
    lines: Vec<Line>,
    cache: Arc<Cache>,
}

impl Block {
    pub(crate) fn bytes(&self) -> &[u8] {
        bytemuck::cast_slice(&self.lines)
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        bytemuck::cast_slice_mut(&mut self.lines)
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let lines = std::mem::take(&mut self.lines);
        lock(&self.cache).entry(lines.len()).or_default().push(lines);
    }
}

/// The lines of the size class that holds `bytes`: four classes to a power of two, so at most a quarter is slack.
fn size_class(bytes: usize) -> usize {
    let lines = bytes.div_ceil(64).max(1);
    let step = (lines.next_power_of_two() / 8).max(1);
    lines.div_ceil(step) * step
}

/// A number of bytes for people.
fn size(bytes: usize) -> String {
    const UNITS: [&str; 4] = ["B", "KiB", "MiB", "GiB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// The memory of one rank: its scopes and its cache of freed blocks. Cloning gives another handle.
#[derive(Clone, Debug)]
pub struct Memory {
    rank: usize,
    scopes: Arc<Mutex<BTreeMap<String, MemoryScope>>>,
    cache: Arc<Cache>,
}

impl Memory {
    /// An empty memory for that rank.
    pub fn new(rank: usize) -> Self {
        Memory { rank, scopes: Arc::default(), cache: Arc::default() }
    }

    /// The scope of that name, made at the first call.
    pub fn scope(&self, name: &str) -> MemoryScope {
        let mut scopes = lock(&self.scopes);
        if let Some(scope) = scopes.get(name) {
            return scope.clone();
        }
        let scope = MemoryScope(Arc::new(Counters {
            name: name.to_owned(),
            rank: self.rank,
            current: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
            budget: AtomicUsize::new(usize::MAX),
        }));
        scopes.insert(name.to_owned(), scope.clone());
        scope
    }

    /// Every scope so far, by name.
    pub fn all_scopes(&self) -> Vec<MemoryScope> {
        lock(&self.scopes).values().cloned().collect()
    }

    /// The error for `bytes` more bytes in `scope`, where they are counted already, with what every scope holds without
    /// them.
    pub(crate) fn out_of_memory(&self, bytes: usize, scope: &MemoryScope) -> Error {
        self.out_of_memory_with(bytes, scope, bytes)
    }

    /// The same where `counted` of the bytes are counted already.
    fn out_of_memory_with(&self, bytes: usize, scope: &MemoryScope, counted: usize) -> Error {
        let held = |s: &MemoryScope| s.current().saturating_sub(if s.same(scope) { counted } else { 0 });
        let mut scopes = self.all_scopes();
        scopes.retain(|s| held(s) > 0);
        scopes.sort_by_key(|s| std::cmp::Reverse(held(s)));
        let list: Vec<String> = scopes.iter().map(|s| format!("{} in {}", size(held(s)), s.name())).collect();
        let in_use = if list.is_empty() { "nothing".to_owned() } else { list.join(", ") };
        Error::OutOfMemory { bytes, scope: scope.name().to_owned(), rank: self.rank, in_use }
    }

    /// An empty list with room for `count` values, for what is computed on the CPU beside tensors; `scope` is named where
    /// there is no memory for it. It is not counted.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], with what every scope holds.
    pub fn room_for<T>(&self, count: usize, scope: &MemoryScope) -> Result<Vec<T>> {
        let mut values = Vec::new();
        match values.try_reserve_exact(count) {
            Ok(()) => Ok(values),
            Err(_) => {
                let bytes = count.saturating_mul(size_of::<T>());
                Err(self.out_of_memory_with(bytes, scope, 0))
            }
        }
    }

    /// A block of at least `bytes` bytes. What it holds is what its last owner left (zeros at first).
    pub(crate) fn allocate(&self, bytes: usize, scope: &MemoryScope) -> Result<Block> {
        let lines = size_class(bytes);
        if let Some(lines) = lock(&self.cache).get_mut(&lines).and_then(Vec::pop) {
            return Ok(Block { lines, cache: self.cache.clone() });
        }
        let lines =
            bytemuck::allocation::try_zeroed_vec(lines).map_err(|()| self.out_of_memory(bytes, scope))?;
        Ok(Block { lines, cache: self.cache.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_classes_hold_and_waste_at_most_a_quarter() {
        for bytes in (0..100_000).step_by(37) {
            let held = size_class(bytes) * 64;
            assert!(held >= bytes);
            assert!(bytes < 512 || held <= bytes + bytes / 4 + 64, "{bytes} -> {held}");
        }
    }

    #[test]
    fn a_budget_is_kept_and_named() {
        let scope = Memory::new(3).scope("activations.encoder");
        scope.set_budget(Some(100));
        scope.charge(60).unwrap();
        let error = scope.charge(41).unwrap_err().to_string();
        assert!(
            error.contains("activations.encoder") && error.contains("rank 3") && error.contains("100"),
            "{error}"
        );
        assert_eq!((scope.current(), scope.peak()), (60, 60));
        scope.release(60);
        scope.reset_peak();
        assert_eq!((scope.current(), scope.peak()), (0, 0));
    }

    #[test]
    fn bytes_that_are_not_there_are_not_among_those_that_are_held() {
        let memory = Memory::new(0);
        let (full, other) = (memory.scope("full"), memory.scope("other"));
        full.charge(3 << 20).unwrap();
        other.charge(1 << 20).unwrap();
        full.charge(1 << 40).unwrap();
        let error = memory.out_of_memory(1 << 40, &full).to_string();
        assert!(error.contains("holds 3.0 MiB in full, 1.0 MiB in other"), "{error}");
    }

    #[test]
    fn lists_that_there_is_no_room_for_are_errors() {
        let memory = Memory::new(2);
        let scope = memory.scope("tables");
        scope.charge(3 << 20).unwrap();
        assert!(memory.room_for::<f64>(10, &scope).unwrap().capacity() >= 10);
        for count in [1 << 50, usize::MAX] {
            let error = memory.room_for::<f64>(count, &scope).unwrap_err().to_string();
            assert!(error.contains("'tables' of rank 2, which holds 3.0 MiB in tables"), "{error}");
        }
    }

    #[test]
    fn freed_blocks_are_used_again() {
        let memory = Memory::new(0);
        let scope = memory.scope("x");
        let address = memory.allocate(1000, &scope).unwrap().bytes().as_ptr();
        assert_eq!(memory.allocate(990, &scope).unwrap().bytes().as_ptr(), address);
    }
}
