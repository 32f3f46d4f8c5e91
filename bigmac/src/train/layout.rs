//! Where a run's modules live, and what their work costs, for all of its steps.

use super::{Session, TrainError};
use crate::cost::CostModel;
use crate::data::StepPlan;
use crate::execute::{ExecuteError, Program};
use crate::model::Placement;
use crate::profile::Profile;
use bigmac_schedule::{Chain, registry};
use std::path::Path;

/// How many steps a run is laid out for: enough for their images and drawings to be those of the whole run, on average.
const STEPS: u64 = 8;

/// Which rank holds what, and what work costs, from the first step to the last.
#[derive(Clone, Debug)]
pub struct RunLayout {
    /// The chunks of all modules.
    pub placement: Placement,
    /// Where the schedule runs all modules as one chain: how it is cut.
    pub chain: Option<Chain>,
    /// Estimated costs, or those of the configured profile.
    pub costs: CostModel,
}

impl RunLayout {
    /// The layout of a run: a chain is cut evenly for the work of its first steps, however many of them it resumes
    /// after.
    ///
    /// # Errors
    /// For an unknown schedule or one that cannot run the first step; [`TrainError::Profile`] for a profile that cannot
    /// be used; those of [`Placement::of`].
    pub fn of(session: &Session) -> Result<Self, TrainError> {
        let path = &session.config.pipeline.profile;
        if path.is_empty() {
            return Ok(Self::at(session, session.costs.clone())?);
        }
        let wrong = |cause| TrainError::Profile { path: path.into(), cause: Box::new(cause) };
        let profile = Profile::read(Path::new(path)).map_err(wrong)?;
        profile.check(&session.config).map_err(wrong)?;
        let plan = first_steps(session);
        let rates = |split| profile.rates(&plan, split).map_err(wrong);
        let layout = Self::at(session, CostModel { rates: rates(false)?, ..session.costs.clone() })?;
        // Backwards cost what they were measured to as a whole, or split, as the schedule has them.
        let (first, pipeline) = (session.planner.step(0), &session.config.pipeline);
        if !Program::build(&first, &layout.costs, pipeline, layout.chain.as_ref())?.is_split() {
            return Ok(layout);
        }
        Ok(Self::at(session, CostModel { rates: rates(true)?, ..layout.costs })?)
    }

    fn at(session: &Session, costs: CostModel) -> Result<Self, ExecuteError> {
        let pipeline = &session.config.pipeline;
        let workload = costs.workload(&first_steps(session), pipeline.ranks, pipeline.chunks)?;
        let workload = registry::schedule(&pipeline.schedule)?.workload(&workload);
        let placement = Placement::of(&session.shape, &workload)?;
        Ok(RunLayout { placement, chain: workload.chain().cloned(), costs })
    }
}

/// The microbatches of a run's first steps.
fn first_steps(session: &Session) -> StepPlan {
    let steps = (0..STEPS).map(|step| session.planner.step(step));
    StepPlan { microbatches: steps.flat_map(|plan| plan.microbatches).collect(), ..StepPlan::default() }
}
