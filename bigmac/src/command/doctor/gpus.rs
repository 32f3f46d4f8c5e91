//! GPUs, and what is needed to use them.

use bigmac_gpu::nvidia::{Architecture, Compiler, DeviceInfo, Machine, OpenError};
use serde::Serialize;
use std::path::PathBuf;

/// The GPUs of NVIDIA, their driver and the compiler of kernels.
#[derive(Debug, Serialize)]
pub(super) struct Gpus {
    /// The latest CUDA version that the driver knows.
    pub driver: Option<String>,
    /// The version of the compiler of kernels.
    pub nvrtc: Option<String>,
    /// The compiler's library.
    pub nvrtc_file: Option<PathBuf>,
    /// Every GPU that this process sees.
    pub devices: Vec<Gpu>,
    /// Why no kernel can run on a GPU; `None` when it can.
    pub missing: Option<String>,
}

/// A GPU.
#[derive(Debug, Serialize)]
pub(super) struct Gpu {
    /// Its name in options: `cuda:0`.
    pub device: String,
    pub name: String,
    /// `sm_90`, for compute capability 9.0.
    pub architecture: String,
    /// Multiprocessors.
    pub processors: usize,
    /// Bytes.
    pub memory: usize,
    /// Where its memory comes from; `None` when it cannot be used.
    pub allocator: Option<String>,
    /// Why it cannot be used now.
    pub refuses: Option<String>,
}

impl Gpu {
    /// Tries the GPU, if kernels are written for it.
    fn inspect(machine: &Machine, device: &DeviceInfo) -> Gpu {
        let tried = if device.architecture < Architecture::EARLIEST {
            Err(format!("the kernels need {} or later", Architecture::EARLIEST))
        } else {
            machine.allocator(device.ordinal).map_err(|error| error.to_string())
        };
        Gpu {
            device: format!("cuda:{}", device.ordinal),
            name: device.name.clone(),
            architecture: device.architecture.to_string(),
            processors: device.processors,
            memory: device.memory,
            allocator: tried.as_ref().ok().cloned(),
            refuses: tried.err(),
        }
    }
}

impl Gpus {
    pub(super) fn inspect() -> Gpus {
        let machine = Machine::inspect();
        let compiler = match &machine {
            Ok(machine) => Compiler::open_for(machine.version),
            Err(_) => Compiler::open(),
        };
        let missing = match (&machine, &compiler) {
            // The directories that were searched are printed once for all libraries.
            (Err(OpenError::Library(error)), _) | (Ok(_), Err(error)) => Some(error.brief()),
            (Err(error), _) => Some(error.to_string()),
            (Ok(machine), Ok(compiler)) => machine
                .devices
                .iter()
                .all(|device| device.architecture < Architecture::EARLIEST)
                .then(|| format!("the kernels need a GPU of {} or later", Architecture::EARLIEST))
                .or_else(|| {
                    let newest = machine.devices.iter().map(|device| device.architecture).max()?;
                    compiler.check_target(&newest.target()).err().map(|error| error.to_string())
                }),
        };
        let (driver, devices) = match machine {
            Ok(machine) => {
                let devices = machine.devices.iter().map(|device| Gpu::inspect(&machine, device));
                (Some(machine.version.to_string()), devices.collect())
            }
            Err(_) => (None, Vec::new()),
        };
        Gpus {
            driver,
            devices,
            nvrtc: compiler.as_ref().ok().map(|compiler| compiler.version().to_string()),
            nvrtc_file: compiler.as_ref().ok().map(|compiler| compiler.file().to_owned()),
            missing,
        }
    }
}
