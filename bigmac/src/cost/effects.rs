//! What ops take beside their own work: cold caches, other ranks on the same machine, and chance.

use super::fit::{Key, UnitTimes, changes, key};
use super::quantiles;
use bigmac_runtime::rng::{Philox, Purpose};
use bigmac_schedule::{Op, Rank, SimulateError, Simulation, Table, Workload, simulate_durations};
use std::collections::BTreeMap;

const JITTER: Purpose = Purpose::new("cost.jitter");
/// Simulations with times that spread.
const DRAWS: u32 = 25;
/// Simulations until times and who is busy meanwhile agree.
const MOST_PASSES: usize = 20;

/// Measured effects on one kind of op.
#[derive(Clone, Copy, Debug)]
struct Effect {
    change: f64,
    sigma: f64,
    contention: f64,
}

/// Measured effects by kind of op.
#[derive(Clone, Debug, Default)]
pub struct Effects(BTreeMap<Key, Effect>);

/// A step on the clock whose ops' times spread.
#[derive(Clone, Debug)]
pub struct Clocked {
    /// With every op at its median.
    pub simulation: Simulation,
    /// The median of the times of the step.
    pub seconds: f64,
    /// Quartiles of the times of the step.
    pub quartiles: [f64; 2],
}

impl Effects {
    /// Those that a profile holds.
    pub fn new(times: &[UnitTimes]) -> Effects {
        let effect = |times: &UnitTimes| Effect {
            change: times.change,
            sigma: times.sigma,
            contention: times.contention.unwrap_or(1.0),
        };
        Effects(times.iter().map(|times| (times.key(), effect(times))).collect())
    }

    /// Those on an op; a chunk that was not measured has those of the module's chunk before it.
    fn of(&self, op: &Op) -> Effect {
        let none = Effect { change: 0.0, sigma: 0.0, contention: 1.0 };
        let Some((kind, chunk, phase)) = key(op) else { return none };
        let mut nearest = (0..=chunk).rev().filter_map(|chunk| self.0.get(&(kind, chunk, phase)));
        nearest.next().copied().unwrap_or(none)
    }

    /// What each op of a table takes alone on the machine, where the workload's costs were measured with all ranks busy.
    pub fn alone(&self, table: &Table, workload: &Workload) -> Vec<Vec<f64>> {
        let ranks = table.ranks.iter().enumerate().map(|(rank, ops)| {
            let time = |(op, changes): (&Op, bool)| {
                let effect = self.of(op);
                let change = if changes { effect.change } else { 0.0 };
                (workload.cost(op, Rank(rank)) + change) / effect.contention
            };
            ops.iter().zip(changes(ops)).map(time).collect()
        });
        ranks.collect()
    }

    /// What ops take that take `alone` by themselves, where the ranks share a machine: an op during which all other
    /// ranks are busy takes its contention factor longer, one during which half of them are, half of that. Who is busy
    /// when depends on what ops take, so the two are found in turns.
    ///
    /// # Errors
    /// Those of [`simulate_durations`].
    pub fn together(
        &self,
        table: &Table,
        workload: &Workload,
        alone: &[Vec<f64>],
    ) -> Result<Vec<Vec<f64>>, SimulateError> {
        let others = table.ranks.len().saturating_sub(1) as f64;
        let mut durations = alone.to_vec();
        if others == 0.0 {
            return Ok(durations);
        }
        let mut last = f64::NAN;
        for _ in 0..MOST_PASSES {
            let simulation = simulate_durations(table, workload, &durations)?;
            let busy: Vec<Busy> = simulation.spans.iter().zip(&table.ranks).map(Busy::new).collect();
            for (rank, ops) in table.ranks.iter().enumerate() {
                for (index, op) in ops.iter().enumerate().filter(|(_, op)| op.is_compute()) {
                    let span = simulation.spans[rank][index];
                    let length = span.end - span.start;
                    if length <= 0.0 {
                        continue;
                    }
                    let during = |other: usize| busy[other].until(span.end) - busy[other].until(span.start);
                    let shared: f64 = (0..busy.len()).filter(|other| *other != rank).map(during).sum();
                    let share = shared / length / others;
                    durations[rank][index] =
                        alone[rank][index] * (1.0 + (self.of(op).contention - 1.0) * share);
                }
            }
            let time = simulation.time();
            if (time - last).abs() <= 1e-4 * time {
                break;
            }
            last = time;
        }
        Ok(durations)
    }

    /// A step whose ops take these times, each with the spread of its kind.
    ///
    /// # Errors
    /// Those of [`simulate_durations`].
    pub fn clocked(
        &self,
        table: &Table,
        workload: &Workload,
        durations: &[Vec<f64>],
    ) -> Result<Clocked, SimulateError> {
        let simulation = simulate_durations(table, workload, durations)?;
        let mut times = Vec::with_capacity(DRAWS as usize);
        for draw in 0..DRAWS {
            let drawn = spread(table, durations, 0, draw, |op, z| (self.of(op).sigma * z).exp());
            times.push(simulate_durations(table, workload, &drawn)?.time());
        }
        let time = simulation.time();
        let [lower, seconds, upper] = quantiles(times, [0.25, 0.5, 0.75]).unwrap_or([time; 3]);
        Ok(Clocked { simulation, seconds, quartiles: [lower, upper] })
    }
}

