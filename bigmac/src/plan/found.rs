//! What a search found, or that nothing fits.

use super::error::PlanError;
use super::request::Request;
use super::step::Step;

/// What a search found.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// The best, fastest first.
    pub steps: Vec<Step>,
    /// Steps that were simulated.
    pub simulated: usize,
    /// Schedules on layouts that were passed over because no time of theirs could be among the best.
    pub bounded: usize,
    /// Schedules on layouts that do not fit the devices' memory.
    pub too_large: usize,
}

const GIB: f64 = 1073741824.0;

/// The error of a search in which no layout fits, given the leanest of them.
pub(super) fn nothing_fits(request: &Request<'_>, layouts: usize, least: &Step) -> PlanError {
    let fullest = least.fullest();
    let kinds = fullest.kinds();
    let parts = kinds.iter().filter(|(_, bytes)| *bytes > 0);
    let parts: Vec<String> =
        parts.map(|(kind, bytes)| format!("{kind} {:.1}", *bytes as f64 / GIB)).collect();
    let states = fullest.weights + fullest.gradients + fullest.optimizer;
    let advice = if states as f64 > request.device.usable() {
        "weights, gradients and optimizer states alone are more: take more devices, devices with more memory, or a \
         smaller model"
    } else {
        match request.model.llm {
            Some(_) => "take more devices, devices with more memory, or a shorter --sequence",
            None => "take more devices, devices with more memory, or smaller items",
        }
    };
    PlanError::Memory {
        layouts,
        needed: fullest.total() as f64 / GIB,
        available: request.device.usable() / GIB,
        layout: match least.schedule() {
            Some(schedule) => {
                format!("{schedule} on {} ranks x {} replicas", least.layout.ranks, least.layout.replicas)
            }
            None => format!("{} replicas", least.layout.replicas),
        },
        parts: parts.join(", "),
        advice,
    }
}
