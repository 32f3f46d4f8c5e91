//! What a schedule loses where ops don't take the same time every time.

use super::outcome::Outcome;
use anyhow::ensure;
use bigmac::cost::{quantiles, spread};
use bigmac_schedule::{Op, Rank, simulate_durations};
use serde::Serialize;

/// The most that the logarithm of a time may spread: beyond it a few ops would be all of the step.
const MOST_SIGMA: f64 = 3.0;
const MOST_DRAWS: u32 = 10_000;
/// The most ops of all draws together, which takes seconds.
const MOST_OPS: usize = 100_000_000;

/// How the times of ops spread: each is that of the costs times exp(sigma z - sigma^2 / 2), z standard normal, so that
/// its mean stays as it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Jitter {
    pub sigma: f64,
    pub seed: u64,
    pub draws: u32,
}

/// The makespans of all draws.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Makespans {
    pub median: f64,
    pub q1: f64,
    pub q3: f64,
}

impl Jitter {
    /// Reads SIGMA[,SEED[,DRAWS]].
    pub(super) fn parse(text: &str) -> Result<Jitter, String> {
        let mut parts = text.split(',').map(str::trim);
        let sigma = parts.next().unwrap_or_default();
        let read = sigma.parse().ok().filter(|sigma| (0.0..=MOST_SIGMA).contains(sigma));
        let sigma =
            read.ok_or_else(|| format!("'{sigma}' is not a valid SIGMA: expected 0 to {MOST_SIGMA}"))?;
        let seed = parts.next().map_or(Ok(0), |seed| {
            seed.parse().map_err(|_| format!("'{seed}' is not a valid SEED: expected a whole number from 0"))
        })?;
        let draws = parts.next().map_or(Ok(100), |draws| {
            let read = draws.parse().ok().filter(|draws| (1..=MOST_DRAWS).contains(draws));
            read.ok_or_else(|| {
                format!("'{draws}' is not a valid number of DRAWS: expected 1 to {MOST_DRAWS}")
            })
        })?;
        match parts.next() {
            Some(_) => Err(format!("'{text}' has more than SIGMA,SEED,DRAWS")),
            None => Ok(Jitter { sigma, seed, draws }),
        }
    }

    /// Draws the times of a table's ops again and again.
    pub(super) fn of(&self, outcome: &Outcome) -> anyhow::Result<Makespans> {
        let Outcome { table, workload, .. } = outcome;
        let ops = table.len().saturating_mul(self.draws as usize);
        ensure!(
            ops <= MOST_OPS,
            "{} draws of {} ops each are too many for --jitter: at most {MOST_OPS} ops are drawn in all; ask for fewer \
             draws",
            self.draws,
            table.len()
        );
        let ranks = table.ranks.iter().enumerate();
        let cost = |(rank, ops): (usize, &Vec<Op>)| {
            ops.iter().map(|op| workload.cost(op, Rank(rank))).collect::<Vec<f64>>()
        };
        let costs: Vec<Vec<f64>> = ranks.map(cost).collect();
        let mut times = Vec::with_capacity(self.draws as usize);
        for draw in 0..self.draws {
            let factor = |_: &Op, z: f64| (self.sigma * z - self.sigma * self.sigma / 2.0).exp();
            let durations = spread(table, &costs, self.seed, draw, factor);
            times.push(simulate_durations(table, workload, &durations)?.time());
        }
        let [q1, median, q3] = quantiles(times, [0.25, 0.5, 0.75]).unwrap_or_default();
        Ok(Makespans { median, q1, q3 })
    }
}
