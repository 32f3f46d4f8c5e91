//! Joins the two parts of a backward into one op, wherever that does not make the plan longer.
//!
//! A plan runs every LLM backward in parts: where there are bubbles, weight gradients fill them. Elsewhere one op is
//! better. It takes less time, and frees the activations earlier, but makes its gradient for the stage before later by
//! what the weight gradient takes of it.

use super::capacity::Capacity;
use super::search::Orders;
use super::tasks::{Task, Tasks};
use crate::step::{Phase, Workload};

/// An order of the tasks in which some backwards run whole.
#[derive(Clone, Debug)]
pub(super) struct Order {
    /// What each rank runs, in order. Weight gradients that are part of a whole backward are not in it.
    pub ranks: Orders,
    /// By task: a backward that runs whole.
    pub whole: Vec<bool>,
    /// When the last task ends.
    pub time: f64,
}

impl Order {
    /// Tasks in this order, as they are.
    pub(super) fn of(orders: Orders, graph: &Tasks, capacity: &Capacity<'_>) -> Order {
        Merger::new(graph, capacity, orders).finish()
    }

    /// How many backwards run whole.
    pub(super) fn wholes(&self) -> usize {
        self.whole.iter().filter(|whole| **whole).count()
    }
}

/// How many tasks between the parts of backwards are looked at, for every task that there is.
const EFFORT: usize = 32;

/// Joins parts, one after the other as time goes by.
///
/// Each task has a latest start, at which the order still ends in time if all tasks after it keep theirs. A whole
/// backward takes the place of its first part. It may, if what reads its gradient can start in time, and so can what
/// ran between the parts, now that the weight gradient is out of the way. So the order never takes longer, and as whole
/// backwards are shorter, what follows has more and more time to spare.
pub(super) fn merge(graph: &Tasks, workload: &Workload, capacity: &Capacity<'_>, orders: Orders) -> Order {
    let mut merger = Merger::new(graph, capacity, orders);
    merger.find_whole_times(workload, capacity);
    merger.find_latest();
    merger.run();
    merger.finish()
}

struct Merger<'a> {
    graph: &'a Tasks,
    orders: Orders,
    /// By task: its rank, and its place there.
    places: Vec<(u32, u32)>,
    /// All tasks, each after all that it waits for.
    sequence: Vec<u32>,
    /// By task: time on its rank.
    times: Vec<f64>,
    /// By task: the same as a whole backward, where it may become one; empty where none may.
    whole_times: Vec<Option<f64>>,
    /// By task: when it has to start.
    latest: Vec<f64>,
    whole: Vec<bool>,
    /// By task: whether it is part of another.
    dropped: Vec<bool>,
    tolerance: f64,
    left: usize,
    /// When the last task ends.
    time: f64,
}

impl<'a> Merger<'a> {
    fn new(graph: &'a Tasks, capacity: &Capacity<'_>, orders: Orders) -> Self {
        let count = graph.tasks.len();
        let (mut places, mut times) = (vec![(0, 0); count], vec![0.0; count]);
        let (mut whole, mut dropped) = (vec![false; count], vec![false; count]);
        for (rank, tasks) in orders.iter().enumerate() {
            for (place, index) in tasks.iter().enumerate() {
                let task = &graph.tasks[*index as usize];
                places[*index as usize] = (rank as u32, place as u32);
                times[*index as usize] = task.time * capacity.slowdown[rank];
                if task.whole {
                    whole[*index as usize] = true;
                    dropped[task.partner as usize] = true;
                }
            }
        }
        let mut merger = Merger {
            graph,
            orders,
            places,
            sequence: Vec::with_capacity(count),
            times,
            whole_times: Vec::new(),
            latest: vec![f64::INFINITY; count],
            whole,
            dropped,
            tolerance: capacity.tolerance,
            left: EFFORT * count,
            time: 0.0,
        };
        merger.find_sequence();
        merger.run();
        merger
    }

