//! The time of what is not an op of a pipeline: transfers between ranks, and what follows the last op of a step.

use super::turns::decoded;
use super::{MeasureError, Rounds};
use crate::cost::Spread;
use crate::data::StepPlan;
use crate::execute::{Program, StepTask, run};
use crate::model::{Placement, RankModules};
use crate::profile::Around;
use crate::train::{Gate, Groups, Optimizer, Session, TrainError, Update, reduce};
use bigmac_comm::{Communicator, Tag};
use bigmac_runtime::{Context, DType, Tensor};
use std::time::Instant;

/// Ping-pongs per measurement of a transfer.
const PINGS: usize = 16;
/// Tag of ping-pongs: no value of a step has it, as none is under way.
const PING: Tag = Tag(0);

/// Measures transfers and what follows the pipeline, under one program. The optimizer runs at a learning rate of 0.
///
/// # Errors
/// Those of a step, of the rank where it began.
pub fn around(
    session: &Session,
    plan: &StepPlan,
    program: &Program,
    rounds: Rounds,
) -> Result<Around, MeasureError> {
    let tokens = plan.microbatches.iter().map(|load| load.tokens.len()).max().unwrap_or(0);
    let hidden = (tokens * session.shape.width() * session.shape.dtype.size()).max(4);
    let (ranks, train) = (session.config.pipeline.ranks, &session.config.train);
    let pictures = decoded(session, plan)?;
    let times = session.on_ranks(ranks, |ctx, comm| {
        let mut times = Vec::with_capacity(rounds.kept);
        let placement = Placement::of(&session.shape, &program.workload)?;
        let seed = session.config.run.seed;
        let mut modules = RankModules::random(ctx, &session.shape, &placement, comm.rank(), seed)?;
        let parts = modules.parts().map(|(kind, _, params, _)| Optimizer::new(ctx, kind, params));
        let mut optimizers = parts.collect::<Result<Vec<_>, _>>()?;
        let task = StepTask::new(&session.config, &session.shape, plan, 0).with_pictures(&pictures);
        let mut gate = Gate::new(ctx)?;
        for round in 0..rounds.warmup + rounds.kept {
            let losses = run(ctx, comm, program, &task, &mut modules)?.losses;
            let ping = [ping_pong(ctx, comm, 4)?, ping_pong(ctx, comm, hidden)?];
            comm.barrier()?;
            ctx.stream().synchronize()?;
            let began = Instant::now();
            reduce(ctx, &Groups::single(comm), &mut modules, losses, &mut gate, false)?;
            ctx.stream().synchronize()?;
            let reduced = began.elapsed().as_secs_f64();
            let began = Instant::now();
            for (optimizer, (_, params, gradients)) in optimizers.iter_mut().zip(modules.parts_mut()) {
                let clip = gate.clip(train.clip);
                optimizer.step(ctx, params, gradients, &Update { train, lr: 0.0, grad_scale: 1.0, clip })?;
            }
            ctx.stream().synchronize()?;
            if round >= rounds.warmup {
                times.push([ping[0], ping[1], reduced, began.elapsed().as_secs_f64()]);
            }
        }
        Ok(times)
    })?;
    // Round by round, the slowest rank's; only the first two ranks play ping-pong.
    let slowest = |which: usize| {
        let of_round = |round: usize| times.iter().map(move |rank| rank[round][which]).fold(0.0, f64::max);
        Spread::of((0..rounds.kept).map(of_round))
    };
    let transfer = |which| slowest(which).filter(|_| ranks > 1);
    let follows = |which| slowest(which).ok_or(MeasureError::Nothing { what: "round" });
    Ok(Around {
        latency: transfer(0),
        hidden: transfer(1),
        hidden_bytes: hidden,
        reduce: follows(2)?,
        optimizer: follows(3)?,
    })
}

/// Seconds of one way between the first two ranks, each waiting for the other; 0 on others.
fn ping_pong(ctx: &Context, comm: &dyn Communicator, bytes: usize) -> Result<f64, TrainError> {
    comm.barrier()?;
    if comm.rank() > 1 || comm.size() == 1 {
        return Ok(0.0);
    }
    let peer = 1 - comm.rank();
    let mut ball = Tensor::zeros(ctx, &[bytes], DType::U8)?;
    let spec = ball.spec();
    let began = Instant::now();
    for _ in 0..PINGS {
        if comm.rank() == 0 {
            comm.send(ctx, ball, peer, PING)?;
            ball = comm.recv(ctx, peer, PING, &spec)?;
        } else {
            let ball = comm.recv(ctx, peer, PING, &spec)?;
            comm.send(ctx, ball, peer, PING)?;
        }
    }
    Ok(began.elapsed().as_secs_f64() / (2 * PINGS) as f64)
}
