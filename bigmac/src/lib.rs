//! Schedules, execution, training and data of BigMac; the `bigmac` command is built on this library.
#![warn(missing_docs)]

pub mod config;
pub mod data;
pub mod schedule;
