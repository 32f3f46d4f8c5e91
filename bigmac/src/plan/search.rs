//! The search: every layout of a number of devices under every schedule, by simulation.

use super::error::PlanError;
use super::found::{Found, nothing_fits};
use super::layout::{Estimate, Layout};
use super::memory::{holdings, rank_memory};
use super::replicas;
use super::request::Request;
use super::step::{Step, step};
use super::tasks::{Task, tasks};
use bigmac_schedule::simulate;
use bigmac_schedule::work_bound;
use bigmac_schedule::{Budget, Limits, LlmSchedule, Options, PerModule, ScheduleError, Table};
use rayon::prelude::*;

/// Tasks that run at once, so that what is found does not depend on the number of threads.
const AT_ONCE: usize = 8;
/// A schedule that is so near to its bound has no time to win from a larger budget.
const NEAR: f64 = 1.02;
/// Orders of the LLM's chunks are compared on so many microbatches per chunk.
const SHORT: usize = 3;
/// Gains below this share are not searched for: costs are estimates.
const GAIN: f64 = 0.01;
/// What a table for other costs or fewer microbatches predicts may be off by so much.
const MARGIN: f64 = 0.1;

/// The best ways to run a step.
///
/// # Errors
/// [`PlanError::Value`] for a count of 0, [`PlanError::Shape`] where nothing divides, [`PlanError::Memory`] where
/// nothing fits, [`PlanError::Schedule`] where no schedule keeps the budget.
pub fn search(request: &Request<'_>) -> Result<Found, PlanError> {
    request.check()?;
    let Some(llm) = &request.model.llm else { return replicas::search(request) };
    let (mut tasks, reasons) = tasks(request, llm)?;
    if tasks.is_empty() {
        let message = format!(
            "no layout of {} devices is possible: {}; change --devices, --batch, --ranks or --chunks",
            request.devices,
            reasons.join("; ")
        );
        return Err(PlanError::Shape(message));
    }
    tasks.sort_by(|a, b| a.bound.total_cmp(&b.bound));
    let mut search = Search::new(request, Vec::new());
    for batch in tasks.chunks(AT_ONCE) {
        let best = &search.found.steps;
        let run = |task: &Task| {
            let mut search = Search::new(request, best.clone());
            search.task(task).map(|()| search)
        };
        let parts: Vec<Search<'_, '_>> = batch.par_iter().map(run).collect::<Result<_, PlanError>>()?;
        parts.into_iter().for_each(|part| search.add(part));
    }
    let Search { found, least, refused, .. } = search;
    match (found.steps.is_empty(), least, refused) {
        (false, ..) => Ok(found),
        (true, Some(least), _) => Err(nothing_fits(request, found.too_large, &least)),
        (true, None, Some(error)) => Err(error.into()),
        (true, None, None) => Err(PlanError::Shape(
            "none of the schedules runs any of the layouts: ask for others with --schedule, --llm or --chunks".into(),
        )),
    }
}

struct Search<'a, 'r> {
    request: &'r Request<'a>,
    found: Found,
    /// The step whose fullest rank needs the least, of those that do not fit.
    least: Option<Step>,
    /// Why a schedule did not keep the budget.
    refused: Option<ScheduleError>,
}

/// An order of the LLM's chunks and a group, on a few microbatches.
struct Choice {
    /// Time of the pipeline.
    seconds: f64,
    /// Of it beyond the bound.
    idle: f64,
    options: Options,
}

/// What became of one choice of options.
enum Outcome {
    /// The best of its variants: its time, and which it is (the leanest after all others).
    Fits { seconds: f64, variant: usize },
    /// Too large in every variant.
    TooLarge,
    /// No table, or the same as under other options.
    Nothing,
}

impl<'a, 'r> Search<'a, 'r> {
    fn new(request: &'r Request<'a>, steps: Vec<Step>) -> Self {
        Search { request, found: Found { steps, ..Found::default() }, least: None, refused: None }
    }

