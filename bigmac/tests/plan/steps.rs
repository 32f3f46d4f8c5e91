//! Steps and the search against figures worked out by hand.

use bigmac::plan::{
    Counts, Cut, Description, Device, Estimate, Layout, Model, PlanError, Request, Step, search, step,
};
use bigmac::sizes::Llm;
use bigmac_close::{absolute, assert_close};
use bigmac_schedule::{Chunk, Module, ModuleKind, Options, PerModule, registry};

fn model() -> Model {
    Model::load("qwen3-30b-a3b-vit").unwrap()
}

fn llm(model: &Model) -> &Llm {
    model.llm.as_ref().unwrap()
}

fn layout(ranks: usize, replicas: usize, microbatches: usize) -> Layout {
    Layout {
        ranks,
        chunks: 1,
        replicas,
        microbatches,
        cut: Cut::Even,
        recompute: PerModule::default(),
        sharded: PerModule::default(),
    }
}

fn run(model: &Model, device: &Device, layout: Layout, schedule: &str) -> Step {
    let estimate = Estimate::new(model, device, layout).unwrap();
    step(&estimate, registry::schedule(schedule).unwrap(), &Options::default()).unwrap().0
}

/// A device of round numbers on which nothing but the pipeline takes time.
fn ideal_device() -> Device {
    let mut device = Device::load("h100").unwrap();
    for link in [&mut device.node, &mut device.cluster] {
        (link.latency, link.bandwidth) = (0.0, 1e30);
    }
    device
}

/// The text alone: no images, no head to speak of.
fn text_only() -> Model {
    let mut model = model();
    model.images = bigmac::plan::Counts::Each(0);
    model.encoder = None;
    model.llm.as_mut().unwrap().vocabulary = 1;
    model
}

#[test]
fn a_step_takes_what_1f1b_takes() {
    let (model, device) = (text_only(), ideal_device());
    let layer = llm(&model).layer(8192, 2);
    let stage = 12.0
        * [layer.forward, layer.backward_input, layer.backward_weight]
            .iter()
            .map(|work| device.seconds(work))
            .sum::<f64>();
    let step = run(&model, &device, layout(4, 2, 8), "nested");
    assert_close(step.seconds.pipeline / ((8.0 + 3.0) * stage), 1.0, absolute(1e-3));
    assert_eq!((step.devices, step.batch()), (8, 16));
    let by_hand = model.flops(8) * 2.0 / (step.seconds.total() * 8.0 * 989.4e12);
    assert_close(step.mfu(), by_hand, absolute(1e-12));
    // Twice the batch for the same pipeline: 19 stages' worth for 11.
    let longer = run(&model, &device, layout(4, 2, 16), "nested");
    assert_close(longer.seconds.pipeline / step.seconds.pipeline, 19.0 / 11.0, absolute(1e-3));
}

#[test]
fn memory_is_two_four_and_twelve_bytes_per_parameter_and_what_is_live() {
    let model = text_only();
    let device = Device::load("h100").unwrap();
    let layer = llm(&model).layer(8192, 2);
    let step = run(&model, &device, layout(4, 2, 8), "nested");
    for (rank, memory) in step.memory.iter().enumerate() {
        let ends = match rank {
            0 => 2048,
            3 => 2048 + 2048,
            _ => 0,
        };
        let parameters = 12 * layer.parameters + ends;
        assert_eq!(memory.weights, 2 * parameters);
        assert_eq!(memory.gradients, 4 * parameters);
        assert_eq!(memory.optimizer, 12 * parameters / 2, "split over two replicas");
        let head = if rank == 3 { llm(&model).head(8192, 2).saved } else { 0 };
        assert_eq!(memory.activations, (4 - rank as u64) * (12 * layer.saved + head));
        let hidden = 8192 * 2048 * 2;
        assert_eq!(memory.working, layer.saved, "the gradients of what a layer keeps");
        // A value waits from its sender's end of computation to its reader's end.
        assert!(memory.messages >= hidden && memory.messages <= 2 * hidden, "{}", memory.messages);
    }
    let mut again = layout(4, 2, 8);
    again.recompute.llm = true;
    let lean = run(&model, &device, again, "nested");
    assert_eq!(lean.memory[0].activations, 4 * 12 * 8192 * 2048 * 2);
    assert_eq!(lean.memory[0].working, 2 * layer.saved, "and what it computes again");
    let forward = device.seconds(&layer.forward) * 12.0;
    let added = lean.seconds.pipeline - step.seconds.pipeline;
    assert_close(added / (11.0 * forward), 1.0, absolute(1e-3));
}

