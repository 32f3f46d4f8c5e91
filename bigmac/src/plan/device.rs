//! What a device can do: peak arithmetic, memory, links, and which share of each is reached.

use super::error::PlanError;
use super::model::Model;
use super::read::Description;
use crate::cost::Rates;
use crate::profile::Profile;
use crate::sizes::Work;
use crate::value::{ValueError, counts, not_negative, positive, require};
use bigmac_schedule::PerModule;
use serde::{Deserialize, Serialize};

/// Seconds of a byte where it was measured to take none: no time that anything else adds to, and one that is counted.
const FREE: f64 = 1e-99;

/// A device and the cluster it stands in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// What it is, in half a line.
    pub summary: String,
    /// Dense products in bfloat16 at full speed, FLOP/s.
    pub peak: f64,
    /// Memory, bytes.
    pub memory: f64,
    /// Of it what is not the model's: driver context, communication buffers, fragmentation; bytes.
    pub reserved: f64,
    /// Bytes/s between a device and its memory.
    pub memory_bandwidth: f64,
    /// Devices that share the faster links.
    pub devices_per_node: usize,
    /// Links within a node.
    pub node: LinkSpeed,
    /// Links between nodes.
    pub cluster: LinkSpeed,
    /// The share of the peaks that real kernels reach.
    pub efficiency: Efficiency,
    /// What `bigmac profile` has measured, in place of peaks and shares of them.
    #[serde(skip)]
    pub measured: Option<MeasuredTimes>,
}

/// Measured times.
#[derive(Clone, Debug, PartialEq)]
pub struct MeasuredTimes {
    /// Of ops, by the billions of operations of their forward, and of transfers.
    pub rates: Rates,
    /// Seconds of the reduction of gradients, as in the layout that was measured.
    pub reduction: f64,
    /// Seconds of the optimizer's step, as in the layout that was measured.
    pub update: f64,
}

/// A link from one device to another, one way.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkSpeed {
    /// Seconds until the first byte is there.
    pub latency: f64,
    /// Bytes/s per device.
    pub bandwidth: f64,
}

/// Shares of the peaks, each above 0 and at most 1. They are assumptions: measure and override them where it matters.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Efficiency {
    /// Products of large matrices, of [`Device::peak`].
    pub dense: f64,
    /// Grouped products of experts, of [`Device::peak`].
    pub expert: f64,
    /// Fused attention, of [`Device::peak`].
    pub attention: f64,
    /// Element-wise work, of [`Device::memory_bandwidth`].
    pub memory: f64,
    /// Transfers between devices, of [`LinkSpeed::bandwidth`].
    pub link: f64,
}

impl Description for Device {
    const KIND: &'static str = "device";
    const SHIPPED: &'static [(&'static str, &'static str)] = &[
        ("a100", include_str!("../../../configs/plan/devices/a100.toml")),
        ("h100", include_str!("../../../configs/plan/devices/h100.toml")),
        ("h200", include_str!("../../../configs/plan/devices/h200.toml")),
    ];

    fn check(&self) -> Result<(), ValueError> {
        let share = &self.efficiency;
        counts(&[("devices_per_node", self.devices_per_node)])?;
        positive(&[
            ("peak", self.peak),
            ("memory", self.memory),
            ("memory_bandwidth", self.memory_bandwidth),
            ("node.bandwidth", self.node.bandwidth),
            ("cluster.bandwidth", self.cluster.bandwidth),
        ])?;
        not_negative(&[
            ("reserved", self.reserved),
            ("node.latency", self.node.latency),
            ("cluster.latency", self.cluster.latency),
        ])?;
        require(
            self.reserved < self.memory,
            "reserved",
            self.reserved,
            format!("less than memory = {}", self.memory),
        )?;
        for (key, value) in [
            ("efficiency.dense", share.dense),
            ("efficiency.expert", share.expert),
            ("efficiency.attention", share.attention),
            ("efficiency.memory", share.memory),
            ("efficiency.link", share.link),
        ] {
            require(value > 0.0 && value <= 1.0, key, value, "a share above 0, at most 1")?;
        }
        Ok(())
    }
}

impl Device {
    /// The same with times measured for a model with these layers.
    ///
    /// # Errors
    /// [`PlanError::Profile`] where the profile is of another model, or lacks times of a module that the model has work
    /// for.
    pub fn measured(mut self, profile: &Profile, model: &Model) -> Result<Device, PlanError> {
        model.check_profiled(profile).map_err(PlanError::at("the model"))?;
        let wanted = PerModule {
            encoder: model.images.most() > 0,
            llm: model.llm.is_some(),
            generator: model.drawings.most() > 0,
        };
        let rates = profile.rates_of(wanted)?;
        for link in [&mut self.node, &mut self.cluster] {
            link.latency = rates.latency;
            link.bandwidth = 1.0 / rates.per_byte.max(FREE);
        }
        self.efficiency.link = 1.0;
        let (reduction, update) = (profile.around.reduce.median, profile.around.optimizer.median);
        self.measured = Some(MeasuredTimes { rates, reduction, update });
        Ok(self)
    }

    /// Seconds that the work takes: products at their share of the peak, or as long as reading their weights takes
    /// where that is longer; attention; element-wise work by the bytes that it moves. One after the other.
    pub fn seconds(&self, work: &Work) -> f64 {
        let share = &self.efficiency;
        let bandwidth = self.memory_bandwidth * share.memory;
        let products = (work.dense / share.dense + work.expert / share.expert) / self.peak;
        products.max(work.weight_bytes / bandwidth)
            + work.attention / (share.attention * self.peak)
            + work.moved_bytes / bandwidth
    }

    /// The link between neighbours of a group of that many devices: the one between nodes as soon as it spans two.
    pub fn link(&self, devices: usize) -> &LinkSpeed {
        if devices <= self.devices_per_node { &self.node } else { &self.cluster }
    }

    /// Bytes/s of a link as they are reached.
    pub fn bandwidth(&self, link: &LinkSpeed) -> f64 {
        link.bandwidth * self.efficiency.link
    }

    /// Bytes that the model can have.
    pub fn usable(&self) -> f64 {
        self.memory - self.reserved
    }
}
