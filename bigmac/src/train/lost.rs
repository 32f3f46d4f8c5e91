//! Samples that a step goes without, as their pictures cannot be used: every process decodes its own items only, and all
//! have to leave out the same.

use super::TrainError;
use super::patient::receive;
use crate::data::{DataError, StepPictures, StepPlan};
use bigmac_comm::{Communicator, Tag};
use bigmac_runtime::{Context, DType, Spec, Tensor};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashSet};

/// Two messages a step and rank: the length of a list, and the list.
const LENGTH: Tag = Tag(0);
const LIST: Tag = Tag(1);

/// Samples that cannot be used.
#[derive(Debug, Default)]
pub(super) struct Lost {
    /// Their numbers in the step.
    pub samples: BTreeSet<u32>,
    /// Why, with the picture's place: each picture once, whatever records name it.
    pub errors: Vec<(String, DataError)>,
}

impl Lost {
    /// What a process finds among its own pictures, once all of them were decoded or could not be.
    pub fn of(pictures: &StepPictures, plan: &StepPlan) -> Lost {
        let failures = pictures.failures();
        let lost: HashSet<_> = failures.iter().map(|(picture, _)| picture).collect();
        let mut samples = BTreeSet::new();
        for load in &plan.microbatches {
            let images = load.images.iter().map(|item| (&item.picture, item.sample));
            let items = images.chain(load.draws.iter().map(|item| (&item.picture, item.sample)));
            samples.extend(items.filter(|(picture, _)| lost.contains(picture)).map(|(_, sample)| sample));
        }
        let named = failures.into_iter().map(|(picture, error)| (picture.place(), error));
        Lost { samples, errors: named.collect() }
    }
}

/// What processes tell each other of them.
#[derive(Serialize, Deserialize)]
struct Told {
    samples: BTreeSet<u32>,
    /// Places of pictures, and what is wrong with them.
    errors: Vec<(String, String)>,
}

impl Told {
    fn of(lost: &Lost) -> Told {
        let errors = lost.errors.iter().map(|(picture, error)| (picture.clone(), error.to_string()));
        Told { samples: lost.samples.clone(), errors: errors.collect() }
    }

    fn to_bytes(&self) -> Vec<u8> {
        // Numbers and text always have a JSON form.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

/// What all processes have lost together, in rank order; the same on each. A process may be late, as rank 0 writes files
/// and draws samples between steps: it is waited for as long as it lives.
///
/// # Errors
/// Those of the communicator.
pub(super) fn lost_samples(ctx: &Context, comm: &dyn Communicator, mine: Lost) -> Result<Lost, TrainError> {
    let ctx = &ctx.host();
    let mut all = Vec::new();
    if comm.rank() == 0 {
        all.push(Told::of(&mine).to_bytes());
        for peer in 1..comm.size() {
            all.push(receive_bytes(ctx, comm, peer)?);
        }
        let together = serde_json::to_vec(&all).unwrap_or_default();
        for peer in 1..comm.size() {
            send_bytes(ctx, comm, peer, &together)?;
        }
    } else {
        send_bytes(ctx, comm, 0, &Told::of(&mine).to_bytes())?;
        let together = receive_bytes(ctx, comm, 0)?;
        all = serde_json::from_slice(&together).map_err(|_| garbled(comm, 0))?;
    }
    let (mut lost, mut said) = (Lost::default(), BTreeSet::new());
    for (rank, bytes) in all.iter().enumerate() {
        let Told { samples, errors } = serde_json::from_slice(bytes).map_err(|_| garbled(comm, rank))?;
        lost.samples.extend(samples);
        let new = errors.into_iter().filter(|(picture, _)| said.insert(picture.clone()));
        lost.errors.extend(new.map(|(picture, error)| (picture, DataError::Value(error))));
    }
    Ok(lost)
}

fn garbled(comm: &dyn Communicator, peer: usize) -> TrainError {
    let message = format!("rank {peer} sent a list of lost samples that cannot be read");
    TrainError::Rank { rank: comm.rank(), message }
}

fn send_bytes(ctx: &Context, comm: &dyn Communicator, to: usize, bytes: &[u8]) -> Result<(), TrainError> {
    comm.send(ctx, Tensor::from_slice(ctx, &[bytes.len() as u32], &[1])?, to, LENGTH)?;
    Ok(comm.send(ctx, Tensor::from_slice(ctx, bytes, &[bytes.len()])?, to, LIST)?)
}

fn receive_bytes(ctx: &Context, comm: &dyn Communicator, from: usize) -> Result<Vec<u8>, TrainError> {
    let length = receive(ctx, comm, from, LENGTH, &Spec::new(&[1], DType::U32))?;
    let length = length.as_slice::<u32>()?.first().map_or(0, |length| *length as usize);
    let bytes = receive(ctx, comm, from, LIST, &Spec::new(&[length], DType::U8))?;
    Ok(bytes.as_slice::<u8>()?.to_vec())
}
