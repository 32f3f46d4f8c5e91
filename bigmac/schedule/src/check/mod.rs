//! What must hold of a table: complete, free of deadlock, within memory; and communication that keeps it so.

pub mod budget;
pub mod lower;
pub mod memory;
pub mod validate;