#[test]
fn messages_are_held_from_their_making_to_the_end_of_their_reader() {
    let step = run(&text_only(), &ideal_device(), layout(2, 1, 2), "nested");
    let hidden = 8192 * 2048 * 2;
    // The second forward of stage 0 ends as stage 1 ends its first: for a moment both hidden states are there.
    // Gradients are read as they come.
    assert_eq!([step.memory[0].messages, step.memory[1].messages], [hidden, 2 * hidden]);
}

#[test]
fn what_follows_the_pipeline_moves_every_gradient_and_touches_every_state() {
    let (model, device) = (text_only(), Device::load("h100").unwrap());
    let after = |replicas| {
        let step = run(&model, &device, layout(4, replicas, 8), "nested");
        (step.seconds.reduction, step.seconds.update)
    };
    // The fullest stage, in a ring of two within a node, then of four over nodes: 4 bytes spread, 2 gathered; 12 read
    // and written, 4 and 2 touched, by as many devices.
    let parameters = (12 * llm(&model).layer(8192, 2).parameters + 2 * 2048) as f64;
    for (replicas, share, link) in [(1, 0.0, 450e9), (2, 0.5, 450e9), (4, 0.75, 50e9)] {
        let (reduction, update) = after(replicas);
        assert_close(reduction, parameters * 6.0 * share / (link * 0.8), absolute(1e-9));
        let touched = parameters * 30.0 / replicas as f64 / (3.35e12 * 0.8);
        assert_close(update, touched, absolute(1e-9));
    }
}

#[test]
fn a_balanced_cut_spares_the_last_stage() {
    let (mut model, device) = (text_only(), ideal_device());
    // An output matrix of some three layers.
    model.llm.as_mut().unwrap().vocabulary = 151_936;
    let even = Estimate::new(&model, &device, layout(8, 1, 8)).unwrap();
    let balanced = Layout { cut: Cut::Balanced, ..layout(8, 1, 8) };
    let balanced = Estimate::new(&model, &device, balanced).unwrap();
    let costliest = |estimate: &Estimate<'_>| {
        let chunks = estimate.workload.loads()[0].llm.iter();
        chunks.map(|c| c.forward + c.backward_input + c.backward_weight).fold(0.0, f64::max)
    };
    let head = even.workload.layers().unwrap().head;
    let layer = costliest(&even) / (6.0 + head);
    assert!(head > 3.0 && head < 5.0, "{head}");
    // Products and the reading of weights overlap, so parts do not add up to the last digit.
    assert_close(costliest(&balanced) / (7.0 * layer), 1.0, absolute(0.01));
    let all = |estimate: &Estimate<'_>| {
        let module = |chunk| Module::Llm(Chunk(chunk));
        (0..8).map(|chunk| estimate.parameters(&estimate.workload, module(chunk))).sum::<u64>()
    };
    assert_eq!(all(&balanced), all(&even));
    assert_eq!(all(&even), model.parameters(ModuleKind::Llm));
}

