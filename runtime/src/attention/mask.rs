//! Padded tokens replaced by a fixed number.

use lara_shaders::MASK;

use crate::{Backward, Error, Forward, Op, Recorder, StepBuilder, Tensor};

/// The additive key term that hides a key: finite, because WGSL need not keep infinities.
pub const MASKED: f32 = -1e30;

/// Inputs: x [batch, heads, tokens] or [batch, heads, tokens, width] and a mask [batch, tokens], 1 = padding.
/// Output: x with `fill` at padded tokens. The mask gets no gradient.
#[derive(Debug)]
pub struct Mask {
    /// What padded tokens become: 0, or [`MASKED`] for logits.
    pub fill: f32,
}

impl Mask {
    fn sizes<'r>(&self, step: StepBuilder<'r>, x: Tensor, accumulate: bool) -> StepBuilder<'r> {
        let dims = x.dims();
        step.uint("len", x.len())
            .uint("per_sample", x.len() / dims[0])
            .uint("tokens", dims[2])
            .uint("width", dims.get(3).copied().unwrap_or(1))
            .float("fill", self.fill)
            .flag("accumulate", accumulate)
    }
}

impl Op for Mask {
    fn name(&self) -> &'static str {
        "mask"
    }

    fn forward(&self, rec: &mut Recorder, x: &[Tensor]) -> Forward {
        let [x, mask] = [x[0], x[1]];
        if !matches!(x.dims().len(), 3 | 4) || mask.len() != x.dims()[0] * x.dims()[2] {
            let (tokens, given) = (x.shape(), mask.shape());
            rec.fail(Error::Shape(format!("a key_padding_mask {given} does not fit {tokens}; it is [batch, tokens]")));
            return Forward::one(x);
        }
        let y = rec.scratch("masked", x.shape());
        let step = rec.step(&MASK, "forward").bind("x", x).bind("padding", mask).bind("y", y);
        self.sizes(step, x, false).dispatch_items(x.len());
        Forward::one(y)
    }

    fn backward(&self, rec: &mut Recorder, pass: &Backward<'_>) {
        if let (Some(dy), Some(slot)) = (pass.dy[0], pass.dx[0]) {
            let step = rec.step(&MASK, "backward").bind("padding", pass.x[1]).bind("dy", dy).bind("dx", slot.grad);
            self.sizes(step, pass.x[0], slot.accumulate).dispatch_items(dy.len());
        }
    }
}
