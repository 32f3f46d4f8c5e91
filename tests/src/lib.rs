//! Tests that cross crates: gradients, parity with PyTorch, schedules against executions, faults

pub mod llm;
pub mod parity;
