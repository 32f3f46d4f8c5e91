//! Which backwards run whole: several ways of deciding it, of which the fastest order is kept.
//!
//! Weight gradients of their own fill bubbles, and bubbles are where the pipeline drains. So the first orders run the
//! backwards of the last few microbatches in parts and all others whole: there is nothing to fill until then. Another
//! is planned with all of them in parts, which are then joined where they meet.

use super::capacity::Capacity;
use super::limits::Room;
use super::merge::{Order, merge};
use super::search::{quick_plan, search, serial};
use super::tasks::Tasks;
use super::{time, write};
use crate::clock::work_bound;
use crate::step::Workload;

/// How many tasks may be placed with the last microbatches in parts: a fifth of what a search may.
const EFFORT: usize = 600_000;
/// Times nearer than this, relatively, are one.
const SAME: f64 = 1e-9;

/// The fastest order found, and a lower bound of its time. Of orders that are as fast, the one that runs most backwards
/// whole: it has the fewest ops, and frees activations the earliest.
pub(super) fn choose(graph: &Tasks, workload: &Workload, room: &Room<'_>) -> (Order, f64) {
    let mut choice = Choice { graph, workload, room, best: None, bound: work_bound(workload) };
    choice.try_tails();
    if !choice.is_over() {
        choice.try_parts();
    }
    let best = choice.best.take();
    let serial = || Order::of(serial(graph, &room.measures, workload), graph, &choice.capacity(graph));
    (best.unwrap_or_else(serial), choice.bound)
}

struct Choice<'a> {
    graph: &'a Tasks,
    workload: &'a Workload,
    room: &'a Room<'a>,
    best: Option<Order>,
    bound: f64,
}

impl<'a> Choice<'a> {
    fn capacity(&self, graph: &Tasks) -> Capacity<'a> {
        Capacity::new(graph, self.workload, self.room.clone())
    }

    fn is_over(&self) -> bool {
        self.best.as_ref().is_some_and(|best| best.time <= self.bound * (1.0 + SAME))
    }

    fn offer(&mut self, mut order: Order) {
        if !self.workload.link().overlapped {
            // Plans know nothing of sends that take the sender's time.
            order.time = time(&write(&order, self.graph, self.workload), self.workload);
        }
        let same = order.time * SAME;
        let better = self.best.as_ref().is_none_or(|best| {
            order.time < best.time - same || order.time <= best.time + same && order.wholes() > best.wholes()
        });
        if better {
            self.best = Some(order);
        }
    }

    /// Orders that run the last microbatches in parts: none, half as many as there are stages, as many.
    fn try_tails(&mut self) {
        if !self.graph.has_parts() {
            return;
        }
        let (p, n) = (self.workload.ranks(), self.workload.len());
        let mut effort = EFFORT;
        for tail in [0, p.div_ceil(2), p] {
            if self.is_over() || effort < self.graph.tasks.len() || tail >= n {
                break;
            }
            let graph = self.graph.with_whole(self.workload, |microbatch| microbatch.0 + tail < n);
            let capacity = self.capacity(&graph);
            if let Some(plan) = quick_plan(&graph, &capacity, &mut effort) {
                self.offer(merge(&graph, self.workload, &capacity, plan));
            }
        }
    }

    /// The order of a search with all backwards in parts, joined where that takes no longer.
    fn try_parts(&mut self) {
        let capacity = self.capacity(self.graph);
        let known = self.best.as_ref().map_or(f64::INFINITY, |best| best.time);
        // With whole backwards that are shorter, the search ends at the bound of what it looks for.
        let in_parts = self.workload.has_shorter_wholes().then(|| self.workload.in_parts());
        let (plan, bound) = search(self.graph, in_parts.as_ref().unwrap_or(self.workload), &capacity, known);
        if in_parts.is_none() {
            self.bound = self.bound.max(bound);
        }
        let Some(plan) = plan else { return };
        if !self.workload.link().overlapped {
            self.offer(Order::of(plan.clone(), self.graph, &capacity));
        }
        self.offer(merge(self.graph, self.workload, &capacity, plan));
    }
}
