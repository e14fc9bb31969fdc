//! A learned factor for every channel of a residual branch.

use lara_shaders::LAYER_SCALE;

use super::column_sum;
use crate::{Backward, Forward, Op, Recorder, StepBuilder, Tensor};

/// Inputs: x [.., dim], gamma `[dim]`. Output: y = gamma x of x's shape (Touvron et al. 2021, "Going deeper with Image
/// Transformers", section 2).
#[derive(Debug)]
pub struct LayerScale;

fn dispatch(step: StepBuilder<'_>, x: Tensor, accumulate: bool) {
    step.uint("len", x.len()).uint("dim", x.last()).flag("accumulate", accumulate).dispatch_items(x.len());
}

impl Op for LayerScale {
    fn name(&self) -> &'static str {
        "layer_scale"
    }

    fn forward(&self, rec: &mut Recorder, x: &[Tensor]) -> Forward {
        let y = rec.scratch("scaled", x[0].shape());
        let step = rec.step(&LAYER_SCALE, "forward").bind("x", x[0]).bind("gamma", x[1]).bind("y", y);
        dispatch(step, x[0], false);
        Forward::one(y)
    }

    fn backward(&self, rec: &mut Recorder, pass: &Backward<'_>) {
        let Some(dy) = pass.dy[0] else { return };
        let x = pass.x[0];
        if let Some(slot) = pass.dx[0] {
            let step = rec.step(&LAYER_SCALE, "backward").bind("gamma", pass.x[1]).bind("dy", dy);
            dispatch(step.bind("dx", slot.grad), x, slot.accumulate);
        }
        if let Some(slot) = pass.dx[1] {
            let products = rec.scratch("products", x.shape());
            let step = rec.step(&LAYER_SCALE, "products").bind("x", x).bind("dy", dy).bind("y", products);
            dispatch(step, x, false);
            column_sum(rec, products, [1, x.rows(), x.last()], slot.grad, 1.0, slot.accumulate);
        }
    }
}
