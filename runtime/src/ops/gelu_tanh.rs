//! The tanh form of GELU (Hendrycks and Gimpel 2016).

use lara_shaders::GELU_TANH;

use super::over_quads;
use crate::{Backward, Forward, Op, Recorder, Tensor};

/// y = 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))), elementwise; `torch.nn.GELU(approximate="tanh")`.
#[derive(Debug)]
pub struct GeluTanh;

impl Op for GeluTanh {
    fn name(&self) -> &'static str {
        "gelu_tanh"
    }

    fn forward(&self, rec: &mut Recorder, x: &[Tensor]) -> Forward {
        let y = rec.scratch("gelu", x[0].shape());
        over_quads(rec.step(&GELU_TANH, "forward").bind("x", x[0]).bind("y", y), y.len(), false);
        Forward::one(y)
    }

    fn backward(&self, rec: &mut Recorder, pass: &Backward<'_>) {
        if let (Some(dy), Some(slot)) = (pass.dy[0], pass.dx[0]) {
            let step = rec.step(&GELU_TANH, "backward").bind("x", pass.x[0]).bind("dy", dy).bind("dx", slot.grad);
            over_quads(step, dy.len(), slot.accumulate);
        }
    }
}
