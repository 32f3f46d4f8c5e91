//! Draws steps.

use super::{Case, Evenness};
use bigmac_runtime::rng::{Philox, Purpose};
use bigmac_schedule::registry::{LLM_SCHEDULES, SCHEDULES, llm_schedule, schedule};
use bigmac_schedule::{
    ChunkCost, ItemCost, Link, Load, Options, PerModule, Schedule, ScheduleError, Workload,
};

/// Up to 16 ranks, 1 to 5 p microbatches, up to 3 chunks per rank where the schedule runs several; every schedule and
/// every order of the LLM's chunks of the registries. All times are whole numbers, or halves on slow ranks: sums are
/// exact.
///
/// # Errors
/// Where the schedule refuses the step for another reason than its chunks.
pub fn any(seed: u64, number: u32) -> Result<Case, String> {
    let mut dice = Dice(Philox::new(seed, Purpose::new("random steps"), 0, number));
    let evenness = dice.pick(&Evenness::ALL);
    let (schedule, llm) = (dice.pick(SCHEDULES), dice.pick(LLM_SCHEDULES));
    let (p, v) = (dice.count(1, 16), dice.count(1, 3));
    let n = dice.count(1, 5 * p);
    let llm_group = dice.chance(2).then(|| dice.count(1, 2 * p));
    let group = dice.chance(2).then(|| dice.count(1, 4));
    let options = Options { llm, llm_group, group, ..Options::default() };
    let several = dice.clone();
    let case = |options: &Options, v: usize, n: usize| {
        let mut dice = several.clone();
        let shape = match evenness {
            Evenness::Even => even_shape(&mut dice, p, v, n),
            Evenness::Items => uneven_items(&mut dice, p, v, n),
            Evenness::Any => uneven_shape(&mut dice, p, v, n),
        };
        // T_ideal is that of the order, so the order has to exist even where the schedule goes without it.
        let placed = shape.clone().with_placement(options.llm.placement());
        let built = options.llm_table(&placed, 0).and_then(|_| build(schedule, &shape, options));
        (*options, built, shape)
    };
    // Not every order and schedule takes so many chunks, or so few microbatches.
    let one = Options { llm: Options::default().llm, ..options };
    let tries = [(options, v, n), (options, 2, n.max(2 * p)), (options, 1, n), (one, 1, n)];
    let mut cases = tries.iter().map(|(options, v, n)| case(options, *v, *n));
    let fits = |result: &Result<_, ScheduleError>| !matches!(result, Err(e) if e.is_about_the_layout());
    let found = cases.find(|(_, built, _)| fits(built));
    let (options, built, shape) = found.ok_or_else(|| format!("'{}' takes no layout", schedule.name()))?;
    let (workload, table) =
        built.map_err(|error| format!("{} on {}: {error}", schedule.name(), options.llm.name()))?;
    Ok(Case { evenness, schedule, options, shape, workload, table })
}

/// `nested` over `1f1b` on an even step with N >= p.
///
/// # Errors
/// Where the schedule refuses it.
pub fn even(seed: u64, number: u32) -> Result<Case, String> {
    let mut dice = Dice(Philox::new(seed, Purpose::new("even steps"), 0, number));
    let p = dice.count(1, 16);
    let n = dice.count(p, 5 * p);
    let shape = even_shape(&mut dice, p, 1, n);
    let find = |error: ScheduleError| error.to_string();
    let schedule = schedule("nested").map_err(find)?;
    let options = Options { llm: llm_schedule("1f1b").map_err(find)?, ..Options::default() };
    let (workload, table) = build(schedule, &shape, &options).map_err(find)?;
    Ok(Case { evenness: Evenness::Even, schedule, options, shape, workload, table })
}

fn build(
    schedule: &Schedule,
    shape: &Workload,
    options: &Options,
) -> Result<(Workload, bigmac_schedule::Table), ScheduleError> {
    let workload = schedule.workload(shape, options.llm);
    let table = schedule.build(&workload, options)?;
    Ok((workload, table))
}

#[derive(Clone)]
struct Dice(Philox);

impl Dice {
    /// From `least` to `most`, both included.
    fn count(&mut self, least: usize, most: usize) -> usize {
        least + self.0.below((most - least + 1) as u32) as usize
    }

    fn time(&mut self, least: usize, most: usize) -> f64 {
        self.count(least, most) as f64
    }

