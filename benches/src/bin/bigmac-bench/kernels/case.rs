//! What the lab measures: one operator at one shape, in one direction.

use super::compare::{Tolerance, Values};
use super::data::Noise;
use bigmac_runtime::{Context, DType};
use serde_json::Value;

/// A way of computing the same, where an operator has several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variant {
    /// Its number, by which it is asked for.
    pub number: u32,
    /// What people call it.
    pub name: String,
}

/// One operator at one shape, in one direction.
pub struct Case {
    /// The operator.
    pub op: &'static str,
    /// `forward`, `backward`, or what else the operator does.
    pub pass: &'static str,
    /// The extents, in the order of its family's [`dims`](super::families::Family::dims).
    pub extents: Vec<usize>,
    /// Which model has that shape, or which place.
    pub place: &'static str,
    /// The dtype of activations.
    pub dtype: DType,
    /// Floating point operations of a run, where they are what bounds it; bytes are otherwise.
    pub flops: Option<f64>,
    /// How far from its reference it may be.
    pub tolerance: Tolerance,
    /// What PyTorch's side needs to know beside operator, pass, extents and dtype; none: it has nothing like it.
    pub peer: Option<Value>,
    /// What runs.
    pub subject: Box<dyn Subject>,
}

impl Case {
    /// A case that memory bounds, with the tolerance of its dtype, and with an operator of the same name on PyTorch's
    /// side.
    pub fn new(op: &'static str, pass: &'static str, dtype: DType, subject: impl Subject + 'static) -> Case {
        Case {
            op,
            pass,
            extents: Vec::new(),
            place: "",
            dtype,
            flops: None,
            tolerance: Tolerance::of(dtype),
            peer: Some(Value::Object(serde_json::Map::new())),
            subject: Box::new(subject),
        }
    }

    /// The same, bounded by so many floating point operations.
    pub fn flops(self, flops: f64) -> Case {
        Case { flops: Some(flops), ..self }
    }

    /// The same, with another tolerance.
    pub fn tolerance(self, tolerance: Tolerance) -> Case {
        Case { tolerance, ..self }
    }

    /// The extents as text: `8192x4096`.
    pub fn shape(&self) -> String {
        self.extents.iter().map(usize::to_string).collect::<Vec<_>>().join("x")
    }
}

/// Something that can be run on a device.
pub trait Subject {
    /// The ways of computing it beside what the operator chooses; none where there is only one.
    fn variants(&self, ctx: &Context) -> Vec<Variant> {
        let _ = ctx;
        Vec::new()
    }

    /// Compares as few of its results as show whether all are right, where they do not depend on each other.
    fn sample(&mut self) {}

    /// Puts random data on the device, in so many sets of buffers as `noise` says for the bytes that a run moves.
    ///
    /// # Errors
    /// Those of allocation and of the operator.
    fn prepare<'a>(&'a self, ctx: &'a Context, noise: &'a Noise) -> anyhow::Result<Box<dyn Ready + 'a>>;
}

/// A subject with its data on a device.
pub trait Ready {
    /// Computes the wanted results on the CPU, from the data of the first set before anything has run on it.
    ///
    /// # Errors
    /// Those of the operator and of copying.
    fn reference(&mut self, cpu: &Context) -> anyhow::Result<Values>;

    /// Runs once, by that variant or by the operator's choice, on the data as [`Ready::reference`] saw it, and
    /// downloads the results, in its order.
    ///
    /// # Errors
    /// Those of the operator and of copying; an operator without a kernel gives the runtime's `NotOnHost`.
    fn check(&mut self, variant: Option<u32>) -> anyhow::Result<Values>;

    /// Runs once on a set of buffers, whatever was done to them before. Never waits for the device.
    ///
    /// # Errors
    /// Those of the operator.
    fn run(&mut self, variant: Option<u32>, set: usize) -> anyhow::Result<()>;

    /// Number of sets.
    fn sets(&self) -> usize;

    /// Bytes that a run has to move at least: every input read once, every result written once.
    fn bytes(&self) -> f64;
}
