//! The exact GELU (Hendrycks and Gimpel 2016).

use lara_shaders::GELU;

use super::over_quads;
use crate::{Backward, Forward, Op, Recorder, Tensor};

/// y = x Phi(x), elementwise; `torch.nn.GELU(approximate="none")`.
#[derive(Debug)]
pub struct Gelu;

impl Op for Gelu {
    fn name(&self) -> &'static str {
        "gelu"
    }

    fn forward(&self, rec: &mut Recorder, x: &[Tensor]) -> Forward {
        let y = rec.scratch("gelu", x[0].shape());
        over_quads(rec.step(&GELU, "forward").bind("x", x[0]).bind("y", y), y.len(), false);
        Forward::one(y)
    }

    fn backward(&self, rec: &mut Recorder, pass: &Backward<'_>) {
        if let (Some(dy), Some(slot)) = (pass.dy[0], pass.dx[0]) {
            let step = rec.step(&GELU, "backward").bind("x", pass.x[0]).bind("dy", dy).bind("dx", slot.grad);
            over_quads(step, dy.len(), slot.accumulate);
        }
    }
}
