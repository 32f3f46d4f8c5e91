//! Several threads that need kernels at the same time, over a driver whose compiler waits until it is told to go on.

use bigmac_gpu::driver::{Driver, DriverError, DriverResult, Function, Geometry, Mark};
use bigmac_gpu::{Arg, Gpu, Launch, PendingDownload, Source, TensorMap, TensorMapShape};
use bigmac_gpu::{Compiled, Parameter, Program, Signature};
use bigmac_gpu::{Device, Result};
use std::ffi::c_void;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

static ONE: Source = Source::new("one/kernel.cu", "KERNEL void f(i32 n) {} KERNEL void g(i32 n) {}");
static TWO: Source = Source::new("two/kernel.cu", "KERNEL void f(i32 n) {} KERNEL void g(i32 n) {}");

/// Much longer than any of this takes; what waits as long has failed.
const FOREVER: Duration = Duration::from_secs(20);

/// What goes on in the compiler.
#[derive(Debug, Default)]
struct State {
    /// Programs that were begun, by file and knobs.
    begun: Vec<String>,
    /// How many are compiled at this moment.
    inside: usize,
    /// How many more compilations fail.
    failures: usize,
    /// Compilations begun so far may end.
    released: usize,
    loads: usize,
}

#[derive(Debug, Default)]
struct Compiler {
    state: Mutex<State>,
    changed: Condvar,
}

impl Compiler {
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.state.lock().unwrap());
        self.changed.notify_all();
        result
    }

    /// Waits until that is so; false when it never was.
    fn wait(&self, mut so: impl FnMut(&State) -> bool) -> bool {
        let state = self.state.lock().unwrap();
        !self.changed.wait_timeout_while(state, FOREVER, |state| !so(state)).unwrap().1.timed_out()
    }
}

#[derive(Debug)]
struct Slow(Arc<Compiler>);

fn refused<T>(message: &str) -> DriverResult<T> {
    Err(DriverError::Call { call: "slow driver".into(), message: message.into() })
}

impl Driver for Slow {
    fn compile(&self, program: &Program<'_>) -> DriverResult<Compiled> {
        let number = self.0.change(|state| {
            state.begun.push(format!("{} {:?}", program.source.file, program.knobs));
            state.inside += 1;
            state.begun.len()
        });
        let released = self.0.wait(|state| state.released >= number);
        let fails = self.0.change(|state| {
            state.inside -= 1;
            let fails = state.failures > 0;
            state.failures -= usize::from(fails);
            fails
        });
        if fails || !released {
            return refused("on purpose");
        }
        let signature = |name: &str| Signature { name: name.into(), parameters: vec![Parameter::I32] };
        Ok(Compiled { signatures: vec![signature("f"), signature("g")], image: program.source.file.into() })
    }

    fn load(&self, _compiled: &Compiled, _kernel: &str) -> DriverResult<Function> {
        Ok(Function(self.0.change(|state| {
            state.loads += 1;
            state.loads as u64
        })))
    }

    unsafe fn launch(
        &self,
        _function: Function,
        _geometry: &Geometry,
        _arguments: &mut [*mut c_void],
    ) -> DriverResult<()> {
        Ok(())
    }

    fn name(&self) -> String {
        "slow".into()
    }

    fn target(&self) -> &str {
        "nothing"
    }

    fn processors(&self) -> usize {
        1
    }

    fn memory(&self) -> DriverResult<(usize, usize)> {
        Ok((0, 0))
    }

    fn allocate(&self, bytes: usize) -> DriverResult<u64> {
        Err(DriverError::OutOfMemory(bytes))
    }

    fn free(&self, _address: u64, _bytes: usize) {}

    fn trim(&self) -> DriverResult<()> {
        Ok(())
    }

    fn upload(&self, _to: u64, _from: &[u8]) -> DriverResult<()> {
        refused("has no memory")
    }

    fn download(&self, _from: u64, _to: &mut [u8]) -> DriverResult<()> {
        refused("has no memory")
    }

    fn download_later(&self, _from: u64, _bytes: usize) -> DriverResult<Box<dyn PendingDownload>> {
        refused("has no memory")
    }

