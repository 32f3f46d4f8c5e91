//! Compiled kernels, loaded into the device's context.

use super::context::{Context, Handle, Owned};
use super::cuda::{Failure, Functions};
use crate::driver::{DriverError, DriverResult, Geometry};
use crate::libraries::required_length;
use cudarc::driver::sys::*;
use std::ffi::{CString, c_int};
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A compiled file in the context.
#[derive(Debug)]
pub(super) struct Module {
    module: Owned<CUmod_st>,
    file: PathBuf,
}

/// A kernel of a module, with what a launch of it has to keep to.
#[derive(Debug)]
pub(super) struct Kernel {
    name: String,
    pub handle: Handle<CUfunc_st>,
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
        let wrong = |message: String| DriverError::call(format!("loading {}", file.display()), message);
        let image = std::fs::read(file).map_err(|e| {
            wrong(format!("{e}; compiled kernels must stay where they are while a program runs"))
        })?;
        // The driver reads as far as the file's own header says; a file that was cut off is refused before it is asked.
        if !is_whole(&image) {
            let message =
                "it is not a compiled kernel, or only a part of one; remove the file to have it made again";
            return Err(wrong(message.into()));
        }
        let cuda = context.enter()?;
        // SAFETY: the image is whole as far as its header tells, and `module` is room for what the call writes. Its
        // kernels are launched by the driver alone, which goes away with it.
        let module = unsafe {
            Owned::make(context, Functions::module_unload, |module| {
                cuda.module_load(module, image.as_ptr().cast())
            })
        };
        Ok(Module { module: module.map_err(|failure| failure.of(file.display()))?, file: file.to_owned() })
    }

    /// The kernel of that name, allowed all the shared memory that a block of the device can have.
    pub fn kernel(&self, name: &str, shared_per_block: c_int, clusters: bool) -> DriverResult<Kernel> {
        use CUfunction_attribute::*;
        let cuda = self.module.enter()?;
        let symbol = CString::new(name).map_err(|_| {
            DriverError::call("cuModuleGetFunction", format!("{name:?} cannot be the name of a kernel"))
        })?;
        let mut handle = std::ptr::null_mut();
        // SAFETY: the module lives, the name ends in a zero, and `handle` is room for what the call writes.
        unsafe { cuda.module_function(&mut handle, self.module.raw(), symbol.as_ptr()) }
            .map_err(|failure| failure.of(self.file.display()))?;
        let get = |attribute| {
            let mut value = 0;
            // SAFETY: the function lives as long as the module, and `value` is room for what the call writes.
            unsafe { cuda.function_get(&mut value, attribute, handle)? };
            DriverResult::Ok(value)
        };
        let shared = (shared_per_block - get(CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES)?).max(0);
        // SAFETY: the function lives as long as the module.
        unsafe { cuda.function_set(handle, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, shared)? };
        if clusters {
            // Clusters of 16 blocks, which not every device of the architecture family has to offer.
            // SAFETY: as above.
            unsafe { cuda.function_set(handle, CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED, 1)? };
        }
        Ok(Kernel {
            name: name.into(),
            handle: Handle(handle),
            threads: get(CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK)?,
            registers: get(CU_FUNC_ATTRIBUTE_NUM_REGS)?,
            shared,
            prefers_shared: AtomicBool::new(false),
        })
    }
}

impl Kernel {
    /// Asks that a multiprocessor which runs this kernel has as much shared memory and as little L1 cache as it can
    /// have. Otherwise the driver chooses, and may leave room for fewer blocks than fit. Results do not change.
    pub fn prefer_shared(&self, cuda: &Functions) -> DriverResult<()> {
        const ALL: c_int = CUshared_carveout::CU_SHAREDMEM_CARVEOUT_MAX_SHARED as c_int;
        const CARVEOUT: CUfunction_attribute =
            CUfunction_attribute::CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT;
        if !self.prefers_shared.swap(true, Ordering::Relaxed) {
            // SAFETY: the function lives as long as its module, which lives as long as the device is open.
            unsafe { cuda.function_set(self.handle.0, CARVEOUT, ALL)? };
        }
        Ok(())
    }

    /// The error for a launch that was refused: with the extents, and with the limits that they may have passed.
    pub fn refused(&self, geometry: &Geometry, failure: Failure<'_>) -> DriverError {
        let Geometry { grid, block, cluster, shared } = geometry;
        let (message, threads, registers, most) =
            (failure.message(), self.threads, self.registers, self.shared);
        let message = format!(
            "{message}; got a grid of {grid:?} blocks of {block:?} threads in clusters of {cluster:?} with {shared} bytes of dynamic \
             shared memory, and a block can have {threads} threads of {registers} registers and {most} bytes"
        );
        DriverError::call(format!("launching {}", self.name), message)
    }
}

/// Whether that is an ELF file which has all that its header says.
pub(super) fn is_whole(image: &[u8]) -> bool {
    let required = required_length(&mut Cursor::new(image));
    required.is_ok_and(|length| length.is_some_and(|length| length <= image.len() as u64))
}
