//! Planning: given a model's layer sizes, a device and a number of devices, the layout and schedule that run a step in
//! the least time within the devices' memory.
//!
//! Times are estimates: operations counted from the layer sizes over the peak and an assumed share of it ([`Device`]).
//! What schedules do with these times, and what they keep alive, is simulated exactly as for a measured run.
//!
//! ```
//! use bigmac::plan::{Description, Device, Model, Request, search};
//! use bigmac_schedule::registry;
//!
//! let (model, device) = (Model::load("qwen3-30b-a3b-vit")?, Device::load("h200")?);
//! let request = Request { ranks: vec![8], schedules: vec![registry::schedule("nested")?],
//!     ..Request::new(&model, &device, 32) };
//! let best = &search(&request)?.steps[0];
//! assert!(best.mfu() > 0.1 && best.fullest().total() as f64 <= device.usable());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod device;
mod error;
mod found;
mod layout;
mod memory;
mod model;
mod paper;
mod read;
mod replicas;
mod request;
mod search;
mod step;
mod tasks;
mod ways;

pub use device::{Device, Efficiency, LinkSpeed, MeasuredTimes};
pub use error::PlanError;
pub use found::Found;
pub use layout::{Cut, Estimate, Layout};
pub use memory::{Holding, RankMemory};
pub use model::{Bytes, Counts, Model};
pub use paper::{Compared, Setting, compare};
pub use read::Description;
pub use request::{Request, budget_text};
pub use search::search;
pub use step::{Order, Seconds, Step, step};
