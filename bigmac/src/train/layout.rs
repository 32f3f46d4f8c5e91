//! Where a run's modules live, for all of its steps.

use super::{Session, TrainError};
use crate::data::StepPlan;
use crate::model::Placement;
use crate::schedule::{Chain, registry};

/// How many steps a chain is cut for: enough for their images and drawings to be those of the whole run, on average.
const STEPS: u64 = 8;

/// Which rank holds what, from the first step to the last.
#[derive(Clone, Debug)]
pub struct Layout {
    /// The chunks of all modules.
    pub placement: Placement,
    /// Where the schedule runs all modules as one chain: how it is cut.
    pub chain: Option<Chain>,
}

impl Layout {
    /// The layout of a run: a chain is cut evenly for the work of its first steps, however many of them it resumes behind.
    ///
    /// # Errors
    /// For an unknown schedule; those of [`Placement::of`].
    pub fn of(session: &Session) -> Result<Layout, TrainError> {
        let pipeline = &session.config.pipeline;
        let steps = (0..STEPS).map(|step| session.planner.step(step));
        let plan = StepPlan {
            microbatches: steps.flat_map(|plan| plan.microbatches).collect(),
            ..StepPlan::default()
        };
        let workload = session.costs.workload(&plan, pipeline.ranks, pipeline.chunks)?;
        let workload = registry::schedule(&pipeline.schedule)?.workload(&workload);
        let placement = Placement::of(&session.shape, &workload)?;
        Ok(Layout { placement, chain: workload.chain().cloned() })
    }
}
