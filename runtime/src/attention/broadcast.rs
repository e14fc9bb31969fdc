//! A tensor that a batch shares, given to each of its samples.

use lara_shaders::BROADCAST;

use crate::{Backward, Forward, Op, Recorder, StepBuilder, Tensor};

/// x [heads, rows, dim] -> [batch, heads, rows, dim], every sample `factor` times x.
#[derive(Debug)]
pub struct Broadcast {
    /// Number of samples.
    pub batch: usize,
    /// Multiplies every element.
    pub factor: f32,
}

impl Broadcast {
    fn sizes<'r>(&self, step: StepBuilder<'r>, x: Tensor, accumulate: bool) -> StepBuilder<'r> {
        step.uint("batch", self.batch).uint("len", x.len()).float("factor", self.factor).flag("accumulate", accumulate)
    }
}

impl Op for Broadcast {
    fn name(&self) -> &'static str {
        "broadcast"
    }

    fn forward(&self, rec: &mut Recorder, x: &[Tensor]) -> Forward {
        let shape = [&[self.batch], x[0].dims()].concat();
        let y = rec.scratch("for every sample", &shape[..]);
        let step = rec.step(&BROADCAST, "forward").bind("x", x[0]).bind("y", y);
        self.sizes(step, x[0], false).dispatch_items(y.len());
        Forward::one(y)
    }

    fn backward(&self, rec: &mut Recorder, pass: &Backward<'_>) {
        if let (Some(dy), Some(slot)) = (pass.dy[0], pass.dx[0]) {
            let step = rec.step(&BROADCAST, "backward").bind("dy", dy).bind("dx", slot.grad);
            self.sizes(step, pass.x[0], slot.accumulate).dispatch_items(pass.x[0].len());
        }
    }
}