    /// One time in `of`.
    fn chance(&mut self, of: u32) -> bool {
        self.0.below(of) == 0
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.0.below(from.len() as u32) as usize]
    }
}

/// F from 1 to 8, B + W from F / 2 to 4 F, divided anyhow, and no more as a whole.
fn stage(dice: &mut Dice) -> ChunkCost {
    let forward = dice.count(1, 8);
    let backward = dice.count(forward.div_ceil(2), 4 * forward);
    let input = dice.count(0, backward);
    let parts = ChunkCost::of_parts(forward as f64, input as f64, (backward - input) as f64);
    // In one op as long as in two, or less.
    let whole = if dice.chance(2) { dice.count(input.max(backward - input), backward) } else { backward };
    ChunkCost { backward: whole as f64, ..parts }
}

fn item(dice: &mut Dice) -> ItemCost {
    ItemCost { forward: dice.time(0, 8), backward: dice.time(0, 16) }
}

fn even_shape(dice: &mut Dice, p: usize, v: usize, n: usize) -> Workload {
    let llm = vec![stage(dice); p * v];
    let mut items = |absent| if dice.chance(absent) { Vec::new() } else { vec![item(dice); p] };
    let load = Load { encoder: items(6), generator: items(2), llm };
    valid(Workload::new(p, v, vec![load; n], PerModule::all(true), 0.0))
}

/// A microbatch's items: none, or up to 2 p, equal or not.
fn items(dice: &mut Dice, p: usize) -> Vec<ItemCost> {
    if dice.chance(4) {
        return Vec::new();
    }
    let (count, alike) = (dice.count(1, 2 * p), dice.chance(2).then(|| item(dice)));
    (0..count).map(|_| alike.unwrap_or_else(|| item(dice))).collect()
}

fn item_lists(dice: &mut Dice, p: usize, n: usize) -> Vec<(Vec<ItemCost>, Vec<ItemCost>)> {
    let (encodes, draws) = (!dice.chance(6), dice.chance(2));
    let mut list = |wanted| if wanted { items(dice, p) } else { Vec::new() };
    (0..n).map(|_| (list(encodes), list(draws))).collect()
}

fn uneven_items(dice: &mut Dice, p: usize, v: usize, n: usize) -> Workload {
    let llm = vec![stage(dice); p * v];
    let lists = item_lists(dice, p, n).into_iter();
    let loads = lists.map(|(encoder, generator)| Load { encoder, generator, llm: llm.clone() });
    valid(Workload::new(p, v, loads.collect(), PerModule::all(true), 0.0))
}

fn uneven_shape(dice: &mut Dice, p: usize, v: usize, n: usize) -> Workload {
    let chunks: Vec<ChunkCost> = (0..p * v).map(|_| stage(dice)).collect();
    let lists = item_lists(dice, p, n);
    let loads = lists.into_iter().map(|(mut encoder, mut generator)| {
        // A microbatch of no cost is a padded one: everything is there, nothing takes time.
        let length = dice.time(0, 3);
        if length == 0.0 {
            let nothing = ItemCost { forward: 0.0, backward: 0.0 };
            encoder.iter_mut().chain(&mut generator).for_each(|item| *item = nothing);
        }
        Load { encoder, generator, llm: chunks.iter().map(|cost| cost.scaled(length)).collect() }
    });
    let loads: Vec<Load> = loads.collect();
    let mut learns = PerModule::all(true);
    if dice.chance(2) {
        learns = PerModule { encoder: dice.chance(2), llm: dice.chance(2), generator: dice.chance(2) };
    }
    let latency = if dice.chance(2) { 0.0 } else { dice.time(1, 5) };
    let link = Link { latency, overlapped: !dice.chance(4), ..Link::default() };
    let slow: Vec<f64> = (0..p).map(|_| if dice.chance(4) { dice.time(1, 6) / 2.0 } else { 1.0 }).collect();
    let workload = valid(Workload::new(p, v, loads, learns, 0.0));
    valid(workload.with_link(link).and_then(|workload| workload.with_slowdown(slow)))
}

/// Everything drawn is a count above 0 or a time that is not negative.
fn valid<E: std::fmt::Display>(workload: Result<Workload, E>) -> Workload {
    workload.unwrap_or_else(|error| panic!("a drawn step is refused: {error}"))
}
