//! `bigmac plan`: the layout and schedule for a model on a number of devices.

mod paper;
mod report;
mod settings;

use super::print;
use anyhow::ensure;
use bigmac::plan::{Counts, Cut, Description, Device, Model, PlanError, Request, Setting, search};
use bigmac::profile::Profile;
use bigmac_schedule::module_budgets;
use bigmac_schedule::{LlmSchedule, Options, Schedule, ScheduleError, registry};
use clap::Args;
use std::path::PathBuf;

const EXAMPLE: &str = "Example: 64 devices for a 30B LLM with a 1.3B encoder; then a model of one's own
  bigmac plan --model qwen3-30b-a3b-vit --device h100 --devices 64 --batch 512
  bigmac plan --model my-model.toml --device my-device.toml --devices 8 --batch 64 --json

Times are estimates from operation counts and assumed efficiencies (see the device's description), schedules are
simulated. Devices that are not pipeline ranks hold replicas; tensor and expert parallelism are not part of BigMac.
JSON is one object: model, device, devices, batch, simulated, plans: [{schedule, llm, ranks, chunks, replicas, time,
mfu, memory: [{weights, gradients, optimizer, activations, messages, working}], config}].";

/// Find the fastest layout and schedule for a model on a number of devices.
///
/// Searches ranks, chunks, slots, schedules, and what to compute again or to split over devices where memory is short;
/// prints the best few with time, memory by kind and MFU, and the configuration that runs the best.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLE)]
pub(super) struct PlanArgs {
    #[arg(long, value_name = "NAME|FILE", help = help::<Model>("Model", "my-model.toml [default: the first]"))]
    model: Option<String>,

    #[arg(long, value_name = "NAME|FILE", default_value = "h100", help = help::<Device>("Device", "my-device.toml"))]
    device: String,

    /// Times that `bigmac profile` has measured for the model's layers, in place of the device's peaks: it still says
    /// the memory, and the peak that MFU is a share of
    #[arg(long, value_name = "FILE", conflicts_with = "paper")]
    profile: Option<PathBuf>,

    /// Number of devices
    #[arg(long, value_name = "D", default_value_t = 32)]
    devices: usize,

    /// Sequences in a step, over all devices [default: 8 for each device]
    #[arg(long, value_name = "B")]
    batch: Option<usize>,

    /// Tokens of a sequence [default: the model description's]
    #[arg(long, value_name = "S")]
    sequence: Option<usize>,

    /// Images in each sequence [default: the model description's]
    #[arg(long, value_name = "K")]
    images: Option<usize>,

    /// Images drawn from each sequence [default: the model description's]
    #[arg(long, value_name = "K")]
    drawings: Option<usize>,

    /// Pipeline ranks to try, comma-separated [default: every divisor of the devices]
    #[arg(long, value_name = "P,...", value_delimiter = ',')]
    ranks: Vec<usize>,

    /// LLM chunks per rank to try, comma-separated
    #[arg(long, value_name = "V,...", value_delimiter = ',', default_value = "1,2,3,4")]
    chunks: Vec<usize>,

    /// Give the last LLM chunk fewer layers, to make up for the output matrix; `bigmac train` cuts evenly
    #[arg(long)]
    balance_llm: bool,

    /// Microbatches that share a slot, to try, comma-separated [default: the schedule chooses]
    #[arg(long, value_name = "G,...", value_delimiter = ',')]
    group: Vec<usize>,

    /// Schedules to try, comma-separated [default: all]
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    schedule: Vec<String>,

    /// Orders of the LLM's chunks to try, comma-separated [default: all]
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    llm: Vec<String>,

    /// The most activations that a module may keep on a rank, in microbatches or bytes, as in encoder=2mb,llm=4GiB
    #[arg(long, value_name = "MODULE=SIZE,...", default_value = "", hide_default_value = true)]
    budget: String,

    /// How many plans to print: the best of each schedule and number of ranks
    #[arg(long, value_name = "K", default_value_t = 5)]
    top: usize,

    /// Compare nested schedules with the others as BigMac's evaluation does, on one layout, at several batches: for
    /// --model, or both of the evaluation, on the first of --ranks [default: 8] and with the first of --llm
    #[arg(long)]
    paper: bool,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(super) fn run(args: PlanArgs) -> anyhow::Result<()> {
    let device = Device::load(&args.device)?;
    if args.paper {
        return args.paper(&device);
    }
    let name = args.model.as_deref().unwrap_or(Model::SHIPPED[0].0);
    let model = args.model(name)?;
    let device = match &args.profile {
        Some(path) => device.measured(&Profile::read(path)?, &model)?,
        None => device,
    };
    let mut request = Request {
        ranks: args.ranks.clone(),
        chunks: args.chunks.clone(),
        groups: args.group.clone(),
        cut: if args.balance_llm { Cut::Balanced } else { Cut::Even },
        budget: module_budgets(&args.budget)?,
        top: args.top,
        ..Request::new(&model, &device, args.devices)
    };
    request.batch = args.batch.unwrap_or(request.batch);
    for (option, given) in [("--schedule", &args.schedule), ("--llm", &args.llm)] {
        ensure!(
            given.is_empty() || model.llm.is_some(),
            "{option} {} needs an [llm] to cut into pipeline stages, which the model '{name}' does not have: leave {option} out",
            given.join(",")
        );
    }
    if !args.schedule.is_empty() {
        request.schedules = args.schedules()?;
    }
    if !args.llm.is_empty() {
        request.llms = args.llms()?;
    }
    let found = search(&request)?;
    print(&if args.json {
        format!("{:#}\n", report::json(name, &args.device, &request, &found))
    } else {
        report::text(name, &request, &found)
    })
}

impl PlanArgs {
    fn paper(&self, device: &Device) -> anyhow::Result<()> {
        let ranks = self.ranks.first().copied().unwrap_or(8);
        ensure!(
            ranks > 0 && self.devices >= ranks && self.devices.is_multiple_of(ranks),
            "{ranks} ranks do not divide {} devices: change --ranks or --devices",
            self.devices
        );
        let llm = self.llms()?.first().copied().unwrap_or(Options::default().llm);
        let names = self.model.as_deref().map_or(paper::MODELS.to_vec(), |name| vec![name]);
        let mut tables = Vec::new();
        let mut text = String::new();
        for name in names {
            let model = self.model(name)?;
            let setting = Setting { model: &model, device, ranks, replicas: self.devices / ranks, llm };
            let of_model = paper::tables(name, &setting, self.batch)?;
            if !self.json {
                text += &paper::text(&setting, &of_model);
                text.push('\n');
            }
            tables.extend(of_model);
        }
        print(&if self.json { format!("{:#}\n", paper::json(&tables)) } else { text })
    }

    /// The model with what the command line changes of it, checked again.
    fn model(&self, name: &str) -> anyhow::Result<Model> {
        let mut model = Model::load(name)?;
        model.sequence = self.sequence.unwrap_or(model.sequence);
        model.images = self.images.map_or(model.images, Counts::Each);
        model.drawings = self.drawings.map_or(model.drawings, Counts::Each);
        model.check().map_err(PlanError::at(name))?;
        Ok(model)
    }

    fn llms(&self) -> anyhow::Result<Vec<&'static LlmSchedule>> {
        Ok(self.llm.iter().map(|name| registry::llm_schedule(name)).collect::<Result<_, ScheduleError>>()?)
    }

    fn schedules(&self) -> anyhow::Result<Vec<&'static Schedule>> {
        let named = self.schedule.iter().map(|name| {
            let schedule = registry::schedule(name)?;
            ensure!(
                schedule.is_whole(),
                "the schedule '{name}' leaves encoder and generator out: plan with one that runs the whole step"
            );
            Ok(schedule)
        });
        named.collect()
    }
}

/// The descriptions that come with the program, for `--help`.
fn help<D: Description>(what: &str, file: &str) -> String {
    let names: Vec<&str> = D::SHIPPED.iter().map(|(name, _)| *name).collect();
    format!("{what}: {}, or a file as {file}", names.join(", "))
}
