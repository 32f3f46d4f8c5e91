//! Orders of the LLM's chunks, one file each: what encoder and generator are added to.

mod ahead;
mod dualpipe_v;
mod gpipe;
mod interleaved;
mod one_f_one_b;
mod v_lane;
mod zb_v;
mod zero_bubble;

pub(crate) use dualpipe_v::DUALPIPE_V;
pub(crate) use gpipe::GPIPE;
pub(crate) use interleaved::INTERLEAVED;
pub(crate) use one_f_one_b::ONE_F_ONE_B;
pub(crate) use zb_v::ZB_V;
pub(crate) use zero_bubble::{ZB_H1, ZB_H2};
