//! A GPU of any architecture on which nothing is compiled and nothing runs: it tells which programs launches asked for,
//! so that they can be compared with the list.

use bigmac_gpu::driver::{Function, Geometry};
use bigmac_gpu::replay::Replay;
use bigmac_gpu::{Compiled, signatures};
use bigmac_gpu::{
    Driver, DriverError, DriverResult, Gpu, Knobs, Mark, Order, PendingDownload, Program, TensorMap,
    TensorMapShape,
};
use bigmac_runtime::{Context, Device};
use std::collections::HashSet;
use std::ffi::c_void;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

/// Name of the source, and knobs as [`Variants::programs`](bigmac_gpu::Variants::programs) orders them.
type Asked = Arc<Mutex<HashSet<(&'static str, Knobs)>>>;

/// The programs that were asked for since it was opened.
pub(crate) struct Recorder {
    target: &'static str,
    asked: Asked,
}

impl Recorder {
    /// A context on such a device for that architecture. Its memory is a replay's; without what that needs there is
    /// none.
    pub(crate) fn open(target: &'static str) -> Option<(Context, Recorder)> {
        // Says why, or fails, when there is no replay.
        crate::check::gpus().unwrap().first()?;
        let asked = Asked::default();
        let memory = Replay::new(Order::Forward).unwrap();
        let device = Recording { target, memory, asked: asked.clone() };
        let gpu = Gpu::over(Device::Cuda(0), Box::new(device));
        Some((Context::on_gpu(0, 1, &gpu).unwrap(), Recorder { target, asked }))
    }

    /// Those that `programs()` does not list for the architecture, in words, and how many there were.
    pub(crate) fn unlisted(&self) -> (Vec<String>, usize) {
        let mut listed = HashSet::new();
        for variants in super::programs() {
            if variants.architectures().contains(&self.target) {
                listed.extend(variants.programs().into_iter().map(|knobs| (variants.source().file, knobs)));
            }
        }
        let asked = self.asked.lock().unwrap();
        let missing = asked.difference(&listed).map(|(file, knobs)| {
            let knobs = knobs.iter().map(|(name, value)| format!(" {name}={value}"));
            format!("{file} {}{}", self.target, knobs.collect::<String>())
        });
        (missing.collect(), asked.len())
    }
}

#[derive(Debug)]
struct Recording {
    target: &'static str,
    memory: Replay,
    asked: Asked,
}

impl Recording {
    /// Bytes of shared memory that a block can have.
    fn shared(&self) -> u32 {
        1024 * if self.target == "sm_90a" { 227 } else { 163 }
    }
}

fn call(call: &str, message: String) -> DriverError {
    DriverError::Call { call: call.into(), message }
}

impl Driver for Recording {
    fn name(&self) -> String {
        format!("recorder of programs for {}", self.target)
    }

    fn target(&self) -> &str {
        self.target
    }

    fn processors(&self) -> usize {
        132
    }

    fn memory(&self) -> DriverResult<(usize, usize)> {
        self.memory.memory()
    }

    fn allocate(&self, bytes: usize) -> DriverResult<u64> {
        self.memory.allocate(bytes)
    }

    fn free(&self, address: u64, bytes: usize) {
        self.memory.free(address, bytes);
    }

    fn trim(&self) -> DriverResult<()> {
        self.memory.trim()
    }

    fn upload(&self, to: u64, from: &[u8]) -> DriverResult<()> {
        self.memory.upload(to, from)
    }

    fn download(&self, from: u64, to: &mut [u8]) -> DriverResult<()> {
        self.memory.download(from, to)
    }

    fn download_later(&self, from: u64, bytes: usize) -> DriverResult<Box<dyn PendingDownload>> {
        self.memory.download_later(from, bytes)
    }

    fn copy(&self, to: u64, from: u64, bytes: usize) -> DriverResult<()> {
        self.memory.copy(to, from, bytes)
    }

    fn fill(&self, to: u64, value: u8, bytes: usize) -> DriverResult<()> {
        self.memory.fill(to, value, bytes)
    }

    fn synchronize(&self) -> DriverResult<()> {
        self.memory.synchronize()
    }

    fn compile(&self, program: &Program<'_>) -> DriverResult<Compiled> {
        let mut knobs: Knobs = program.knobs.to_vec();
        knobs.sort_by_key(|(name, _)| (*name != "ELEMENT", *name));
        self.asked.lock().unwrap().insert((program.source.file, knobs));
        Ok(Compiled { signatures: signatures(&program.source.read()?)?, image: PathBuf::new() })
    }

    fn load(&self, _: &Compiled, _: &str) -> DriverResult<Function> {
        Ok(Function(0))
    }

    unsafe fn launch(&self, _: Function, geometry: &Geometry, _: &mut [*mut c_void]) -> DriverResult<()> {
        if geometry.shared <= self.shared() {
            return Ok(());
        }
        let message =
            format!("{} bytes of shared memory, a block can have {}", geometry.shared, self.shared());
        Err(call("launch", message))
    }

    fn tensor_map(&self, address: u64, shape: &TensorMapShape) -> DriverResult<TensorMap> {
        shape.check(address).map_err(|message| call("tensor_map", message))?;
        Ok(TensorMap([0; 16]))
    }

    fn mark(&self) -> DriverResult<Mark> {
        self.memory.mark()
    }

    fn seconds_between(&self, from: Mark, to: Mark) -> DriverResult<f64> {
        self.memory.seconds_between(from, to)
    }

    fn forget(&self, mark: Mark) {
        self.memory.forget(mark);
    }
}
