//! Classification of images: cross-entropy with label smoothing, and with mixtures of two classes; distillation; accuracy.

use std::borrow::Cow;
use std::sync::Arc;

use lara_runtime::ops::CrossEntropy;
use lara_runtime::{Gpu, Parameters, Tape, Tune};
use serde::Serialize;

use super::{Objective, Score, Task};
use crate::config::TrainConfig;
use crate::data::augment::{Augment, Recipe};
use crate::data::{Batch, ImageDataset, Loader, LoaderOptions, Position, Split};
use crate::error::{Error, Result};
use crate::predictor::{Predictor, softmax, top};

/// Which of the classes an image shows.
#[derive(Clone, Debug)]
pub struct Classify {
    config: TrainConfig,
    /// What is done to training images.
    recipe: Recipe,
}

impl Task for Classify {
    type Dataset = dyn ImageDataset;
    type Collate = Recipe;
    type Evaluator = Predictor;
    type Evaluation = Evaluation;

    fn new(config: &TrainConfig) -> Result<Self> {
        Ok(Self { recipe: Recipe::train(&config.data, &config.augment)?, config: config.clone() })
    }

    fn open(&self, split: Split) -> Result<Arc<dyn ImageDataset>> {
        self.config.open_data(split)
    }

    fn classes(&self, dataset: &dyn ImageDataset) -> Vec<String> {
        dataset.classes().to_vec()
    }

    fn collate(&self, split: Split) -> Recipe {
        match split {
            Split::Train => self.recipe.clone(),
            Split::Test => Augment::eval(&self.config.data).into(),
        }
    }

    fn record(&self, tape: &mut Tape<'_>, batch: usize) -> Result<Objective> {
        let mut inputs = self.config.model.declare(tape, batch);
        let outputs = self.config.build()?.forward(tape, &inputs);
        let logits = outputs.first();
        let targets = tape.input("targets", [batch, 3]);
        inputs.push(targets);
        let cross_entropy = CrossEntropy { smoothing: self.config.train.smoothing as f32 };
        let Some(distillation) = self.config.distill.loss() else {
            let found = tape.apply_all(cross_entropy, &[logits, targets]);
            return Ok(Objective { inputs, loss: found[0], report: found[1], taught: None });
        };
        // One classifier for the labels and one for the teacher, or one for both.
        let [of_labels, of_teacher] = HEADS.map(|name| outputs.get(name).unwrap_or(logits));
        let found = tape.apply_all(cross_entropy, &[of_labels, targets]);
        // They count on over the micro-steps.
        tape.rec.pin(found[1]);
        let teacher = tape.input("teacher's logits", logits.shape());
        let found = tape.apply_all(distillation, &[of_teacher, teacher, found[0], found[1]]);
        Ok(Objective { inputs, loss: found[0], report: found[1], taught: Some(teacher) })
    }

    fn feed<'b>(&self, batch: &'b Batch) -> Result<Vec<Cow<'b, [f32]>>> {
        Ok(vec![Cow::Borrowed(&batch.images), Cow::Owned(targets(batch, self.config.model.num_classes())?)])
    }

    fn targets(&self, batch: &Batch) -> usize {
        batch.len()
    }

    async fn evaluator(&self, gpu: &Gpu, tune: &Tune, parameters: &mut Parameters, batch: usize) -> Result<Predictor> {
        Predictor::new(gpu, tune, &self.config, parameters, batch, false).await
    }

    async fn evaluate(
        &self,
        evaluator: &Predictor,
        dataset: &Arc<dyn ImageDataset>,
        go_on: impl FnMut(usize) -> bool,
    ) -> Result<Option<Evaluation>> {
        evaluate_while(evaluator, dataset, &Augment::eval(&self.config.data), self.config.data.workers, go_on).await
    }
}

/// What a model of two classifiers calls their outputs: that of the class token and that of the distillation token.
const HEADS: [&str; 2] = ["cls_logits", "distillation_logits"];

