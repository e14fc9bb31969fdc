//! AdamW over the flat parameter buffers, and the average of the weights.

use lara_shaders::ADAMW;

use super::{agc, grad_norm, quads};
use crate::{Keep, Parameters, Place, Recorder, Role, StepBuilder, Tensor};

/// How gradients are clipped before the update.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Clip {
    /// Not at all.
    None,
    /// All together, to this global norm.
    Norm(f32),
    /// Each number by itself, to this size.
    Value(f32),
    /// Each unit by itself, in proportion to its weights ([`agc`]).
    Adaptive {
        /// Largest norm of a unit's gradient, as a share of that of its weights.
        factor: f32,
        /// How the names of parameters begin that are left as they are: timm leaves the classifier.
        except: &'static str,
    },
}

/// AdamW with decoupled weight decay; learning rate and bias corrections come with the step header.
#[derive(Clone, Copy, Debug)]
pub struct AdamW {
    /// Decay of the first and second moments.
    pub betas: [f32; 2],
    /// Added to the root of the second moment.
    pub eps: f32,
    /// Weight decay of matrices; biases, norms and tables are not decayed.
    pub weight_decay: f32,
    /// How gradients are clipped.
    pub clip: Clip,
    /// Whether an exponential moving average of the weights is kept.
    pub ema: bool,
}

impl AdamW {
    /// Records clipping and update of every parameter; returns the gradient norm and clipping factor `[2]`.
    pub fn record(&self, rec: &mut Recorder, parameters: &Parameters) -> Tensor {
        let norm =
            grad_norm(rec, parameters, if let Clip::Norm(largest) = self.clip { largest } else { f32::INFINITY });
        if let Clip::Adaptive { factor, except } = self.clip {
            agc(rec, parameters, factor, except);
        }
        for (index, chunk) in parameters.trained_chunks() {
            let (len, lr_scale) = (chunk.len, chunk.lr_scale);
            let mut of = |label: &str, role| rec.tensor(label, [len].into(), Place::Chunk { index, role });
            let weights = of("weights", Role::Weight);
            let grads = of("gradients", Role::Grad);
            let first = of("first moment", Role::FirstMoment);
            let second = of("second moment", Role::SecondMoment);
            let average = self.ema.then(|| of("average", Role::Ema));
            let decay = if chunk.keep == Keep::Decayed { self.weight_decay } else { 0.0 };
            let step = rec
                .step(&ADAMW, "update")
                .bind("grads", grads)
                .bind("norm", norm)
                .bind("weights", weights)
                .bind("first_moment", first)
                .bind("second_moment", second);
            self.dispatch(step, len, decay, lr_scale);
            if let Some(average) = average {
                let step = rec.step(&ADAMW, "average_weights").bind("weights", weights).bind("average", average);
                self.dispatch(step, len, decay, lr_scale);
            }
        }
        norm
    }

    fn dispatch(&self, step: StepBuilder<'_>, len: usize, decay: f32, lr_scale: f32) {
        // Nothing that is finite is beyond the largest number.
        let limit = if let Clip::Value(limit) = self.clip { limit.min(f32::MAX) } else { f32::MAX };
        step.uint("quads", quads(len))
            .float("beta1", self.betas[0])
            .float("beta2", self.betas[1])
            .float("eps", self.eps)
            .float("decay", decay)
            .float("lr_scale", lr_scale)
            .float("limit", limit)
            .dispatch_items(quads(len));
    }
}
