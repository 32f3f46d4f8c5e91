//! Where a run's modules live, and what their work costs, for all of its steps.

use super::{Session, TrainError};
use crate::config::Config;
use crate::cost::CostModel;
use crate::data::{Planner, StepPlan};
use crate::execute::ExecuteError;
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
        Ok(Self::at(session, costs(&session.config, &session.planner, &session.costs)?)?)
    }

    fn at(session: &Session, costs: CostModel) -> Result<Self, ExecuteError> {
        let pipeline = &session.config.pipeline;
        let workload = costs.workload(&first_steps(&session.planner), pipeline.ranks, pipeline.chunks)?;
        let llm = registry::llm_schedule(&pipeline.llm)?;
        let workload = registry::schedule(&pipeline.schedule)?.workload(&workload, llm);
        let placement = Placement::of(&session.shape, &workload)?;
        Ok(RunLayout { placement, chain: workload.chain().cloned(), costs })
    }
}

/// What work costs in a run: as counted, or by the configured profile.
///
/// # Errors
/// [`TrainError::Profile`] for a profile that cannot be used.
pub(super) fn costs(
    config: &Config,
    planner: &Planner,
    counted: &CostModel,
) -> Result<CostModel, TrainError> {
    let path = &config.pipeline.profile;
    if path.is_empty() {
        return Ok(counted.clone());
    }
    let rates = Profile::read(Path::new(path)).and_then(|profile| {
        profile.check(config)?;
        profile.rates(&first_steps(planner))
    });
    match rates {
        Ok(rates) => Ok(CostModel { rates, ..counted.clone() }),
        Err(cause) => Err(TrainError::Profile { path: path.into(), cause: Box::new(cause) }),
    }
}

/// The microbatches of a run's first steps.
fn first_steps(planner: &Planner) -> StepPlan {
    let steps = (0..STEPS).map(|step| planner.step(step));
    StepPlan { microbatches: steps.flat_map(|plan| plan.microbatches).collect(), ..StepPlan::default() }
}
