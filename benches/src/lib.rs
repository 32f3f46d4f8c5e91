//! Benchmark binaries; what they share is in `bigmac::measure`.
