//! The resources that a kernel takes, read from the log of the compiler.

/// What a kernel takes of a multiprocessor, which decides how many of its blocks run there at once, and what did not
/// fit in registers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// The kernel.
    pub kernel: String,
    /// Registers of a thread.
    pub registers: u32,
    /// Bytes of static shared memory of a block.
    pub shared: u32,
    /// Bytes of local memory that a thread stores spilled registers to.
    pub spill_stores: u32,
    /// Bytes of spilled registers that it loads back.
    pub spill_loads: u32,
}

/// The resources of every kernel in the log of a compilation with `--ptxas-options=-v`, by name. What functions that
/// were not inlined spill is counted under the kernel before them.
pub(super) fn parse(log: &str) -> Vec<Resources> {
    let mut found: Vec<Resources> = Vec::new();
    for line in log.lines() {
        if let Some((_, rest)) = line.split_once("Compiling entry function '") {
            let kernel = rest.split('\'').next().unwrap_or_default().to_owned();
            found.push(Resources { kernel, ..Resources::default() });
        }
        let Some(current) = found.last_mut() else { continue };
        current.spill_stores += before(line, " bytes spill stores").unwrap_or(0);
        current.spill_loads += before(line, " bytes spill loads").unwrap_or(0);
        if let Some(registers) = before(line, " registers") {
            current.registers = registers;
            current.shared = before(line, " bytes smem").unwrap_or(0);
        }
    }
    found.sort_by(|a, b| a.kernel.cmp(&b.kernel));
    found
}

/// The number that stands right before `unit`.
fn before(line: &str, unit: &str) -> Option<u32> {
    let (start, _) = line.split_once(unit)?;
    start.rsplit(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As NVRTC 13.0 and, for the second kernel, 12.x write it.
    const LOG: &str = "\
ptxas info    : 4 bytes gmem, 8 bytes cmem[4]
ptxas info    : Compiling entry function 'tiny' for 'sm_80'
ptxas info    : Function properties for tiny
ptxas         .     96 bytes stack frame, 72 bytes spill stores, 80 bytes spill loads
ptxas info    : Used 255 registers, used 0 barriers, 96 bytes cumulative stack size, 376 bytes cmem[0]
ptxas info    : Compile time = 2.791 ms
ptxas info    : Compiling entry function 'row_norm' for 'sm_80'
ptxas info    : Function properties for row_norm
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 14 registers, used 1 barriers, 1024 bytes smem, 376 bytes cmem[0]
ptxas info    : Function properties for helper
    8 bytes stack frame, 4 bytes spill stores, 4 bytes spill loads
";

    #[test]
    fn the_log_is_read() {
        let resources = |kernel: &str, registers, shared, spill_stores, spill_loads| Resources {
            kernel: kernel.into(),
            registers,
            shared,
            spill_stores,
            spill_loads,
        };
        assert_eq!(parse(LOG), [resources("row_norm", 14, 1024, 4, 4), resources("tiny", 255, 0, 72, 80)]);
        assert!(parse("nothing of that kind\n").is_empty());
    }
}
