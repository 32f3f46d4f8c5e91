//! What activations are counted in: one measure for the schedules that keep to budgets and for the check of them.

use crate::check::budget::{Budget, Limits, UnknownSize};
use crate::clock::memory::{MICROBATCH, Shares, peak_bytes};
use crate::step::{ModuleKind, PerModule, Phase, Table, Unit, Workload};

/// How units of each module are counted: as whole numbers, so that what is added and taken away cancels exactly. A
/// module with a budget in bytes is counted in bytes, all others in microbatches.
#[derive(Clone, Debug)]
pub(crate) struct Measures<'a> {
    shares: Shares<'a>,
    scales: PerModule<Scale>,
}

/// What a count of 1 stands for.
#[derive(Clone, Copy, Debug)]
enum Scale {
    /// 1 / [`MICROBATCH`] of a unit's own microbatch, however much that holds.
    Microbatches,
    /// 1 / [`MICROBATCH`] of the microbatch with the most work, which saves so many bytes.
    OfLargest { bytes: u64, most: Most },
    /// A byte, as the workload knows what every unit saves.
    Bytes,
}

/// The microbatch that an item is measured by.
#[derive(Clone, Copy, Debug)]
enum Most {
    /// The longest forward of a microbatch's items.
    Time(f64),
    /// The most items of a microbatch, where forwards take no time.
    Items(usize),
}

impl<'a> Measures<'a> {
    /// Measures that peaks are compared with budgets in.
    ///
    /// # Errors
    /// Where a budget is in bytes and neither the workload knows what units save nor `limits` what a microbatch does.
    pub(crate) fn new(workload: &'a Workload, limits: &Limits) -> Result<Self, UnknownSize> {
        let mut measures =
            Measures { shares: Shares::new(workload), scales: PerModule::all(Scale::Microbatches) };
        for module in ModuleKind::ALL {
            let Some(budget @ Budget::Bytes(_)) = limits.budget[module] else { continue };
            let scale = measures.in_bytes(module, limits.microbatch_bytes[module]);
            measures.scales[module] = scale.ok_or(UnknownSize { module, budget })?;
        }
        Ok(measures)
    }

    fn in_bytes(&self, module: ModuleKind, microbatch: Option<u64>) -> Option<Scale> {
        let workload = self.shares.workload();
        let mut units = workload.units().filter(|unit| unit.module.kind() == module);
        if units.all(|unit| workload.saved(unit).is_some()) {
            return Some(Scale::Bytes);
        }
        let most = |largest: f64| match largest > 0.0 {
            true => Most::Time(largest),
            false => {
                let items =
                    workload.microbatches().map(|microbatch| workload.items(module, microbatch).count());
                Most::Items(items.max().unwrap_or_default().max(1))
            }
        };
        microbatch.map(|bytes| Scale::OfLargest { bytes, most: most(self.shares.largest(module)) })
    }

    /// What a unit saves, in its module's measure.
    pub(crate) fn count(&self, unit: Unit) -> u64 {
        let workload = self.shares.workload();
        let part = match (self.scales[unit.module.kind()], unit.module.kind()) {
            (Scale::Bytes, _) => return workload.saved(unit).unwrap_or_default(),
            (Scale::Microbatches, _) | (Scale::OfLargest { .. }, ModuleKind::Llm) => self.shares.of(unit),
            (Scale::OfLargest { most: Most::Items(items), .. }, _) => 1.0 / items as f64,
            (Scale::OfLargest { most: Most::Time(longest), .. }, _) => {
                self.shares.item_time(unit, Phase::Forward) / longest
            }
        };
        (part * MICROBATCH as f64).round() as u64
    }

    /// What a count of a module's activations is in the unit of its budget.
    pub(crate) fn budget(&self, module: ModuleKind, count: u64) -> Budget {
        match self.scales[module] {
            Scale::Microbatches => Budget::Microbatches(crate::clock::memory::in_microbatches(count)),
            Scale::Bytes => Budget::Bytes(count),
            Scale::OfLargest { bytes, .. } => {
                let parts = u128::from(count) * u128::from(bytes) + u128::from(MICROBATCH / 2);
                Budget::Bytes(u64::try_from(parts / u128::from(MICROBATCH)).unwrap_or(u64::MAX))
            }
        }
    }

    /// The largest count that a budget allows: every count that [`Measures::budget`] turns into no more than it.
    pub(crate) fn room(&self, module: ModuleKind, budget: Budget) -> u64 {
        match (budget, self.scales[module]) {
            // As exact as peaks are printed.
            (Budget::Microbatches(most), _) => ((most + 1e-9) * MICROBATCH as f64) as u64,
            (Budget::Bytes(most), Scale::OfLargest { bytes, .. }) if bytes > 0 => {
                let parts = (u128::from(most) + 1) * u128::from(MICROBATCH) - u128::from(MICROBATCH / 2) - 1;
                u64::try_from(parts / u128::from(bytes)).unwrap_or(u64::MAX)
            }
            (Budget::Bytes(_), Scale::OfLargest { .. }) => u64::MAX,
            (Budget::Bytes(most), _) => most,
        }
    }

    /// Per rank, the most of each module that is live at once.
    pub(crate) fn peaks(&self, table: &Table) -> Vec<PerModule<u64>> {
        peak_bytes(table, self.shares.workload(), |unit| self.count(unit))
    }
}

/// Per rank, the most bytes of each module that are live at once, as budgets in bytes are compared with them; `None`
/// for a module of which neither the workload nor `microbatch_bytes` says what is saved.
pub fn peak_budget_bytes(
    table: &Table,
    workload: &Workload,
    microbatch_bytes: &PerModule<Option<u64>>,
) -> Vec<PerModule<Option<u64>>> {
    let mut measures =
        Measures { shares: Shares::new(workload), scales: PerModule::all(Scale::Microbatches) };
    let known = PerModule::from_fn(|module| measures.in_bytes(module, microbatch_bytes[module]));
    for module in ModuleKind::ALL {
        measures.scales[module] = known[module].unwrap_or(Scale::Microbatches);
    }
    let bytes = |peak: PerModule<u64>| {
        PerModule::from_fn(|module| match known[module].map(|_| measures.budget(module, peak[module])) {
            Some(Budget::Bytes(bytes)) => Some(bytes),
            _ => None,
        })
    };
    measures.peaks(table).into_iter().map(bytes).collect()
}
