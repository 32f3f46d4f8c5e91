//! What benchmark binaries share beside `bigmac::measure`.

pub mod python;
