//! Puts tasks in order: a run on the clock in which every free rank takes the most urgent task that is there.

use super::capacity::Capacity;
use super::held::LlmHeld;
use super::tasks::{ANY, CLASSES, Class, Hold, NONE, Task, Tasks};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Which task a free rank takes.
#[derive(Clone, Debug)]
pub(super) struct Policy {
    /// By [`Class`]: lower is taken first.
    pub urgency: [u8; CLASSES],
    /// By task: among tasks of equally urgent classes, lower is taken first.
    pub place: Vec<u32>,
}

/// Tasks on ranks, in order.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// What each rank runs, in order.
    pub order: Vec<Vec<u32>>,
    /// By task: when it ends.
    pub ends: Vec<f64>,
    /// By task: its number in the order of starts.
    pub numbers: Vec<u32>,
    /// By task: where it runs.
    pub ranks: Vec<u32>,
    /// When the last task ends.
    pub time: f64,
}

/// Plans a graph; `None` where all ranks that are not done wait for each other's memory. `ranks` says where each task
/// runs, with [`ANY`] where that is to be chosen.
pub(super) fn plan(graph: &Tasks, capacity: &Capacity<'_>, ranks: &[u32], policy: &Policy) -> Option<Plan> {
    let mut run = Dispatcher::new(graph, capacity, ranks, policy);
    run.count_placed_items();
    for task in 0..graph.tasks.len() as u32 {
        if graph.waits[task as usize] == 0 {
            run.enqueue(task);
        }
    }
    run.wake_all();
    run.dispatch();
    while let Some(Reverse(event)) = run.events.pop() {
        run.now = event.time;
        run.handle(event);
        while let Some(Reverse(next)) = run.events.peek() {
            if next.time > event.time + capacity.tolerance {
                break;
            }
            run.now = next.time;
            let Some(Reverse(next)) = run.events.pop() else { break };
            run.handle(next);
        }
        run.dispatch();
    }
    (run.done == graph.tasks.len()).then_some(run.plan)
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum What {
    /// A task ends.
    End(u32),
    /// A task's last input has arrived at its rank.
    Arrive(u32),
    /// A task that any rank may run has its inputs everywhere.
    Everywhere,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Event {
    time: f64,
    number: u32,
    what: What,
}

impl Eq for Event {}

impl PartialOrd for Event {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Event {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.time.total_cmp(&other.time).then(self.number.cmp(&other.number))
    }
}

type Queue = BinaryHeap<Reverse<(u32, u32)>>;

struct Dispatcher<'a> {
    graph: &'a Tasks,
    capacity: &'a Capacity<'a>,
    policy: &'a Policy,
    now: f64,
    number: u32,
    events: BinaryHeap<Reverse<Event>>,
    /// By task: for how many it still waits.
    waits: Vec<u32>,
    /// By task: when its inputs are everywhere.
    arrives: Vec<f64>,
    /// By task: the rank that has its inputs earlier.
    near: Vec<u32>,
    /// By rank, then class.
    queues: Vec<Queue>,
    /// By class: tasks that any rank may run.
    shared: Vec<Queue>,
    busy: Vec<bool>,
    woken: Vec<u32>,
    is_woken: Vec<bool>,
    llm: LlmHeld,
    encoder: Vec<u64>,
    /// By rank: item work taken, of encoder and generator.
    taken: Vec<[f64; 2]>,
    started: u32,
    done: usize,
    plan: Plan,
}

impl<'a> Dispatcher<'a> {
    fn new(graph: &'a Tasks, capacity: &'a Capacity<'a>, ranks: &[u32], policy: &'a Policy) -> Self {
        let (p, count) = (capacity.slowdown.len(), graph.tasks.len());
        Dispatcher {
            graph,
            capacity,
            policy,
            now: 0.0,
            number: 0,
            events: BinaryHeap::new(),
            waits: graph.waits.clone(),
            arrives: vec![0.0; count],
            near: vec![NONE; count],
            queues: vec![Queue::new(); p * CLASSES],
            shared: vec![Queue::new(); CLASSES],
            busy: vec![false; p],
            woken: Vec::new(),
            is_woken: vec![false; p],
            llm: LlmHeld::new(graph, p),
            encoder: vec![0; p],
            taken: vec![[0.0; 2]; p],
            started: 0,
            done: 0,
            plan: Plan {
                order: vec![Vec::new(); p],
                ends: vec![0.0; count],
                numbers: vec![0; count],
                ranks: ranks.to_vec(),
                time: 0.0,
            },
        }
    }

    /// Items that have their rank beforehand are part of that rank's share.
    fn count_placed_items(&mut self) {
        for task in 0..self.graph.tasks.len() as u32 {
            let Task { class, .. } = self.graph.tasks[task as usize];
            let rank = self.plan.ranks[task as usize];
            if matches!(class, Class::Encode | Class::Draw) && rank != ANY {
                let (kind, time) = self.item(task);
                self.taken[rank as usize][kind] += time;
            }
        }
    }

    fn post(&mut self, time: f64, what: What) {
        self.events.push(Reverse(Event { time, number: self.number, what }));
        self.number += 1;
    }

    fn enqueue(&mut self, task: u32) {
        let class = self.graph.tasks[task as usize].class as usize;
        let entry = Reverse((self.policy.place[task as usize], task));
        match self.plan.ranks[task as usize] {
            ANY => self.shared[class].push(entry),
            rank => self.queues[rank as usize * CLASSES + class].push(entry),
        }
    }

    fn wake(&mut self, rank: u32) {
        if !self.busy[rank as usize] && !self.is_woken[rank as usize] {
            self.is_woken[rank as usize] = true;
            self.woken.push(rank);
        }
    }

    fn wake_all(&mut self) {
        (0..self.busy.len() as u32).for_each(|rank| self.wake(rank));
    }

    fn handle(&mut self, event: Event) {
        match event.what {
            What::End(task) => self.end(task),
            What::Arrive(task) => {
                self.enqueue(task);
                self.wake(self.plan.ranks[task as usize]);
            }
            What::Everywhere => self.wake_all(),
        }
    }

    fn end(&mut self, task: u32) {
        let rank = self.plan.ranks[task as usize];
        let r = rank as usize;
        self.done += 1;
        self.busy[r] = false;
        match self.graph.tasks[task as usize].release {
            Hold::Nothing => {}
            Hold::Llm(part) => self.llm.release(r, part),
            Hold::Encoder(part) => self.encoder[r] = self.encoder[r].saturating_sub(part),
        }
        for edge in self.graph.after(task) {
            let to = edge.to as usize;
            let target = self.plan.ranks[to];
            let there = self.now + if target == rank { 0.0 } else { edge.transfer };
            if there > self.arrives[to] {
                self.arrives[to] = there;
                self.near[to] = rank;
            }
            self.waits[to] -= 1;
            if self.waits[to] > 0 {
                continue;
            }
            if target == ANY {
                self.enqueue(edge.to);
                self.post(self.arrives[to], What::Everywhere);
            } else if self.arrives[to] > self.now {
                self.post(self.arrives[to], What::Arrive(edge.to));
            } else {
                self.enqueue(edge.to);
                self.wake(target);
            }
        }
        self.wake(rank);
    }

    fn dispatch(&mut self) {
        let mut woken = std::mem::take(&mut self.woken);
        woken.sort_unstable();
        for rank in woken.drain(..) {
            self.is_woken[rank as usize] = false;
            if let Some(task) = self.choose(rank) {
                self.start(rank, task);
            }
        }
        self.woken = woken;
    }

    /// Takes the rank's most urgent task that is there and fits out of its queue.
    fn choose(&mut self, rank: u32) -> Option<u32> {
        let r = rank as usize;
        let mut best: Option<((u8, u32), bool, usize)> = None;
        for class in 0..CLASSES {
            let urgency = self.policy.urgency[class];
            for shared in [false, true] {
                let queue = if shared { &self.shared[class] } else { &self.queues[r * CLASSES + class] };
                let Some(Reverse((place, task))) = queue.peek().copied() else { continue };
                let key = (urgency, place);
                if best.is_some_and(|(least, ..)| least <= key) || !self.fits(r, task, shared) {
                    continue;
                }
                best = Some((key, shared, class));
            }
        }
        let (_, shared, class) = best?;
        let queue = if shared { &mut self.shared[class] } else { &mut self.queues[r * CLASSES + class] };
        queue.pop().map(|Reverse((_, task))| task)
    }

    fn fits(&self, rank: usize, task: u32, shared: bool) -> bool {
        let held = match self.graph.tasks[task as usize].acquire {
            Hold::Nothing => true,
            Hold::Llm(part) => {
                self.llm.fits(rank, part, self.graph.position(task), self.capacity.room.llm[rank])
            }
            Hold::Encoder(part) => self.encoder[rank].saturating_add(part) <= self.capacity.room.encoder,
        };
        held && (!shared || self.may_take(rank, task))
    }

    /// Whether an item is there for the rank, and within its share of the item work.
    fn may_take(&self, rank: usize, task: u32) -> bool {
        let index = task as usize;
        if self.arrives[index] > self.now + self.capacity.tolerance && self.near[index] != rank as u32 {
            return false;
        }
        let (kind, time) = self.item(task);
        let over = |rank: usize| self.taken[rank][kind] + time - self.capacity.share[kind][rank];
        let own = over(rank);
        own <= self.capacity.tolerance
            || (0..self.taken.len()).all(|other| over(other) > self.capacity.tolerance && over(other) >= own)
    }

    /// Encoder (0) or generator (1), and the time of all of an item's work.
    fn item(&self, task: u32) -> (usize, f64) {
        let task = &self.graph.tasks[task as usize];
        let partner = self.graph.tasks.get(task.partner as usize).map_or(0.0, |partner| partner.time);
        (usize::from(task.class == Class::Draw), task.time + partner)
    }

    fn start(&mut self, rank: u32, task: u32) {
        let (r, index) = (rank as usize, task as usize);
        if self.plan.ranks[index] == ANY {
            let (kind, time) = self.item(task);
            self.taken[r][kind] += time;
            self.plan.ranks[index] = rank;
            let partner = self.graph.tasks[index].partner;
            if partner != NONE {
                self.plan.ranks[partner as usize] = rank;
            }
        }
        match self.graph.tasks[index].acquire {
            Hold::Nothing => {}
            Hold::Llm(part) => self.llm.acquire(r, part, self.graph.position(task)),
            Hold::Encoder(part) => self.encoder[r] = self.encoder[r].saturating_add(part),
        }
        self.busy[r] = true;
        self.plan.order[r].push(task);
        self.plan.numbers[index] = self.started;
        self.started += 1;
        let end = self.now + self.graph.tasks[index].time * self.capacity.slowdown[r];
        self.plan.ends[index] = end;
        self.plan.time = self.plan.time.max(end);
        self.post(end, What::End(task));
    }
}
