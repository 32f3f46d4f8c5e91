//! A rank that fails in the middle of a step: everyone ends soon, with the first cause, and none hangs.

use anyhow::{Context as _, Result};
use bigmac::data::DataError;
use bigmac::execute::{ExecuteError, activation_scope};
use bigmac::train::TrainError;
use bigmac_comm::{RankError, RankFailure};
use bigmac_runtime::Error;
use bigmac_schedule::{Module, ModuleKind, Op, Phase};
use bigmac_tests::dataset::SmallSet;
use bigmac_tests::steps::{Prepare, STEP, run_prepared, run_program, run_step};
use bigmac_tests::tiny::{CAPTION, DRAWING, EDIT, LINES, SEVERAL, TEXT, config, pipeline};
use std::time::{Duration, Instant};

const SCHEDULES: [&str; 3] = ["monolithic", "phased", "nested"];
const MIXED: [&[usize]; 6] =
    [&[CAPTION], &[SEVERAL, TEXT], &[EDIT], &[TEXT], &[DRAWING, EDIT], &[CAPTION, DRAWING]];
/// Far below the time limit of the pipeline: no rank waited for that.
const SOON: Duration = Duration::from_secs(10);

/// Runs a step that has to fail, and returns which rank failed first, and why.
fn failure(
    set: &SmallSet,
    microbatches: &[&[usize]],
    schedule: &str,
    ranks: usize,
    prepare: &Prepare<'_>,
    meanwhile: impl FnOnce() -> Result<()>,
) -> Result<(usize, TrainError)> {
    let plan = set.plan(microbatches)?;
    meanwhile()?;
    let began = Instant::now();
    let error = run_prepared(&set.session, &plan, &pipeline(schedule, ranks), prepare)
        .err()
        .context("the step went through")?;
    assert!(began.elapsed() < SOON, "{schedule} on {ranks} ranks took {:?} to fail", began.elapsed());
    let RankError { rank, cause } = error.downcast::<RankError<TrainError>>()?;
    match cause {
        RankFailure::Failed(cause) => Ok((rank, cause)),
        other => anyhow::bail!("rank {rank} ended with {other}"),
    }
}

fn every_layout(mut test: impl FnMut(&str, usize) -> Result<()>) -> Result<()> {
    for schedule in SCHEDULES {
        for ranks in 1..=4 {
            test(schedule, ranks).with_context(|| format!("{schedule} on {ranks} ranks"))?;
        }
    }
    Ok(())
}

#[test]
fn a_picture_that_is_gone() -> Result<()> {
    // Picture 1 is drawn from line 3, picture 2 is the second image of line 2.
    for (picture, wanted) in [(1, 3), (2, 2)] {
        let microbatches: [&[usize]; 6] = match picture {
            1 => [&[CAPTION], &[CAPTION], &[TEXT], &[CAPTION], &[DRAWING], &[TEXT]],
            _ => [&[CAPTION], &[CAPTION], &[TEXT], &[SEVERAL], &[CAPTION], &[TEXT]],
        };
        every_layout(|schedule, ranks| {
            let set = SmallSet::new(&LINES, &config())?;
            let path = set.picture(picture);
            let remove = || Ok(std::fs::remove_file(&path)?);
            let (_, cause) = failure(&set, &microbatches, schedule, ranks, &|_, _| Ok(()), remove)?;
            let TrainError::Execute(ExecuteError::Data(DataError::Record { place, .. })) = &cause else {
                anyhow::bail!("{cause:?}");
            };
            assert_eq!(place.number(), wanted);
            assert!(cause.to_string().contains(&format!("{picture}.png")), "{cause}");
            Ok(())
        })?;
    }
    Ok(())
}

/// Makes every element of the last parameter of a module NaN, on the rank (of those that hold it) that is named.
fn poison(
    kind: ModuleKind,
    on: Option<usize>,
) -> impl Fn(&bigmac_runtime::Context, &mut bigmac::model::RankModules) -> Result<(), TrainError> {
    move |ctx, modules| {
        if on.is_some_and(|rank| rank != ctx.rank()) {
            return Ok(());
        }
        let params = match kind {
            ModuleKind::Encoder => &mut modules.encoder.list[0].1.params,
            ModuleKind::Generator => &mut modules.generator.list[0].1.params,
            ModuleKind::Llm => &mut modules.llm.list[0].1.params,
        };
        if let Some(id) = params.iter().map(|(id, _)| id).last() {
            params.get_mut(id).as_mut_slice::<f32>()?.fill(f32::NAN);
        }
        Ok(())
    }
}