    fn find_whole_times(&mut self, workload: &Workload, capacity: &Capacity<'_>) {
        let time = |(task, (rank, _)): (&Task, &(u32, u32))| {
            let slowdown = capacity.slowdown[*rank as usize];
            task.is_first_part().then(|| workload.unit_cost(task.unit, Phase::Backward) * slowdown)
        };
        self.whole_times = self.graph.tasks.iter().zip(&self.places).map(time).collect();
    }

    fn next_on_rank(&self, task: u32) -> Option<u32> {
        let (rank, place) = self.places[task as usize];
        self.orders[rank as usize].get(place as usize + 1).copied()
    }

    fn find_sequence(&mut self) {
        let mut waits = self.graph.waits.clone();
        for tasks in &self.orders {
            tasks.iter().skip(1).for_each(|task| waits[*task as usize] += 1);
        }
        let mut ready: Vec<u32> = (0..waits.len() as u32).filter(|task| waits[*task as usize] == 0).collect();
        while let Some(task) = ready.pop() {
            self.sequence.push(task);
            let after = self.graph.after(task).iter().map(|edge| edge.to);
            for next in after.chain(self.next_on_rank(task)) {
                waits[next as usize] -= 1;
                if waits[next as usize] == 0 {
                    ready.push(next);
                }
            }
        }
    }

    /// When a task has to end for those that read what it makes.
    fn latest_end(&self, task: u32) -> f64 {
        let rank = self.places[task as usize].0;
        let edges = self.graph.after(task).iter().filter(|edge| !self.dropped[edge.to as usize]);
        let needed = edges.map(|edge| {
            let apart = self.places[edge.to as usize].0 != rank;
            self.latest[edge.to as usize] - if apart { edge.transfer } else { 0.0 }
        });
        needed.fold(self.time, f64::min)
    }

    fn find_latest(&mut self) {
        for index in (0..self.sequence.len()).rev() {
            let task = self.sequence[index];
            let next = self.next_on_rank(task).map_or(self.time, |next| self.latest[next as usize]);
            self.latest[task as usize] = self.latest_end(task).min(next) - self.times[task as usize];
        }
    }

    /// Runs all tasks on the clock, and joins parts on the way where they may be.
    fn run(&mut self) {
        let mut clock = vec![0.0f64; self.orders.len()];
        let mut arrived = vec![0.0f64; self.times.len()];
        let mut end_of_all = 0.0f64;
        for index in 0..self.sequence.len() {
            let task = self.sequence[index];
            let rank = self.places[task as usize].0;
            if self.dropped[task as usize] {
                continue;
            }
            let start = clock[rank as usize].max(arrived[task as usize]);
            if let Some(whole) = self.whole_times.get(task as usize).copied().flatten() {
                self.try_merge(task, start, whole);
            }
            let end = start + self.times[task as usize];
            clock[rank as usize] = end;
            end_of_all = end_of_all.max(end);
            for edge in self.graph.after(task) {
                let apart = self.places[edge.to as usize].0 != rank;
                let there = end + if apart { edge.transfer } else { 0.0 };
                arrived[edge.to as usize] = arrived[edge.to as usize].max(there);
            }
        }
        self.time = end_of_all;
    }

    /// Makes a backward whole that can start now, if it may be.
    fn try_merge(&mut self, backward: u32, start: f64, whole: f64) {
        let weight = self.graph.tasks[backward as usize].partner;
        let between = (self.places[weight as usize].1 - self.places[backward as usize].1 - 1) as usize;
        let parts = self.times[backward as usize] + self.times[weight as usize];
        let end = start + whole - self.tolerance;
        if whole > parts + self.tolerance || between > self.left {
            return;
        }
        self.left -= between;
        self.dropped[weight as usize] = true;
        let before = self.put_off(backward, weight);
        let next =
            before.last().map_or_else(|| self.latest_after(weight), |(task, _)| self.latest[*task as usize]);
        if end <= next.min(self.latest_end(backward)) {
            self.whole[backward as usize] = true;
            self.times[backward as usize] = whole;
        } else {
            self.dropped[weight as usize] = false;
            before.into_iter().for_each(|(task, latest)| self.latest[task as usize] = latest);
        }
    }