    fn add(&mut self, part: Search<'a, 'r>) {
        part.found.steps.into_iter().for_each(|step| self.keep(step));
        self.found.simulated += part.found.simulated;
        self.found.bounded += part.found.bounded;
        self.found.too_large += part.found.too_large;
        part.least.into_iter().for_each(|step| self.too_large(step));
        self.refused = self.refused.take().or(part.refused);
    }

    /// The slowest time that would still be among the best.
    fn limit(&self, task: &Task) -> f64 {
        let steps = &self.found.steps;
        let name = task.schedule.name();
        let own = steps.iter().find(|s| s.schedule() == Some(name) && s.layout.ranks == task.layout.ranks);
        let worst = steps.get(self.request.top - 1);
        let time = |step: Option<&Step>| step.map_or(f64::INFINITY, |step| step.seconds.total());
        time(own).min(time(worst))
    }

    /// The best of a task: over the order of the LLM's chunks and the group, and for the first of them that fits over
    /// budgets too.
    fn task(&mut self, task: &Task) -> Result<(), PlanError> {
        if self.is_bounded(task) {
            self.found.bounded += 1;
            return Ok(());
        }
        let (leanest, variants) = task.variants(self.request)?;
        let choices = self.choices(task, &leanest)?;
        let mut seen = Vec::new();
        let mut first = None;
        for Choice { seconds: short, idle, options } in choices {
            // Later ones are slower on a few microbatches, and a longer step has no less idle time than a short one.
            let slower = first.is_some_and(|first: f64| short > first * (1.0 + GAIN));
            if slower || task.bound + idle * (1.0 - MARGIN) >= self.limit(task) {
                self.found.bounded += 1;
                break;
            }
            let with = |budget| Options { limits: Limits { budget, ..Limits::default() }, ..options };
            let free = self.request.budget == PerModule::<Option<Budget>>::default();
            match self.variants(task, &leanest, &variants, &options, &mut seen)? {
                Outcome::Fits { seconds, variant } => {
                    first = first.or(Some(short));
                    let chosen = variants.get(variant).unwrap_or(&leanest);
                    for budget in task.larger_budgets().filter(|_| free && seconds > NEAR * task.bound) {
                        self.variants(task, chosen, &[], &with(budget), &mut seen)?;
                    }
                }
                Outcome::TooLarge => {
                    for budget in task.smaller_budgets().filter(|_| free) {
                        self.variants(task, &leanest, &variants, &with(budget), &mut seen)?;
                    }
                }
                Outcome::Nothing => {}
            }
        }
        Ok(())
    }

    /// Orders of the LLM's chunks and groups, by the time that they take on a few microbatches.
    fn choices(&mut self, task: &Task, leanest: &Estimate<'a>) -> Result<Vec<Choice>, PlanError> {
        let groups = match &self.request.groups[..] {
            [] => vec![None],
            groups => groups.iter().copied().map(Some).collect(),
        };
        let orders = self.request.llms.iter().take(if task.traits.orders { usize::MAX } else { 1 });
        let mut options = Vec::new();
        for llm in orders {
            for group in groups.iter().filter(|group| group.is_none_or(|g| g <= task.layout.microbatches)) {
                let limits = Limits { budget: self.request.budget, ..Limits::default() };
                options.push(Options { llm, group: *group, limits, ..Options::default() });
            }
        }
        let microbatches = task.layout.microbatches.min(SHORT * task.layout.ranks * task.layout.chunks);
        let layout = Layout { microbatches, ..leanest.layout };
        let short = Estimate::new(self.request.model, self.request.device, layout)?;
        let mut choices = Vec::new();
        for options in options {
            if let Some((step, _)) = self.simulate(&short, task, &options)? {
                let seconds = step.seconds.pipeline;
                let bound = work_bound(&task.schedule.workload(&short.workload, options.llm));
                choices.push(Choice { seconds, idle: seconds - bound, options });
            }
        }
        choices.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
        Ok(choices)
    }

    fn is_bounded(&self, task: &Task) -> bool {
        task.bound >= self.limit(task) * (1.0 - GAIN)
    }

