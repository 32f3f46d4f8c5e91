//! Workloads from TOML files: any shape of a step, microbatch by microbatch.

use super::frozen::{Frozen, freeze};
use crate::toml_file::{TomlError, TomlFile};
use bigmac_schedule::{ChunkCost, ItemCost, Load, PerModule, TIME, Workload, check_extent, is_time};
use serde::Deserialize;
use std::ops::Range;
use std::path::Path;
use toml::Spanned;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    ranks: Spanned<usize>,
    #[serde(default = "one")]
    chunks: Spanned<usize>,
    #[serde(default = "zero")]
    p2p: Spanned<f64>,
    #[serde(default)]
    frozen: Vec<Frozen>,
    microbatch: Spanned<Vec<Spanned<Entry>>>,
}

/// A list of costs: of items `[forward, backward]`, of LLM chunks `[F, B, W]` or `[F, B, W, BW]`.
type Costs = Vec<Spanned<Vec<Spanned<f64>>>>;

/// What the times of a chunk are.
const CHUNK: &str = "[F, B, W] of an LLM chunk, or [F, B, W, BW]";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    #[serde(default = "one")]
    repeat: Spanned<usize>,
    #[serde(default)]
    encoder: Costs,
    #[serde(default)]
    generator: Costs,
    llm: Spanned<Costs>,
}

fn one() -> Spanned<usize> {
    Spanned::new(0..0, 1)
}

fn zero() -> Spanned<f64> {
    Spanned::new(0..0, 0.0)
}

/// Reads a workload. The file says `ranks`, where wanted `chunks` (LLM chunks per rank), `p2p` (time of a value between
/// ranks) and `frozen` (modules that do not learn; `tower` for the encoder's layers without its projector, whose
/// backward then runs where the encoder ends), and holds a `[[microbatch]]` table per microbatch (or per `repeat`
/// equal ones): `encoder` and `generator` are lists of items as `[forward, backward]`, `llm` is a list of one
/// `[F, B, W]` or `[F, B, W, BW]` per chunk, in the order of the layers; BW, the whole backward, is B + W where it is
/// left out. Times are in any unit, the same everywhere.
///
/// ```toml
/// ranks = 2
/// [[microbatch]]
/// encoder = [[1.0, 2.0], [0.5, 1.0]]
/// llm = [[1, 1, 1], [1, 1, 1]]
/// [[microbatch]]  # text only
/// repeat = 3
/// llm = [[1, 1, 1], [1, 1, 1]]
/// ```
///
/// # Errors
/// [`TomlError`] with line and column: no TOML, an unknown key, another type, a time that is negative or not finite,
/// not one cost per chunk, no microbatch.
pub fn read_workload(path: &Path) -> Result<Workload, TomlError> {
    let toml = TomlFile::read(path)?;
    let file: File = toml.parse()?;
    let (ranks, chunks) = (at_least_one(&toml, &file.ranks)?, at_least_one(&toml, &file.chunks)?);
    let p2p = time(&toml, &file.p2p)?;
    let mut loads: Vec<Load> = Vec::new();
    let mut units = 0usize;
    for entry in file.microbatch.get_ref() {
        let (span, entry) = (entry.span(), entry.get_ref());
        let repeat = at_least_one(&toml, &entry.repeat)?;
        let load = load(&toml, entry, ranks, chunks)?;
        let of_one = load.llm.len() + load.encoder.len() + load.generator.len();
        units = units.saturating_add(repeat.saturating_mul(of_one));
        check_extent(ranks, chunks, loads.len().saturating_add(repeat), units)
            .map_err(|error| toml.wrong(span, error.to_string()))?;
        loads.extend(std::iter::repeat_n(load, repeat));
    }
    let whole: Range<usize> = file.microbatch.span();
    let workload = Workload::new(ranks, chunks, loads, PerModule::all(true), p2p);
    let workload = workload.map(|workload| freeze(workload, &file.frozen));
    workload.map_err(|error| toml.wrong(whole, error.to_string()))
}

fn load(toml: &TomlFile, entry: &Entry, ranks: usize, chunks: usize) -> Result<Load, TomlError> {
    let given = entry.llm.get_ref();
    if given.len() != ranks.saturating_mul(chunks) {
        let message = format!(
            "got {} LLM chunk costs, expected {1}: one [F, B, W] for each of {ranks} ranks x {chunks} chunks per rank",
            given.len(),
            ranks.saturating_mul(chunks)
        );
        return Err(toml.wrong(entry.llm.span(), message));
    }
    let chunk = |costs| -> Result<ChunkCost, TomlError> {
        let costs: &Spanned<Vec<Spanned<f64>>> = costs;
        if costs.get_ref().len() == 4 {
            let [forward, backward_input, backward_weight, backward] = times(toml, costs, CHUNK)?;
            return Ok(ChunkCost { forward, backward_input, backward_weight, backward });
        }
        let [f, b, w] = times(toml, costs, CHUNK)?;
        Ok(ChunkCost::of_parts(f, b, w))
    };
    Ok(Load {
        encoder: items(toml, &entry.encoder)?,
        generator: items(toml, &entry.generator)?,
        llm: given.iter().map(chunk).collect::<Result<_, _>>()?,
    })
}

fn items(toml: &TomlFile, costs: &Costs) -> Result<Vec<ItemCost>, TomlError> {
    let item = |costs| -> Result<ItemCost, TomlError> {
        let [forward, backward] = times(toml, costs, "[forward, backward] of an item")?;
        Ok(ItemCost { forward, backward })
    };
    costs.iter().map(item).collect()
}

