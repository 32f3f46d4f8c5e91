//! Compiled kernels, loaded into the device's context.

use super::context::Context;
use super::cuda::{Failure, Functions};
use super::types::*;
use crate::driver::{DriverError, DriverResult, Geometry};
use std::ffi::{CString, c_int};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A compiled file in the context.
#[derive(Debug)]
pub(super) struct Module {
    context: Arc<Context>,
    handle: ModuleHandle,
    file: PathBuf,
}

/// A kernel of a module, with what a launch of it has to keep to.
#[derive(Debug)]
pub(super) struct Kernel {
    pub name: String,
    pub handle: FunctionHandle,
    /// Threads of a block, at most.
    threads: c_int,
    /// Registers of a thread.
    registers: c_int,
    /// Bytes of dynamic shared memory, at most.
    shared: c_int,
    /// A multiprocessor is asked to give it all the shared memory it has.
    prefers_shared: AtomicBool,
}

impl Module {
    /// Loads a compiled file. That it fits the device is what the driver checks.
    pub fn load(context: &Arc<Context>, file: &Path) -> DriverResult<Module> {
        let image = std::fs::read(file).map_err(|error| DriverError::Call {
            call: format!("loading {}", file.display()),
            message: format!("{error}; compiled kernels have to stay where they are while a program runs"),
        })?;
        let mut handle = ModuleHandle::NULL;
        // The driver reads as far as the file's own header says; a file that was cut short is refused before it is asked.
        if !is_whole(&image) {
            return Err(DriverError::Call {
                call: format!("loading {}", file.display()),
                message:
                    "it is no compiled kernel, or only a part of one; remove the file to have it made again"
                        .into(),
            });
        }
        // SAFETY: the image is whole as far as its header tells, and `handle` is room for what the call writes.
        unsafe { context.enter()?.module_load(&mut handle, image.as_ptr().cast()) }
            .map_err(|failure| about(file, failure))?;
        Ok(Module { context: context.clone(), handle, file: file.to_owned() })
    }

    /// The kernel of that name, allowed all the shared memory that a block of the device can have.
    pub fn kernel(&self, name: &str, shared_per_block: c_int, clusters: bool) -> DriverResult<Kernel> {
        let cuda = self.context.enter()?;
        let symbol = CString::new(name).map_err(|_| DriverError::Call {
            call: format!("loading {}", self.file.display()),
            message: format!("{name:?} can't be a kernel's name"),
        })?;
        let mut handle = FunctionHandle::NULL;
        // SAFETY: the module lives, the name ends in a zero, and `handle` is room for what the call writes.
        unsafe { cuda.module_function(&mut handle, self.handle, symbol.as_ptr()) }
            .map_err(|failure| about(&self.file, failure))?;
        let get = |attribute| {
            let mut value = 0;
            // SAFETY: the function lives as long as the module, and `value` is room for what the call writes.
            unsafe { cuda.function_get(&mut value, attribute, handle)? };
            Ok::<c_int, Failure>(value)
        };
        let shared = (shared_per_block - get(function_attribute::STATIC_SHARED)?).max(0);
        // SAFETY: the function lives as long as the module.
        unsafe { cuda.function_set(handle, function_attribute::MOST_DYNAMIC_SHARED, shared)? };
        if clusters {
            // Clusters of 16 blocks, which not every device of the architecture family has to offer.
            // SAFETY: as above.
            unsafe { cuda.function_set(handle, function_attribute::NON_PORTABLE_CLUSTER, 1)? };
        }
        Ok(Kernel {
            name: name.into(),
            handle,
            threads: get(function_attribute::MOST_THREADS)?,
            registers: get(function_attribute::REGISTERS)?,
            shared,
            prefers_shared: AtomicBool::new(false),
        })
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        // SAFETY: its kernels are launched by the driver alone, which is going away with it.
        let _ = self.context.enter().map(|cuda| unsafe { cuda.module_unload(self.handle) });
    }
}

impl Kernel {
    /// Asks that a multiprocessor which runs this kernel has as much shared memory and as little L1 cache as it can have. Otherwise
    /// the driver chooses, and may leave room for fewer blocks than fit. Results don't change.
    pub fn prefer_shared(&self, cuda: &Functions) -> DriverResult<()> {
        const ALL: c_int = 100;
        if !self.prefers_shared.swap(true, Ordering::Relaxed) {
            // SAFETY: the function lives as long as its module, which lives as long as the device is open.
            unsafe { cuda.function_set(self.handle, function_attribute::SHARED_CARVEOUT, ALL)? };
        }
        Ok(())
    }

    /// The error for a launch that was refused: with the extents, and with the limits that they may have passed.
    pub fn refused(&self, geometry: &Geometry, failure: Failure) -> DriverError {
        let Geometry { grid, block, cluster, shared } = geometry;
        DriverError::Call {
            call: format!("launching {}", self.name),
            message: format!(
                "{}; given were a grid of {grid:?} blocks of {block:?} threads in clusters of {cluster:?} with {shared} bytes of \
                 dynamic shared memory, and a block can have {} threads of {} registers and {} bytes",
                failure.message, self.threads, self.registers, self.shared
            ),
        }
    }
}

fn about(file: &Path, failure: Failure) -> DriverError {
    DriverError::Call { call: format!("{} of {}", failure.call, file.display()), message: failure.message }
}

/// Whether that is an ELF file which has all that its header says.
pub(super) fn is_whole(image: &[u8]) -> bool {
    image.starts_with(b"\x7fELF") && elf_end(image).is_some_and(|end| end <= image.len() as u64)
}

/// Where the table of sections of a 64-bit little-endian ELF file ends, which compilers write last or before the segments' table.
fn elf_end(image: &[u8]) -> Option<u64> {
    let u64_at = |at: usize| Some(u64::from_le_bytes(image.get(at..at + 8)?.try_into().ok()?));
    let u16_at = |at: usize| Some(u16::from_le_bytes(image.get(at..at + 2)?.try_into().ok()?));
    let table = |offset: usize, size: usize, count: usize| -> Option<u64> {
        u64_at(offset)?.checked_add(u64::from(u16_at(size)?) * u64::from(u16_at(count)?))
    };
    Some(table(32, 54, 56)?.max(table(40, 58, 60)?))
}
