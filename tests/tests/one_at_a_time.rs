//! Ops that run one at a time do not overlap: an op's time is then that of a machine that does nothing else.

use anyhow::{Context as _, Result, ensure};
use bigmac::execute::{Baton, Program, Ran, StepTask, run, run_one_at_a_time};
use bigmac::model::{Placement, RankModules};
use bigmac::train::TrainError;
use bigmac_comm::{Communicator, run_ranks};
use bigmac_tests::dataset::SmallSet;
use bigmac_tests::tiny::{CAPTION, DRAWING, EDIT, LINES, SEVERAL, config, pipeline};
use std::time::{Duration, Instant};

const RANKS: usize = 2;

/// Seconds in which the step ran, and seconds of all ops of all ranks.
fn measure(set: &SmallSet, alone: bool) -> Result<(f64, f64)> {
    let plan = set.plan(&[&[CAPTION, DRAWING], &[SEVERAL], &[EDIT], &[DRAWING], &[CAPTION], &[EDIT]])?;
    let session = &set.session;
    let program = Program::build(&plan, &session.costs, &pipeline("nested", RANKS), None)?;
    let pictures = session.prefetcher.step(&plan);
    pictures.ready()?;
    let baton = Baton::default();
    let ranks = run_ranks(RANKS, Duration::from_secs(60), |comm| {
        let ctx = session.context(comm.rank(), 1)?;
        let placement = Placement::of(&session.shape, &program.workload)?;
        let mut modules = RankModules::random(&ctx, &session.shape, &placement, comm.rank(), 1)?;
        let task = StepTask::new(&session.config, &session.shape, &plan, 0).with_pictures(&pictures);
        comm.barrier()?;
        let began = Instant::now();
        let Ran { record, .. } = match alone {
            true => run_one_at_a_time(&ctx, &comm, &program, &task, &mut modules, &baton)?,
            false => run(&ctx, &comm, &program, &task, &mut modules)?,
        };
        let ended = Instant::now();
        let durations = record.read()?.durations(&program.table.ranks[comm.rank()]);
        Ok::<_, TrainError>((began, ended, durations.iter().sum::<f64>()))
    })?;
    let began = ranks.iter().map(|(began, ..)| *began).min().context("a rank")?;
    let ended = ranks.iter().map(|(_, ended, _)| *ended).max().context("a rank")?;
    Ok(((ended - began).as_secs_f64(), ranks.iter().map(|(.., busy)| busy).sum()))
}

#[test]
fn ops_take_no_longer_together_than_the_step() -> Result<()> {
    let mut config = config();
    // Ops long enough that two ranks that run at once overlap for sure.
    (config.model.llm.width, config.model.llm.mlp, config.train.tokens_per_microbatch) = (96, 384, 1024);
    let set = SmallSet::new(&LINES, &config)?;
    let (seconds, busy) = measure(&set, true)?;
    ensure!(busy <= seconds * 1.001, "ops that run one at a time took {busy} s in {seconds} s");
    // Which cannot be seen from ranks that wait for each other anyway.
    let (seconds, busy) = measure(&set, false)?;
    ensure!(busy > seconds * 1.05, "ops of both ranks at once took only {busy} s in {seconds} s");
    Ok(())
}
