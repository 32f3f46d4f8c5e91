//! The GPUs of this machine.

use super::architecture::Architecture;
use super::context::{Context, Stream};
use super::cuda::Cuda;
use super::deadline;
use super::error::{OpenError, Version};
use super::memory::Memory;
use crate::driver::DriverResult;
use cudarc::driver::sys::{CUdevice, CUdevice_attribute};
use std::ffi::{CStr, c_int};
use std::path::{Path, PathBuf};

/// A GPU that the driver sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Its number among those this process sees.
    pub ordinal: usize,
    /// Its name.
    pub name: String,
    /// Its architecture.
    pub architecture: Architecture,
    /// Multiprocessors.
    pub processors: usize,
    /// Bytes of its memory.
    pub memory: usize,
}

/// The driver, and every GPU that it sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// The driver's library.
    pub file: PathBuf,
    /// The latest CUDA version that it knows.
    pub version: Version,
    /// The GPUs.
    pub devices: Vec<DeviceInfo>,
}

impl Machine {
    /// Asks the driver. No context is made on any GPU.
    ///
    /// # Errors
    /// Also on a machine without a GPU.
    pub fn inspect() -> Result<Machine, OpenError> {
        Machine::inspect_with(None)
    }

    pub(super) fn inspect_with(libcuda: Option<&Path>) -> Result<Machine, OpenError> {
        let cuda = Cuda::open(libcuda)?;
        let devices = (0..cuda.count()?).map(|ordinal| cuda.device(ordinal).map(|(_, info)| info));
        let devices = devices.collect::<Result<_, _>>()?;
        Ok(Machine { devices, file: cuda.file, version: cuda.version })
    }

    /// Where the memory of one of its GPUs comes from. Unlike [`Machine::inspect`] this makes a context on it for a
    /// moment, which shows as well that it can be used.
    pub fn allocator(&self, ordinal: usize) -> Result<String, OpenError> {
        let limit = deadline::from_environment()?;
        let cuda = Cuda::open(Some(&self.file))?;
        let (device, _) = cuda.device(ordinal)?;
        let stream = Stream::new(&Context::retain(cuda, device, limit)?)?;
        Ok(Memory::open(&stream)?.allocator())
    }
}

impl Cuda {
    /// How many GPUs there are, at least one.
    pub fn count(&self) -> Result<usize, OpenError> {
        let mut count = 0;
        // SAFETY: `count` is room for what the call writes.
        unsafe { self.device_count(&mut count)? };
        match usize::try_from(count) {
            Ok(count) if count > 0 => Ok(count),
            _ => Err(OpenError::NoDevice { file: self.file.clone(), version: self.version }),
        }
    }

    /// The driver's handle of a GPU, and its properties.
    pub fn device(&self, ordinal: usize) -> Result<(CUdevice, DeviceInfo), OpenError> {
        let count = self.count()?;
        let wanted = c_int::try_from(ordinal).ok().filter(|_| ordinal < count);
        let wanted = wanted.ok_or(OpenError::NoSuchDevice { ordinal, count })?;
        let mut device = 0;
        let mut name = [0_u8; 256];
        let mut memory = 0;
        // SAFETY: each pointer is to room for what its call writes, `name` for as many bytes as said.
        unsafe {
            self.device_get(&mut device, wanted)?;
            self.device_name(name.as_mut_ptr().cast(), name.len() as c_int, device)?;
            self.device_memory(&mut memory, device)?;
        }
        let name = CStr::from_bytes_until_nul(&name).map(|name| name.to_string_lossy().into_owned());
        let number = |attribute| self.attribute(device, attribute).map(|n| u32::try_from(n).unwrap_or(0));
        let info = DeviceInfo {
            ordinal,
            name: name.unwrap_or_else(|_| "a GPU without a name".into()),
            architecture: Architecture {
                major: number(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
                minor: number(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
            },
            processors: number(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)? as usize,
            memory,
        };
        Ok((device, info))
    }

    /// A GPU's attribute.
    pub fn attribute(&self, device: CUdevice, attribute: CUdevice_attribute) -> DriverResult<c_int> {
        let mut value = 0;
        // SAFETY: `value` is room for what the call writes.
        unsafe { self.device_attribute(&mut value, attribute, device)? };
        Ok(value)
    }
}
