//! Mean and standard deviation over redraws of a mechanism's randomness.

use lara_shaders::MOMENTS;

use crate::ops::quads;
use crate::{Recorder, Tensor};

/// What [`moments`] keeps of the samples so far.
#[derive(Clone, Copy, Debug)]
pub struct Moments {
    /// Their mean, of a sample's shape. Pinned: it is carried from run to run.
    pub mean: Tensor,
    /// The sum of their squared distances from the mean, of a sample's shape. Pinned: it is carried from run to run.
    pub m2: Tensor,
    /// Their standard deviation sqrt(m2 / (count - 1)), of a sample's shape; 0 for a single sample.
    pub deviation: Tensor,
}

/// Records the update of running moments by one sample (of any shape) a run. The number of the sample is the
/// [`crate::Header::micro_step`] of the run: 0 starts anew, and the runs after it count up by 1. The micro-step is also
/// part of the counter of what is drawn on the device, so each of them draws other numbers.
pub fn moments(rec: &mut Recorder, sample: Tensor) -> Moments {
    let [mean, m2] = ["mean", "m2"].map(|label| rec.pinned(label, sample.shape()));
    let deviation = rec.scratch("deviation", sample.shape());
    let quads = quads(sample.len());
    rec.step(&MOMENTS, "forward")
        .bind("x", sample)
        .bind("mean", mean)
        .bind("m2", m2)
        .bind("deviation", deviation)
        .uint("quads", quads)
        .dispatch_items(quads);
    Moments { mean, m2, deviation }
}
