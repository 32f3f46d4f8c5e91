//! Which layers of which module live on which rank.

use super::ModelShape;
use bigmac_models::stage::Stage;
use bigmac_runtime::{Error, Result};
use bigmac_schedule::{ChainPart, Chunk, ChunkPlacement, ModuleKind, PerModule, Rank, Workload};

/// A module's consecutive layers, and where they live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Which of the module's chunks it is.
    pub chunk: Chunk,
    /// Its layers.
    pub stage: Stage,
    /// The rank that holds it; `None`: every rank holds a copy.
    pub home: Option<Rank>,
}

/// The chunks of all modules, in the order of their layers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    ranks: usize,
    modules: PerModule<Vec<Placed>>,
}

impl Placement {
    /// The LLM cut evenly in `ranks` x `chunks` chunks, placed on the ranks as `chunk_placement` says; all of encoder and
    /// generator on every rank.
    ///
    /// # Errors
    /// [`Error::Argument`] for no ranks or chunks.
    pub fn replicated(
        shape: &ModelShape,
        ranks: usize,
        chunks: usize,
        chunk_placement: ChunkPlacement,
    ) -> Result<Self> {
        let whole =
            |kind| vec![Placed { chunk: Chunk(0), stage: Stage::whole(shape.layers(kind)), home: None }];
        let stages = Stage::split(shape.layers(ModuleKind::Llm), ranks * chunks)?.into_iter().enumerate();
        let llm = stages.map(|(chunk, stage)| Placed {
            chunk: Chunk(chunk),
            stage,
            home: Some(chunk_placement.rank_of(Chunk(chunk), ranks)),
        });
        let modules = PerModule {
            encoder: whole(ModuleKind::Encoder),
            llm: llm.collect(),
            generator: whole(ModuleKind::Generator),
        };
        Ok(Placement { ranks, modules })
    }

    /// Everything on one rank, uncut.
    ///
    /// # Errors
    /// None.
    pub fn whole(shape: &ModelShape) -> Result<Self> {
        Self::replicated(shape, 1, 1, ChunkPlacement::Loop)
    }

    /// Where the modules have to live for a step of that workload.
    ///
    /// # Errors
    /// [`Error::Argument`] for a chain that is cut within layers, or into the layers of another model.
    pub fn of(shape: &ModelShape, workload: &Workload) -> Result<Self> {
        let Some(chain) = workload.chain() else {
            let (ranks, chunks) = (workload.ranks(), workload.chunks_per_rank());
            return Self::replicated(shape, ranks, chunks, workload.placement());
        };
        let placed = |kind| placed(&chain.parts[kind], kind, shape);
        let modules = PerModule {
            encoder: placed(ModuleKind::Encoder)?,
            llm: placed(ModuleKind::Llm)?,
            generator: placed(ModuleKind::Generator)?,
        };
        Ok(Placement { ranks: chain.ranks, modules })
    }

    /// How many ranks there are.
    pub fn ranks(&self) -> usize {
        self.ranks
    }

    /// The chunks of a module, in the order of its layers.
    pub fn chunks(&self, kind: ModuleKind) -> &[Placed] {
        &self.modules[kind]
    }

    /// True for a module that every rank has a copy of.
    pub fn is_replicated(&self, kind: ModuleKind) -> bool {
        self.modules[kind].iter().all(|placed| placed.home.is_none())
    }

    /// What one rank alone holds: encoder, LLM, generator, each in the order of its layers.
    pub fn held_by(&self, rank: Rank) -> impl Iterator<Item = (ModuleKind, &Stage)> {
        let all =
            ModuleKind::ALL.into_iter().flat_map(|kind| self.modules[kind].iter().map(move |p| (kind, p)));
        all.filter(move |(_, placed)| placed.home == Some(rank)).map(|(kind, placed)| (kind, &placed.stage))
    }

    /// The ranks that hold the first and the last chunk of the LLM.
    pub fn ends(&self) -> (Rank, Rank) {
        let home = |placed: Option<&Placed>| placed.and_then(|placed| placed.home).unwrap_or(Rank(0));
        let llm = &self.modules.llm;
        (home(llm.first()), home(llm.last()))
    }
}

