//! Tables as files: the round-trip text form and the CSV of torch.distributed.pipelining.

pub mod file;
pub mod text;
pub mod torch_csv;