    /// The fastest variant that fits, under these options. `seen` are the tables of earlier options: those that make no
    /// difference make the same one.
    fn variants(
        &mut self,
        task: &Task,
        leanest: &Estimate<'a>,
        variants: &[Estimate<'a>],
        options: &Options,
        seen: &mut Vec<Table>,
    ) -> Result<Outcome, PlanError> {
        let limit = self.limit(task);
        // Where not even the leanest variant fits, none does.
        let Some((mut best, table)) = self.simulate(leanest, task, options)? else {
            return Ok(Outcome::Nothing);
        };
        if seen.contains(&table) {
            return Ok(Outcome::Nothing);
        }
        let mut outcome = Outcome::TooLarge;
        if self.fits(best.fullest().total() as f64) {
            let mut variant = variants.len();
            for (index, estimate) in variants.iter().enumerate() {
                let bound = work_bound(&task.schedule.workload(&estimate.workload, options.llm));
                if bound >= best.seconds.total().min(limit) * (1.0 - GAIN) {
                    break;
                }
                if !self.could_fit(estimate, task, options.llm, &table) {
                    continue;
                }
                let Some((step, _)) = self.simulate(estimate, task, options)? else { continue };
                if self.fits(step.fullest().total() as f64) {
                    if step.seconds.total() < best.seconds.total() {
                        (best, variant) = (step, index);
                    }
                    break;
                }
            }
            outcome = Outcome::Fits { seconds: best.seconds.total(), variant };
            self.keep(best);
        } else {
            self.found.too_large += 1;
            self.too_large(best);
        }
        seen.push(table);
        Ok(outcome)
    }

    fn fits(&self, bytes: f64) -> bool {
        bytes <= self.request.device.usable()
    }

    /// Whether the memory of a variant is worth building its table, by the table of another.
    fn could_fit(&self, estimate: &Estimate<'_>, task: &Task, llm: &LlmSchedule, table: &Table) -> bool {
        let workload = task.schedule.workload(&estimate.workload, llm);
        if workload.chain().is_some() {
            // Costs decide where a chain is cut: the other table may be of other parts.
            return true;
        }
        let Ok(simulation) = simulate(table, &workload) else { return true };
        let held = holdings(estimate, &workload, table);
        let memory = rank_memory(estimate, &workload, table, &simulation, &held);
        memory.iter().all(|rank| self.fits(rank.total() as f64 * (1.0 - MARGIN)))
    }

    /// The step; none where the schedule does not exist for the layout, or not within the budget.
    fn simulate(
        &mut self,
        estimate: &Estimate<'_>,
        task: &Task,
        options: &Options,
    ) -> Result<Option<(Step, Table)>, PlanError> {
        let limits = Limits { microbatch_bytes: estimate.microbatch_bytes(), ..options.limits };
        match step(estimate, task.schedule, &Options { limits, ..*options }) {
            Ok(step) => {
                self.found.simulated += 1;
                Ok(Some(step))
            }
            Err(PlanError::Schedule(error)) if error.is_about_the_layout() => Ok(None),
            Err(PlanError::Schedule(error @ ScheduleError::Budget { .. })) => {
                self.refused.get_or_insert(error);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn too_large(&mut self, step: Step) {
        let need = |step: &Step| step.fullest().total();
        if self.least.as_ref().is_none_or(|least| need(&step) < need(least)) {
            self.least = Some(step);
        }
    }

    fn keep(&mut self, step: Step) {
        let steps = &mut self.found.steps;
        let same = |s: &Step| s.schedule() == step.schedule() && s.layout.ranks == step.layout.ranks;
        match steps.iter_mut().find(|s| same(s)) {
            Some(other) if other.seconds.total() <= step.seconds.total() => return,
            Some(other) => *other = step,
            None => steps.push(step),
        }
        steps.sort_by(|a, b| a.seconds.total().total_cmp(&b.seconds.total()));
        steps.truncate(self.request.top.max(1));
    }
}
