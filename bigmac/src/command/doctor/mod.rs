//! `bigmac doctor`: what this machine has, and how fast it is.

mod gpus;
mod machine;
mod measure;

use bigmac_comm::MPI;
use bigmac_gpu::libraries::{self, Lookup, directories};
use bigmac_runtime::processor;
use clap::Args;
use serde::Serialize;
use std::fmt::Write;

/// Print what this machine has: processor, memory, GPUs, libraries and where they were searched, measured speeds.
///
/// Measures for about a second. Changes nothing on the machine.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  bigmac doctor --json | jq .measured")]
pub(super) struct DoctorArgs {
    /// Print one JSON object instead of text.
    #[arg(long)]
    json: bool,
}

/// Everything that the command prints.
#[derive(Debug, Serialize)]
struct Report {
    version: &'static str,
    machine: machine::Machine,
    /// What this processor could do and this program does not use.
    warning: Option<&'static str>,
    gpus: gpus::Gpus,
    backends: Vec<Backend>,
    libraries: Vec<Lookup>,
    measured: measure::Measured,
}

/// A way of computing or communicating.
#[derive(Debug, Serialize)]
struct Backend {
    name: &'static str,
    usable: bool,
    note: &'static str,
}

/// Looks for every library that a backend loads at run time.
fn find_libraries() -> Vec<Lookup> {
    libraries::ALL.iter().chain([&MPI]).map(|library| library.find()).collect()
}

/// The backends of this program, and whether each can run here.
fn backends(gpus: &gpus::Gpus, libraries: &[Lookup]) -> Vec<Backend> {
    let backend = |name, usable, note| Backend { name, usable, note };
    vec![
        backend("cpu", true, "computes on this machine's processors"),
        backend("local", true, "ranks are threads of one process"),
        match gpus.missing {
            None => backend("cuda", true, "computes on NVIDIA GPUs"),
            Some(_) => backend("cuda", false, "computes on NVIDIA GPUs; under GPUs it says what is missing"),
        },
        backend("tcp", true, "ranks are processes, on one host or several"),
        match libraries.iter().any(|found| found.library.variable == MPI.variable && found.found.is_some()) {
            true => backend("mpi", true, "ranks are processes that mpirun starts"),
            false => backend("mpi", false, "ranks are processes that mpirun starts; no library was found"),
        },
    ]
}

/// Runs the command.
pub(super) fn run(args: DoctorArgs) -> anyhow::Result<()> {
    let machine = machine::Machine::inspect()?;
    let gpus = gpus::Gpus::inspect();
    let libraries = find_libraries();
    let report = Report {
        version: env!("CARGO_PKG_VERSION"),
        measured: measure::Measured::take(machine.threads)?,
        machine,
        warning: processor::unused(),
        backends: backends(&gpus, &libraries),
        gpus,
        libraries,
    };
    let text = if args.json { serde_json::to_string_pretty(&report)? + "\n" } else { report.text()? };
    super::print(&text)
}

