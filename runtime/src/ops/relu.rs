//! The rectifier.

use lara_shaders::RELU;

use super::quads;
use crate::{Backward, Forward, Op, Recorder, StepBuilder, Tensor};

/// y = max(x, 0), elementwise; `torch.nn.ReLU`. The gradient at 0 is 0.
#[derive(Clone, Copy, Debug)]
pub struct Relu;

fn dispatch(step: StepBuilder<'_>, len: usize, accumulate: bool) {
    step.uint("quads", quads(len)).flag("accumulate", accumulate).dispatch_items(quads(len));
}

impl Op for Relu {
    fn name(&self) -> &'static str {
        "relu"
    }

    fn forward(&self, rec: &mut Recorder, x: &[Tensor]) -> Forward {
        let y = rec.scratch("relu", x[0].shape());
        dispatch(rec.step(&RELU, "forward").bind("x", x[0]).bind("y", y), y.len(), false);
        Forward::one(y)
    }

    fn backward(&self, rec: &mut Recorder, pass: &Backward<'_>) {
        if let (Some(dy), Some(slot)) = (pass.dy[0], pass.dx[0]) {
            let step = rec.step(&RELU, "backward").bind("x", pass.x[0]).bind("dy", dy).bind("dx", slot.grad);
            dispatch(step, dy.len(), slot.accumulate);
        }
    }
}
