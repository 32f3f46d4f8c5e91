//! Panics of libraries that read files, made errors.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

thread_local! {
    /// Whether a panic of this thread is expected, and told as an error.
    static IS_GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Runs what a library reads from a file. Libraries check most of what they read, but a damaged file can still bring
/// one to panic, which here is an error like any other: nothing else is printed.
pub(in crate::data) fn guarded<T>(read: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    caught(read).unwrap_or_else(|| Err("the file is damaged in a way that its reader did not expect".into()))
}

/// As [`guarded`], for any result; none where the library panicked.
pub(in crate::data) fn caught<T>(read: impl FnOnce() -> T) -> Option<T> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = take_hook();
        set_hook(Box::new(move |panic| {
            if !IS_GUARDED.get() {
                usual(panic);
            }
        }));
    });
    let outer = IS_GUARDED.replace(true);
    let done = catch_unwind(AssertUnwindSafe(read));
    IS_GUARDED.set(outer);
    done.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_inside_is_an_error_and_one_outside_stays_one() {
        let wrong = |_: ()| -> Result<(), String> { panic!("inside") };
        let error = guarded(|| guarded(|| Ok(())).and_then(wrong)).unwrap_err();
        assert!(error.contains("damaged"), "{error}");
        assert!(!IS_GUARDED.get());
        assert_eq!(guarded(|| Ok(7)), Ok(7));
        assert_eq!(guarded(|| Err::<(), _>("told".into())), Err("told".to_owned()));
    }
}
