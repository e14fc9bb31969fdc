//! The additive key term of positive random features.

use lara_shaders::KEY_NORMS;

use crate::{Backward, Forward, Op, Recorder, Shape, Tensor};

/// x [.., dim] -> -(scale / 2) |x|^2 `[..]`.
#[derive(Debug)]
pub struct KeyNorms {
    /// s, the softmax scale d^(-1/2).
    pub scale: f32,
}

impl Op for KeyNorms {
    fn name(&self) -> &'static str {
        "key_norms"
    }

    fn forward(&self, rec: &mut Recorder, x: &[Tensor]) -> Forward {
        let outer = &x[0].dims()[..x[0].dims().len() - 1];
        let y = rec.scratch("key norms", Shape::from(outer));
        rec.step(&KEY_NORMS, "forward")
            .bind("x", x[0])
            .bind("y", y)
            .uint("rows", x[0].rows())
            .uint("dim", x[0].last())
            .float("scale", self.scale)
            .flag("accumulate", false)
            .dispatch_items(x[0].rows());
        Forward::one(y)
    }

    fn backward(&self, rec: &mut Recorder, pass: &Backward<'_>) {
        if let (Some(dy), Some(slot)) = (pass.dy[0], pass.dx[0]) {
            rec.step(&KEY_NORMS, "backward")
                .bind("x", pass.x[0])
                .bind("dy", dy)
                .bind("dx", slot.grad)
                .uint("rows", pass.x[0].rows())
                .uint("dim", pass.x[0].last())
                .float("scale", self.scale)
                .flag("accumulate", slot.accumulate)
                .dispatch_items(pass.x[0].len());
        }
    }
}