#[test]
fn memory_does_not_grow_with_the_batch_under_nested_and_does_under_phased() {
    let (model, device) = (model(), Device::load("h100").unwrap());
    let peak = |schedule: &str, microbatches: usize| {
        run(&model, &device, layout(8, 4, microbatches), schedule).fullest().activations
    };
    assert_eq!(peak("nested", 16), peak("nested", 64));
    assert!(peak("phased", 64) > peak("phased", 32) && peak("phased", 32) > peak("phased", 16));
    // More replicas: less of the optimizer on each; more ranks: less of everything.
    let total = |ranks, replicas| run(&model, &device, layout(ranks, replicas, 16), "nested").fullest();
    assert!(total(8, 4).optimizer < total(8, 2).optimizer);
    assert!(total(16, 2).weights < total(8, 2).weights);
}

#[test]
fn sharding_splits_weights_and_costs_their_transfer() {
    let model = Model::load("qwen3-30b-a3b-vit-mmdit").unwrap();
    let device = Device::load("h100").unwrap();
    let whole = run(&model, &device, layout(8, 2, 16), "phased");
    let mut split = layout(8, 2, 16);
    split.sharded.generator = true;
    let split = run(&model, &device, split, "phased");
    let generator = model.parameters(ModuleKind::Generator);
    let saved = whole.memory[0].weights - split.memory[0].weights;
    assert!(saved.abs_diff(generator * 2 * 7 / 8) <= 2, "{saved}");
    assert!(split.seconds.pipeline >= whole.seconds.pipeline);
    // On the last rank alone, whose replica is on another node, every item waits for the slower link.
    let mut alone = layout(8, 2, 16);
    alone.sharded.generator = true;
    let alone = run(&model, &device, alone, "monolithic");
    let bytes = (generator * (2 + 2 + 4)) as f64 * 7.0 / 8.0;
    assert!(alone.seconds.pipeline > 16.0 * bytes / (50e9 * 0.8));
}

#[test]
fn the_search_finds_what_trying_everything_finds() {
    let (model, device) = (model(), Device::load("h100").unwrap());
    let schedules = ["monolithic", "phased", "nested"];
    let request = Request {
        batch: 64,
        ranks: vec![4, 8],
        chunks: vec![1],
        groups: vec![1, 2],
        schedules: schedules.iter().map(|name| registry::schedule(name).unwrap()).collect(),
        llms: vec![registry::llm_schedule("1f1b").unwrap()],
        top: 6,
        ..Request::new(&model, &device, 32)
    };
    let found = search(&request).unwrap();
    let mut best: Vec<(f64, &str, usize)> = Vec::new();
    for schedule in schedules {
        for ranks in [4, 8] {
            let mut fastest = f64::INFINITY;
            for bits in 0..16usize {
                let mut layout = layout(ranks, 32 / ranks, 64 * ranks / 32);
                (layout.recompute.encoder, layout.recompute.llm) = (bits & 1 != 0, bits & 2 != 0);
                layout.sharded.encoder = bits & 4 != 0;
                let estimate = Estimate::new(&model, &device, layout).unwrap();
                let options = Options { group: Some(1 + bits / 8), ..Options::default() };
                let (step, _) = step(&estimate, registry::schedule(schedule).unwrap(), &options).unwrap();
                if step.fullest().total() as f64 <= device.usable() {
                    fastest = fastest.min(step.seconds.total());
                }
            }
            if fastest.is_finite() {
                best.push((fastest, schedule, ranks));
            }
        }
    }
    let name = |found: &Step| (found.schedule().unwrap(), found.layout.ranks);
    assert_eq!(found.steps.len(), best.len());
    assert!(found.steps.is_sorted_by(|a, b| a.seconds.total() <= b.seconds.total()));
    for (fastest, schedule, ranks) in best {
        let given = found.steps.iter().find(|step| name(step) == (schedule, ranks)).unwrap();
        // Gains of less than a hundredth are not searched for.
        let ratio = given.seconds.total() / fastest;
        assert!(ratio > 0.989 && ratio < 1.011, "{schedule} on {ranks}: {ratio}");
    }
}

