//! y = a + b.

use lara_shaders::RESIDUAL;

use super::over_quads;
use crate::{Backward, Forward, Op, Recorder, Slot, Tensor};

/// Adds two tensors of one shape. Inputs: a, b. Output: a + b.
#[derive(Debug)]
pub struct Residual;

/// Stores `dy` in a slot or adds it: the gradient of anything that passes a value on unchanged.
pub(crate) fn pass_on(rec: &mut Recorder, dy: Tensor, slot: Slot) {
    over_quads(rec.step(&RESIDUAL, "backward").bind("dy", dy).bind("dx", slot.grad), dy.len(), slot.accumulate);
}

impl Op for Residual {
    fn name(&self) -> &'static str {
        "residual"
    }

    fn forward(&self, rec: &mut Recorder, x: &[Tensor]) -> Forward {
        let y = rec.scratch("residual", x[0].shape());
        over_quads(rec.step(&RESIDUAL, "forward").bind("a", x[0]).bind("b", x[1]).bind("y", y), y.len(), false);
        Forward::one(y)
    }

    fn passes_on(&self, _: &[Tensor], _: usize) -> bool {
        true
    }

    fn backward(&self, rec: &mut Recorder, pass: &Backward<'_>) {
        for slot in pass.dx.iter().flatten() {
            if let Some(dy) = pass.dy[0] {
                pass_on(rec, dy, *slot);
            }
        }
    }
}
