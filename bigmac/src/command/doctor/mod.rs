//! `bigmac doctor`: what this machine has, and how fast it is.

mod libraries;
mod machine;
mod measure;

use clap::Args;
use serde::Serialize;
use std::fmt::Write;

/// Say what this machine has: processor, memory, libraries and where they were looked for, measured speeds.
///
/// Measures for about a second. Nothing is changed on the machine.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  bigmac doctor --json | jq .measured")]
pub(super) struct Doctor {
    /// Print one JSON object instead of text.
    #[arg(long)]
    json: bool,
}

/// Everything the command says.
#[derive(Debug, Serialize)]
struct Report {
    version: &'static str,
    machine: machine::Machine,
    backends: Vec<Backend>,
    libraries: Vec<libraries::Library>,
    measured: measure::Measured,
}

/// A way of computing or communicating.
#[derive(Debug, Serialize)]
struct Backend {
    name: &'static str,
    usable: bool,
    note: &'static str,
}

/// What this build can run on. A library that is found is of no use to a backend that isn't built in.
const BACKENDS: [Backend; 5] = [
    Backend { name: "cpu", usable: true, note: "computes on this machine's processors" },
    Backend { name: "local", usable: true, note: "ranks are threads of one process" },
    Backend { name: "cuda", usable: false, note: "this build has no CUDA backend yet" },
    Backend { name: "nccl", usable: false, note: "this build has no NCCL backend yet" },
    Backend { name: "mpi", usable: false, note: "this build has no MPI backend yet" },
];

impl Doctor {
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let machine = machine::Machine::inspect()?;
        let report = Report {
            version: env!("CARGO_PKG_VERSION"),
            measured: measure::Measured::take(machine.threads)?,
            machine,
            backends: BACKENDS.into(),
            libraries: libraries::find_all(),
        };
        let text = if self.json { serde_json::to_string_pretty(&report)? + "\n" } else { report.text()? };
        super::print(&text)
    }
}

/// Bytes as people read them.
fn gib(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / (1_u64 << 30) as f64)
}

impl Report {
    fn text(&self) -> Result<String, std::fmt::Error> {
        let known = |bytes: Option<u64>| bytes.map_or_else(|| "unknown".to_owned(), gib);
        let (machine, measured) = (&self.machine, &self.measured);
        let mut out = String::new();
        writeln!(out, "bigmac {}", self.version)?;
        writeln!(out, "\nMachine")?;
        writeln!(out, "  processor   {}", machine.processor.as_deref().unwrap_or("unknown"))?;
        writeln!(out, "  threads     {} (as many as this process may run at once)", machine.threads)?;
        writeln!(out, "  vectors     {}", machine.extensions.join(" "))?;
        writeln!(out, "  built for   {}", machine.built_for.join(" "))?;
        let (total, available) = (known(machine.memory_total), known(machine.memory_available));
        writeln!(out, "  memory      {total}, {available} available")?;
        writeln!(out, "  disk        {} free in {}", known(machine.disk_free), machine.directory.display())?;
        writeln!(out, "\nMeasured, on {} threads", machine.threads)?;
        writeln!(out, "  copy        {:.1} GB/s (bytes read and written)", measured.copy_gb_per_s)?;
        let n = measure::PRODUCT;
        writeln!(out, "  f32 product {:.1} GFLOP/s ({n} x {n} x {n})", measured.product_gflop_per_s)?;
        writeln!(out, "\nBackends")?;
        for backend in &self.backends {
            let usable = if backend.usable { "yes" } else { "no " };
            writeln!(out, "  {:<6}{usable}  {}", backend.name, backend.note)?;
        }
        writeln!(out, "\nLibraries")?;
        for library in &self.libraries {
            match &library.found {
                Some(path) => writeln!(out, "  {:<41}found: {}", library.title(), path.display())?,
                None => writeln!(out, "  {:<41}not found ({})", library.title(), library.purpose)?,
            }
        }
        let looked: Vec<_> = libraries::directories().iter().map(|d| d.display().to_string()).collect();
        writeln!(out, "  looked in {}", looked.join(", "))?;
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_json_say_the_same() {
        let machine = machine::Machine::inspect().unwrap();
        assert!(machine.threads > 0);
        let report = Report {
            version: "1.2.3",
            machine,
            backends: BACKENDS.into(),
            libraries: libraries::find_all(),
            measured: measure::Measured { copy_gb_per_s: 12.34, product_gflop_per_s: 56.78 },
        };
        let text = report.text().unwrap();
        let json = serde_json::to_value(&report).unwrap();
        assert!(text.contains("12.3 GB/s") && json["measured"]["copy_gb_per_s"] == 12.34);
        assert!(text.contains("no CUDA backend") && json["backends"][2]["usable"] == false);
        for library in ["libcuda.so.1", "libnccl.so.2", "libnvrtc.so.13", "libmpi.so"] {
            assert!(text.contains(library), "{text}");
            let listed = |entry: &serde_json::Value| entry["names"][0] == library;
            assert!(json["libraries"].as_array().unwrap().iter().any(listed), "{json}");
        }
    }
}
