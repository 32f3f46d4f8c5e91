//! The configuration that runs a step.

use bigmac::config::{Dtype, Generator, Pipeline, Projector};
use bigmac::plan::{Cut, Model, Step, budget_text};
use bigmac::sizes::{Encoder, Llm};
use bigmac_schedule::{ModuleKind, PerModule};
use toml::{Table, Value};

/// The TOML of a configuration that runs `step`, with what it cannot say in comments; none for a model without an LLM,
/// which `bigmac train` does not train.
///
/// `[pipeline]` and `[train]` are of one replica. `[model]` is there where this runtime has the model: without experts,
/// with a token per patch.
pub(super) fn settings(model: &Model, step: &Step) -> Option<String> {
    let (llm, order) = (model.llm.as_ref()?, step.order?);
    let defaults = Pipeline::default();
    let pipeline = Pipeline {
        schedule: order.schedule.name().into(),
        llm: order.llm.name().into(),
        ranks: step.memory.len(),
        chunks: step.layout.chunks,
        group: order.group.unwrap_or(0),
        budget: budget_text(&order.budget),
        ..defaults
    };
    let mut table = Table::new();
    table.insert(
        "pipeline".into(),
        keys(&pipeline, &["schedule", "llm", "ranks", "chunks", "group", "budget"]),
    );
    let train = Table::from_iter([
        ("batch".to_owned(), Value::from(step.layout.microbatches as i64)),
        ("microbatches".to_owned(), Value::from(step.layout.microbatches as i64)),
        ("tokens_per_microbatch".to_owned(), Value::from(model.sequence as i64)),
    ]);
    table.insert("train".into(), Value::Table(train));
    let runs = module_tables(model, llm, step.layout.recompute);
    let has_model = runs.is_some();
    table.extend(runs.map(|tables| ("model".to_owned(), Value::Table(tables))));
    let mut text = String::new();
    for note in notes(step, has_model) {
        text += &format!("# {note}\n");
    }
    // Tables of strings, numbers and flags are all TOML.
    Some(text + &toml::to_string_pretty(&table).unwrap_or_default())
}

fn notes(step: &Step, has_model: bool) -> Vec<String> {
    let names = |modules: &PerModule<bool>| {
        let names = ModuleKind::ALL.into_iter().filter(|kind| modules[*kind]).map(ModuleKind::name);
        names.collect::<Vec<_>>().join(", ")
    };
    let layout = &step.layout;
    let mut notes = Vec::new();
    if layout.replicas > 1 {
        notes.push(format!(
            "Each of {} replicas runs this pipeline on its share of the batch.",
            layout.replicas
        ));
    }
    if layout.cut == Cut::Balanced {
        notes
            .push("The last LLM chunk has fewer layers; `bigmac train` cuts evenly, which is slower.".into());
    }
    let (again, split) = (names(&layout.recompute), names(&layout.sharded));
    if !has_model && !again.is_empty() {
        notes.push(format!("Layers are computed again in the backward of: {again}."));
    }
    if !split.is_empty() {
        notes.push(format!("Weights and gradients are split over the devices of a node: {split}."));
    }
    if !has_model {
        notes.push("The model has parts that `bigmac train` does not: the layout alone.".into());
    }
    notes
}

fn keys<T: serde::Serialize>(value: &T, wanted: &[&str]) -> Value {
    let all = Table::try_from(value).unwrap_or_default();
    Value::Table(all.into_iter().filter(|(key, _)| wanted.contains(&key.as_str())).collect())
}

/// `[model]` with its modules; none for a model that this runtime does not have.
fn module_tables(model: &Model, l: &Llm, recompute: PerModule<bool>) -> Option<Table> {
    let merges = model.encoder.as_ref().is_some_and(|encoder| encoder.merge != 1);
    if l.experts.is_some() || merges {
        return None;
    }
    let dtype = match model.bytes.value {
        2 => Dtype::Bf16,
        4 => Dtype::F32,
        _ => return None,
    };
    let llm = Llm { vocabulary: 0, recompute: recompute.llm, ..l.clone() };
    let mut tables = Table::from_iter([
        ("dtype".to_owned(), Value::try_from(dtype).ok()?),
        ("llm".to_owned(), Value::try_from(llm).ok()?),
    ]);
    if let Some(e) = &model.encoder {
        let encoder = Encoder { output_width: None, recompute: recompute.encoder, ..e.clone() };
        tables.insert("encoder".into(), Value::try_from(encoder).ok()?);
        let projector = Projector { frozen: model.frozen().projector };
        tables.insert("projector".into(), Value::try_from(projector).ok()?);
    }
    if let Some(g) = &model.generator {
        let side = g.latents.isqrt();
        let patch = (g.channels / 3).isqrt();
        if side * side != g.latents || 3 * patch * patch != g.channels {
            return None;
        }
        let generator = Generator {
            layers: g.layers,
            heads: g.heads,
            head_dim: g.head_dim,
            image_size: side * patch,
            patch,
            rope_axes: g.rope_axes()?,
            frozen: g.frozen,
            recompute: recompute.generator,
            ..Generator::default()
        };
        tables.insert("generator".into(), Value::try_from(generator).ok()?);
    }
    Some(tables)
}
