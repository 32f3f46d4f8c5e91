//! Explicit activation buffers: numbered slots, as many per module as the schedule's memory analysis planned.

use super::error::ExecuteError;
use super::program::Program;
use super::unit::Recorded;
use bigmac_autograd::Deferred;
use bigmac_schedule::{PerModule, Rank, Unit};

/// What a unit holds between its ops.
#[derive(Debug)]
pub(super) enum Activations {
    /// Everything its backward needs.
    Recorded(Recorded),
    /// After an input gradient: what its weight gradients need.
    Deferred(Deferred),
}

/// The activation buffers of one rank. There are as many as were planned; asking for another is an error, not an
/// allocation.
pub(super) struct ActivationBuffers<'a> {
    rank: Rank,
    program: &'a Program,
    slots: PerModule<Vec<Option<(Unit, Activations)>>>,
}

impl<'a> ActivationBuffers<'a> {
    /// Empty buffers for `rank`.
    pub fn new(rank: Rank, program: &'a Program) -> Self {
        let planned = program.buffers.slots.get(rank.0).copied().unwrap_or_default();
        let slots = planned.map(|count| std::iter::repeat_with(|| None).take(count).collect());
        ActivationBuffers { rank, program, slots }
    }

    /// Puts what `unit` saved into the buffer that the plan gives it.
    pub fn put(&mut self, unit: Unit, activations: Activations) -> Result<(), ExecuteError> {
        let kind = unit.module.kind();
        let planned = self.slots[kind].len();
        let Program { workload, buffers, .. } = self.program;
        let number = workload.unit_index(unit).and_then(|i| buffers.slot_of.get(i).copied().flatten());
        match number.and_then(|n| self.slots[kind].get_mut(n)) {
            Some(slot @ None) => {
                *slot = Some((unit, activations));
                Ok(())
            }
            _ => Err(ExecuteError::NoBuffer { rank: self.rank, unit, kind, planned }),
        }
    }

    /// Takes what `unit` saved out of its buffer.
    pub fn take(&mut self, unit: Unit) -> Result<Activations, ExecuteError> {
        let slot =
            self.slots[unit.module.kind()].iter_mut().find(|s| s.as_ref().is_some_and(|(u, _)| *u == unit));
        match slot.and_then(Option::take) {
            Some((_, activations)) => Ok(activations),
            None => Err(ExecuteError::Missing { rank: self.rank, what: format!("what {unit:?} saved") }),
        }
    }
}
