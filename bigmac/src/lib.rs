//! Schedules, execution, training and data of BigMac; the `bigmac` command is built on this library.
#![warn(missing_docs)]

pub mod config;
pub mod cost;
pub mod data;
pub mod eval;
pub mod execute;
pub mod job;
pub mod measure;
pub mod model;
pub mod plan;
pub mod profile;
pub mod sizes;
pub mod toml_file;
pub mod train;
pub mod value;
pub mod workloads;
