//! The optimizer's state in checkpoints: what its parts are called, and what they are.

use bigmac_models::init::ParameterSpec;
use bigmac_runtime::{DType, Spec};

/// The flat parts of an optimizer's state that are written to checkpoints.
pub const STATE_PARTS: [&str; 3] = ["first", "second", "master"];

/// The part of a checkpoint's optimizer state that counts a parameter's updates, as `torch.optim` calls it.
pub const UPDATES: &str = "step";

/// Shape and dtype of a part of a parameter's state in checkpoints.
pub fn state_spec(part: &str, parameter: &ParameterSpec) -> Spec {
    match part {
        UPDATES => Spec::new(&[1], DType::U32),
        _ => Spec::new(&[parameter.shape.iter().product()], DType::F32),
    }
}

/// The name of a part of a parameter's optimizer state.
pub fn state_name(part: &str, parameter: &str) -> String {
    format!("{part}.{parameter}")
}
