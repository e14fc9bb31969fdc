//! What a model is trained for: what it learns from, what is recorded on top of it, how a batch is fed to a step, and how
//! good the model is. Session and trainer know no more of a task than this.

pub mod classify;

use std::borrow::Cow;
use std::fmt::Debug;
use std::future::Future;
use std::sync::Arc;

use lara_runtime::{Gpu, Parameters, Tape, Tensor, Tune};
use serde::Serialize;

use crate::config::TrainConfig;
use crate::data::{Collate, Dataset, Loader, Split};
use crate::error::Result;

pub use classify::Classify;

/// What a model is trained for.
pub trait Task: Sized + 'static {
    /// What it learns from.
    type Dataset: Dataset + ?Sized + 'static;

    /// How samples become a batch.
    type Collate: Collate<Self::Dataset>;

    /// A model that is ready to be evaluated.
    type Evaluator;

    /// How good a model is.
    type Evaluation: Score;

    /// The task of a configuration.
    ///
    /// # Errors
    /// Settings that do not fit it.
    fn new(config: &TrainConfig) -> Result<Self>;

    /// Opens a split of its data.
    ///
    /// # Errors
    /// Data that are not there, are damaged, or do not fit the model.
    fn open(&self, split: Split) -> Result<Arc<Self::Dataset>>;

    /// What the model's outputs are called; travels with its checkpoints.
    fn classes(&self, dataset: &Self::Dataset) -> Vec<String>;

    /// What makes batches: for training with everything random, for a split that is held out without.
    fn collate(&self, split: Split) -> Self::Collate;

    /// Records model and loss for batches of `batch` samples.
    ///
    /// # Errors
    /// A model that cannot be built; mistakes of the recording are the tape's.
    fn record(&self, tape: &mut Tape<'_>, batch: usize) -> Result<Objective>;

    /// The values of [`Objective::inputs`], in their order.
    ///
    /// # Errors
    /// A batch that does not fit the model.
    fn feed<'b>(&self, batch: &'b BatchOf<Self>) -> Result<Vec<Cow<'b, [f32]>>>;

    /// Over how many targets (labels, words) the loss of a batch is a mean. A step's gradient is that of the mean over the
    /// targets of all its micro-batches, however they are spread.
    fn targets(&self, batch: &BatchOf<Self>) -> usize;

    /// Compiles a model for evaluations over these weights.
    ///
    /// # Errors
    /// A model that does not fit the adapter.
    fn evaluator(
        &self,
        gpu: &Gpu,
        tune: &Tune,
        parameters: &mut Parameters,
        batch: usize,
    ) -> impl Future<Output = Result<Self::Evaluator>>;

    /// Evaluates every sample of `dataset` once; given up with `None` when `go_on`, which hears after every batch how many
    /// samples are done, says no.
    ///
    /// # Errors
    /// A sample that cannot be read, outputs of the model that are not finite, or a lost device.
    fn evaluate(
        &self,
        evaluator: &Self::Evaluator,
        dataset: &Arc<Self::Dataset>,
        go_on: impl FnMut(usize) -> bool,
    ) -> impl Future<Output = Result<Option<Self::Evaluation>>>;
}

/// What a task's batches are.
pub type BatchOf<T> = <<T as Task>::Collate as Collate<<T as Task>::Dataset>>::Batch;

/// What makes a task's batches.
pub type LoaderOf<T> = Loader<<T as Task>::Dataset, <T as Task>::Collate>;

/// A recorded loss.
#[derive(Clone, Debug)]
pub struct Objective {
    /// What a step is fed.
    pub inputs: Vec<Tensor>,
    /// The mean over the batch's targets, `[1]`.
    pub loss: Tensor,
    /// What comes back from a step: mean loss first, then the share of the targets that was hit, both over the micro-steps so
    /// far; what stands behind them nobody looks at. It is pinned.
    pub report: Tensor,
    /// Where the logits of the teacher that `distill.teacher` names go before each pass, for the task that learns from one.
    pub taught: Option<Tensor>,
}

/// What an evaluation found.
pub trait Score: Clone + Debug + Serialize + Send + 'static {
    /// What the best checkpoint is chosen by: the larger, the better.
    fn score(&self) -> f64;

    /// What is written to the metrics: names and values.
    fn metrics(&self) -> Vec<(&'static str, f64)>;
}