#[test]
fn an_llm_that_is_no_number() -> Result<()> {
    let set = SmallSet::new(&LINES, &config())?;
    every_layout(|schedule, ranks| {
        // The first stage's weights are broken, the last stage sees it.
        let broken = poison(ModuleKind::Llm, Some(0));
        let (rank, cause) = failure(&set, &MIXED, schedule, ranks, &broken, || Ok(()))?;
        let TrainError::Execute(ExecuteError::NotFinite { step, part, rank: named, microbatch, value }) =
            cause
        else {
            anyhow::bail!("{cause:?}");
        };
        assert_eq!((step, part, rank, named, microbatch), (STEP, "token", ranks - 1, ranks - 1, 0));
        assert!(value.is_nan());
        Ok(())
    })
}

#[test]
fn a_generator_that_is_no_number() -> Result<()> {
    let set = SmallSet::new(&LINES, &config())?;
    every_layout(|schedule, ranks| {
        let (rank, cause) =
            failure(&set, &MIXED, schedule, ranks, &poison(ModuleKind::Generator, None), || Ok(()))?;
        let text = cause.to_string();
        let TrainError::Execute(ExecuteError::NotFinite { step, part, rank: named, microbatch, .. }) = cause
        else {
            anyhow::bail!("{cause:?}");
        };
        assert_eq!((step, part, named), (STEP, "drawing", rank));
        assert!([2, 4, 5].contains(&microbatch), "microbatch {microbatch} draws nothing");
        for word in [
            format!("step {STEP}"),
            "drawing".into(),
            format!("rank {rank}"),
            format!("microbatch {microbatch}"),
        ] {
            assert!(text.contains(&word), "{text}");
        }
        Ok(())
    })
}

#[test]
fn a_replica_of_the_encoder_that_is_no_number() -> Result<()> {
    let set = SmallSet::new(&LINES, &config())?;
    let microbatches: [&[usize]; 4] = [&[SEVERAL]; 4];
    let (rank, cause) =
        failure(&set, &microbatches, "nested", 3, &poison(ModuleKind::Encoder, Some(1)), || Ok(()))?;
    // Rank 1 encodes nonsense; rank 2 computes the loss of it.
    assert!(
        matches!(cause, TrainError::Execute(ExecuteError::NotFinite { part: "token", rank: 2, .. })),
        "{cause}"
    );
    assert_eq!(rank, 2);
    Ok(())
}

#[test]
fn a_rank_whose_activations_do_not_fit() -> Result<()> {
    let set = SmallSet::new(&LINES, &config())?;
    let plan = set.plan(&MIXED)?;
    every_layout(|schedule, ranks| {
        let peak =
            run_step(&set.session, &plan, &pipeline(schedule, ranks))?.ranks[ranks - 1].peak.llm as usize;
        let scope = activation_scope(ModuleKind::Llm);
        let budget: &Prepare<'_> = &|ctx, _| {
            if ctx.rank() == ranks - 1 {
                ctx.memory().scope(scope).set_budget(Some(peak - 1));
            }
            Ok(())
        };
        let (rank, cause) = failure(&set, &MIXED, schedule, ranks, budget, || Ok(()))?;
        assert_eq!(rank, ranks - 1);
        let TrainError::Execute(ExecuteError::Runtime(Error::Budget { scope: named, allowed, .. })) = cause
        else {
            anyhow::bail!("{cause:?}");
        };
        assert_eq!((named.as_str(), allowed), (scope, peak - 1));
        Ok(())
    })
}

#[test]
fn a_rank_that_never_starts() -> Result<()> {
    let set = SmallSet::new(&LINES, &config())?;
    let refuse: &Prepare<'_> = &|ctx, _| match ctx.rank() {
        2 => Err(Error::argument("test", "rank 2 has no weights").into()),
        _ => Ok(()),
    };
    for schedule in SCHEDULES {
        let (rank, cause) = failure(&set, &MIXED, schedule, 4, refuse, || Ok(()))?;
        assert_eq!(rank, 2);
        assert!(cause.to_string().contains("rank 2 has no weights"), "{cause}");
    }
    Ok(())
}

#[test]
fn a_table_that_skips_a_backward() -> Result<()> {
    // The executor is given a table that validation refuses: an error, and no wait for what never comes.
    let set = SmallSet::new(&LINES, &config())?;
    let plan = set.plan(&MIXED)?;
    let step = run_step(&set.session, &plan, &pipeline("nested", 2))?;
    let mut program = step.program;
    let forward = |op: &Op| matches!(op, Op::Compute { module: Module::Llm(_), phase: Phase::Forward, .. });
    let ops = &mut program.table.ranks[1];
    let at = ops.iter().position(forward).context("the LLM runs on rank 1")?;
    ops.remove(at);
    let error = run_program(&set.session, &plan, &program, &pipeline("nested", 2), &|_, _| Ok(()))
        .err()
        .context("the step went through")?;
    let RankError { rank, cause } = error.downcast::<RankError<TrainError>>()?;
    assert_eq!(rank, 1);
    assert!(
        matches!(cause, RankFailure::Failed(TrainError::Execute(ExecuteError::Missing { .. }))),
        "{cause}"
    );
    Ok(())
}
