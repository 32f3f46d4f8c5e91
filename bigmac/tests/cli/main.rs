//! The `bigmac` command as a user runs it: real processes on real files, with models small enough for seconds.

mod commands;
mod containers;
mod damage;
mod device;
mod input;
mod inspect;
mod interrupt;
mod profile;
mod resume;
mod sets;
mod work;
