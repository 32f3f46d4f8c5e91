//! `pipeline.schedule = "auto"`: which schedule a run gets.
//!
//! It is chosen once, by simulation of the run's first steps, and stands in the run's configuration from then on: a
//! resumed run has the same, whatever it would be by then.

use crate::config::{AUTO_CHOICES, Pipeline};
use crate::cost::CostModel;
use crate::data::Planner;
use crate::execute::{ExecuteError, Program};
use bigmac_schedule::simulate;
use std::fmt;

/// Steps that are simulated, unless they are large.
const STEPS: u64 = 8;
/// No further step is simulated after so many units of work.
const ENOUGH: usize = 50_000;
/// A schedule that saves less than this share of the time is not worth what it keeps in memory.
const TIE: f64 = 0.02;

/// The schedule that `auto` came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// Its name.
    pub schedule: &'static str,
    /// The choices with the time of the first steps together, in the unit of the costs; none where a schedule does not
    /// fit.
    pub times: Vec<(&'static str, Option<f64>)>,
    /// How many steps were simulated.
    pub steps: u64,
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pipeline.schedule = auto: the run gets '{}'", self.schedule)?;
        let steps =
            if self.steps == 1 { "first step".to_owned() } else { format!("first {} steps", self.steps) };
        match self.times[..] {
            [(usual, Some(first)), (other, Some(second))] if first > 0.0 => {
                let ratio = second / first;
                write!(
                    f,
                    "; in simulation of the {steps}, '{other}' takes {ratio:.3} of the time of '{usual}'"
                )
            }
            [(usual, first), (other, _)] => {
                let other = if first.is_none() { usual } else { other };
                write!(f, "; '{other}' does not fit")
            }
            _ => Ok(()),
        }
    }
}

/// Simulates the first steps of a run under each schedule that it may get, those of the first replica where there are
/// several. The first schedule is the usual one: another has to be faster by more than 2 %.
///
/// # Errors
/// That of the first schedule, where none fits.
pub(super) fn choose(
    planner: &Planner,
    costs: &CostModel,
    pipeline: &Pipeline,
) -> Result<Choice, ExecuteError> {
    let mut totals = AUTO_CHOICES.map(|name| (name, Ok(0.0)));
    let (mut steps, mut units) = (0, 0);
    while steps < STEPS && units < ENOUGH {
        let plan = planner.step(steps).of_replica(0, pipeline.dp);
        steps += 1;
        for (name, total) in &mut totals {
            let Ok(before) = total.as_ref().copied() else { continue };
            let pipeline = Pipeline { schedule: (*name).to_owned(), ..pipeline.clone() };
            let time = Program::build(&plan, costs, &pipeline, None).and_then(|program| {
                units = units.max(program.workload.units().count() * steps as usize);
                Ok(simulate(&program.table, &program.workload)?.time())
            });
            *total = time.map(|time| before + time);
        }
    }
    let times: Vec<_> = totals.iter().map(|(name, total)| (*name, total.as_ref().ok().copied())).collect();
    match (fastest(&times), totals) {
        (Some(schedule), _) => Ok(Choice { schedule, times, steps }),
        (None, [(_, Err(error)), ..]) => Err(error),
        (None, [(schedule, Ok(_)), ..]) => Ok(Choice { schedule, times, steps }),
    }
}

/// The first that fits, unless a later one is faster by more than a tie.
fn fastest(times: &[(&'static str, Option<f64>)]) -> Option<&'static str> {
    let mut best: Option<(&'static str, f64)> = None;
    for (name, time) in times {
        let Some(time) = time else { continue };
        if best.is_none_or(|(_, least)| *time < least * (1.0 - TIE)) {
            best = Some((name, *time));
        }
    }
    best.map(|(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_one_wins_a_tie() {
        for (first, second, wanted) in [
            (Some(100.0), Some(98.1), Some("nested")),
            (Some(100.0), Some(97.9), Some("nested-fill")),
            (Some(100.0), Some(120.0), Some("nested")),
            (Some(100.0), None, Some("nested")),
            (None, Some(120.0), Some("nested-fill")),
            (Some(0.0), Some(0.0), Some("nested")),
            (None, None, None),
        ] {
            assert_eq!(
                fastest(&[("nested", first), ("nested-fill", second)]),
                wanted,
                "{first:?} {second:?}"
            );
        }
    }

    #[test]
    fn the_choice_says_why() {
        let say = |first, second| {
            let times = vec![("nested", first), ("nested-fill", second)];
            Choice { schedule: fastest(&times).unwrap(), times, steps: 8 }.to_string()
        };
        assert_eq!(
            say(Some(100.0), Some(90.0)),
            "pipeline.schedule = auto: the run gets 'nested-fill'; in simulation of the first 8 steps, 'nested-fill' \
             takes 0.900 of the time of 'nested'"
        );
        assert!(say(Some(100.0), None).ends_with("the run gets 'nested'; 'nested-fill' does not fit"));
        assert!(say(None, Some(1.0)).ends_with("the run gets 'nested-fill'; 'nested' does not fit"));
    }
}
