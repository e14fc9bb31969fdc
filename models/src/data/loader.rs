//! Batches in an order that depends on the seed alone, made ahead of time by worker threads, and resumable anywhere.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use serde::{Deserialize, Serialize};

use super::{Augment, Dataset, ImageShape};
use crate::error::{Error, Result};
use crate::random::{Draws, Purpose};

/// A place in the endless sequence of batches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Position {
    /// Passes over the data set that are complete.
    pub epoch: u64,
    /// Batches of this epoch that came before.
    pub batch: u64,
}

/// How a [`Loader`] works.
#[derive(Clone, Debug)]
pub struct LoaderOptions {
    /// Samples a batch.
    pub batch_size: usize,
    /// Seed of the order and of the augmentation.
    pub seed: u64,
    /// A new order every epoch; otherwise that of the data set.
    pub shuffle: bool,
    /// Leave out an epoch's last batch if it is not full; otherwise it is delivered short.
    pub drop_last: bool,
    /// Worker threads; 0 makes each batch when it is asked for (always so on wasm, where there are no threads).
    pub workers: usize,
    /// Batches made ahead of the consumer (at least 1 counts).
    pub prefetch: usize,
    /// What is done to each image.
    pub augment: Augment,
    /// Stop when this many epochs are complete (counted from the beginning, not from the start position); None goes on
    /// for ever.
    pub epochs: Option<u64>,
}

impl LoaderOptions {
    /// For training: shuffled, full batches only, without end.
    pub fn train(batch_size: usize, seed: u64, workers: usize, augment: Augment) -> Self {
        let prefetch = 2 * workers;
        Self { batch_size, seed, shuffle: true, drop_last: true, workers, prefetch, augment, epochs: None }
    }

    /// For evaluation: every sample once, in order; the last batch may be short.
    pub fn eval(batch_size: usize, workers: usize, augment: Augment) -> Self {
        let prefetch = 2 * workers;
        Self { batch_size, seed: 0, shuffle: false, drop_last: false, workers, prefetch, augment, epochs: Some(1) }
    }
}

/// Some samples, ready for the model.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// `[B, C, H, W]`, normalised.
    pub images: Vec<f32>,
    /// `[B]`.
    pub labels: Vec<u32>,
    /// `[B]`, the samples' numbers in the data set.
    pub indices: Vec<u32>,
    /// Where this batch stands.
    pub position: Position,
}

impl Batch {
    /// Number of samples B.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// True for no samples; a loader never delivers that.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }
}

/// An iterator over batches. The same options and position give the same batches, whatever the number of workers. An
/// error ends it. Dropping it ends its threads.
pub struct Loader {
    source: Arc<Source>,
    threads: Option<Threads>,
    /// The order of the current epoch, for the loader without threads.
    order: Order,
    next: u64,
    failed: bool,
}

impl Loader {
    /// Starts at `position`. Refused, with the numbers: a batch of 0 samples, an empty data set, and (where only full
    /// batches are delivered) a batch larger than the data set; also numbers of `augment` that do not fit the images.
    pub fn new(dataset: Arc<dyn Dataset>, options: LoaderOptions, position: Position) -> Result<Self> {
        let (samples, size) = (dataset.len(), options.batch_size);
        if size == 0 || samples == 0 || (options.drop_last && size > samples) {
            return Err(Error::BadInput(format!(
                "cannot make batches of {size} from the {samples} images of the data set {}; \
                 set train.batch_size between 1 and {samples}",
                dataset.name()
            )));
        }
        options.augment.check(dataset.image_shape().channels)?;
        let batches_per_epoch = if options.drop_last { samples / size } else { samples.div_ceil(size) } as u64;
        if position.batch >= batches_per_epoch {
            return Err(Error::BadInput(format!(
                "cannot go on at batch {} of an epoch of {batches_per_epoch} batches; \
                 the data set or the batch size has changed since",
                position.batch
            )));
        }
        let before = position.epoch.checked_mul(batches_per_epoch);
        let Some(next) = before.and_then(|before| before.checked_add(position.batch)) else {
            return Err(Error::BadInput(format!(
                "cannot go on at epoch {}: so many batches cannot be counted; the checkpoint is damaged, use another",
                position.epoch
            )));
        };
        let workers = if cfg!(target_family = "wasm") { 0 } else { options.workers };
        let source = Arc::new(Source { dataset, options, batches_per_epoch });
        let threads = if workers == 0 { None } else { Some(Threads::start(&source, workers, next)?) };
        Ok(Self { source, threads, order: Order::default(), next, failed: false })
    }

    /// Batches in an epoch.
    pub fn batches_per_epoch(&self) -> u64 {
        self.source.batches_per_epoch
    }

    /// Where the next batch stands: what a checkpoint keeps.
    pub fn position(&self) -> Position {
        self.source.position(self.next)
    }
}

impl Iterator for Loader {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Result<Batch>> {
        if self.failed || self.source.is_past_end(self.next) {
            return None;
        }
        let batch = match &self.threads {
            Some(threads) => threads.take(self.next),
            None => self.source.build(self.next, &mut self.order),
        };
        self.failed = batch.is_err();
        self.next += u64::from(batch.is_ok());
        Some(batch)
    }
}

/// The order of samples in one epoch, kept from batch to batch.
#[derive(Default)]
struct Order {
    epoch: Option<u64>,
    samples: Vec<u32>,
}

