//! Jobs of several processes, as a user starts them: real processes, real kills, a real network where the system lets a
//! test make one.

mod alone;
mod launch;
mod limits;
mod lost;
mod network;
mod processes;
#[path = "../../../comm/tests/support/proxy.rs"]
mod proxy;
mod ranks;
mod refusals;
#[allow(dead_code)]
#[path = "../cli/work.rs"]
mod work;
