//! What several parts need: variables of the environment, locks, and turns.

use std::collections::HashMap;
use std::ffi::OsString;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The value of a variable of the environment; `None` where it is not set, or empty.
pub(crate) fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// Locks, also after a panic elsewhere: every critical section here leaves its data whole.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Work that is done once for each of many names, and for different names at the same time: a lock for each name that
/// something is being done for.
#[derive(Debug)]
pub(crate) struct Turns<K>(Mutex<HashMap<K, Arc<Mutex<()>>>>);

impl<K> Default for Turns<K> {
    fn default() -> Self {
        Turns(Mutex::default())
    }
}

impl<K: Clone + Eq + Hash> Turns<K> {
    /// Does `work` while no other thread works for `key`. After waiting, `work` must check whether it is still to be
    /// done: an error or a panic of another thread leaves it undone.
    pub fn alone<T>(&self, key: &K, work: impl FnOnce() -> T) -> T {
        let turn = lock(&self.0).entry(key.clone()).or_default().clone();
        let held = lock(&turn);
        let result = work();
        drop(held);
        let mut names = lock(&self.0);
        // The map's and this one: no thread waits, and none can begin to while the map is locked.
        if Arc::strong_count(&turn) == 2 {
            names.remove(key);
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    #[test]
    fn one_name_takes_turns_and_others_do_not_wait_for_it() {
        let (turns, inside, done) = (Turns::default(), AtomicBool::new(false), AtomicUsize::new(0));
        let both = Barrier::new(2);
        std::thread::scope(|scope| {
            for name in ["a", "b"] {
                let (turns, both) = (&turns, &both);
                scope.spawn(move || turns.alone(&name, || both.wait()));
            }
            for _ in 0..8 {
                scope.spawn(|| {
                    turns.alone(&"c", || {
                        assert!(!inside.swap(true, Ordering::SeqCst));
                        std::thread::yield_now();
                        inside.store(false, Ordering::SeqCst);
                        done.fetch_add(1, Ordering::SeqCst);
                    });
                });
            }
        });
        assert_eq!((done.into_inner(), lock(&turns.0).len()), (8, 0));
    }

    #[test]
    fn a_panic_leaves_the_turn_to_the_next() {
        let turns = Turns::default();
        let panicked = catch_unwind(AssertUnwindSafe(|| turns.alone(&1, || panic!("on purpose"))));
        assert!(panicked.is_err());
        assert_eq!(turns.alone(&1, || 5), 5);
    }
}
