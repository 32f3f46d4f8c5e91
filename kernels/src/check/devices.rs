//! The devices that kernels are checked on.

use bigmac_gpu::{Gpu, Order};
use bigmac_runtime::{Error, Result};
use std::sync::OnceLock;

/// The variable that names a device whose kernels operators are checked on, such as `cuda`, instead of the replay.
pub const CHECK_DEVICE: &str = "BIGMAC_CHECK_DEVICE";

/// The devices that kernels are checked on: the replay in three orders of threads, or the device in [`CHECK_DEVICE`],
/// twice.
///
/// The replay needs a C++ compiler: a missing one is said on the standard error, and is an error where the variable
/// `CI` is set.
///
/// # Errors
/// [`Error::Gpu`] for a device that this machine does not have.
pub fn gpus() -> Result<&'static [Gpu]> {
    static GPUS: OnceLock<std::result::Result<Vec<Gpu>, String>> = OnceLock::new();
    let open = || -> Result<Vec<Gpu>> {
        if let Ok(name) = std::env::var(CHECK_DEVICE) {
            let wrong = |e| Error::argument("check", format!("{CHECK_DEVICE}: {e}"));
            let gpu = Gpu::open(name.parse().map_err(wrong)?)?;
            return Ok(vec![gpu.clone(), gpu]);
        }
        let replays = [Order::Forward, Order::Reverse, Order::Random(1)].map(Gpu::replay);
        Ok(replays.into_iter().collect::<Result<_, _>>()?)
    };
    let opened = GPUS.get_or_init(|| match open() {
        Err(e) if std::env::var_os("CI").is_none() && std::env::var_os(CHECK_DEVICE).is_none() => {
            eprintln!("SKIPPED: no kernel is checked. {e}");
            Ok(Vec::new())
        }
        other => other.map_err(|e| e.to_string()),
    });
    match opened {
        Ok(gpus) => Ok(gpus),
        Err(message) => Err(Error::argument("check", message.clone())),
    }
}
