//! What several schedules build with: chains of stages, cuts of layers, and slots put into an LLM order.

pub(crate) mod chain;
pub(crate) mod cut;
pub(crate) mod flow;
pub(crate) mod insertion;
