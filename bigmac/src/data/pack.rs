//! The plan of one step: which samples, packed into which microbatch, as a pure function of (seed, step).

use super::dataset::Dataset;
use super::error::DataError;
use super::order::EpochOrder;
use super::picture::{PictureLimits, PictureRef, Tile, load_square, load_tile};
use super::sample::Layout;
use bigmac_runtime::rng::Purpose;
use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::ops::Range;
use std::sync::Arc;

const ORDER: Purpose = Purpose::new("data order");

/// How a step is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepShape {
    /// Samples per step, over all ranks.
    pub batch: usize,
    /// Fewest microbatches of each replica; there are more when the samples do not fit.
    pub microbatches: usize,
    /// Pipelines that share the step.
    pub replicas: usize,
    /// Seed of the order.
    pub seed: u64,
}

/// One step's work.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepPlan {
    /// The microbatches; each holds at least one sample.
    pub microbatches: Vec<PackedMicrobatch>,
    /// Positions with a token loss in the whole step: what the token loss is divided by.
    pub target_tokens: usize,
    /// Pictures to be drawn in the whole step.
    pub drawn_samples: usize,
    /// Values of those pictures (3 * side^2 each): what the drawing loss is divided by.
    pub drawn_elements: usize,
}

impl StepPlan {
    /// What one of `replicas` pipelines does of the step: every so many-th microbatch, as the longest samples come first.
    /// Counts stay those of the whole step, which losses are divided by.
    pub fn of_replica(&self, replica: usize, replicas: usize) -> StepPlan {
        let own = self.microbatches.iter().skip(replica).step_by(replicas.max(1));
        StepPlan { microbatches: own.cloned().collect(), ..*self }
    }
}

/// Samples laid end to end; attention stays inside each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PackedMicrobatch {
    /// Token ids.
    pub tokens: Vec<u32>,
    /// The next token where it carries loss, else [`super::IGNORE`].
    pub targets: Vec<i32>,
    /// Positions, from 0 in each sample.
    pub positions: Vec<u32>,
    /// Where each sample begins, and after them the number of tokens: one more than there are samples.
    pub bounds: Vec<usize>,
    /// For each sample its number in the step (0..batch): with seed and step it keys every random number drawn for it.
    pub samples: Vec<u32>,
    /// For each sample its index in the data set.
    pub records: Vec<usize>,
    /// Encoder items: one per tile.
    pub images: Vec<ImageItem>,
    /// Generator items: one per picture to be drawn.
    pub draws: Vec<DrawItem>,
}

/// A square for the encoder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageItem {
    /// The picture.
    pub picture: PictureRef,
    /// Which square of it.
    pub tile: Tile,
    /// Side in pixels.
    pub size: usize,
    /// Rows of the microbatch's tokens that its embeddings take.
    pub rows: Range<usize>,
    /// The sample's number in the step.
    pub sample: u32,
}

/// A picture for the generator to learn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrawItem {
    /// The picture.
    pub picture: PictureRef,
    /// Side in pixels.
    pub size: usize,
    /// Rows of the microbatch's tokens whose hidden states condition it: the sample's tokens before `<draw>`.
    pub cond_rows: Range<usize>,
    /// The sample's number in the step.
    pub sample: u32,
}

/// Plans steps; holds no state but its settings, so that any step can be asked for at any time.
#[derive(Clone, Debug)]
pub struct Planner {
    dataset: Arc<Dataset>,
    shape: StepShape,
    order: EpochOrder,
}

impl Planner {
    /// A planner over `dataset`.
    ///
    /// # Errors
    /// When a step would have no sample, or fewer samples than microbatches.
    pub fn new(dataset: Arc<Dataset>, shape: StepShape) -> Result<Self, DataError> {
        check_counts(shape.batch, shape.microbatches.saturating_mul(shape.replicas))?;
        let order = EpochOrder::new(shape.seed, ORDER, dataset.len());
        Ok(Planner { dataset, shape, order })
    }

    /// The data set.
    pub fn dataset(&self) -> &Dataset {
        &self.dataset
    }

    /// Data set indices of the samples of `step` (from 0), in the order of the stream.
    pub fn records(&self, step: u64) -> Vec<usize> {
        let first = step * self.shape.batch as u64;
        (first..first + self.shape.batch as u64).map(|place| self.order.at(place)).collect()
    }

    /// The plan of `step` (from 0): samples `[step * batch, (step + 1) * batch)` of the endless shuffled stream.
    pub fn step(&self, step: u64) -> StepPlan {
        self.pack(step, |_| true)
    }

    /// The same without some of the samples, given by their numbers in the step. Those that are left keep theirs, and
    /// with them their random numbers.
    pub fn step_without(&self, step: u64, left_out: &BTreeSet<u32>) -> StepPlan {
        self.pack(step, |number| !left_out.contains(&number))
    }

    fn pack(&self, step: u64, keeps: impl Fn(u32) -> bool) -> StepPlan {
        let numbered = (0..).zip(self.records(step)).filter(|(number, _)| keeps(*number));
        let StepShape { microbatches, replicas, .. } = self.shape;
        let counts = GroupCounts { fewest: microbatches * replicas, multiple: replicas };
        pack_checked(&self.dataset, &numbered.collect::<Vec<_>>(), counts)
    }
}

