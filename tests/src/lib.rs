//! What tests that cross crates share, and benchmarks with them: small data sets and models, a step on threads,
//! references.

pub mod dataset;
pub mod llm;
pub mod parity;
pub mod random_steps;
pub mod reference;
pub mod steps;
pub mod tables;
pub mod tiny;
pub mod watched;
