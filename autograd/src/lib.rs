//! Reverse-mode differentiation over the operators of `bigmac-kernels`: parameters, gradients, graphs and tapes.
//!
//! A [`Graph`] applies operators and records a [`Tape`]; [`Tape::backward`] consumes it. A tape belongs to one unit of
//! work (a microbatch in an LLM stage, one encoder item, one generator item) and to one module's [`Parameters`].

pub mod gradcheck;
mod graph;
mod observe;
mod params;
mod tape;

pub use graph::{Graph, Var};
pub use observe::{Applied, Observer, Pass};
pub use params::{Gradients, ParamId, Parameter, Parameters};
pub use tape::{Deferred, Mode, Propagated, Tape, VarId};
