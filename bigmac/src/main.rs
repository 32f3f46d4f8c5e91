//! The `bigmac` command.

fn main() {}
