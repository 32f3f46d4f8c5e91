//! What benchmark binaries share beside `bigmac::measure`.

pub mod chart;
pub mod python;
