//! Log-sum-exps as key terms of another attention.

use lara_shaders::RELATIVE_LSE;

use crate::ops::{pass_on, pass_on_negated};
use crate::{Backward, Forward, Op, Recorder, Tensor};

/// Inputs: a log-sum-exp [batch, heads, C] with its peak and sum [.., 2] ([`super::AttendApart`]), and another two that are
/// subtracted, if there are some. Output: their difference [batch, heads, C], or, if there are none, the log-sum-exp but for a
/// number that is the same within a row, for the keys of an attention, which does not see that. Gradients go to the
/// log-sum-exps.
#[derive(Debug)]
pub struct RelativeLse;

impl Op for RelativeLse {
    fn name(&self) -> &'static str {
        "relative_lse"
    }

    fn forward(&self, rec: &mut Recorder, x: &[Tensor]) -> Forward {
        let y = rec.scratch("relative lse", x[0].shape());
        let below = x.get(3).copied();
        rec.step(&RELATIVE_LSE, "forward")
            .constant("HAS_BELOW", if below.is_some() { 1.0 } else { 0.0 })
            .bind("over", x[1])
            .bind_or_absent("below", below)
            .bind("y", y)
            .uint("rows", y.rows())
            .uint("cols", y.last())
            .dispatch_groups(y.rows());
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
        if let Some(slot) = pass.dx.get(2).copied().flatten() {
            pass_on_negated(rec, dy, slot);
        }
    }
}
