//! Orders of the LLM's chunks, one file each: what encoder and generator are added to.

mod one_f_one_b;

pub(super) use one_f_one_b::OneFOneB;
