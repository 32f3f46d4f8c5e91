//! Explicit activation buffers: numbered slots, as many per module as the schedule's memory analysis planned.

use super::error::ExecuteError;
use super::unit::Recorded;
use bigmac_autograd::Deferred;
use bigmac_schedule::memory::BufferPlan;
use bigmac_schedule::{ModuleKind, PerModule, Rank, Unit, Workload};

/// What a unit holds between its ops.
#[derive(Debug)]
pub(super) enum Activations {
    /// Everything its backward needs.
    Recorded(Recorded),
    /// After an input gradient: what its weight gradients need.
    Deferred(Deferred),
}

/// The activation buffers of one rank. There are as many as were planned; asking for another is an error, not an allocation.
#[derive(Debug)]
pub struct ActivationBuffers {
    rank: Rank,
    slots: PerModule<Vec<Option<(Unit, Activations)>>>,
}

impl ActivationBuffers {
    /// Empty buffers for `rank`, as many as `plan` says.
    pub fn new(rank: Rank, plan: &BufferPlan) -> Self {
        let mut slots = PerModule::<Vec<_>>::default();
        for kind in ModuleKind::ALL {
            let count = plan.slots.get(rank.0).map_or(0, |planned| planned[kind]);
            slots[kind].resize_with(count, || None);
        }
        ActivationBuffers { rank, slots }
    }

    /// Puts what `unit` saved into the buffer that the plan gives it.
    pub(super) fn put(
        &mut self,
        unit: Unit,
        activations: Activations,
        plan: &BufferPlan,
        workload: &Workload,
    ) -> Result<(), ExecuteError> {
        let kind = unit.module.kind();
        let planned = self.slots[kind].len();
        let number = workload.unit_index(unit).and_then(|i| plan.slot_of.get(i).copied().flatten());
        match number.and_then(|n| self.slots[kind].get_mut(n)) {
            Some(slot @ None) => {
                *slot = Some((unit, activations));
                Ok(())
            }
            _ => Err(ExecuteError::NoBuffer { rank: self.rank, unit, kind, planned }),
        }
    }

    /// Takes what `unit` saved out of its buffer.
    pub(super) fn take(&mut self, unit: Unit) -> Result<Activations, ExecuteError> {
        let slot =
            self.slots[unit.module.kind()].iter_mut().find(|s| s.as_ref().is_some_and(|(u, _)| *u == unit));
        match slot.and_then(Option::take) {
            Some((_, activations)) => Ok(activations),
            None => Err(ExecuteError::Missing { rank: self.rank, what: format!("what {unit:?} saved") }),
        }
    }
}
