//! Orders of the LLM's chunks, one file each: what encoder and generator are added to.

mod gpipe;
mod interleaved;
mod one_f_one_b;
mod zero_bubble;

pub(crate) use gpipe::GPIPE;
pub(crate) use interleaved::INTERLEAVED;
pub(crate) use one_f_one_b::ONE_F_ONE_B;
pub(crate) use zero_bubble::{ZB_H1, ZB_H2};
