//! Cutting a model at layer boundaries.

use bigmac_runtime::{Error, Result};
use std::ops::Range;

/// The part of a model that one pipeline stage (or chunk of one) holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// Its layers; may be empty.
    pub layers: Range<usize>,
    /// It has what comes before the layers: embeddings.
    pub first: bool,
    /// It has what comes after the layers: final norm, output matrix, projector.
    pub last: bool,
}

impl Stage {
    /// The uncut model.
    pub fn whole(layers: usize) -> Self {
        Stage { layers: 0..layers, first: true, last: true }
    }

    /// True when this is the uncut model.
    pub fn is_whole(&self) -> bool {
        self.first && self.last
    }

    /// All stages of a model of `layers` layers cut in `stages` by [`split_layers`].
    pub fn split(layers: usize, stages: usize) -> Result<Vec<Self>> {
        let parts = split_layers(layers, stages)?.into_iter().enumerate();
        Ok(parts.map(|(i, layers)| Stage { layers, first: i == 0, last: i + 1 == stages }).collect())
    }
}

/// Cuts `layers` layers into `stages` consecutive ranges that differ by at most one layer.
///
/// The earlier ranges get the extra layers, since an LLM's last stage also computes the output matrix and the loss.
/// With more stages than layers the last ranges are empty: such a stage passes its input on, and the last one still has
/// the loss.
///
/// # Errors
/// [`Error::Argument`] for 0 stages.
pub fn split_layers(layers: usize, stages: usize) -> Result<Vec<Range<usize>>> {
    if stages == 0 {
        return Err(Error::argument("split_layers", "expected at least 1 stage, got 0"));
    }
    let (each, extra) = (layers / stages, layers % stages);
    let start = |stage: usize| stage * each + stage.min(extra);
    Ok((0..stages).map(|stage| start(stage)..start(stage + 1)).collect())
}

/// A part that only the stage at one end of a model has.
///
/// # Errors
/// [`Error::Argument`] on any other stage.
pub(crate) fn at_end<T>(part: Option<T>, what: &'static str, end: &str, stage: &Stage) -> Result<T> {
    part.ok_or_else(|| {
        let message = format!("only the {end} stage has this part; this one holds layers {:?}", stage.layers);
        Error::argument(what, message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_cover_all_layers_evenly() {
        for layers in 0..20 {
            for stages in 1..9 {
                let parts = split_layers(layers, stages).unwrap();
                assert_eq!((parts.len(), parts[0].start, parts[stages - 1].end), (stages, 0, layers));
                assert!(parts.windows(2).all(|w| w[0].end == w[1].start && w[0].len() >= w[1].len()));
                assert!(parts[0].len() - parts[stages - 1].len() <= 1);
            }
        }
        assert_eq!(split_layers(3, 4).unwrap(), [0..1, 1..2, 2..3, 3..3]);
        assert!(split_layers(3, 0).is_err());
    }

    #[test]
    fn only_the_ends_are_first_and_last() {
        let stages = Stage::split(3, 2).unwrap();
        assert_eq!(stages[0], Stage { layers: 0..2, first: true, last: false });
        assert_eq!(stages[1], Stage { layers: 2..3, first: false, last: true });
        assert_eq!(Stage::split(5, 1).unwrap(), [Stage::whole(5)]);
    }
}
