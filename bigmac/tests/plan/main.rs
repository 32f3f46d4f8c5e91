//! Planning: descriptions, what is computed from them, the search, and `bigmac plan` as a user runs it.

mod command;
mod sizes;
mod steps;
