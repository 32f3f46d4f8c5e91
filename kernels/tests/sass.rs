//! What the assembler makes of the main loops of Hopper's products in clusters, read from the disassembled code: a
//! fence for the whole GPU there would hold up the tensor cores in every step, and nothing but time would tell. Needs
//! NVRTC and nvdisasm, and no driver.

use bigmac_gpu::nvidia::Compiler;
use bigmac_gpu::{Knob, Knobs, Program, Source};
use bigmac_kernels::programs::programs;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The disassembler, when it is not found by itself.
const NVDISASM: &str = "BIGMAC_NVDISASM";

/// An instruction, and those that may follow it.
#[derive(Debug)]
struct Instruction {
    /// Without the predicate.
    text: String,
    next: Vec<usize>,
}

/// The code of one kernel.
#[derive(Debug)]
struct Code(Vec<Instruction>);

impl Code {
    /// Reads what `nvdisasm -c` prints: lines `/*0cd0*/ @P0 BRA `(.L_x_1) ;` and labels `.L_x_1:`.
    fn parse(listing: &str) -> Code {
        let (mut lines, mut labels) = (Vec::new(), HashMap::new());
        for line in listing.lines().map(str::trim) {
            if let Some((_, text)) = line.strip_prefix("/*").and_then(|rest| rest.split_once("*/")) {
                if let Some((text, _)) = text.split_once(';') {
                    lines.push(text.trim());
                }
            } else if let Some(label) = line.strip_suffix(':') {
                labels.insert(label, lines.len());
            }
        }
        let instruction = |(at, line): (usize, &&str)| {
            let (predicate, text) = match line.strip_prefix('@').and_then(|rest| rest.split_once(' ')) {
                Some((predicate, text)) => (Some(predicate), text.trim()),
                None => (None, *line),
            };
            let opcode = text.split_whitespace().next().unwrap_or_default();
            // Any label may be gone to. Beside the plain forms that go there always, the next instruction may follow as
            // well: too many ways find a loop where there is none, too few would hide one.
            let label =
                text.split_once("`(").and_then(|(_, rest)| rest.split_once(')')).map(|(label, _)| label);
            let operands = text.split_once(' ').map_or("", |(_, operands)| operands.trim());
            let always = opcode == "BRA" && operands.starts_with('`') || ["EXIT", "RET"].contains(&opcode);
            let mut next = Vec::new();
            if let Some(label) = label {
                next.push(*labels.get(label).unwrap_or_else(|| panic!("{line}: no label {label}")));
            }
            if predicate.is_some() || !always {
                next.push(at + 1);
            }
            Instruction { text: text.to_owned(), next }
        };
        Code(lines.iter().enumerate().map(instruction).collect())
    }

    /// Where instructions of that name are.
    fn all(&self, named: impl Fn(&str) -> bool) -> Vec<usize> {
        (0..self.0.len()).filter(|&at| named(&self.0[at].text)).collect()
    }

    /// True when the instruction can come again after itself.
    fn in_a_loop(&self, at: usize) -> bool {
        let (mut seen, mut ahead) = (vec![false; self.0.len()], self.0[at].next.clone());
        while let Some(here) = ahead.pop() {
            if here < seen.len() && !seen[here] {
                seen[here] = true;
                ahead.extend(&self.0[here].next);
            }
        }
        seen[at]
    }

    /// True when nothing but other fences stands between the instruction and an arrival at the cluster's barrier.
    fn opens_a_cluster_barrier(&self, at: usize) -> bool {
        let after = self.0[at..].iter().find(|i| !is_wide_fence(&i.text));
        after.is_some_and(|i| i.text.starts_with("UCGABAR_ARV"))
    }