#[test]
fn what_fits_nowhere_says_the_least_need() {
    let (model, device) = (model(), Device::load("h100").unwrap());
    let error = search(&Request::new(&model, &device, 4)).unwrap_err();
    let PlanError::Memory { needed, available, .. } = &error else { panic!("{error}") };
    assert!(needed > available);
    // 30.5 billion parameters at 18 bytes over 4 ranks, encoder beside them, in GiB.
    assert!(*needed > 18.0 * (30.5 / 4.0) * 0.93 && *needed < 160.0, "{needed}");
    // With that much memory it fits.
    let mut larger = device.clone();
    larger.memory = larger.reserved + (needed + 0.01) * 1073741824.0;
    assert!(search(&Request::new(&model, &larger, 4)).is_ok());
}

#[test]
fn without_an_llm_each_device_runs_its_items_one_after_the_other() {
    let (model, device) = (Model::load("mmdit-1b").unwrap(), ideal_device());
    let request = Request { batch: 12, ..Request::new(&model, &device, 4) };
    let found = search(&request).unwrap();
    let best = &found.steps[0];
    let generator = model.generator.as_ref().unwrap();
    let item = generator.item(model.frame());
    let seconds = [item.forward, item.backward_input, item.backward_weight]
        .map(|work| device.seconds(&work))
        .iter()
        .sum::<f64>();
    // Three microbatches of two drawings on each of four devices.
    assert_close(best.seconds.pipeline / (3.0 * 2.0 * seconds), 1.0, absolute(1e-12));
    assert_eq!((best.devices, best.batch(), best.layout.ranks, best.bubble), (4, 12, 1, 0.0));
    assert!(best.order.is_none() && best.memory.len() == 1);
    let by_hand = model.flops(12) / (best.seconds.total() * 4.0 * 989.4e12);
    assert_close(best.mfu(), by_hand, absolute(1e-12));
    // One drawing's activations, whatever the batch; the optimizer over four devices.
    let memory = best.fullest();
    let parameters = model.parameters(ModuleKind::Generator);
    assert_eq!((memory.activations, memory.messages), (item.saved, 0));
    // Nothing reads the text's stream after the last block: what would make it has no gradients.
    let width = generator.width() as u64;
    let unread = 10 * width * width + 7 * width + generator.head_dim as u64;
    assert_eq!(item.trained, parameters - unread);
    assert_eq!((memory.weights, memory.gradients), (2 * parameters, 4 * item.trained));
    assert_eq!(memory.optimizer, 12 * item.trained / 4);
    // Drawings are counted one by one.
    let mut uneven = model.clone();
    uneven.drawings = Counts::Cycle(vec![3, 0, 3]);
    let same = search(&Request { batch: 12, ..Request::new(&uneven, &device, 4) }).unwrap();
    assert_eq!(same.steps[0].seconds.pipeline, best.seconds.pipeline);
    // Nothing that a pipeline is asked for.
    for (request, wanted) in [
        (Request { ranks: vec![2], ..request.clone() }, "ranks = 2, expected 1 for a model without"),
        (Request { chunks: vec![3], ..request.clone() }, "chunks = 3, expected 1"),
        (Request { groups: vec![1], ..request.clone() }, "group = [1], expected none"),
        (Request { cut: Cut::Balanced, ..request.clone() }, "balance-llm = true"),
        (Request { batch: 13, ..request.clone() }, "a batch of 13 does not divide over the 4 replicas"),
    ] {
        let said = search(&request).unwrap_err().to_string();
        assert!(said.contains(wanted), "{said} lacks {wanted}");
    }
    let refused = Estimate::new(&model, &device, layout(1, 4, 3)).unwrap_err().to_string();
    assert!(refused.contains("a schedule needs an [llm]"), "{refused}");
    // Where one replica does not fit, that is said.
    let mut small = device.clone();
    small.memory = small.reserved + 1e9;
    let said = search(&Request { batch: 4, ..Request::new(&model, &small, 4) }).unwrap_err().to_string();
    assert!(said.contains("nothing fits") && said.contains("4 replicas"), "{said}");
}