/// Bytes in GiB, for messages.
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
        writeln!(out, "  threads     {} (available to this process)", machine.threads)?;
        writeln!(out, "  vectors     {}", machine.extensions.join(" "))?;
        writeln!(out, "  built for   {}", machine.built_for.join(" "))?;
        if let Some(warning) = self.warning {
            writeln!(out, "  warning     {warning}")?;
        }
        let (total, available) = (known(machine.memory_total), known(machine.memory_available));
        writeln!(out, "  memory      {total}, {available} available")?;
        writeln!(out, "  disk        {} free in {}", known(machine.disk_free), machine.directory.display())?;
        writeln!(out, "\nMeasured, on {} threads", machine.threads)?;
        writeln!(out, "  copy        {:.1} GB/s (bytes read and written)", measured.copy_gb_per_s)?;
        let n = measure::PRODUCT;
        writeln!(out, "  f32 product {:.1} GFLOP/s ({n} x {n} x {n})", measured.product_gflop_per_s)?;
        writeln!(out, "\nGPUs")?;
        for gpu in &self.gpus.devices {
            let (memory, processors) = (gib(gpu.memory as u64), gpu.processors);
            writeln!(
                out,
                "  {:<12}{}, {}, {memory}, {processors} multiprocessors",
                gpu.device, gpu.name, gpu.architecture
            )?;
            if let Some(allocator) = &gpu.allocator {
                writeln!(out, "              memory from {allocator}")?;
            }
            if let Some(reason) = &gpu.refuses {
                writeln!(out, "              cannot be used: {reason}")?;
            }
        }
        if let Some(missing) = &self.gpus.missing {
            writeln!(out, "  no kernel can run on a GPU: {missing}")?;
        }
        let version = |version: &Option<String>| match version {
            Some(version) => format!("for CUDA {version}"),
            None => "none that can be used".into(),
        };
        writeln!(out, "  driver      {}", version(&self.gpus.driver))?;
        writeln!(out, "  NVRTC       {}", version(&self.gpus.nvrtc))?;
        writeln!(out, "\nBackends")?;
        for backend in &self.backends {
            let usable = if backend.usable { "yes" } else { "no " };
            writeln!(out, "  {:<6}{usable}  {}", backend.name, backend.note)?;
        }
        writeln!(out, "\nLibraries")?;
        for lookup in &self.libraries {
            let (title, purpose) = (lookup.library.names.join(" | "), lookup.library.purpose);
            match (&lookup.found, &lookup.given) {
                (Some(path), _) => writeln!(out, "  {title:<41}found: {}", path.display())?,
                (None, Some(given)) => writeln!(
                    out,
                    "  {title:<41}not found: {} is '{}', which is not a file",
                    lookup.library.variable,
                    given.display()
                )?,
                (None, None) => writeln!(out, "  {title:<41}not found ({purpose})")?,
            }
        }
        writeln!(out, "  searched in this order")?;
        for directory in directories() {
            writeln!(out, "    {}", directory.display())?;
        }
        let variables: Vec<&str> = self.libraries.iter().map(|lookup| lookup.library.variable).collect();
        writeln!(out, "  a file named in {} is used instead", variables.join(", "))?;
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
        let report = |missing: Option<&str>| {
            let gpu = gpus::Gpu {
                device: "cuda:0".into(),
                name: "NVIDIA H100".into(),
                architecture: "sm_90".into(),
                processors: 132,
                memory: 80 << 30,
                allocator: missing.is_none().then(|| "a memory pool of the driver".into()),
                refuses: missing.map(str::to_owned),
            };
            let gpus = gpus::Gpus {
                driver: Some("13.1".into()),
                nvrtc: Some("13.0".into()),
                nvrtc_file: Some("/nvrtc".into()),
                devices: vec![gpu],
                missing: missing.map(str::to_owned),
            };
            Report {
                version: "1.2.3",
                machine: machine::Machine::inspect().unwrap(),
                warning: None,
                backends: backends(&gpus, &find_libraries()),
                gpus,
                libraries: find_libraries(),
                measured: measure::Measured { copy_gb_per_s: 12.34, product_gflop_per_s: 56.78 },
            }
        };
        let with = report(None);
        let (text, json) = (with.text().unwrap(), serde_json::to_value(&with).unwrap());
        assert!(text.contains("12.3 GB/s") && json["measured"]["copy_gb_per_s"] == 12.34);
        assert!(text.contains("cuda:0      NVIDIA H100, sm_90, 80.0 GiB, 132 multiprocessors"), "{text}");
        assert!(text.contains("memory from a memory pool of the driver"), "{text}");
        assert_eq!(
            (&json["gpus"]["devices"][0]["name"], &json["gpus"]["driver"]),
            (&"NVIDIA H100".into(), &"13.1".into())
        );
        assert_eq!(
            (&json["backends"][2]["usable"], &json["gpus"]["missing"]),
            (&true.into(), &serde_json::Value::Null)
        );
        for library in ["libcuda.so.1", "libnvrtc.so.13", "libmpi_abi.so.1"] {
            assert!(text.contains(library), "{text}");
            let listed =
                |entry: &serde_json::Value| entry["names"][0] == library && entry["looked_in"].is_array();
            assert!(json["libraries"].as_array().unwrap().iter().any(listed), "{json}");
        }
        let without = report(Some("the driver is gone"));
        assert!(without.text().unwrap().contains("cannot be used: the driver is gone"));
        assert!(without.text().unwrap().contains("no kernel can run on a GPU: the driver is gone"));
        assert_eq!(serde_json::to_value(&without).unwrap()["backends"][2]["usable"], false);
    }

    #[test]
    fn a_machine_says_why_it_has_no_gpu_or_which_it_has() {
        let gpus = gpus::Gpus::inspect();
        assert_eq!(
            gpus.missing.is_none(),
            gpus.devices.iter().any(|gpu| gpu.memory > 0) && gpus.nvrtc.is_some()
        );
        if gpus.driver.is_none() {
            assert!(gpus.missing.unwrap().contains("NVIDIA driver"));
        }
    }
}