    /// What a product in clusters must not have.
    fn faults(&self) -> Vec<String> {
        let products = self.all(|text| text.starts_with("HGMMA"));
        let remote = self.all(|text| text.starts_with("SYNCS.ARRIVE") && text.contains(".RED"));
        let mut faults = Vec::new();
        for (what, found) in [("product", products), ("arrival at another block", remote)] {
            if !found.iter().any(|&at| self.in_a_loop(at)) {
                faults.push(format!("there is no {what} in a loop"));
            }
        }
        for at in self.all(is_wide_fence) {
            let text = &self.0[at].text;
            if self.in_a_loop(at) {
                faults.push(format!("{text} is in a loop"));
            } else if !self.opens_a_cluster_barrier(at) {
                faults.push(format!("{text} does not belong to a barrier of the cluster"));
            }
        }
        faults.sort();
        faults.dedup();
        faults
    }
}

/// A fence that reaches further than the block, or what waits for one's errors.
fn is_wide_fence(text: &str) -> bool {
    let wide = [".GPU", ".SYS", ".VC"].iter().any(|scope| text.contains(scope));
    text.starts_with("MEMBAR") && wide || text.starts_with("ERRBAR") || text.starts_with("CGAERRBAR")
}

/// The products in clusters as training asks for them: x w^T, dy w and dy^T x.
fn paired() -> Vec<(&'static Source, Knobs)> {
    const LAYOUTS: [(&str, i64, i64); 3] = [("bf16", 0, 1), ("bf16", 0, 0), ("float", 1, 0)];
    let all = programs().into_iter().filter(|variants| variants.source().file == "product/hopper.cu");
    let all = all.flat_map(|v| v.programs().into_iter().map(move |knobs| (v.source(), knobs)));
    all.filter(|(_, knobs)| {
        let is =
            |name: &str, wanted: Knob| knobs.iter().any(|&(knob, value)| knob == name && value == wanted);
        let asked = |&(out, a, b): &(&'static str, i64, i64)| {
            is("OUT", Knob::Word(out)) && is("A_TRANSPOSED", Knob::Int(a)) && is("B_TRANSPOSED", Knob::Int(b))
        };
        let alone = is("CLUSTER_M", Knob::Int(1)) && is("CLUSTER_N", Knob::Int(1));
        !alone && is("ACTIVATION", Knob::Int(0)) && LAYOUTS.iter().any(asked)
    })
    .collect()
}