fn times<const N: usize>(
    toml: &TomlFile,
    costs: &Spanned<Vec<Spanned<f64>>>,
    what: &str,
) -> Result<[f64; N], TomlError> {
    let given = costs.get_ref();
    if given.len() != N {
        let message = format!("got {} times, expected {N}: {what}", given.len());
        return Err(toml.wrong(costs.span(), message));
    }
    let mut times = [0.0; N];
    for (slot, cost) in times.iter_mut().zip(given) {
        *slot = time(toml, cost)?;
    }
    Ok(times)
}

fn time(toml: &TomlFile, value: &Spanned<f64>) -> Result<f64, TomlError> {
    let time = *value.get_ref();
    if is_time(time) {
        return Ok(time);
    }
    Err(toml.wrong(value.span(), format!("{time} is not a valid time: expected {TIME}")))
}

fn at_least_one(toml: &TomlFile, value: &Spanned<usize>) -> Result<usize, TomlError> {
    match *value.get_ref() {
        0 => Err(toml.wrong(value.span(), "got 0, expected at least 1")),
        count => Ok(count),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bigmac_schedule::{Microbatch, ModuleKind};

    fn read(text: &str) -> Result<Workload, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        read_workload(file.path()).map_err(|error| {
            let text = error.to_string();
            text.replace(&*file.path().to_string_lossy(), "FILE")
        })
    }

    #[test]
    fn a_file_gives_every_microbatch_its_items() {
        let workload = read(
            "ranks = 2\nchunks = 1\np2p = 0.25\nfrozen = ['encoder']\n\
             [[microbatch]]\nencoder = [[1, 2.5], [0.5, 1]]\nllm = [[1, 2, 3, 4.5], [4, 5, 6]]\n\
             [[microbatch]]\nrepeat = 2\ngenerator = [[3, 7]]\nllm = [[1, 1, 1], [1, 1, 1]]\n",
        )
        .unwrap();
        assert_eq!((workload.ranks(), workload.len()), (2, 3));
        assert!(!workload.learns().encoder && workload.learns().llm && !workload.projector_alone());
        let loads = workload.loads();
        assert_eq!(loads[0].encoder[0], ItemCost { forward: 1.0, backward: 2.5 });
        assert_eq!(loads[0].llm[1], ChunkCost::of_parts(4.0, 5.0, 6.0));
        assert_eq!(loads[0].llm[0], ChunkCost { backward: 4.5, ..ChunkCost::of_parts(1.0, 2.0, 3.0) });
        assert_eq!(loads[1], loads[2]);
        assert_eq!(workload.items(ModuleKind::Generator, Microbatch(2)).count(), 1);
    }

    #[test]
    fn a_frozen_tower_leaves_the_projector_to_learn() {
        let file = |frozen: &str| {
            read(&format!(
                "ranks = 1\nfrozen = [{frozen}]\n[[microbatch]]\nencoder = [[1, 1]]\nllm = [[1, 1, 1]]\n"
            ))
            .unwrap()
        };
        let tower = file("'tower', 'llm'");
        assert!(tower.learns().encoder && !tower.learns().llm && tower.projector_alone());
        assert!(!file("'llm'").projector_alone());
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        let llm = "llm = [[1, 1, 1]]";
        for (text, wanted) in [
            ("ranks = 1\nranks = ".to_owned(), "FILE:2:"),
            (format!("ranks = 0\n[[microbatch]]\n{llm}"), "FILE:1:9: got 0, expected"),
            (
                format!("ranks = 1\n[[microbatch]]\n{llm}\nencoder = [[1, -2]]"),
                "FILE:4:16: -2 is not a valid time",
            ),
            (
                format!("ranks = 1\n[[microbatch]]\n{llm}\nencoder = [[nan, 2]]"),
                "FILE:4:13: NaN is not a valid time",
            ),
            (
                format!("ranks = 1\n[[microbatch]]\n{llm}\nencoder = [[1, 2, 3]]"),
                "FILE:4:12: got 3 times, expected 2: [forward, backward] of an item",
            ),
            (format!("ranks = 1\n[[microbatch]]\n{llm}\nencodr = []"), "FILE:4:1: unknown field `encodr`"),
            (format!("ranks = 2\n[[microbatch]]\n{llm}"), "FILE:3:7: got 1 LLM chunk costs, expected 2"),
            (
                "ranks = 1\nmicrobatch = []".to_owned(),
                "FILE:2:14: the number of microbatches is 0: it must be at least 1",
            ),
            (format!("ranks = 1\np2p = inf\n[[microbatch]]\n{llm}"), "FILE:2:7: inf is not a valid time"),
            (format!("ranks = 1\nfrozen = ['llama']\n[[microbatch]]\n{llm}"), "FILE:2:11: unknown variant"),
            (
                format!("ranks = 1\n[[microbatch]]\nrepeat = 99999999999\n{llm}"),
                "FILE:2:1: a step of 99999999999 LLM chunks and items is too large",
            ),
        ] {
            let error = read(&text).unwrap_err();
            assert!(error.starts_with(wanted), "{text}\n{error}");
        }
        let missing = read_workload(Path::new("no/such.toml")).unwrap_err().to_string();
        assert!(missing.starts_with("could not read no/such.toml"), "{missing}");
    }
}
