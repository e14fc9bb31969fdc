//! The gated unit of SwiGLU MLPs.

use lara_shaders::SWIGLU;

use crate::{Backward, Error, Forward, Op, Recorder, StepBuilder, Tensor};

/// x [.., 2 width] -> y [.., width]: silu of the first half times the second (Shazeer 2020, "GLU Variants Improve
/// Transformer"; timm's `SwiGLUPacked`).
#[derive(Debug)]
pub struct SwiGlu;

fn dispatch(step: StepBuilder<'_>, y: Tensor, accumulate: bool) {
    step.uint("len", y.len()).uint("width", y.last()).flag("accumulate", accumulate).dispatch_items(y.len());
}

impl Op for SwiGlu {
    fn name(&self) -> &'static str {
        "swiglu"
    }

    fn forward(&self, rec: &mut Recorder, x: &[Tensor]) -> Forward {
        if !x[0].last().is_multiple_of(2) {
            rec.fail(Error::Shape(format!("swiglu halves the last dimension, and that of {} is odd", x[0].shape())));
            return Forward::one(x[0]);
        }
        let mut shape = x[0].dims().to_vec();
        if let Some(last) = shape.last_mut() {
            *last /= 2;
        }
        let y = rec.scratch("gated", &shape[..]);
        let step = rec.step(&SWIGLU, "forward").bind("x", x[0]).bind("y", y);
        dispatch(step, y, false);
        Forward::one(y)
    }

    fn backward(&self, rec: &mut Recorder, pass: &Backward<'_>) {
        if let (Some(dy), Some(slot)) = (pass.dy[0], pass.dx[0]) {
            let step = rec.step(&SWIGLU, "backward").bind("x", pass.x[0]).bind("dy", dy).bind("dx", slot.grad);
            dispatch(step, dy, slot.accumulate);
        }
    }
}
