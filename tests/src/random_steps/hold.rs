//! What has to hold.

use super::{Case, Found};
use bigmac_runtime::rng::{Philox, Purpose};
use bigmac_schedule::lower;
use bigmac_schedule::memory::peak_microbatches;
use bigmac_schedule::simulate;
use bigmac_schedule::validate;
use bigmac_schedule::work_bound;
use bigmac_schedule::{Limits, ModuleKind, Op, Phase, Table, Workload, ideal_time};

/// Times nearer than this are one.
const TOLERANCE: f64 = 1e-9;

/// Of every case: its table is valid, and so it is with its communication, which cannot deadlock even where sends wait
/// for their receivers; both take the same time, no less than the work bound; the text form gives the table back; and
/// a table is refused that has an op less, or an op before one that it needs.
///
/// # Errors
/// What does not hold, with the ops.
pub fn hold(case: &Case, number: u32) -> Result<Found, String> {
    let Case { workload, table, .. } = case;
    let wrong = |what: String| format!("{}: {what}", case.describe());
    let check = |table: &Table, which: &str| {
        validate(table, workload, &Limits::default()).map_err(|error| wrong(format!("{which}: {error}")))
    };
    check(table, "plain")?;
    let lowered = lower(table, workload).map_err(|error| wrong(error.to_string()))?;
    check(&lowered, "lowered")?;
    let run = |table| simulate(table, workload).map_err(|error| wrong(error.to_string()));
    let (plain, with_sends) = (run(table)?, run(&lowered)?);
    if plain.active != with_sends.active || plain.time() != with_sends.time() {
        let (a, b) = (plain.time(), with_sends.time());
        return Err(wrong(format!("takes {a} plain and {b} lowered, or other times on a rank")));
    }
    let (time, bound) = (plain.time(), work_bound(workload));
    if time < bound - TOLERANCE {
        return Err(wrong(format!("takes {time}, less than the bound of {bound}")));
    }
    if lowered.to_string().parse::<Table>().as_ref() != Ok(&lowered) {
        return Err(wrong("its text is another table's".to_owned()));
    }
    let mut dice = Philox::new(0, Purpose::new("broken tables"), 0, number);
    for table in [table, &lowered] {
        for (what, broken) in
            [without_an_op(table, &mut dice), out_of_order(table, workload, &mut dice)].into_iter().flatten()
        {
            if validate(&broken, workload, &Limits::default()).is_ok() {
                return Err(wrong(format!("accepted {what}")));
            }
        }
    }
    let ideal = ideal_time(&case.shape, &case.options).map_err(|error| wrong(error.to_string()))?;
    let ratio = (case.schedule.is_whole() && ideal > 0.0).then_some(time / ideal);
    Ok(Found { evenness: case.evenness, schedule: case.schedule.name(), llm: case.options.llm.name(), ratio })
}

/// What `nested` promises over 1F1B on even steps: no slower than T_ideal; encoder activations of at most 2
/// microbatches on a rank, the generator's of 1; the LLM's min(N, p - s) on stage s, one more with a generator.
///
/// # Errors
/// What does not hold.
pub fn claims(case: &Case) -> Result<(), String> {
    let Case { workload, table, options, .. } = case;
    let wrong = |what: String| format!("{}: {what}", case.describe());
    let time = simulate(table, workload).map_err(|error| wrong(error.to_string()))?.time();
    let ideal = ideal_time(workload, options).map_err(|error| wrong(error.to_string()))?;
    if time > ideal + TOLERANCE {
        return Err(wrong(format!("takes {time}, more than the ideal of {ideal}")));
    }
    let extra = usize::from(workload.has_items(ModuleKind::Generator));
    for (stage, peak) in peak_microbatches(table, workload).iter().enumerate() {
        let llm = workload.len().min(workload.ranks() - stage + extra) as f64;
        if peak.encoder > 2.0 || peak.generator > 1.0 || peak.llm > llm {
            return Err(wrong(format!("stage {stage} peaks at {peak:?}, allowed are 2, {llm} and 1")));
        }
    }
    Ok(())
}

/// The table less one op, which any rank can be given to have forgotten. Not a recomputation: without it, the forward
/// saves what the backward reads.
fn without_an_op(table: &Table, dice: &mut Philox) -> Option<(String, Table)> {
    let (rank, index) = any_op(table, dice)?;
    let mut broken = table.clone();
    let op = broken.ranks[rank].remove(index);
    let needed = !matches!(op, Op::Compute { phase: Phase::Recompute, .. });
    needed.then(|| (format!("a table without {op} of rank {rank}"), broken))
}

/// The table with an op and the next one on its rank that needs it in each other's places, where there is one.
fn out_of_order(table: &Table, workload: &Workload, dice: &mut Philox) -> Option<(String, Table)> {
    let (rank, first) = any_op(table, dice)?;
    let ops = &table.ranks[rank];
    let second = first + 1 + ops[first + 1..].iter().position(|op| needs(op, &ops[first], workload))?;
    let mut broken = table.clone();
    broken.ranks[rank].swap(first, second);
    Some((format!("a table with {} before {} on rank {rank}", ops[second], ops[first]), broken))
}

fn any_op(table: &Table, dice: &mut Philox) -> Option<(usize, usize)> {
    let mut place = dice.below(u32::try_from(table.len()).ok().filter(|len| *len > 0)?) as usize;
    table.ranks.iter().enumerate().find_map(|(rank, ops)| {
        if place < ops.len() {
            return Some((rank, place));
        }
        place -= ops.len();
        None
    })
}

/// Whether one op reads what the other makes, or continues its work.
fn needs(op: &Op, other: &Op, workload: &Workload) -> bool {
    let made = other.produces(workload);
    op.consumes(workload).iter().any(|value| made.contains(value))
        || op.units().any(|unit| other.units().any(|done| done == unit))
}
