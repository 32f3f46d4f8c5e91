//! What ranks add up before an optimizer step: gradients of what several ranks hold, then numbers.

use super::groups::Groups;
use super::numbers::{Gate, Numbers, Reduced};
use crate::execute::{ExecuteError, Losses};
use crate::model::{RankModules, Replica};
use bigmac_autograd::{Gradients, ParamId};
use bigmac_comm::{Communicator, Reduce, Tag};
use bigmac_kernels::add;
use bigmac_models::qwen3::Qwen3;
use bigmac_runtime::{Context, Tensor};
use bigmac_schedule::{Chunk, ModuleKind};

/// Tags above those of values, which are numbered from 0.
const TIED_UP: Tag = Tag(u64::MAX - 1);
const TIED_DOWN: Tag = Tag(u64::MAX - 2);

/// Reduces gradients over the ranks that hold copies, in rank order, and adds up losses, squares of the gradient and
/// the wish to stop: modules that every rank holds over all ranks, stages over the replicas of the pipeline, and of a
/// tied embedding then the two ends of the pipeline. Ranks without items take part. Everything is a sum: losses were
/// divided by the counts of the whole step.
///
/// On a GPU nothing waits for the device: losses and norm are summed there, and pass through `gate`.
///
/// # Errors
/// Those of the communicator.
pub fn reduce(
    ctx: &Context,
    groups: &Groups<'_>,
    modules: &mut RankModules,
    losses: Losses,
    gate: &mut Gate,
    stop: bool,
) -> Result<Reduced, ExecuteError> {
    let comm = groups.world();
    if comm.size() > 1 {
        let placement = modules.placement().clone();
        // What is frozen is frozen on every rank.
        let learns = |gradients: &Gradients| !gradients.flat().is_empty();
        for (kind, _, gradients) in modules.parts_mut().filter(|(.., gradients)| learns(gradients)) {
            let holders = if placement.is_replicated(kind) { Some(comm) } else { groups.copies() };
            if let Some(holders) = holders {
                holders.all_reduce(ctx, gradients.flat_mut(), Reduce::Sum)?;
            }
        }
    }
    reduce_tied(ctx, groups.pipeline(), modules)?;
    let gradients = own_gradients(groups, modules)?;
    match losses {
        Losses::Known(losses) => Numbers::known(ctx, comm, losses, &gradients, stop),
        Losses::Queued(losses) => {
            let numbers = Numbers::queued(ctx, comm, losses, &gradients, gate)?;
            Ok(Reduced { numbers, stop: any(ctx, comm, stop)? })
        }
    }
}

/// True when some rank says so. A matter of the hosts, which wait for no device.
fn any(ctx: &Context, comm: &dyn Communicator, wish: bool) -> Result<bool, ExecuteError> {
    let host = ctx.host();
    let mut sum = Tensor::from_slice(&host, &[f64::from(u8::from(wish))], &[1])?;
    comm.all_reduce(&host, &mut sum, Reduce::Sum)?;
    Ok(sum.as_slice::<f64>()?.iter().any(|&sum| sum > 0.0))
}

/// This rank's part of the whole gradient. Copies are equal now, so rank 0 counts those that every rank has; each rank
/// of the first replica counts what it alone holds there, and of a tied embedding the first stage's.
fn own_gradients(groups: &Groups<'_>, modules: &RankModules) -> Result<Vec<Tensor>, ExecuteError> {
    let (rank, replica) = (groups.world().rank(), groups.replica());
    let counts = |kind| rank == 0 || replica == 0 && !modules.placement().is_replicated(kind);
    let mut views = Vec::new();
    for (kind, _, _, gradients) in modules.parts() {
        if kind != ModuleKind::Llm && counts(kind) {
            views.push(gradients.flat().clone());
        }
    }
    for (_, stage) in modules.llm.list.iter().filter(|_| counts(ModuleKind::Llm)) {
        let flat = stage.gradients.flat();
        let copy = tied_copy(stage).map(|id| stage.params.parameter(id).range());
        let copy = copy.unwrap_or(flat.len()..flat.len());
        views.push(flat.narrow(0, 0, copy.start)?);
        views.push(flat.narrow(0, copy.end, flat.len() - copy.end)?);
    }
    views.retain(|view| !view.is_empty());
    Ok(views)
}

/// Adds the gradients of the tied embedding, which the first and the last stage each hold a copy of.
fn reduce_tied(
    ctx: &Context,
    comm: &dyn Communicator,
    modules: &mut RankModules,
) -> Result<(), ExecuteError> {
    let (first, last) = modules.placement().ends();
    let (first, last) = (first.0, last.0);
    let ends = |which: fn(&Replica<Qwen3>) -> Option<ParamId>| {
        modules.llm.list.iter().find_map(|(chunk, stage)| Some((*chunk, which(stage)?)))
    };
    let (original, copy) = (ends(tied_original), ends(tied_copy));
    let grad = |modules: &RankModules, (chunk, id): (Chunk, ParamId)| {
        modules.llm.get(chunk)?.gradients.view(id)?.copy(ctx)
    };
    let sum = match (original, copy) {
        (None, None) => return Ok(()),
        (Some(original), Some(copy)) => {
            add::accumulate(ctx, grad(modules, original)?, &grad(modules, copy)?)?
        }
        (Some(original), None) => {
            let mine = grad(modules, original)?;
            let other = comm.recv(ctx, last, TIED_UP, &mine.spec())?;
            let sum = add::accumulate(ctx, mine, &other)?;
            comm.send(ctx, sum.clone(), last, TIED_DOWN)?;
            sum
        }
        (None, Some(copy)) => {
            let mine = grad(modules, copy)?;
            let spec = mine.spec();
            comm.send(ctx, mine, first, TIED_UP)?;
            comm.recv(ctx, first, TIED_DOWN, &spec)?
        }
    };
    for (chunk, id) in original.into_iter().chain(copy) {
        modules.llm.get_mut(chunk)?.gradients.replace(ctx, id, &sum)?;
    }
    Ok(())
}

/// The first stage's embedding, where it learns and the last stage has a copy of it.
fn tied_original(stage: &Replica<Qwen3>) -> Option<ParamId> {
    tied(stage).filter(|_| stage.net.stage().first)
}

/// The last stage's copy of the tied embedding, where it learns.
fn tied_copy(stage: &Replica<Qwen3>) -> Option<ParamId> {
    tied(stage).filter(|_| stage.net.stage().last)
}

fn tied(stage: &Replica<Qwen3>) -> Option<ParamId> {
    stage.net.tied().filter(|id| stage.params.parameter(*id).trainable())
}
