//! Looks for a plan that reaches the bound: several rules of what is urgent, each improved by planning in
//! both directions of time, and then random changes of the best plan.

use super::bound::lower_bound;
use super::capacity::Capacity;
use super::limits::even_shares;
use super::planner::{Plan, Policy, plan};
use super::tasks::{ANY, CLASSES, Class, NONE, Task, Tasks};
use crate::check::Measures;
use crate::step::{Piece, Workload};

/// How many tasks may be placed in all: what keeps the time of planning in proportion to the step.
const EFFORT: usize = 3_000_000;
/// How often the best plan is changed at random.
const SHAKES: u32 = 50;
/// How often a plan is made again in the other direction of time to improve it.
const TURNS: usize = 8;
/// How often in a row that may be without success.
const VAIN_TURNS: usize = 2;

/// A rule of what is urgent.
#[derive(Clone, Copy, Debug)]
struct Rule {
    /// Plan from the end of the step to its start.
    backward: bool,
    /// How much more than its share of the items a rank may take, as a factor of it.
    more: f64,
    /// All classes, most urgent first.
    order: [Class; CLASSES],
}

use Class::{Backward as B, Draw as G, Encode as E, EncodeBackward as D, Forward as F, Weight as W};

/// On random shapes, the rules that most often reached the bound come first. Shares are loose for steps with so few
/// items that bubbles are left anyway.
const RULES: [Rule; 16] = [
    Rule { backward: false, more: 0.0, order: [G, B, F, W, E, D] },
    Rule { backward: false, more: 0.0, order: [G, B, F, D, W, E] },
    Rule { backward: false, more: 0.0, order: [B, G, F, W, E, D] },
    Rule { backward: false, more: 0.0, order: [B, G, F, D, W, E] },
    Rule { backward: true, more: 0.0, order: [G, B, F, E, W, D] },
    Rule { backward: false, more: 0.15, order: [G, B, F, W, E, D] },
    Rule { backward: false, more: 0.15, order: [F, B, G, W, E, D] },
    Rule { backward: false, more: 0.0, order: [F, B, G, W, E, D] },
    Rule { backward: false, more: 0.0, order: [G, B, F, E, W, D] },
    Rule { backward: false, more: 0.0, order: [B, F, G, D, W, E] },
    Rule { backward: true, more: 0.15, order: [G, B, F, E, W, D] },
    Rule { backward: true, more: 0.0, order: [B, F, G, E, W, D] },
    Rule { backward: false, more: f64::INFINITY, order: [B, G, F, W, E, D] },
    Rule { backward: false, more: 0.15, order: [B, G, F, E, W, D] },
    Rule { backward: true, more: 0.0, order: [G, B, F, W, D, E] },
    Rule { backward: true, more: 0.15, order: [F, B, G, E, W, D] },
];

/// The orders of the ranks in the fastest plan found, as time runs forward, and what no plan can be faster than. None
/// where memory blocks every plan, and where something is `known` that takes no longer than the bound.
pub(super) fn search(
    graph: &Tasks,
    workload: &Workload,
    capacity: &Capacity<'_>,
    known: f64,
) -> (Option<Orders>, f64) {
    let reversed = graph.reversed();
    let anywhere: Vec<u32> = graph.tasks.iter().map(|task| task.rank).collect();
    let graphs = [graph, &reversed];
    let mut search = Search { graphs, best: None, left: EFFORT, known, bound: capacity.bound };
    if !search.is_over() {
        search.try_rule(&RULES[0], &anywhere, capacity);
    }
    if !search.is_over() {
        search.bound = lower_bound(workload, &capacity.room);
    }
    for rule in &RULES[1..] {
        if !search.is_over() {
            search.try_rule(rule, &anywhere, &capacity.loosened(rule.more));
        }
    }
    if search.best.is_none() && !search.is_over() {
        // Tight budgets can make free ranks take items that block each other. With each microbatch's items shared out
        // beforehand and taken in the order of the microbatches, the earliest one can go on.
        search.try_rule(&RULES[0], &fixed_ranks(graph, &capacity.room.measures, workload), capacity);
    }
    let shares = [capacity.loosened(0.0), capacity.loosened(0.15)];
    for round in 0..SHAKES {
        if !search.is_over() {
            search.shake(round, &anywhere, &shares[round as usize / 2 % 2]);
        }
    }
    (search.best.map(Draft::forward), search.bound)
}

