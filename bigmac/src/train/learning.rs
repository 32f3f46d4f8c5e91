//! What can learn from what: of a step, of a data set, of a run that goes on.

use super::{Checkpoint, Session, TrainError};
use crate::config::{ParameterGroup, PerGroup};
use crate::data::{Dataset, StepPlan};
use crate::model::ModelShape;
use bigmac_models::stage::Stage;
use bigmac_runtime::Result;
use bigmac_schedule::{ModuleKind, PerModule};
use std::collections::BTreeMap;

/// The modules that get a gradient in a step, where they learn: encoder and projector from its images, the generator
/// from its drawings. It follows from the plan, so that all ranks agree.
pub fn gets_gradient(plan: &StepPlan) -> PerModule<bool> {
    let loads = &plan.microbatches;
    PerModule {
        encoder: loads.iter().any(|load| !load.images.is_empty()),
        llm: !loads.is_empty(),
        generator: loads.iter().any(|load| !load.draws.is_empty()),
    }
}

/// Checks that something that is not frozen gets a gradient from some sample of the training set.
///
/// # Errors
/// [`TrainError::NothingLearns`] with what is frozen and what the data lacks.
pub fn check_learns(session: &Session) -> std::result::Result<(), TrainError> {
    let data = session.planner.dataset();
    match lacks(session.config.model.frozen(), data) {
        Some(lacks) => Err(TrainError::NothingLearns {
            frozen: session.config.model.frozen().listed(),
            lacks,
            data: data.file.clone(),
        }),
        None => Ok(()),
    }
}

/// What the samples lack for anything to learn from them; `None` where something can.
fn lacks(frozen: PerGroup<bool>, data: &Dataset) -> Option<&'static str> {
    let learns = frozen.learns();
    let has_image = || data.samples.iter().any(|sample| !sample.images.is_empty());
    let has_drawing = || data.samples.iter().any(|sample| sample.draw.is_some());
    if learns.llm || learns.encoder && has_image() || learns.generator && has_drawing() {
        return None;
    }
    Some(match (learns.encoder, learns.generator) {
        (true, true) => "an image or a picture to draw",
        (true, false) => "an image",
        _ => "a picture to draw",
    })
}

/// A sentence on each group of parameters that begins to learn now: the checkpoint has no optimizer state of it.
///
/// # Errors
/// For a shape that does not fit.
pub fn beginners(checkpoint: &Checkpoint, shape: &ModelShape) -> Result<Vec<String>> {
    let mut counts = BTreeMap::<ParameterGroup, usize>::new();
    for kind in ModuleKind::ALL {
        let specs = shape.specs(kind, &Stage::whole(shape.layers(kind)))?;
        for spec in specs.iter().filter(|spec| spec.trainable && !checkpoint.has_state(spec)) {
            *counts.entry(ParameterGroup::of(kind, &spec.name)).or_default() += 1;
        }
    }
    let sentence = |(group, count): (ParameterGroup, usize)| {
        let parameters = if count == 1 { "parameter begins" } else { "parameters begin" };
        format!(
            "{count} {parameters} to learn of the {}: the checkpoint has no optimizer state of what was frozen, so moments \
             start from zero",
            group.name()
        )
    };
    Ok(counts.into_iter().map(sentence).collect())
}
