//! Pictures ahead of the step that needs them: decoded once each, in background threads, within a budget of memory.

use super::error::{DataError, PictureProblem};
use super::guard::caught;
use super::picture::{Encoded, PictureLimits, PictureRef, Square, Tile, cut, rgb_to_pixels};
use super::{DrawItem, ImageItem, StepPlan};
use image::RgbImage;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// Background threads that decode pictures, in the order in which steps will need them.
///
/// What is decoded stays until its step is over, as schedules may look at a picture twice. Where that would go over the
/// budget, it makes room, what was already used first, and is decoded again if it is asked for again. A picture that a
/// rank waits for comes before all others, so that any budget that holds each picture alone is enough.
#[derive(Debug)]
pub struct Prefetcher {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

/// Something of a step that has a picture.
#[derive(Clone, Copy, Debug)]
pub enum StepItem<'a> {
    /// To be read by the encoder.
    Image(&'a ImageItem),
    /// To be drawn by the generator.
    Draw(&'a DrawItem),
}

/// The pictures of one step. Dropping it frees them.
#[derive(Debug)]
pub struct StepPictures {
    shared: Arc<Shared>,
    /// By picture and square: the job, and which of its squares.
    places: HashMap<(PictureRef, Square), (u64, usize)>,
    /// The step's first job, and the one after its last.
    jobs: std::ops::Range<u64>,
}

#[derive(Debug)]
struct Shared {
    /// The most memory for pictures, in bytes, those being decoded included: `limits.bytes`.
    limits: PictureLimits,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// By number; lower ones are needed earlier.
    jobs: BTreeMap<u64, Job>,
    next: u64,
    /// Bytes that pictures take, and those being decoded will.
    used: u64,
    /// The most that was ever used.
    peak: u64,
    closed: bool,
}

/// A picture that a step needs, and the squares of it.
#[derive(Debug)]
struct Job {
    picture: PictureRef,
    squares: Arc<[Square]>,
    stage: Stage,
    /// Ranks that wait for it.
    waiting: usize,
    /// Whether a rank has had it.
    used: bool,
    /// What decoding it takes, in bytes: the file alone until its header has been read.
    cost: u64,
}

#[derive(Clone, Debug)]
enum Stage {
    /// To be decoded.
    Queued,
    /// Had to make room after it was used; decoded again when it is asked for.
    Dropped,
    Running,
    Ready(Arc<[RgbImage]>),
    Failed(PictureProblem),
}

impl Job {
    /// Bytes of its squares.
    fn bytes(&self) -> u64 {
        self.squares.iter().map(|square| square.bytes()).sum()
    }

    fn is_ready(&self) -> bool {
        matches!(self.stage, Stage::Ready(_))
    }
}

impl Prefetcher {
    /// Starts `threads` threads (at least one) that keep within `limits.bytes` together.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn new(limits: PictureLimits, threads: usize) -> std::io::Result<Self> {
        let shared = Arc::new(Shared { limits, state: Mutex::default(), changed: Condvar::new() });
        let mut prefetcher = Prefetcher { shared, workers: Vec::new() };
        for _ in 0..threads.max(1) {
            let shared = Arc::clone(&prefetcher.shared);
            let worker = std::thread::Builder::new().name("pictures".into()).spawn(move || shared.work())?;
            prefetcher.workers.push(worker);
        }
        Ok(prefetcher)
    }

    /// Queues all pictures of a step behind those of all steps before.
    pub fn step(&self, plan: &StepPlan) -> StepPictures {
        self.items(plan.microbatches.iter().flat_map(|load| {
            load.images.iter().map(StepItem::Image).chain(load.draws.iter().map(StepItem::Draw))
        }))
    }

    /// Queues the pictures of some items of a step, in that order, behind those of all steps before.
    pub fn items<'p>(&self, items: impl IntoIterator<Item = StepItem<'p>>) -> StepPictures {
        let mut order: Vec<(PictureRef, Vec<Square>)> = Vec::new();
        let mut known = HashMap::<PictureRef, usize>::new();
        let mut want = |picture: &PictureRef, square: Square| {
            let at = *known.entry(picture.clone()).or_insert(order.len());
            if at == order.len() {
                order.push((picture.clone(), Vec::new()));
            }
            if !order[at].1.contains(&square) {
                order[at].1.push(square);
            }
        };
        for item in items {
            match item {
                StepItem::Image(item) => want(&item.picture, image_square(item)),
                StepItem::Draw(item) => want(&item.picture, draw_square(item)),
            }
        }
        // Files are looked at before the lock is taken, for which ranks may be waiting.
        let most = self.shared.limits.bytes;
        let cost = |picture: &PictureRef| picture.encoded_len().ok().flatten().unwrap_or(0).min(most);
        let costs: Vec<u64> = order.iter().map(|(picture, _)| cost(picture)).collect();
        let mut state = self.shared.lock();
        let first = state.next;
        let mut places = HashMap::new();
        for ((picture, squares), cost) in order.into_iter().zip(costs) {
            let number = state.next;
            state.next += 1;
            let keys = squares.iter().enumerate();
            places.extend(keys.map(|(i, square)| ((picture.clone(), *square), (number, i))));
            let (squares, stage) = (squares.into(), Stage::Queued);
            state.jobs.insert(number, Job { picture, squares, stage, waiting: 0, used: false, cost });
        }
        let jobs = first..state.next;
        drop(state);
        self.shared.changed.notify_all();
        StepPictures { shared: Arc::clone(&self.shared), places, jobs }
    }

