//! From tokens to one vector: mean pooling or the class token.

use lara_shaders::POOLING;

use crate::{Backward, Forward, Op, Recorder, StepBuilder, Tensor};

/// x [batch, tokens, dim] -> y [batch, dim], the mean of tokens first .. first + count.
#[derive(Debug)]
pub struct TokenPooling {
    /// First token of the mean: 0, or 1 to leave out a class token.
    pub first: usize,
    /// Number of tokens: all of them, or 1 for the class token alone.
    pub count: usize,
}

impl TokenPooling {
    fn dispatch(&self, step: StepBuilder<'_>, dims: &[usize], accumulate: bool, items: usize) {
        step.uint("batch", dims[0])
            .uint("tokens", dims[1])
            .uint("dim", dims[2])
            .uint("first", self.first)
            .uint("count", self.count)
            .flag("accumulate", accumulate)
            .dispatch_items(items);
    }
}

impl Op for TokenPooling {
    fn name(&self) -> &'static str {
        "pooling"
    }

    fn forward(&self, rec: &mut Recorder, x: &[Tensor]) -> Forward {
        let y = rec.scratch("pooled", [x[0].dims()[0], x[0].last()]);
        let step = rec.step(&POOLING, "forward").bind("x", x[0]).bind("y", y);
        self.dispatch(step, x[0].dims(), false, y.len());
        Forward::one(y)
    }

    fn backward(&self, rec: &mut Recorder, pass: &Backward<'_>) {
        if let (Some(dy), Some(slot)) = (pass.dy[0], pass.dx[0]) {
            let step = rec.step(&POOLING, "backward").bind("dy", dy).bind("dx", slot.grad);
            self.dispatch(step, pass.x[0].dims(), slot.accumulate, slot.grad.len());
        }
    }
}
