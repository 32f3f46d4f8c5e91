//! The `bigmac` command as a user runs it: real processes on real files, with models small enough for seconds.

mod auto;
mod branches;
mod commands;
mod containers;
mod damage;
mod device;
mod directory;
mod input;
mod inspect;
mod interrupt;
mod kills;
mod measured;
mod profile;
mod resume;
mod sets;
mod work;