    /// Bytes that pictures take, those being decoded included.
    pub fn used_bytes(&self) -> u64 {
        self.shared.lock().used
    }

    /// The most bytes that pictures have taken, those being decoded included.
    pub fn peak_bytes(&self) -> u64 {
        self.shared.lock().peak
    }
}

impl Drop for Prefetcher {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.changed.notify_all();
        for worker in self.workers.drain(..) {
            // A worker catches what decoders do; one that panicked all the same has nothing left to tell.
            let _ = worker.join();
        }
    }
}

impl StepPictures {
    /// Pixels of an encoder item: `[3, size, size]` in [-1, 1]. Waits for a picture that is not decoded yet.
    ///
    /// # Errors
    /// When the picture cannot be decoded; names its record.
    pub fn image(&self, item: &ImageItem) -> Result<Vec<f32>, DataError> {
        self.pixels(&item.picture, image_square(item))
    }

    /// Pixels of a picture to be drawn, likewise.
    ///
    /// # Errors
    /// As [`StepPictures::image`].
    pub fn draw(&self, item: &DrawItem) -> Result<Vec<f32>, DataError> {
        self.pixels(&item.picture, draw_square(item))
    }

    /// Waits until every picture is decoded.
    ///
    /// # Errors
    /// For the first that cannot be.
    pub fn ready(&self) -> Result<(), DataError> {
        self.failures().into_iter().next().map_or(Ok(()), |(_, error)| Err(error))
    }

    /// Waits until every picture was decoded or could not be, and returns the errors of those that could not, with
    /// their pictures.
    pub fn failures(&self) -> Vec<(PictureRef, DataError)> {
        let mut failures = Vec::new();
        for number in self.jobs.clone() {
            if let Err((picture, problem)) = self.wait(number, false) {
                let error = picture.error(problem);
                failures.push((picture, error));
            }
        }
        failures
    }

    fn pixels(&self, picture: &PictureRef, square: Square) -> Result<Vec<f32>, DataError> {
        let Some(&(number, at)) = self.places.get(&(picture.clone(), square)) else {
            return Err(DataError::Value(format!("picture {picture} is not one of the step's")));
        };
        let squares = self.wait(number, true).map_err(|(picture, problem)| picture.error(problem))?;
        Ok(squares.get(at).map(rgb_to_pixels).unwrap_or_default())
    }

    /// Waits for a picture. `used`: for good, so that it may make room from now on.
    fn wait(&self, number: u64, used: bool) -> Result<Arc<[RgbImage]>, (PictureRef, PictureProblem)> {
        let mut state = self.shared.lock();
        let mut is_counted = false;
        loop {
            let Some(job) = state.jobs.get_mut(&number) else { return Ok([].into()) };
            let outcome = match &job.stage {
                Stage::Ready(squares) => Some(Ok(Arc::clone(squares))),
                Stage::Failed(problem) => Some(Err((job.picture.clone(), problem.clone()))),
                Stage::Dropped | Stage::Queued | Stage::Running => None,
            };
            if let Some(outcome) = outcome {
                job.waiting -= usize::from(is_counted);
                job.used |= used;
                // Another job may now take its room.
                self.shared.changed.notify_all();
                return outcome;
            }
            let is_dropped = matches!(job.stage, Stage::Dropped);
            if is_dropped {
                job.stage = Stage::Queued;
            }
            // Told once: ranks that tell each other each time they wake would never sleep.
            if !is_counted || is_dropped {
                job.waiting += usize::from(!is_counted);
                is_counted = true;
                self.shared.changed.notify_all();
            }
            state = self.shared.wait(state);
        }
    }
}