/// Multiplies every op's time by `factor` of the op and a standard normal number. The same seed and number of the draw
/// give the same times everywhere.
pub fn spread(
    table: &Table,
    durations: &[Vec<f64>],
    seed: u64,
    draw: u32,
    factor: impl Fn(&Op, f64) -> f64,
) -> Vec<Vec<f64>> {
    let ranks = table.ranks.iter().zip(durations).enumerate().map(|(rank, (ops, durations))| {
        let mut random = Philox::new(seed, JITTER, draw, rank as u32);
        let mut time = |(op, time): (&Op, &f64)| time * factor(op, f64::from(random.normal()));
        ops.iter().zip(durations).map(&mut time).collect()
    });
    ranks.collect()
}

/// How long a rank has been busy up to any moment.
struct Busy {
    /// Start and end of each op that computes, and the time of all before it.
    ops: Vec<(f64, f64, f64)>,
}

impl Busy {
    fn new((spans, ops): (&Vec<bigmac_schedule::Span>, &Vec<Op>)) -> Busy {
        let mut before = 0.0;
        let computes = spans.iter().zip(ops).filter(|(_, op)| op.is_compute());
        let add = |(span, _): (&bigmac_schedule::Span, &Op)| {
            before += span.end - span.start;
            (span.start, span.end, before - (span.end - span.start))
        };
        Busy { ops: computes.map(add).collect() }
    }

    fn until(&self, time: f64) -> f64 {
        let next = self.ops.partition_point(|(start, ..)| *start < time);
        let Some((start, end, before)) = next.checked_sub(1).map(|last| self.ops[last]) else { return 0.0 };
        before + time.min(end) - start
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bigmac_close::{assert_close, relative};
    use bigmac_schedule::{ModuleKind, Options, Phase, UniformCosts, registry, simulate};

    fn step() -> (Table, Workload) {
        let costs = UniformCosts {
            forward: 1.0,
            backward_input: 1.0,
            backward_weight: 1.0,
            encoder_forward: 2.0,
            encoder_backward: 4.0,
            ..UniformCosts::default()
        };
        let workload = Workload::uniform(2, 1, 8, 2, costs, 0.0).unwrap();
        let table = registry::schedule("nested").unwrap().build(&workload, &Options::default()).unwrap();
        (table, workload)
    }

    fn effects(effect: Effect) -> Effects {
        let kinds = ModuleKind::ALL.into_iter().flat_map(|kind| {
            (0..2).flat_map(move |chunk| Phase::ALL.map(move |phase| ((kind, chunk, phase), effect)))
        });
        Effects(kinds.collect())
    }

    #[test]
    fn without_effects_a_step_takes_what_is_simulated() {
        let (table, workload) = step();
        let none = Effects::default();
        let durations = none.together(&table, &workload, &none.alone(&table, &workload)).unwrap();
        let clocked = none.clocked(&table, &workload, &durations).unwrap();
        assert_eq!(clocked.simulation, simulate(&table, &workload).unwrap());
        assert_eq!((clocked.seconds, clocked.quartiles), (clocked.simulation.time(), [clocked.seconds; 2]));
    }

    #[test]
    fn contention_slows_an_op_only_while_others_are_busy() {
        let (table, workload) = step();
        let busy = simulate(&table, &workload).unwrap().time();
        let effects = effects(Effect { change: 0.0, sigma: 0.0, contention: 2.0 });
        let alone = effects.alone(&table, &workload);
        let by_themselves = simulate_durations(&table, &workload, &alone).unwrap().time();
        assert_close(by_themselves, busy / 2.0, relative(1e-12));
        let together = effects.together(&table, &workload, &alone).unwrap();
        let time = simulate_durations(&table, &workload, &together).unwrap().time();
        // The first forward of the LLM has the machine to itself.
        assert!(time > 1.6 * by_themselves && time < busy, "{time} of {by_themselves} and {busy}");
        for (ops, (alone, together)) in table.ranks.iter().zip(alone.iter().zip(&together)) {
            for ((op, alone), together) in ops.iter().zip(alone).zip(together) {
                let factor = if *alone > 0.0 { together / alone } else { 1.0 };
                assert!((1.0 - 1e-9..=2.0 + 1e-9).contains(&factor), "{op}: {factor}");
            }
        }
    }

    #[test]
    fn changes_of_module_cost_what_they_cost() {
        let (table, workload) = step();
        let effects = effects(Effect { change: 0.5, sigma: 0.0, contention: 1.0 });
        for (rank, (ops, times)) in table.ranks.iter().zip(effects.alone(&table, &workload)).enumerate() {
            let more: f64 =
                ops.iter().zip(&times).map(|(op, time)| time - workload.cost(op, Rank(rank))).sum();
            let kinds: Vec<_> = ops.iter().filter_map(|op| Some(op.units().next()?.module.kind())).collect();
            let changes = kinds.windows(2).filter(|pair| pair[0] != pair[1]).count();
            assert!(changes > 8, "{kinds:?}");
            assert_close(more, 0.5 * changes as f64, relative(1e-9));
        }
    }

    #[test]
    fn chance_makes_ranks_wait_for_each_other() {
        let (table, workload) = step();
        let effects = effects(Effect { change: 0.0, sigma: 0.2, contention: 1.0 });
        let durations = effects.alone(&table, &workload);
        let clocked = effects.clocked(&table, &workload, &durations).unwrap();
        let time = clocked.simulation.time();
        assert!(clocked.seconds > 1.01 * time && clocked.seconds < 1.2 * time, "{clocked:?}");
        assert!(clocked.quartiles[0] < clocked.seconds && clocked.seconds < clocked.quartiles[1]);
        let draw = |seed, draw| spread(&table, &durations, seed, draw, |_, z| z.exp());
        assert_eq!(draw(1, 2), draw(1, 2));
        assert!(draw(1, 2) != draw(1, 3) && draw(1, 2) != draw(2, 2));
    }
}
