//! y = a - b.

use lara_shaders::DIFFERENCE;

use super::{over_quads, pass_on};
use crate::{Backward, Forward, Op, Recorder, Slot, Tensor};

/// Subtracts two tensors of one shape. Inputs: a, b. Output: a - b.
#[derive(Debug)]
pub struct Difference;

impl Op for Difference {
    fn name(&self) -> &'static str {
        "difference"
    }

    fn forward(&self, rec: &mut Recorder, x: &[Tensor]) -> Forward {
        let y = rec.scratch("difference", x[0].shape());
        over_quads(rec.step(&DIFFERENCE, "forward").bind("a", x[0]).bind("b", x[1]).bind("y", y), y.len(), false);
        Forward::one(y)
    }

    fn passes_on(&self, _: &[Tensor], input: usize) -> bool {
        input == 0
    }

    fn backward(&self, rec: &mut Recorder, pass: &Backward<'_>) {
        let Some(dy) = pass.dy[0] else { return };
        if let Some(slot) = pass.dx[0] {
            pass_on(rec, dy, slot);
        }
        if let Some(slot) = pass.dx[1] {
            pass_on_negated(rec, dy, slot);
        }
    }
}

/// The gradient of what is subtracted: -dy.
pub(crate) fn pass_on_negated(rec: &mut Recorder, dy: Tensor, slot: Slot) {
    over_quads(rec.step(&DIFFERENCE, "backward").bind("dy", dy).bind("dx", slot.grad), dy.len(), slot.accumulate);
}