impl Drop for StepPictures {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        for number in self.jobs.clone() {
            // What a worker has in hand it puts down itself.
            if let Some(job) = state.jobs.remove(&number).filter(Job::is_ready) {
                state.used -= job.bytes();
            }
        }
        drop(state);
        self.shared.changed.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock halfway through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// What a thread does until the prefetcher is dropped.
    fn work(&self) {
        let mut state = self.lock();
        while !state.closed {
            let Some((number, cost)) = state.start(self.limits.bytes) else {
                state = self.wait(state);
                continue;
            };
            let Some(job) = state.jobs.get(&number) else { continue };
            let (picture, squares) = (job.picture.clone(), Arc::clone(&job.squares));
            drop(state);
            let mut reserved = cost;
            let loaded = self.load(number, &picture, &squares, &mut reserved);
            state = self.lock();
            state.used -= reserved;
            state.end(number, loaded);
            self.changed.notify_all();
        }
    }

    /// Reads and decodes a picture for which `reserved` bytes were set aside; sets more aside where it can.
    fn load(&self, number: u64, picture: &PictureRef, squares: &[Square], reserved: &mut u64) -> Loaded {
        let load = || {
            let encoded = match Encoded::read(picture, &self.limits) {
                Ok(encoded) => encoded,
                Err(problem) => return Loaded::Failed(problem),
            };
            let cost = encoded.cost(squares);
            if let Err(problem) = self.limits.check_bytes(cost) {
                return Loaded::Failed(problem);
            }
            let more = cost.saturating_sub(*reserved);
            if !self.lock().reserve(number, more, self.limits.bytes) {
                return Loaded::Costs(cost);
            }
            *reserved += more;
            match encoded.decode(&self.limits).and_then(|image| cut(&image, squares)) {
                Ok(squares) => Loaded::Squares(squares.into()),
                Err(problem) => Loaded::Failed(problem),
            }
        };
        // Ranks wait for this thread: it must outlive a decoder that panics on a file that was made for that.
        caught(load).unwrap_or_else(|| {
            Loaded::Failed(PictureProblem(
                "cannot be decoded: the decoder failed; is the file damaged?".into(),
            ))
        })
    }
}

/// What became of a picture.
enum Loaded {
    Squares(Arc<[RgbImage]>),
    /// It needs more room than was set aside.
    Costs(u64),
    Failed(PictureProblem),
}

impl State {
    /// The next job to be run, with the bytes set aside for it; none when there is none, or no room for it.
    fn start(&mut self, budget: u64) -> Option<(u64, u64)> {
        let queued = self.jobs.iter().filter(|(_, job)| matches!(job.stage, Stage::Queued));
        let (&number, job) = queued.min_by_key(|(number, job)| (job.waiting == 0, **number))?;
        let cost = job.cost;
        if !self.reserve(number, cost, budget) {
            return None;
        }
        self.jobs.get_mut(&number)?.stage = Stage::Running;
        Some((number, cost))
    }

    /// Sets `cost` bytes aside for a job, if there is room or can be made.
    fn reserve(&mut self, number: u64, cost: u64, budget: u64) -> bool {
        let is_awaited = self.jobs.get(&number).is_some_and(|job| job.waiting > 0);
        if !self.make_room(number, cost, is_awaited, budget) {
            return false;
        }
        self.used += cost;
        self.peak = self.peak.max(self.used);
        true
    }

    /// Drops pictures until `cost` more bytes fit: those that were used, then those that are needed after `number`, the
    /// last first; and for one that a rank waits for, any that no rank waits for.
    fn make_room(&mut self, number: u64, cost: u64, is_awaited: bool, budget: u64) -> bool {
        while self.used + cost > budget {
            let free = self.jobs.iter().filter(|(_, job)| job.is_ready() && job.waiting == 0);
            let may_go = free.filter(|(other, job)| job.used || is_awaited || **other > number);
            let Some((&other, _)) = may_go.max_by_key(|(other, job)| (job.used, **other)) else {
                return false;
            };
            let Some(job) = self.jobs.get_mut(&other) else { return false };
            self.used -= job.bytes();
            job.stage = if job.used { Stage::Dropped } else { Stage::Queued };
        }
        true
    }

    /// Notes what became of a job, if its step is not over.
    fn end(&mut self, number: u64, loaded: Loaded) {
        let Some(job) = self.jobs.get_mut(&number) else { return };
        job.stage = match loaded {
            Loaded::Failed(problem) => Stage::Failed(problem),
            Loaded::Costs(cost) => {
                job.cost = cost;
                Stage::Queued
            }
            Loaded::Squares(squares) => {
                self.used += job.bytes();
                Stage::Ready(squares)
            }
        };
    }
}

fn image_square(item: &ImageItem) -> Square {
    Square { tile: item.tile, size: item.size as u32 }
}

fn draw_square(item: &DrawItem) -> Square {
    Square { tile: Tile::Whole, size: item.size as u32 }
}
