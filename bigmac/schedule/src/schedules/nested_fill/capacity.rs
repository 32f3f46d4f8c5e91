//! How fast ranks are, what they may hold, and how much of the item work is each one's.

use super::limits::Room;
use super::tasks::{Class, Tasks};
use crate::step::{Rank, Workload};

/// What a plan has to keep to on every rank.
#[derive(Clone, Debug)]
pub(super) struct Capacity<'a> {
    pub room: Room<'a>,
    /// By rank: factor on every task's time.
    pub slowdown: Vec<f64>,
    /// Of encoder and generator, by rank: how much item work makes all ranks end together, at full speed.
    pub share: [Vec<f64>; 2],
    /// Times nearer than this are one.
    pub tolerance: f64,
    /// No plan is faster than this: all work, on all ranks, without a wait.
    pub bound: f64,
}

impl<'a> Capacity<'a> {
    pub(super) fn new(graph: &Tasks, workload: &Workload, room: Room<'a>) -> Capacity<'a> {
        let slowdown: Vec<f64> = (0..workload.ranks()).map(|rank| workload.slowdown(Rank(rank))).collect();
        let mut own = vec![0.0; workload.ranks()];
        let mut items = [0.0; 2];
        for task in &graph.tasks {
            match own.get_mut(task.rank as usize) {
                Some(own) => *own += task.time * slowdown[task.rank as usize],
                None => items[usize::from(task.class == Class::Draw)] += task.time,
            }
        }
        let total = items[0] + items[1];
        let level = level(&own, &slowdown, total);
        let free: Vec<f64> =
            own.iter().zip(&slowdown).map(|(own, slow)| (level - own).max(0.0) / slow).collect();
        let share = items.map(|items| {
            free.iter().map(|free| if total > 0.0 { free * items / total } else { 0.0 }).collect()
        });
        let bound = own.iter().copied().fold(level, f64::max);
        Capacity { room, slowdown, share, tolerance: bound * 1e-9, bound }
    }

    /// The same where ranks may take `more` times their share of the items beyond it.
    pub(super) fn loosened(&self, more: f64) -> Capacity<'a> {
        let share =
            self.share.clone().map(|ranks| ranks.into_iter().map(|share| share * (1.0 + more)).collect());
        Capacity { share, ..self.clone() }
    }
}

/// When all ranks that take items end, if `items` of work are shared out so that they end together (water-filling).
fn level(own: &[f64], slowdown: &[f64], items: f64) -> f64 {
    let mut ranks: Vec<(f64, f64)> =
        own.iter().zip(slowdown).map(|(own, slowdown)| (*own, 1.0 / slowdown)).collect();
    ranks.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut work, mut speed, mut level) = (items, 0.0, 0.0);
    for (index, (own, rate)) in ranks.iter().enumerate() {
        work += own * rate;
        speed += rate;
        level = work / speed;
        if ranks.get(index + 1).is_none_or(|next| level <= next.0) {
            break;
        }
    }
    level
}
