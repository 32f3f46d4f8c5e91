//! What a kernel is: its kind, its knobs, what it takes of a multiprocessor.

/// A kernel's kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// bf16 by `mma.sync`, on sm_80 and up.
    Mma,
    /// fp32 by fused multiply-adds.
    Ffma,
    /// Up to eight rows times a transposed b, both dtypes.
    FewRows,
    /// bf16 by `wgmma`, with loads by the tensor memory accelerator, on sm_90a.
    Hopper,
}

/// One kernel with its knobs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Variant {
    /// By which it is asked for; never reused for another kernel.
    pub number: u32,
    /// For people: kind and tile.
    pub name: &'static str,
    /// Its kind.
    pub family: Family,
    /// Macros that its source is compiled with, beside those that follow from the problem.
    pub knobs: &'static [(&'static str, i64)],
    /// Rows and columns of the product to a block, and terms of the sum to a stage.
    pub tile: [usize; 3],
    /// Threads of a block.
    pub threads: usize,
    /// Bytes of dynamic shared memory.
    pub shared: usize,
    /// Blocks that one multiprocessor holds.
    pub resident: usize,
    /// Of the multiprocessor's peak, what full tiles reach; on Hopper while their loads keep up.
    pub rate: f64,
}

impl Variant {
    /// Blocks along m and along n that make up a cluster: they start together and share the loads of a factor.
    pub fn cluster(&self) -> [usize; 2] {
        ["CLUSTER_M", "CLUSTER_N"].map(|name| {
            self.knobs.iter().find(|(knob, _)| *knob == name).map_or(1, |&(_, value)| value as usize)
        })
    }
}