/// A plan by the first rule alone, improved; none where memory blocks it. What it takes of the effort is taken from
/// `left`.
pub(super) fn quick_plan(graph: &Tasks, capacity: &Capacity<'_>, left: &mut usize) -> Option<Orders> {
    let reversed = graph.reversed();
    let anywhere: Vec<u32> = graph.tasks.iter().map(|task| task.rank).collect();
    let (graphs, known) = ([graph, &reversed], f64::INFINITY);
    let mut search = Search { graphs, best: None, left: *left, known, bound: capacity.bound };
    search.try_rule(&RULES[0], &anywhere, capacity);
    *left = search.left;
    search.best.map(Draft::forward)
}

/// What each rank runs, in order.
pub(super) type Orders = Vec<Vec<u32>>;

/// A plan with the direction of time that it was made in.
#[derive(Clone, Debug)]
struct Draft {
    plan: Plan,
    backward: bool,
}

impl Draft {
    fn forward(self) -> Orders {
        let mut orders = self.plan.order;
        if self.backward {
            orders.iter_mut().for_each(|tasks| tasks.reverse());
        }
        orders
    }
}

struct Search<'a> {
    /// As time runs, and reversed.
    graphs: [&'a Tasks; 2],
    best: Option<Draft>,
    /// Tasks that may still be placed.
    left: usize,
    /// The time of another plan.
    known: f64,
    bound: f64,
}

impl Search<'_> {
    fn is_over(&self) -> bool {
        let time = self.best.as_ref().map_or(self.known, |best| best.plan.time.min(self.known));
        self.left == 0 || time <= self.bound * (1.0 + 1e-9)
    }

    fn try_rule(&mut self, rule: &Rule, ranks: &[u32], capacity: &Capacity<'_>) {
        let count = self.graphs[0].tasks.len() as u32;
        let mut urgency = [0; CLASSES];
        for (place, class) in rule.order.iter().enumerate() {
            urgency[*class as usize] = place as u8;
        }
        // A drawing that no op waits for fills bubbles.
        if !self.graphs[0].draws_matter {
            urgency[Class::Draw as usize] = CLASSES as u8;
        }
        let place = if rule.backward { (0..count).rev().collect() } else { (0..count).collect() };
        let first = self.plan(rule.backward, ranks, &Policy { urgency, place }, capacity);
        let Some(mut last) = first else { return };
        let (mut time, mut vain) = (last.plan.time, 0);
        for _ in 0..TURNS {
            if self.is_over() || vain == VAIN_TURNS {
                break;
            }
            let Some(turned) = self.turn(&last, &last.plan.ranks, capacity) else { break };
            if turned.plan.time < time {
                vain = 0
            } else {
                vain += 1
            }
            time = time.min(turned.plan.time);
            last = turned;
        }
    }

    /// Plans in the other direction of time: what ended last comes first. With ranks and urgency taken from the last
    /// plan, every task moves towards the other end as far as what it waits for allows, which closes gaps
    /// (forward-backward improvement; Li and Willis, 1992, for project scheduling).
    fn turn(&mut self, last: &Draft, ranks: &[u32], capacity: &Capacity<'_>) -> Option<Draft> {
        let policy = Policy { urgency: [0; CLASSES], place: latest_first(&last.plan) };
        self.plan(!last.backward, ranks, &policy, capacity)
    }

    /// Moves the ends of the best plan's tasks at random, releases some items from their ranks, and plans twice more,
    /// each time in the other direction.
    fn shake(&mut self, round: u32, anywhere: &[u32], capacity: &Capacity<'_>) {
        let Some(best) = self.best.as_ref() else { return };
        let mut shaken = best.clone();
        let count = shaken.plan.ends.len();
        let mean = self.bound * shaken.plan.order.len() as f64 / count as f64;
        let width = noise(round, 0) * noise(round, 1) * 4.0 * mean;
        for (task, end) in shaken.plan.ends.iter_mut().enumerate() {
            *end += width * (noise(round, task as u32 + 2) - 0.5);
        }
        let mut ranks = shaken.plan.ranks.clone();
        if round.is_multiple_of(2) {
            let part = noise(round, count as u32 + 2);
            for (index, task) in self.graphs[0].tasks.iter().enumerate() {
                if anywhere[index] == ANY && noise(round, (count + index) as u32 + 3) < part {
                    ranks[index] = ANY;
                    if task.partner != NONE {
                        ranks[task.partner as usize] = ANY;
                    }
                }
            }
        }
        if let Some(turned) = self.turn(&shaken, &ranks, capacity) {
            self.turn(&turned, &turned.plan.ranks, capacity);
        }
    }

    /// Plans, and keeps the plan where it is the best so far.
    fn plan(
        &mut self,
        backward: bool,
        ranks: &[u32],
        policy: &Policy,
        capacity: &Capacity<'_>,
    ) -> Option<Draft> {
        let graph = self.graphs[usize::from(backward)];
        self.left = self.left.saturating_sub(graph.tasks.len());
        let planned = Draft { plan: plan(graph, capacity, ranks, policy)?, backward };
        if self.best.as_ref().is_none_or(|best| planned.plan.time < best.plan.time) {
            self.best = Some(planned.clone());
        }
        Some(planned)
    }
}

