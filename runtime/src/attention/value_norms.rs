//! The key term of `pool-vmixed`: landmarks with large values count for more.

use lara_shaders::VALUE_NORMS;

use crate::{Backward, Forward, Op, Recorder, Shape, Tensor};

/// x [.., dim] -> log(|x| + 1e-4) `[..]` (spec 1.5).
#[derive(Debug)]
pub struct ValueNorms;

impl Op for ValueNorms {
    fn name(&self) -> &'static str {
        "value_norms"
    }

    fn forward(&self, rec: &mut Recorder, x: &[Tensor]) -> Forward {
        let outer = &x[0].dims()[..x[0].dims().len() - 1];
        let y = rec.scratch("value norms", Shape::from(outer));
        let step = rec.step(&VALUE_NORMS, "forward").bind("x", x[0]).bind("y", y);
        let step = step.uint("rows", x[0].rows()).uint("dim", x[0].last()).flag("accumulate", false);
        step.dispatch_items(x[0].rows());
        Forward::one(y)
    }

    fn backward(&self, rec: &mut Recorder, pass: &Backward<'_>) {
        if let (Some(dy), Some(slot)) = (pass.dy[0], pass.dx[0]) {
            let x = pass.x[0];
            let step = rec.step(&VALUE_NORMS, "backward").bind("x", x).bind("dy", dy).bind("dx", slot.grad);
            let step = step.uint("rows", x.rows()).uint("dim", x.last()).flag("accumulate", slot.accumulate);
            step.dispatch_items(x.len());
        }
    }
}