/// The parts of a chain as stages of a module of that shape.
fn placed(parts: &[ChainPart], kind: ModuleKind, shape: &ModelShape) -> Result<Vec<Placed>> {
    let layers = shape.layers(kind);
    let wrong = |what: String| Err(Error::argument("placement", format!("the {kind} {what}")));
    let mut placed = Vec::with_capacity(parts.len());
    let mut next = 0;
    for (chunk, part) in parts.iter().enumerate() {
        let Some(range) = part.layers.clone() else {
            return wrong("is cut within layers; give the workload its numbers of layers first".into());
        };
        if range.start != next || range.end < range.start {
            return wrong(format!("has a chunk of layers {range:?} where layer {next} is next"));
        }
        next = range.end;
        let stage = Stage { layers: range, first: chunk == 0, last: chunk + 1 == parts.len() };
        placed.push(Placed { chunk: Chunk(chunk), stage, home: Some(part.rank) });
    }
    if next != layers {
        return wrong(format!("is cut into {next} layers, but the model has {layers}"));
    }
    Ok(placed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Model;
    use crate::data::Tokenizer;
    use crate::model::RankModules;
    use bigmac_runtime::Context;
    use bigmac_schedule::{Layers, Options, UniformCosts, registry};
    use std::collections::BTreeMap;

    fn shape() -> ModelShape {
        let mut model = Model::default();
        (model.encoder.layers, model.llm.layers, model.generator.layers) = (2, 5, 4);
        ModelShape::new(&model, &Tokenizer::bytes()).unwrap()
    }

    /// The workload of a schedule that runs on a chain.
    fn chained(schedule: &str, ranks: usize, layers: Option<[usize; 3]>) -> Workload {
        let costs = UniformCosts {
            forward: 5.0,
            backward_input: 5.0,
            backward_weight: 5.0,
            backward: None,
            encoder_forward: 6.0,
            encoder_backward: 12.0,
            generator_forward: 5.0,
            generator_backward: 10.0,
        };
        let mut workload = Workload::uniform(ranks, 1, 4, 2, costs, 0.0).unwrap();
        if let Some([encoder, llm, generator]) = layers {
            let count = PerModule { encoder, llm, generator };
            workload = workload.with_layers(Layers { count, head: 0.3 }).unwrap();
        }
        registry::schedule(schedule).unwrap().workload(&workload, Options::default().llm)
    }

    fn named(modules: &RankModules, count: &mut BTreeMap<String, usize>) {
        for (_, specs, ..) in modules.parts() {
            specs
                .iter()
                .filter(|s| !s.is_copy())
                .for_each(|s| *count.entry(s.name.clone()).or_default() += 1);
        }
    }

    #[test]
    fn every_parameter_lives_once_where_nothing_is_replicated() {
        let (ctx, shape) = (Context::cpu(0, 1).unwrap(), shape());
        let mut whole = BTreeMap::new();
        named(&RankModules::planned(&ctx, &shape, &Placement::whole(&shape).unwrap()).unwrap(), &mut whole);
        for schedule in ["monolithic-balanced", "disaggregated"] {
            for ranks in 1..6 {
                let workload = chained(schedule, ranks, Some([2, 5, 4]));
                let placement = Placement::of(&shape, &workload).unwrap();
                assert_eq!(placement.ranks(), workload.ranks());
                assert!(ModuleKind::ALL.iter().all(|kind| !placement.is_replicated(*kind)));
                let mut held = BTreeMap::new();
                named(&RankModules::planned(&ctx, &shape, &placement).unwrap(), &mut held);
                assert_eq!(held, whole, "{schedule} on {ranks} ranks");
                for chunk in 0..workload.chunks() {
                    let home = workload.rank_of(Chunk(chunk));
                    assert_eq!(placement.chunks(ModuleKind::Llm)[chunk].home, Some(home));
                }
            }
        }
    }

    #[test]
    fn replicas_are_on_every_rank_and_chunks_go_round_or_turn() {
        let homes = |placement: &Placement| -> Vec<_> {
            placement.chunks(ModuleKind::Llm).iter().map(|chunk| chunk.home.unwrap().0).collect()
        };
        let turned = Placement::replicated(&shape(), 2, 2, ChunkPlacement::V).unwrap();
        assert_eq!((homes(&turned), turned.ends()), (vec![0, 1, 1, 0], (Rank(0), Rank(0))));
        let held: Vec<_> = turned.held_by(Rank(0)).map(|(_, stage)| stage.layers.clone()).collect();
        assert_eq!(held, [0..2, 4..5]);
        let placement = Placement::replicated(&shape(), 2, 2, ChunkPlacement::Loop).unwrap();
        assert_eq!(homes(&placement), [0, 1, 0, 1]);
        assert_eq!(placement.ends(), (Rank(0), Rank(1)));
        assert!(placement.is_replicated(ModuleKind::Encoder) && !placement.is_replicated(ModuleKind::Llm));
        let held: Vec<_> = placement.held_by(Rank(1)).map(|(kind, s)| (kind, s.layers.clone())).collect();
        assert_eq!(held, [(ModuleKind::Llm, 2..3), (ModuleKind::Llm, 4..5)]);
    }

    #[test]
    fn a_chain_of_another_model_is_refused() {
        let shape = shape();
        let error = |layers| {
            Placement::of(&shape, &chained("monolithic-balanced", 3, layers)).unwrap_err().to_string()
        };
        assert!(error(None).contains("within layers"), "{}", error(None));
        let other = error(Some([2, 6, 4]));
        assert!(other.contains("the llm is cut into 6 layers") && other.contains("has 5"), "{other}");
    }
}