/// nvdisasm: the one that is named, on the path, or in the Python environment that NVRTC is from.
fn nvdisasm(compiler: &Compiler) -> Result<PathBuf, String> {
    if let Some(named) = std::env::var_os(NVDISASM).filter(|named| !named.is_empty()) {
        let named = PathBuf::from(named);
        let error = format!("{NVDISASM} names {}, which is not a file", named.display());
        return if named.is_file() { Ok(named) } else { Err(error) };
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let beside = compiler.file().parent().and_then(Path::parent).map(|root| root.join("bin"));
    let mut folders = std::env::split_paths(&path).chain(beside);
    let found = folders.find_map(|folder| Some(folder.join("nvdisasm")).filter(|file| file.is_file()));
    found.ok_or_else(|| format!("nvdisasm is neither on the path nor beside {}", compiler.file().display()))
}

/// Both tools; `None`, said aloud, where one is not here and need not be.
fn tools() -> Option<(Compiler, PathBuf)> {
    let found = Compiler::open().map_err(|e| e.to_string()).and_then(|compiler| {
        let nvdisasm = nvdisasm(&compiler)?;
        Ok((compiler, nvdisasm))
    });
    match found {
        Ok(tools) => Some(tools),
        Err(error) if std::env::var_os("CI").is_none_or(|ci| ci != "true") => {
            eprintln!("SKIPPED: no kernel was disassembled: {error}");
            None
        }
        Err(error) => panic!("{error}; nvdisasm comes with CUDA or with pip install nvidia-cuda-nvdisasm"),
    }
}

#[test]
fn no_product_of_a_cluster_fences_the_gpu_in_its_loops() {
    let Some((compiler, nvdisasm)) = tools() else { return };
    let directory = tempfile::tempdir().unwrap();
    let paired = paired();
    assert!(paired.len() >= 3 && paired.len().is_multiple_of(3), "three layouts of every pair: {paired:?}");
    let mut wrong = Vec::new();
    for (i, (source, knobs)) in paired.iter().enumerate() {
        let image = compiler.compile("sm_90a", &Program { source, knobs }).unwrap_or_else(|e| panic!("{e}"));
        let file = directory.path().join(format!("{i}.cubin"));
        std::fs::write(&file, image.bytes).unwrap();
        let output = Command::new(&nvdisasm).arg("-c").arg(&file).output();
        let output = output.unwrap_or_else(|e| panic!("{}: {e}", nvdisasm.display()));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let faults = Code::parse(&String::from_utf8(output.stdout).unwrap()).faults();
        let knobs: Vec<String> = knobs.iter().map(|(name, value)| format!("{name}={value}")).collect();
        wrong.extend(faults.iter().map(|fault| format!("{}: {fault}", knobs.join(" "))));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A loop as it is disassembled, with `fence` in it, and waits behind the end that come back into it.
fn listing(fence: &str) -> String {
    format!(
        "	.section	.text.k,\"ax\",@progbits
.text.k:
        /*0000*/                   MEMBAR.ALL.GPU ;
        /*0010*/                   ERRBAR;
        /*0020*/                   CGAERRBAR ;
        /*0030*/                   UCGABAR_ARV ;
        /*0040*/                   UCGABAR_WAIT ;
.L_x_0:
        /*0050*/                   SYNCS.PHASECHK.TRANS64.TRYWAIT P0, [UR7], R4 ;
        /*0060*/              @!P0 BRA `(.L_x_2) ;
.L_x_1:
        /*0070*/                   HGMMA.64x256x16.F32.BF16 R24, gdesc[UR28], R24, gsb0 ;
        /*0080*/              @!P0 {fence} ;
        /*0090*/              @!P0 SYNCS.ARRIVE.TRANS64.RED.A1T0 RZ, [R3+URZ], RZ ;
        /*00a0*/              @!P1 BRA `(.L_x_0) ;
        /*00b0*/                   MEMBAR.ALL.CTA ;
        /*00c0*/                   MEMBAR.ALL.GPU ;
        /*00d0*/                   ERRBAR;
        /*00e0*/                   UCGABAR_ARV ;
        /*00f0*/                   UCGABAR_WAIT ;
        /*0100*/                   EXIT ;
.L_x_2:
        /*0110*/                   SYNCS.PHASECHK.TRANS64.TRYWAIT P0, [UR7], R4 ;
        /*0120*/              @!P0 BRA `(.L_x_2) ;
        /*0130*/                   BRA `(.L_x_1) ;
.L_x_3:
        /*0140*/                   BRA `(.L_x_3);
"
    )
}

#[test]
fn a_fence_in_a_loop_is_found_and_one_of_a_barrier_is_not() {
    let faults = |fence: &str| Code::parse(&listing(fence)).faults();
    assert_eq!(faults("NOP"), Vec::<String>::new());
    assert_eq!(faults("MEMBAR.ALL.CTA"), Vec::<String>::new());
    for fence in ["MEMBAR.ALL.GPU", "MEMBAR.SC.SYS", "ERRBAR", "CGAERRBAR"] {
        assert_eq!(faults(fence), [format!("{fence} is in a loop")]);
    }
    let moved = listing("NOP").replace("/*0100*/", "/*00f8*/ MEMBAR.ALL.GPU ;\n/*0100*/");
    assert_eq!(Code::parse(&moved).faults(), ["MEMBAR.ALL.GPU does not belong to a barrier of the cluster"]);
    let without = listing("NOP").replace(".RED", "");
    assert_eq!(Code::parse(&without).faults(), ["there is no arrival at another block in a loop"]);
}
