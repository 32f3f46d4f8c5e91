//! What a search is over.

use super::device::Device;
use super::error::PlanError;
use super::layout::Cut;
use super::model::Model;
use crate::value::{counts, require};
use bigmac_schedule::{Budget, LlmSchedule, ModuleKind, PerModule, Schedule, registry};

/// The most devices, and sequences of a step, that layouts are searched for.
const MOST_DEVICES: usize = 100_000;
const MOST_BATCH: usize = 1_000_000;
/// The most plans that are kept.
const MOST_TOP: usize = 1000;

/// What to search over.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// What is trained.
    pub model: &'a Model,
    /// On what.
    pub device: &'a Device,
    /// How many of them.
    pub devices: usize,
    /// Sequences of a step, over all replicas.
    pub batch: usize,
    /// Ranks that the LLM is cut over; where there are none, whatever divides.
    pub ranks: Vec<usize>,
    /// LLM chunks per rank to try.
    pub chunks: Vec<usize>,
    /// Where the LLM is cut into chunks.
    pub cut: Cut,
    /// Microbatches that share a slot to try; where there are none the schedule chooses.
    pub groups: Vec<usize>,
    /// Schedules to try.
    pub schedules: Vec<&'static Schedule>,
    /// Orders of the LLM's chunks to try.
    pub llms: Vec<&'static LlmSchedule>,
    /// The most activations that a module may hold on a rank, whatever the memory.
    pub budget: PerModule<Option<Budget>>,
    /// How many steps to keep, the best of each schedule and number of ranks.
    pub top: usize,
}

impl<'a> Request<'a> {
    /// A search over everything there is, for a batch of eight sequences per device.
    pub fn new(model: &'a Model, device: &'a Device, devices: usize) -> Request<'a> {
        Request {
            model,
            device,
            devices,
            batch: devices.saturating_mul(8),
            ranks: Vec::new(),
            chunks: vec![1, 2, 3, 4],
            cut: Cut::default(),
            groups: Vec::new(),
            schedules: registry::SCHEDULES.iter().copied().filter(|schedule| schedule.is_whole()).collect(),
            llms: registry::LLM_SCHEDULES.to_vec(),
            budget: PerModule::default(),
            top: 5,
        }
    }

    /// Counts of 0 are errors.
    pub(super) fn check(&self) -> Result<(), PlanError> {
        let single = [("devices", self.devices), ("batch", self.batch), ("top", self.top)];
        let lists = [("ranks", &self.ranks), ("chunks", &self.chunks), ("group", &self.groups)];
        let lists = lists.into_iter().flat_map(|(key, values)| values.iter().map(move |value| (key, *value)));
        let at = PlanError::at("the request");
        counts(&single.into_iter().chain(lists).collect::<Vec<_>>()).map_err(&at)?;
        for (key, given, most) in [
            ("devices", self.devices, MOST_DEVICES),
            ("batch", self.batch, MOST_BATCH),
            ("top", self.top, MOST_TOP),
        ] {
            require(given <= most, key, given, format!("at most {most}")).map_err(&at)?;
        }
        Ok(())
    }
}

/// Budgets as options and configurations have them.
pub fn budget_text(budget: &PerModule<Option<Budget>>) -> String {
    let given = ModuleKind::ALL.into_iter().filter_map(|kind| Some(format!("{kind}={}", budget[kind]?)));
    given.collect::<Vec<_>>().join(",")
}
