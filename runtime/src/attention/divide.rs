//! Rows divided by their normalisers.

use lara_shaders::DIVIDE;

use crate::{Backward, Error, Forward, Op, Recorder, StepBuilder, Tensor};

/// Inputs: num [.., dim] and den [.., 1]. Output: num / max(den, smallest), of num's shape.
#[derive(Debug)]
pub struct Divide {
    /// What smaller denominators, negative ones too, are raised to; above 0.
    pub smallest: f32,
}

impl Divide {
    fn sizes<'r>(&self, step: StepBuilder<'r>, num: Tensor, accumulate: bool) -> StepBuilder<'r> {
        step.uint("rows", num.rows())
            .uint("dim", num.last())
            .float("smallest", self.smallest)
            .flag("accumulate", accumulate)
    }
}

impl Op for Divide {
    fn name(&self) -> &'static str {
        "divide"
    }

    fn forward(&self, rec: &mut Recorder, x: &[Tensor]) -> Forward {
        let (num, den) = (x[0], x[1]);
        if den.len() != num.rows() {
            let (rows, num, den) = (num.rows(), num.shape(), den.shape());
            rec.fail(Error::Shape(format!("{num} has {rows} rows, which {den} cannot divide one by one")));
        }
        let y = rec.scratch("quotient", num.shape());
        let step = rec.step(&DIVIDE, "forward").bind("num", num).bind("den", den).bind("y", y);
        self.sizes(step, num, false).dispatch_items(num.len());
        Forward::one(y)
    }

    fn backward(&self, rec: &mut Recorder, pass: &Backward<'_>) {
        let (Some(dy), num, den) = (pass.dy[0], pass.x[0], pass.x[1]) else { return };
        if let Some(slot) = pass.dx[0] {
            let step = rec.step(&DIVIDE, "backward_num").bind("den", den).bind("dy", dy).bind("dnum", slot.grad);
            self.sizes(step, num, slot.accumulate).dispatch_items(num.len());
        }
        if let Some(slot) = pass.dx[1] {
            let step = rec.step(&DIVIDE, "backward_den").bind("num", num).bind("den", den).bind("dy", dy);
            let step = step.bind("dden", slot.grad);
            self.sizes(step, num, slot.accumulate).dispatch_items(num.rows());
        }
    }
}
