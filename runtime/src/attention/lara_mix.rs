//! LARA's mixing weights of the proposals for every query.

use lara_shaders::LARA_MIX;

use crate::ops::{column_sum, pass_on};
use crate::{Backward, Forward, Op, Recorder, Tensor};

/// Inputs: x = s q w^T [batch, heads, N, C], r = s q qbar^T [batch, heads, N, C], and per landmark [batch, heads, C]:
/// the log-sum-exp of r over queries, the balance heuristic, the keys' log-sum-exp, log q_c(w_c); then the two log-sum-exps
/// once more as peak and sum [batch, heads, C, 2], which is what is computed with, while the gradients go to the former.
/// Output: mixing weights [batch, heads, N, C], rows sum to 1 (spec 1.4, mis-opt).
#[derive(Debug)]
pub struct LaraMix {
    /// Strength of the query-specific term.
    pub alpha: f32,
    /// Whether a balance below 0 stands for a landmark that is missing ([`super::LaraWeights`]).
    pub has_missing: bool,
}

impl Op for LaraMix {
    fn name(&self) -> &'static str {
        "lara_mix"
    }

    fn forward(&self, rec: &mut Recorder, x: &[Tensor]) -> Forward {
        let y = rec.scratch("mix", x[0].shape());
        rec.step(&LARA_MIX, "forward")
            .constant("HAS_MISSING", if self.has_missing { 1.0 } else { 0.0 })
            .bind("x", x[0])
            .bind("r", x[1])
            .bind("over_queries", x[6])
            .bind("balance", x[3])
            .bind("over_keys", x[7])
            .bind("log_q", x[5])
            .bind("y", y)
            .uint("rows", y.rows())
            .uint("queries", y.dims()[2])
            .uint("landmarks", y.last())
            .float("alpha", self.alpha)
            .dispatch_items(y.rows());
        Forward::one(y)
    }

    fn backward(&self, rec: &mut Recorder, pass: &Backward<'_>) {
        let (Some(dy), y) = (pass.dy[0], pass.y[0]) else { return };
        let [dx, dr, da] = ["dL", "dr", "da"].map(|label| rec.scratch(label, y.shape()));
        rec.step(&LARA_MIX, "backward")
            .constant("HAS_MISSING", if self.has_missing { 1.0 } else { 0.0 })
            .bind("r", pass.x[1])
            .bind("over_queries", pass.x[6])
            .bind("balance", pass.x[3])
            .bind("saved", y)
            .bind("dy", dy)
            .bind("dx", dx)
            .bind("dr", dr)
            .bind("da", da)
            .uint("rows", y.rows())
            .uint("queries", y.dims()[2])
            .uint("landmarks", y.last())
            .float("alpha", self.alpha)
            .dispatch_items(y.rows());
        for (from, slot) in [dx, dr].into_iter().zip(&pass.dx[..2]) {
            if let Some(slot) = slot {
                pass_on(rec, from, *slot);
            }
        }
        let sizes = [y.dims()[0] * y.dims()[1], y.dims()[2], y.last()];
        let sums: [(Tensor, f32); 4] = [(dr, -1.0), (da, 1.0), (dx, 1.0), (dx, -1.0)];
        for ((from, sign), slot) in sums.into_iter().zip(&pass.dx[2..6]) {
            if let Some(slot) = slot {
                column_sum(rec, from, sizes, slot.grad, sign, slot.accumulate);
            }
        }
    }
}