/// What [`CrossEntropy`] wants of a batch: for each image its label, the label that is mixed in, and that one's share.
fn targets(batch: &Batch, classes: usize) -> Result<Vec<f32>> {
    let mut targets = Vec::with_capacity(3 * batch.len());
    for (at, &label) in batch.labels.iter().enumerate() {
        let (other, share) = batch.mixed.get(at).map_or((label, 0.0), |mixed| (mixed.label, mixed.share));
        if let Some(label) = [label, other].into_iter().find(|&label| label as usize >= classes) {
            return Err(Error::BadInput(format!("label {label} is out of range; the model has {classes} classes")));
        }
        targets.extend([label as f32, other as f32, share]);
    }
    Ok(targets)
}

/// How good a model is on a data set.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Evaluation {
    /// Share of images whose most probable class is right.
    pub accuracy: f64,
    /// Share of images whose class is among the five most probable.
    pub top5: f64,
    /// Mean cross-entropy, without label smoothing.
    pub loss: f64,
    /// Number of images.
    pub images: usize,
    /// Confusion matrix: row = class, column = prediction.
    pub confusion: Vec<Vec<u32>>,
}

impl Score for Evaluation {
    fn score(&self) -> f64 {
        self.accuracy
    }

    fn metrics(&self) -> Vec<(&'static str, f64)> {
        vec![("eval/loss", self.loss), ("eval/accuracy", self.accuracy), ("eval/top5", self.top5)]
    }
}

/// Evaluates every image of `dataset` once; `progress` hears how many are done.
///
/// # Errors
/// An unreadable image, outputs of the model that are not finite, or a lost device.
pub async fn evaluate(
    predictor: &Predictor,
    dataset: &Arc<dyn ImageDataset>,
    augment: &Augment,
    workers: usize,
    mut progress: impl FnMut(usize),
) -> Result<Evaluation> {
    let go_on = |done| {
        progress(done);
        true
    };
    let evaluation = evaluate_while(predictor, dataset, augment, workers, go_on).await?;
    evaluation.ok_or_else(|| Error::Failed("an evaluation ended early".into()))
}

/// [`evaluate`], given up with `None` when `go_on`, which hears after every batch how many images are done, says no.
///
/// # Errors
/// See [`evaluate`].
pub async fn evaluate_while(
    predictor: &Predictor,
    dataset: &Arc<dyn ImageDataset>,
    augment: &Augment,
    workers: usize,
    mut go_on: impl FnMut(usize) -> bool,
) -> Result<Option<Evaluation>> {
    let options = LoaderOptions::eval(predictor.batch(), workers, augment.clone());
    let loader = Loader::new(dataset.clone(), options, Position::default())?;
    let classes = dataset.classes().len();
    let (mut right, mut in_top5, mut loss, mut images) = (0, 0, 0.0, 0);
    let mut confusion = vec![vec![0; classes]; classes];
    for batch in loader {
        let batch = batch?;
        for (logits, &label) in predictor.finite_logits(&batch.images).await?.iter().zip(&batch.labels) {
            let label = label as usize;
            let probabilities = softmax(logits);
            let better = probabilities.iter().filter(|p| **p > probabilities[label]).count();
            let predicted = top(&probabilities, 1)[0].0;
            right += usize::from(predicted == label);
            in_top5 += usize::from(better < 5);
            loss -= probabilities[label].max(f64::MIN_POSITIVE).ln();
            confusion[label][predicted] += 1;
            images += 1;
        }
        if !go_on(images) && images < dataset.len() {
            return Ok(None);
        }
    }
    let share = |count: usize| count as f64 / images.max(1) as f64;
    Ok(Some(Evaluation {
        accuracy: share(right),
        top5: share(in_top5),
        loss: loss / images.max(1) as f64,
        images,
        confusion,
    }))
}
