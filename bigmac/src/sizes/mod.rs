//! Sizes of the three modules, and the operations, parameters and saved bytes that follow from them: what
//! configurations and descriptions of models hold, and what costs and plans are counted from.

mod encoder;
mod generator;
mod llm;
mod work;

pub use encoder::Encoder;
pub use generator::Generator;
pub use llm::{Experts, Llm, causal_pairs};
pub use work::{Frame, Part, Work};
