//! The rectifier.

use lara_shaders::RELU;

use super::over_quads;
use crate::{Backward, Forward, Op, Recorder, Tensor};

/// y = max(x, 0), elementwise; `torch.nn.ReLU`. The gradient at 0 is 0.
#[derive(Clone, Copy, Debug)]
pub struct Relu;

impl Op for Relu {
    fn name(&self) -> &'static str {
        "relu"
    }

    fn forward(&self, rec: &mut Recorder, x: &[Tensor]) -> Forward {
        let y = rec.scratch("relu", x[0].shape());
        over_quads(rec.step(&RELU, "forward").bind("x", x[0]).bind("y", y), y.len(), false);
        Forward::one(y)
    }

    fn backward(&self, rec: &mut Recorder, pass: &Backward<'_>) {
        if let (Some(dy), Some(slot)) = (pass.dy[0], pass.dx[0]) {
            let step = rec.step(&RELU, "backward").bind("x", pass.x[0]).bind("dy", dy).bind("dx", slot.grad);
            over_quads(step, dy.len(), slot.accumulate);
        }
    }
}
