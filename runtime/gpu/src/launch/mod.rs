//! What to launch: a kernel of a source, its knobs, its extents and its arguments.

mod arg;
mod source;
mod tensor_map;
mod variants;

use smallvec::SmallVec;

pub use arg::Arg;
#[cfg(test)]
pub(crate) use source::HEADERS;
pub(crate) use source::Text;
pub use source::{Compiled, KERNEL_DIR, Knob, Parameter, Program, Signature, Source, signatures};
pub use tensor_map::{Swizzle, TensorMap, TensorMapShape};
pub use variants::{Knobs, Variants};

/// A kernel of a source, compiled with some knobs, over so many blocks and threads.
#[derive(Clone, Debug)]
pub struct Launch {
    pub(crate) source: &'static Source,
    pub(crate) kernel: &'static str,
    pub(crate) knobs: SmallVec<[(&'static str, Knob); 8]>,
    pub(crate) grid: [usize; 3],
    pub(crate) block: [usize; 3],
    pub(crate) cluster: [usize; 3],
    pub(crate) shared: usize,
}

impl Launch {
    /// The kernel of that name, over one block of one warp unless it is changed.
    pub fn new(source: &'static Source, kernel: &'static str) -> Self {
        Launch {
            source,
            kernel,
            knobs: SmallVec::new(),
            grid: [1; 3],
            block: [32, 1, 1],
            cluster: [1; 3],
            shared: 0,
        }
    }

    /// Compiles the source with `T` as that type: `float` or `bf16`.
    pub fn element(self, name: &'static str) -> Self {
        self.word("ELEMENT", name)
    }

    /// Compiles the source with the macro `name` as that number.
    pub fn knob(mut self, name: &'static str, value: impl Into<i64>) -> Self {
        self.knobs.push((name, Knob::Int(value.into())));
        self
    }

    /// Compiles the source with the macro `name` as that word.
    pub fn word(mut self, name: &'static str, value: &'static str) -> Self {
        self.knobs.push((name, Knob::Word(value)));
        self
    }

    /// Sets the blocks along x, y and z. A launch of no blocks does nothing.
    pub fn grid(mut self, blocks: [usize; 3]) -> Self {
        self.grid = blocks;
        self
    }

    /// Sets the threads of a block, along x.
    pub fn block(mut self, threads: usize) -> Self {
        self.block = [threads, 1, 1];
        self
    }

    /// Sets the blocks of a cluster, along x (sm_90 and later).
    pub fn cluster(mut self, blocks: usize) -> Self {
        self.cluster = [blocks, 1, 1];
        self
    }

    /// Sets the bytes of dynamic shared memory.
    pub fn shared(mut self, bytes: usize) -> Self {
        self.shared = bytes;
        self
    }

    /// The source.
    pub fn source(&self) -> &'static Source {
        self.source
    }

    /// The kernel's name.
    pub fn kernel(&self) -> &'static str {
        self.kernel
    }

    /// The macros that the source is compiled with.
    pub fn knobs(&self) -> &[(&'static str, Knob)] {
        &self.knobs
    }
}
