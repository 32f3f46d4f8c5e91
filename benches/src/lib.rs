//! What benchmark binaries share.

pub mod spread;