    /// When what comes after a task on its rank has to start.
    fn latest_after(&self, task: u32) -> f64 {
        let (rank, place) = self.places[task as usize];
        let mut after = self.orders[rank as usize][place as usize + 1..].iter();
        let next = after.find(|task| !self.dropped[**task as usize]);
        next.map_or(self.time, |next| self.latest[*next as usize])
    }

    /// Lets the tasks between two of a rank start as late as they may if the latter is not run. Gives their latest
    /// starts before that, the last task first.
    fn put_off(&mut self, first: u32, last: u32) -> Vec<(u32, f64)> {
        let (rank, from) = self.places[first as usize];
        let to = self.places[last as usize].1;
        let mut next = self.latest_after(last);
        let mut before = Vec::with_capacity((to - from) as usize);
        for place in (from + 1..to).rev() {
            let task = self.orders[rank as usize][place as usize];
            if !self.dropped[task as usize] {
                before.push((task, self.latest[task as usize]));
                next = next.min(self.latest_end(task)) - self.times[task as usize];
                self.latest[task as usize] = next;
            }
        }
        before
    }

    fn finish(mut self) -> Order {
        let dropped = &self.dropped;
        self.orders.iter_mut().for_each(|tasks| tasks.retain(|task| !dropped[*task as usize]));
        Order { ranks: self.orders, whole: self.whole, time: self.time }
    }
}

#[cfg(test)]
mod tests {
    use super::super::limits::Room;
    use super::super::search::quick_plan;
    use super::super::tasks::Class;
    use super::*;
    use crate::check::Limits;
    use crate::step::UniformCosts;
    use crate::tests::properties::any_workload;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

        /// Joined or not, an order takes no longer; what is joined is left out, and what is not stays.
        #[test]
        fn joining_takes_no_longer(w in any_workload()) {
            let room = Room::new(&w, &Limits::default(), "test").unwrap();
            let graph = Tasks::new(&w, &room.measures);
            let capacity = Capacity::new(&graph, &w, room.clone());
            let Some(plan) = quick_plan(&graph, &capacity, &mut 1_000_000) else { return Ok(()) };
            let parts = Order::of(plan.clone(), &graph, &capacity);
            let merged = merge(&graph, &w, &capacity, plan);
            prop_assert!(merged.time <= parts.time * (1.0 + 1e-8), "{} {}", merged.time, parts.time);
            let count = |order: &Order| order.ranks.iter().map(Vec::len).sum::<usize>();
            prop_assert_eq!(count(&merged) + merged.wholes(), count(&parts));
            for task in merged.ranks.iter().flatten() {
                let task = &graph.tasks[*task as usize];
                let is_weight = task.class == Class::Weight;
                prop_assert!(!is_weight || !merged.whole[task.partner as usize]);
            }
        }
    }

    /// On one rank no op waits for another rank, so every split backward is joined.
    #[test]
    fn all_is_joined_on_one_rank() {
        let costs = UniformCosts {
            forward: 1.0,
            backward_input: 1.0,
            backward_weight: 1.0,
            backward: Some(1.5),
            ..UniformCosts::default()
        };
        let w = Workload::uniform(1, 1, 8, 1, costs, 0.0).unwrap();
        let room = Room::new(&w, &Limits::default(), "test").unwrap();
        let graph = Tasks::new(&w, &room.measures);
        let capacity = Capacity::new(&graph, &w, room.clone());
        let plan = quick_plan(&graph, &capacity, &mut 1_000_000).unwrap();
        let merged = merge(&graph, &w, &capacity, plan);
        assert_eq!((merged.wholes(), merged.time), (8, 20.0));
    }
}
