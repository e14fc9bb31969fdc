//! Batches in an order that depends on the seed alone, made ahead of time by worker threads, and resumable anywhere.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use serde::{Deserialize, Serialize};

use super::Dataset;
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

/// Which samples make a batch, and all that may decide what is done to them.
#[derive(Clone, Copy, Debug)]
pub struct Picks<'a> {
    /// `[B]`, the samples' numbers in the data set.
    pub indices: &'a [u32],
    /// Where the batch stands.
    pub position: Position,
    /// Seed of the run.
    pub seed: u64,
    /// Where the batch begins among the epoch's samples.
    pub begin: usize,
    /// Times that each sample comes in an epoch, one after the other.
    pub repeats: usize,
}

impl Picks<'_> {
    /// What is drawn for sample number `at` of the batch: the same in whichever batch of the epoch it comes and whichever
    /// thread makes it, and something else each time that it comes.
    pub fn of_sample(&self, purpose: Purpose, at: usize) -> Draws {
        let copy = (self.begin + at) % self.repeats.max(1);
        Draws::new(self.seed, purpose, self.position.epoch, u64::from(self.indices[at])).of_copy(copy as u32)
    }

    /// What is drawn for the batch as a whole.
    pub fn of_batch(&self, purpose: Purpose) -> Draws {
        Draws::new(self.seed, purpose, self.position.epoch, self.position.batch)
    }
}

/// How samples become a batch, and what is done to them on the way: to each by itself, and to all of them together. Several
/// loader threads call it at once. Everything random comes from the [`Picks`], so that a batch is the same however many
/// threads there are and wherever a run resumes.
pub trait Collate<D: Dataset + ?Sized>: Send + Sync + 'static {
    /// Some samples, ready for a model.
    type Batch: Send + 'static;

    /// Whether it goes together with the data set; asked once, before the first batch.
    ///
    /// # Errors
    /// The first setting that does not.
    fn check(&self, dataset: &D) -> Result<()>;

    /// Reads the samples and makes a batch of them.
    ///
    /// # Errors
    /// A sample that cannot be read or is not what its data set says.
    fn collate(&self, dataset: &D, picks: &Picks<'_>) -> Result<Self::Batch>;
}

/// How a [`Loader`] works.
#[derive(Clone, Debug)]
pub struct LoaderOptions<C> {
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
    /// Times that each sample comes in an epoch, one after the other (repeated augmentation, Hoffer et al. 2020). An epoch
    /// has no more samples for that; see [`samples_per_epoch`].
    pub repeats: usize,
    /// What makes a batch of samples.
    pub collate: C,
    /// Stop when this many epochs are complete (counted from the beginning, not from the start position); None goes on
    /// for ever.
    pub epochs: Option<u64>,
}

impl<C> LoaderOptions<C> {
    /// For training: shuffled, full batches only, without end.
    pub fn train(batch_size: usize, seed: u64, workers: usize, collate: C) -> Self {
        let prefetch = 2 * workers;
        Self { batch_size, seed, shuffle: true, drop_last: true, workers, prefetch, repeats: 1, collate, epochs: None }
    }

    /// For evaluation: every sample once, in order; the last batch may be short.
    pub fn eval(batch_size: usize, workers: usize, collate: C) -> Self {
        let prefetch = 2 * workers;
        Self {
            batch_size,
            seed: 0,
            shuffle: false,
            drop_last: false,
            workers,
            prefetch,
            repeats: 1,
            collate,
            epochs: Some(1),
        }
    }
}

/// Samples that an epoch has of a data set of `samples`, where each comes `repeats` times: as many as there are; with
/// repeats, as in DeiT, the largest multiple of 256 of them, unless they are fewer.
pub fn samples_per_epoch(samples: usize, repeats: usize) -> usize {
    if repeats > 1 && samples >= 256 { samples / 256 * 256 } else { samples }
}

/// An iterator over batches. The same options and position give the same batches, whatever the number of workers. An
/// error ends it. Dropping it ends its threads.
pub struct Loader<D: Dataset + ?Sized, C: Collate<D>> {
    source: Arc<Source<D, C>>,
    threads: Option<Threads<C::Batch>>,
    /// The order of the current epoch, for the loader without threads.
    order: Order,
    next: u64,
    failed: bool,
}

