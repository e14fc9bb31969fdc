//! Evaluation over a whole data set.

use std::sync::Arc;

use serde::Serialize;

use crate::data::{Augment, ImageDataset, Loader, LoaderOptions, Position};
use crate::error::{Error, Result};
use crate::predictor::{Predictor, softmax};

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
            let predicted = crate::predictor::top(&probabilities, 1)[0].0;
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