/// Places by a plan's ends, the last first.
fn latest_first(plan: &Plan) -> Vec<u32> {
    let mut tasks: Vec<u32> = (0..plan.ends.len() as u32).collect();
    tasks.sort_unstable_by(|a, b| {
        let (a, b) = (*a as usize, *b as usize);
        plan.ends[b].total_cmp(&plan.ends[a]).then(plan.numbers[b].cmp(&plan.numbers[a]))
    });
    let mut places = vec![0; tasks.len()];
    for (place, task) in tasks.iter().enumerate() {
        places[*task as usize] = place as u32;
    }
    places
}

/// A number from 0 to 1 that depends on nothing but these two, so that all ranks make the same plan (the finaliser of
/// SplitMix64; Steele et al., 2014).
fn noise(round: u32, index: u32) -> f64 {
    let mut bits =
        ((u64::from(round) << 32) | u64::from(index)).wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((bits ^ (bits >> 31)) >> 11) as f64 / (1u64 << 53) as f64
}

/// Every task's rank where each microbatch's encoder items are shared evenly; drawings go where there is time.
fn fixed_ranks(graph: &Tasks, measures: &Measures<'_>, workload: &Workload) -> Vec<u32> {
    let mut shares = Vec::new();
    let mut work = vec![0.0; workload.ranks()];
    for microbatch in workload.microbatches() {
        shares.extend(even_shares(workload, measures, microbatch, &mut work));
    }
    shares.sort_unstable();
    let rank = |task: &Task| match (task.class, task.unit.piece) {
        (Class::Encode | Class::EncodeBackward, Piece::Item(item)) => {
            let found = shares.binary_search_by(|(other, _)| other.cmp(&item));
            found.map_or(ANY, |index| shares[index].1 as u32)
        }
        _ => task.rank,
    };
    graph.tasks.iter().map(rank).collect()
}

/// One microbatch after the other, which any budget that is enough for one allows.
pub(super) fn serial(graph: &Tasks, measures: &Measures<'_>, workload: &Workload) -> Orders {
    let mut ranks = fixed_ranks(graph, measures, workload);
    for (index, rank) in ranks.iter_mut().enumerate().filter(|(_, rank)| **rank == ANY) {
        *rank = (index % workload.ranks()) as u32;
    }
    let stage = |task: &Task| match task.class {
        Class::Encode => 0,
        Class::Forward => 1,
        Class::Draw => 2,
        Class::Backward | Class::Weight => 3,
        Class::EncodeBackward => 4,
    };
    let mut numbers: Vec<u32> = (0..graph.tasks.len() as u32).collect();
    numbers.sort_by_key(|task| {
        let task = &graph.tasks[*task as usize];
        (task.unit.microbatch(), stage(task))
    });
    let mut order = vec![Vec::new(); workload.ranks()];
    numbers.iter().for_each(|task| order[ranks[*task as usize] as usize].push(*task));
    order
}