/// Packs the samples `records` (data set indices) into at least `microbatches` microbatches, as [`Planner::step`] does;
/// for evaluation, where the order is that of the file.
///
/// # Errors
/// When there is no record, no microbatch wanted, fewer records than microbatches, or an index past the data set.
pub fn pack(dataset: &Dataset, records: &[usize], microbatches: usize) -> Result<StepPlan, DataError> {
    check_counts(records.len(), microbatches)?;
    if let Some(record) = records.iter().find(|&&record| record >= dataset.len()) {
        let (file, len) = (dataset.file.display(), dataset.len());
        return Err(DataError::Value(format!("{file} has no sample {record}: it has {len}, counted from 0")));
    }
    let counts = GroupCounts { fewest: microbatches, multiple: 1 };
    Ok(pack_checked(dataset, &(0..).zip(records.iter().copied()).collect::<Vec<_>>(), counts))
}

fn check_counts(batch: usize, microbatches: usize) -> Result<(), DataError> {
    if microbatches == 0 || batch < microbatches {
        return Err(DataError::Value(format!(
            "a batch of {batch} samples cannot fill {microbatches} microbatches; give every microbatch at least one \
             sample: raise batch or lower microbatches (both at least 1)"
        )));
    }
    Ok(())
}

/// `records`: numbers in the step, and indices in the data set.
fn pack_checked(dataset: &Dataset, records: &[(u32, usize)], counts: GroupCounts) -> StepPlan {
    let samples = &dataset.samples;
    let lengths: Vec<usize> = records.iter().map(|&(_, record)| samples[record].len()).collect();
    let layout = &dataset.layout;
    let groups = balance(&lengths, counts, layout.tokens_per_microbatch);
    let mut plan = StepPlan::default();
    for group in groups {
        let mut packed = PackedMicrobatch { bounds: vec![0], ..PackedMicrobatch::default() };
        for (number, record) in group.into_iter().map(|at| records[at]) {
            plan.target_tokens += samples[record].target_tokens as usize;
            packed.push(dataset, record, number);
        }
        plan.drawn_samples += packed.draws.len();
        plan.microbatches.push(packed);
    }
    plan.drawn_elements = plan.drawn_samples * drawn_elements(layout);
    plan
}

/// Values of one drawn picture.
fn drawn_elements(layout: &Layout) -> usize {
    3 * layout.draw_size * layout.draw_size
}

/// How many groups there may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct GroupCounts {
    /// At least so many.
    pub fewest: usize,
    /// A multiple of this, so that replicas get as many each, where there are items enough.
    pub multiple: usize,
}

/// Items per group: the fewest groups that `counts` allows for which longest-first assignment to the lightest group
/// (Graham, 1969) keeps every group within `capacity`. Groups list their items in ascending order; none is empty, unless
/// there is no item.
pub(super) fn balance(lengths: &[usize], counts: GroupCounts, capacity: usize) -> Vec<Vec<usize>> {
    let mut longest_first: Vec<usize> = (0..lengths.len()).collect();
    longest_first.sort_by_key(|&i| (Reverse(lengths[i]), i));
    let total: usize = lengths.iter().sum();
    let multiple = counts.multiple.max(1);
    // Samples that were left out may leave fewer than there are to be groups.
    let most = lengths.len().max(1);
    let fewest = counts.fewest.max(total.div_ceil(capacity.max(1))).max(1);
    let mut count = fewest.next_multiple_of(multiple).min(most);
    loop {
        let mut groups = vec![Vec::new(); count];
        let mut fits = true;
        // Lightest first; among equals the one with the fewest items, then the first.
        let mut heap: BinaryHeap<Reverse<(usize, usize, usize)>> =
            (0..count).map(|g| Reverse((0, 0, g))).collect();
        for &item in &longest_first {
            let Some(Reverse((load, items, group))) = heap.pop() else { break };
            fits &= load + lengths[item] <= capacity;
            groups[group].push(item);
            heap.push(Reverse((load + lengths[item], items + 1, group)));
        }
        // One item per group is the most that splitting can do; loading has refused longer samples.
        if fits || count >= most {
            groups.iter_mut().for_each(|group| group.sort_unstable());
            return groups;
        }
        count = (count + multiple).min(most);
    }
}

impl PackedMicrobatch {
    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether it holds no token; no planned microbatch does.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    fn push(&mut self, dataset: &Dataset, record: usize, sample: u32) {
        let expanded = dataset.expand(record);
        let layout = &dataset.layout;
        let start = self.tokens.len();
        let end = start + expanded.tokens.len();
        self.positions.extend(0..expanded.tokens.len() as u32);
        self.tokens.extend(expanded.tokens);
        self.targets.extend(expanded.targets);
        self.bounds.push(end);
        self.samples.push(sample);
        self.records.push(record);
        self.images.extend(expanded.images.into_iter().map(|placed| ImageItem {
            picture: placed.picture,
            tile: placed.tile,
            size: layout.image_size,
            rows: start + placed.rows.start..start + placed.rows.end,
            sample,
        }));
        let picture = &dataset.samples[record].draw;
        if let (Some(picture), Some(at)) = (picture, expanded.draw_at) {
            let cond_rows = start..start + at;
            self.draws.push(DrawItem { picture: picture.clone(), size: layout.draw_size, cond_rows, sample });
        }
    }
}

/// Pixels of an encoder item: `[3, size, size]` in [-1, 1].
///
/// # Errors
/// When the picture cannot be decoded; names the data set's line.
pub fn load_image_item(item: &ImageItem, limits: &PictureLimits) -> Result<Vec<f32>, DataError> {
    load_tile(&item.picture, item.tile, item.size, limits)
}

/// Pixels of a picture to be drawn: `[3, size, size]` in [-1, 1].
///
/// # Errors
/// When the picture cannot be decoded; names the data set's line.
pub fn load_draw_item(item: &DrawItem, limits: &PictureLimits) -> Result<Vec<f32>, DataError> {
    load_square(&item.picture, item.size, limits)
}