impl<D: Dataset + ?Sized + 'static, C: Collate<D>> Loader<D, C> {
    /// Starts at `position`.
    ///
    /// # Errors
    /// With the numbers: a batch of 0 samples, an empty data set, and (where only full batches are delivered) a batch larger
    /// than the data set; also what [`Collate::check`] refuses.
    pub fn new(dataset: Arc<D>, options: LoaderOptions<C>, position: Position) -> Result<Self> {
        let (samples, size) = (samples_per_epoch(dataset.len(), options.repeats), options.batch_size);
        if size == 0 || samples == 0 || (options.drop_last && size > samples) {
            return Err(Error::BadInput(format!(
                "cannot make batches of {size} from the {samples} samples of the data set {}; \
                 set train.batch_size between 1 and {samples}",
                dataset.name()
            )));
        }
        options.collate.check(&dataset)?;
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

impl<D: Dataset + ?Sized + 'static, C: Collate<D>> Iterator for Loader<D, C> {
    type Item = Result<C::Batch>;

    fn next(&mut self) -> Option<Result<C::Batch>> {
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
struct Source<D: ?Sized, C> {
    dataset: Arc<D>,
    options: LoaderOptions<C>,
    batches_per_epoch: u64,
}

impl<D: Dataset + ?Sized, C: Collate<D>> Source<D, C> {
    fn position(&self, number: u64) -> Position {
        Position { epoch: number / self.batches_per_epoch, batch: number % self.batches_per_epoch }
    }

    fn is_past_end(&self, number: u64) -> bool {
        self.options.epochs.is_some_and(|epochs| self.position(number).epoch >= epochs)
    }

    fn build(&self, number: u64, order: &mut Order) -> Result<C::Batch> {
        let position = self.position(number);
        if order.epoch != Some(position.epoch) {
            order.samples = (0..self.dataset.len() as u32).collect();
            if self.options.shuffle {
                Draws::new(self.options.seed, Purpose::Shuffle, position.epoch, 0).shuffle(&mut order.samples);
            }
            order.epoch = Some(position.epoch);
        }
        let repeats = self.options.repeats.max(1);
        let begin = position.batch as usize * self.options.batch_size;
        let end = (begin + self.options.batch_size).min(samples_per_epoch(order.samples.len(), repeats));
        let indices: Vec<u32> = (begin..end).map(|at| order.samples[at / repeats]).collect();
        let picks = Picks { indices: &indices, position, seed: self.options.seed, begin, repeats };
        self.options.collate.collate(&self.dataset, &picks)
    }
}

/// Worker threads and what they share with the consumer.
struct Threads<B> {
    shared: Arc<Shared<B>>,
    handles: Vec<JoinHandle<()>>,
}

struct Shared<B> {
    state: Mutex<State<B>>,
    /// A batch was finished.
    ready: Condvar,
    /// A batch was taken, or it is time to stop.
    room: Condvar,
}

struct State<B> {
    /// The first batch that no worker has begun.
    unclaimed: u64,
    /// The batch the consumer wants next.
    wanted: u64,
    finished: BTreeMap<u64, Result<B>>,
    stop: bool,
}

impl<B> Shared<B> {
    fn lock(&self) -> MutexGuard<'_, State<B>> {
        // Nothing panics while it holds the lock, and the state is consistent between any two statements.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of the next batch to make; waits until there is room for it. None when it is time to stop.
    fn claim<D: Dataset + ?Sized, C: Collate<D>>(&self, source: &Source<D, C>) -> Option<u64> {
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

    fn work<D: Dataset + ?Sized, C: Collate<D, Batch = B>>(&self, source: &Source<D, C>) {
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

impl<B: Send + 'static> Threads<B> {
    fn start<D: Dataset + ?Sized + 'static, C: Collate<D, Batch = B>>(
        source: &Arc<Source<D, C>>,
        workers: usize,
        first: u64,
    ) -> Result<Self> {
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

    fn take(&self, number: u64) -> Result<B> {
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

impl<B> Drop for Threads<B> {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.room.notify_all();
        for handle in self.handles.drain(..) {
            // Panics were caught and delivered as errors.
            let _ = handle.join();
        }
    }
}
