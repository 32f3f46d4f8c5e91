//! Tests of schedules: known numbers, properties over random shapes, and broken tables.

mod baselines;
mod budgets;
mod candidates;
mod choice;
mod dataflow;
mod faults;
mod files;
mod fill;
mod known;
mod orders;
mod pictures;
pub(crate) mod properties;
mod torch;
mod v_orders;
mod whole;

use super::registry::{SCHEDULES, schedule};
use super::{Options, Table, UniformCosts, Workload};
use crate::clock::{Simulation, simulate};

/// A workload of `p` equal items per microbatch from F, B, W and the whole microbatch's Ef, Eb, Gf, Gb.
fn workload(p: usize, n: usize, llm: [f64; 3], encoder: [f64; 2], generator: [f64; 2], p2p: f64) -> Workload {
    let costs = UniformCosts {
        forward: llm[0],
        backward_input: llm[1],
        backward_weight: llm[2],
        backward: None,
        encoder_forward: encoder[0],
        encoder_backward: encoder[1],
        generator_forward: generator[0],
        generator_backward: generator[1],
    };
    Workload::uniform(p, 1, n, p, costs, p2p).unwrap()
}

fn build(name: &str, workload: &Workload, options: &Options) -> Table {
    schedule(name).unwrap().build(workload, options).unwrap()
}

fn run(name: &str, workload: &Workload) -> Simulation {
    simulate(&build(name, workload, &Options::default()), workload).unwrap()
}

/// Every schedule by name.
fn names() -> impl Iterator<Item = &'static str> {
    SCHEDULES.iter().map(|schedule| schedule.name())
}