/// Everything a batch is a function of, besides its number.
struct Source {
    dataset: Arc<dyn Dataset>,
    options: LoaderOptions,
    batches_per_epoch: u64,
}

impl Source {
    fn position(&self, number: u64) -> Position {
        Position { epoch: number / self.batches_per_epoch, batch: number % self.batches_per_epoch }
    }

    fn is_past_end(&self, number: u64) -> bool {
        self.options.epochs.is_some_and(|epochs| self.position(number).epoch >= epochs)
    }

    fn build(&self, number: u64, order: &mut Order) -> Result<Batch> {
        let position = self.position(number);
        if order.epoch != Some(position.epoch) {
            order.samples = (0..self.dataset.len() as u32).collect();
            if self.options.shuffle {
                Draws::new(self.options.seed, Purpose::Shuffle, position.epoch, 0).shuffle(&mut order.samples);
            }
            order.epoch = Some(position.epoch);
        }
        let begin = position.batch as usize * self.options.batch_size;
        let end = (begin + self.options.batch_size).min(order.samples.len());
        let indices = order.samples[begin..end].to_vec();
        let shape = self.dataset.image_shape();
        let mut images = vec![0.0; indices.len() * shape.len()];
        let mut labels = Vec::with_capacity(indices.len());
        for (&index, out) in indices.iter().zip(images.chunks_exact_mut(shape.len())) {
            labels.push(self.sample(index, position.epoch, shape, out)?);
        }
        Ok(Batch { images, labels, indices, position })
    }

    /// Writes one augmented image and returns its label.
    fn sample(&self, index: u32, epoch: u64, shape: ImageShape, out: &mut [f32]) -> Result<u32> {
        let sample = self.dataset.get(index as usize)?;
        let name = self.dataset.name();
        let classes = self.dataset.classes().len();
        if sample.label as usize >= classes {
            return Err(Error::BadInput(format!(
                "image {index} of the data set {name} has label {}, but its {classes} classes have labels 0 to {}",
                sample.label,
                classes.saturating_sub(1)
            )));
        }
        if sample.pixels.len() != shape.len() {
            return Err(Error::BadInput(format!(
                "image {index} of the data set {name} has {} values where {shape} has {}",
                sample.pixels.len(),
                shape.len()
            )));
        }
        let mut draws = Draws::new(self.options.seed, Purpose::Augment, epoch, u64::from(index));
        self.options.augment.apply(&sample.pixels, shape, &mut draws, out);
        Ok(sample.label)
    }
}

/// Worker threads and what they share with the consumer.
struct Threads {
    shared: Arc<Shared>,
    handles: Vec<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    /// A batch was finished.
    ready: Condvar,
    /// A batch was taken, or it is time to stop.
    room: Condvar,
}

struct State {
    /// The first batch that no worker has begun.
    unclaimed: u64,
    /// The batch the consumer wants next.
    wanted: u64,
    finished: BTreeMap<u64, Result<Batch>>,
    stop: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock, and the state is consistent between any two statements.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of the next batch to make; waits until there is room for it. None when it is time to stop.
    fn claim(&self, source: &Source) -> Option<u64> {
        let mut state = self.lock();
        loop {
            if state.stop || source.is_past_end(state.unclaimed) {
                return None;
            }
            if state.unclaimed < state.wanted + source.options.prefetch.max(1) as u64 {
                state.unclaimed += 1;
                return Some(state.unclaimed - 1);
            }
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn work(&self, source: &Source) {
        let mut order = Order::default();
        while let Some(number) = self.claim(source) {
            // A data set that panics must not leave the consumer waiting for ever.
            let batch = catch_unwind(AssertUnwindSafe(|| source.build(number, &mut order))).unwrap_or_else(|_| {
                let position = source.position(number);
                Err(Error::Failed(format!(
                    "a loader thread panicked in batch {} of epoch {} of the data set {}",
                    position.batch,
                    position.epoch,
                    source.dataset.name()
                )))
            });
            self.lock().finished.insert(number, batch);
            self.ready.notify_all();
        }
    }
}

impl Threads {
    fn start(source: &Arc<Source>, workers: usize, first: u64) -> Result<Self> {
        let state = State { unclaimed: first, wanted: first, finished: BTreeMap::new(), stop: false };
        let shared = Arc::new(Shared { state: Mutex::new(state), ready: Condvar::new(), room: Condvar::new() });
        let mut threads = Self { shared, handles: Vec::with_capacity(workers) };
        for worker in 0..workers {
            let (shared, source) = (Arc::clone(&threads.shared), Arc::clone(source));
            let handle = std::thread::Builder::new()
                .name(format!("loader {worker}"))
                .spawn(move || shared.work(&source))
                .map_err(|error| Error::Failed(format!("cannot start loader thread {worker}: {error}")))?;
            threads.handles.push(handle);
        }
        Ok(threads)
    }

    fn take(&self, number: u64) -> Result<Batch> {
        let mut state = self.shared.lock();
        loop {
            if let Some(batch) = state.finished.remove(&number) {
                state.wanted = number + 1;
                self.shared.room.notify_all();
                return batch;
            }
            state = self.shared.ready.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.room.notify_all();
        for handle in self.handles.drain(..) {
            // Panics were caught and delivered as errors.
            let _ = handle.join();
        }
    }
}
