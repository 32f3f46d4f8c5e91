//! Several replicas of a pipeline share a step: losses, gradients and weights are those of one process, whatever of the
//! ranks are replicas and whatever are stages.

use anyhow::{Context as _, Result, ensure};
use bigmac::config::{Config, Pipeline, RankOrder};
use bigmac_schedule::ModuleKind;
use bigmac_tests::dataset::SmallSet;
use bigmac_tests::reference::reference;
use bigmac_tests::steps::{close_gradients, close_totals, run_replicas, whole_norm};
use bigmac_tests::tables::fitting;
use bigmac_tests::tiny::{
    ANSWER, CAPTION, DRAWING, EDIT, LINES, SEVERAL, SHORT_DRAWING, SHORT_TEXT, TEXT, config, pipeline,
};

const TOLERANCE: f64 = 1e-5;
/// Replicas and stages of four ranks, and of six.
const GRIDS: [(usize, usize); 6] = [(1, 4), (2, 2), (4, 1), (2, 3), (3, 2), (3, 1)];

/// Every second microbatch has no picture, so that with two replicas one of them has none; of four replicas, only one
/// has drawings.
const MIXED: [&[usize]; 8] = [
    &[CAPTION, DRAWING],
    &[TEXT, SHORT_TEXT],
    &[SEVERAL, CAPTION],
    &[TEXT],
    &[DRAWING, SHORT_DRAWING, EDIT],
    &[SHORT_TEXT],
    &[ANSWER],
    &[TEXT, TEXT],
];

/// Enough layers for four stages.
fn deeper() -> Config {
    let mut config = config();
    config.model.llm.layers = 5;
    config
}

#[test]
fn a_step_is_that_of_one_process() -> Result<()> {
    let set = SmallSet::new(&LINES, &deeper())?;
    let plan = set.plan(&MIXED)?;
    let wanted = reference(&set.session, &plan)?;
    let totals = [wanted.token_loss, wanted.drawing_loss, whole_norm(&wanted.gradients)];
    for kind in ModuleKind::ALL {
        let learns = wanted.gradients.iter().any(|((k, _), g)| *k == kind && g.iter().any(|g| *g != 0.0));
        ensure!(learns, "the {kind} has no gradient");
    }
    for (dp, ranks) in GRIDS {
        for order in [RankOrder::PpFirst, RankOrder::DpFirst] {
            for schedule in ["nested", "nested-fill", "monolithic-balanced", "phased"] {
                let pipeline = Pipeline { dp, order, ..pipeline(schedule, ranks) };
                if fitting(&set.session, &plan, &pipeline)?.is_none() {
                    continue;
                }
                let what = || format!("{schedule}, {dp} x {ranks}, {order:?}");
                let step = run_replicas(&set.session, &plan, &pipeline).with_context(what)?;
                close_totals(&step.totals, totals, TOLERANCE).with_context(what)?;
                close_gradients(&step.gradients, &wanted.gradients, TOLERANCE).with_context(what)?;
            }
        }
    }
    Ok(())
}