    fn copy(&self, _to: u64, _from: u64, _bytes: usize) -> DriverResult<()> {
        refused("has no memory")
    }

    fn fill(&self, _to: u64, _value: u8, _bytes: usize) -> DriverResult<()> {
        refused("has no memory")
    }

    fn synchronize(&self) -> DriverResult<()> {
        Ok(())
    }

    fn tensor_map(&self, _address: u64, _shape: &TensorMapShape) -> DriverResult<TensorMap> {
        refused("has no tensor maps")
    }

    fn mark(&self) -> DriverResult<Mark> {
        Ok(Mark(0))
    }

    fn seconds_between(&self, _from: Mark, _to: Mark) -> DriverResult<f64> {
        Ok(0.0)
    }

    fn forget(&self, _mark: Mark) {}
}

fn slow() -> (Gpu, Arc<Compiler>) {
    let compiler = Arc::new(Compiler::default());
    (Gpu::over(Device::Cuda(0), Box::new(Slow(compiler.clone()))), compiler)
}

fn launch(gpu: &Gpu, source: &'static Source, kernel: &'static str, knob: i64) -> Result<()> {
    gpu.launch(&Launch::new(source, kernel).knob("K", knob), &[Arg::I32(0)])
}

#[test]
fn different_programs_compile_at_the_same_time() {
    let (gpu, compiler) = slow();
    std::thread::scope(|scope| {
        let wanted = [(&ONE, 1), (&TWO, 1), (&ONE, 2)];
        let threads = wanted.map(|(source, knob)| {
            scope.spawn({
                let gpu = &gpu;
                move || launch(gpu, source, "f", knob)
            })
        });
        let together = compiler.wait(|state| state.inside == 3);
        compiler.change(|state| state.released = 100);
        for thread in threads {
            thread.join().unwrap().unwrap();
        }
        assert!(together, "they took turns");
    });
}

#[test]
fn one_program_is_compiled_by_one_of_those_who_need_it() {
    let (gpu, compiler) = slow();
    let began = Mutex::new(0);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..6)
            .map(|_| {
                scope.spawn(|| {
                    *began.lock().unwrap() += 1;
                    launch(&gpu, &ONE, "f", 1)
                })
            })
            .collect();
        assert!(compiler.wait(|state| state.inside == 1));
        while *began.lock().unwrap() < 6 {
            std::thread::yield_now();
        }
        compiler.change(|state| state.released = 100);
        for thread in threads {
            thread.join().unwrap().unwrap();
        }
    });
    launch(&gpu, &ONE, "f", 1).unwrap();
    compiler.change(|state| assert_eq!((state.begun.len(), state.loads), (1, 1)));
    // Another kernel of the program is another file in the driver's cache at most.
    launch(&gpu, &ONE, "g", 1).unwrap();
    compiler.change(|state| assert_eq!((state.begun.len(), state.loads), (2, 2)));
}

#[test]
fn a_program_that_fails_keeps_no_thread_waiting_and_is_compiled_again() {
    let (gpu, compiler) = slow();
    compiler.change(|state| state.failures = 1);
    std::thread::scope(|scope| {
        let threads = [(); 2].map(|()| scope.spawn(|| launch(&gpu, &ONE, "f", 1)));
        assert!(compiler.wait(|state| state.inside == 1));
        // The first fails; the one that waited for it has its try.
        compiler.change(|state| state.released = 1);
        assert!(compiler.wait(|state| state.begun.len() == 2));
        compiler.change(|state| state.released = 100);
        let results = threads.map(|thread| thread.join().unwrap());
        let errors: Vec<String> = results.into_iter().filter_map(|r| Some(r.err()?.to_string())).collect();
        assert!(errors.len() == 1 && errors[0].contains("on purpose"), "{errors:?}");
    });
    launch(&gpu, &ONE, "f", 1).unwrap();
    compiler.change(|state| assert_eq!(state.begun.len(), 2));
    // After an error that no thread waited for, the next launch tries again.
    compiler.change(|state| state.failures = 1);
    assert!(launch(&gpu, &TWO, "f", 1).is_err());
    launch(&gpu, &TWO, "f", 1).unwrap();
}
